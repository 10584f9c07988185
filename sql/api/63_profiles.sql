-- What slicers there are and the org's own profiles for them. Names and ranges of settings are checked before anything is sliced.

-- A worker says what it found. Another worker with less must not take away what this one has: rows age instead.
CREATE OR REPLACE FUNCTION odin.worker_publish_slicers(about jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  s jsonb;
BEGIN
  -- Two workers that start together take turns.
  PERFORM pg_advisory_xact_lock(6300);
  FOR s IN SELECT * FROM jsonb_array_elements(about) LOOP
    INSERT INTO odin.slicers AS x (slicer, version, settings, seen_at) VALUES (s->>'slicer', s->>'version', coalesce(s->'settings', '{}'), now())
    ON CONFLICT (slicer) DO UPDATE SET version = excluded.version, settings = excluded.settings, seen_at = now();
    DELETE FROM odin.slicer_presets p WHERE p.slicer = s->>'slicer'
      AND NOT EXISTS (SELECT 1 FROM jsonb_array_elements(s->'presets'->p.tier) e WHERE e->>'name' = p.name);
    INSERT INTO odin.slicer_presets AS x (slicer, tier, name, label, file, data)
    SELECT s->>'slicer', t.key, left(e->>'name', 200), e->>'label', e->>'file', coalesce(e->'data', '{}') FROM jsonb_each(coalesce(s->'presets', '{}')) t, jsonb_array_elements(t.value) e
    ON CONFLICT (slicer, tier, name) DO UPDATE SET label = excluded.label, file = excluded.file, data = excluded.data
     WHERE (x.label, x.file, x.data) IS DISTINCT FROM (excluded.label, excluded.file, excluded.data);
  END LOOP;
  RETURN true;
END $f$;
COMMENT ON FUNCTION odin.worker_publish_slicers(jsonb) IS 'A worker announces its slicers, their settings and presets.';

-- Is there a worker with this slicer? Announced again every ten minutes.
CREATE OR REPLACE FUNCTION odin._need_slicer(wanted text) RETURNS odin.slicers
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  s odin.slicers;
BEGIN
  SELECT * INTO s FROM odin.slicers x WHERE x.slicer = wanted AND x.seen_at > now() - interval '1 hour';
  IF NOT FOUND THEN
    PERFORM odin.fail('slicer_missing', CASE wanted WHEN 'cura' THEN 'no worker has CuraEngine and its printer definitions' WHEN 'prusa' THEN 'no worker has PrusaSlicer' ELSE 'no worker has OrcaSlicer' END,
      CASE wanted WHEN 'cura' THEN 'On the machine of a worker: scripts/packages-slicers, then restart the worker (ODIN_CURA_ENGINE and ODIN_CURA_RESOURCES name other places).'
        WHEN 'prusa' THEN 'On the machine of a worker: scripts/packages-slicers --prusa, then restart the worker.'
        ELSE 'On the machine of a worker: install OrcaSlicer (AppImage or Flatpak from github.com/OrcaSlicer/OrcaSlicer), set ODIN_ORCA_COMMAND and ODIN_ORCA_PROFILES, restart the worker. cura_slice_model needs no installation by hand.' END,
      jsonb_build_object('slicer', wanted));
  END IF;
  RETURN s;
END $f$;

-- Names must be settings of the slicer and values within its own fixed limits; limits that are formulas are the slicer's to check.
CREATE OR REPLACE FUNCTION odin._check_settings(wanted_slicer text, settings jsonb, field text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  known jsonb := (SELECT s.settings FROM odin.slicers s WHERE s.slicer = wanted_slicer);
  name text;
  value jsonb;
  rule jsonb;
  wrong text;
BEGIN
  FOR name, value IN SELECT * FROM jsonb_each(coalesce(settings, '{}')) LOOP
    rule := known->name;
    wrong := CASE
      WHEN name IN ('post_process', 'output_filename_format', 'print_host', 'printhost_apikey', 'printhost_cafile') THEN 'cannot be set here'
      WHEN coalesce(known, '{}') <> '{}' AND rule IS NULL THEN format('is no setting of %s', wanted_slicer)
      WHEN jsonb_typeof(value) NOT IN ('number', 'string', 'boolean') AND rule->>'type' NOT LIKE '[%' THEN 'must be a number, a text, or true or false'
      WHEN rule->>'type' IN ('float', 'int') AND jsonb_typeof(value) <> 'number' THEN 'must be a number'
      WHEN rule->>'type' = 'bool' AND jsonb_typeof(value) <> 'boolean' THEN 'must be true or false'
      WHEN coalesce(rule->>'type', '') = 'int' AND (value#>>'{}')::numeric % 1 <> 0 THEN 'must be a whole number'
      WHEN jsonb_typeof(value) = 'number' AND (value#>>'{}')::numeric < (rule->>'minimum')::numeric THEN format('is at least %s', rule->>'minimum')
      WHEN jsonb_typeof(value) = 'number' AND (value#>>'{}')::numeric > (rule->>'maximum')::numeric THEN format('is at most %s', rule->>'maximum')
      WHEN rule ? 'enum' AND NOT rule->'enum' ? (value#>>'{}') THEN format('is one of %s', (SELECT string_agg(e, ', ') FROM jsonb_array_elements_text(rule->'enum') e))
      WHEN jsonb_typeof(value) = 'string' AND octet_length(value#>>'{}') > 20000 THEN 'is too long' END;
    IF wrong IS NOT NULL THEN
      PERFORM odin.fail('validation_failed', format('%s.%s: %s', field, name, wrong),
        (SELECT format('Did you mean %s?', n) FROM odin._nearest(name, ARRAY(SELECT jsonb_object_keys(known))) n WHERE rule IS NULL AND n IS NOT NULL), jsonb_build_object('field', field || '.' || name));
    END IF;
  END LOOP;
END $f$;

CREATE OR REPLACE FUNCTION odin.save_slicer_profile(slicer text, tier text, name text, settings jsonb DEFAULT '{}', base text DEFAULT NULL, material text DEFAULT NULL, density numeric DEFAULT NULL, notes text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in();
  p odin.slicer_profiles;
  last int;
BEGIN
  PERFORM odin._check_settings(save_slicer_profile.slicer, save_slicer_profile.settings, 'settings');
  IF save_slicer_profile.slicer = 'cura' AND save_slicer_profile.tier = 'printer' THEN PERFORM odin._cura_printer(coalesce(save_slicer_profile.base, ''), 'base'); END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended(concat_ws('/', org, save_slicer_profile.slicer, save_slicer_profile.tier, lower(btrim(save_slicer_profile.name))), 6301));
  SELECT max(x.version) INTO last FROM odin.slicer_profiles x
   WHERE x.org_id = org AND x.slicer = save_slicer_profile.slicer AND x.tier = save_slicer_profile.tier AND lower(x.name) = lower(btrim(save_slicer_profile.name));
  UPDATE odin.slicer_profiles x SET is_current = false
   WHERE x.org_id = org AND x.slicer = save_slicer_profile.slicer AND x.tier = save_slicer_profile.tier AND lower(x.name) = lower(btrim(save_slicer_profile.name)) AND x.is_current;
  INSERT INTO odin.slicer_profiles(org_id, slicer, tier, name, version, base, settings, material, density, notes, created_by)
  VALUES (org, save_slicer_profile.slicer, save_slicer_profile.tier, btrim(save_slicer_profile.name), coalesce(last, 0) + 1, save_slicer_profile.base, coalesce(save_slicer_profile.settings, '{}'),
          upper(save_slicer_profile.material), save_slicer_profile.density, save_slicer_profile.notes, odin.actor())
  RETURNING * INTO p;
  PERFORM odin.would(jsonb_build_object('action', 'save_slicer_profile', 'slicer', p.slicer, 'tier', p.tier, 'name', p.name, 'version', p.version));
  RETURN jsonb_strip_nulls(to_jsonb(p) - 'org_id');
END $f$;
COMMENT ON FUNCTION odin.save_slicer_profile(text, text, text, jsonb, text, text, numeric, text) IS 'Saves a slicing profile as a new version: tier printer (with base, a Cura printer id), process (layer height, infill, ...) or material (temperatures; density in g/cm3). settings are the slicer''s own names; unknown names and values out of range are refused. Use the name in cura_slice_model or prusa_slice_model.';

CREATE OR REPLACE FUNCTION odin.list_slicer_profiles(slicer_filter text DEFAULT NULL, tier_filter text DEFAULT NULL, all_versions boolean DEFAULT false, "limit" int DEFAULT 100, cursor text DEFAULT NULL)
RETURNS TABLE(id bigint, slicer text, tier text, name text, version int, is_current boolean, base text, material text, density numeric, settings jsonb, notes text, created_by text, created_at timestamptz)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  after bigint := (odin.cursor_decode(list_slicer_profiles.cursor)->>0)::bigint;
BEGIN
  RETURN QUERY
    SELECT p.id, p.slicer, p.tier, p.name, p.version, p.is_current, p.base, p.material, p.density, p.settings, p.notes, p.created_by, p.created_at
      FROM odin.slicer_profiles p
     WHERE p.org_id = ANY (ARRAY(SELECT odin.orgs_of(current_user))) AND (slicer_filter IS NULL OR p.slicer = slicer_filter) AND (tier_filter IS NULL OR p.tier = tier_filter)
       AND (p.is_current OR all_versions) AND (after IS NULL OR p.id > after)
     ORDER BY p.id LIMIT list_slicer_profiles."limit";
END $f$;
COMMENT ON FUNCTION odin.list_slicer_profiles(text, text, boolean, int, text) IS 'Lists the org''s slicing profiles, current versions only unless all_versions.';

-- A profile by name; NULL when none was asked for.
CREATE OR REPLACE FUNCTION odin._profile(org bigint, wanted_slicer text, wanted_tier text, wanted text, field text) RETURNS odin.slicer_profiles
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p odin.slicer_profiles;
BEGIN
  IF wanted IS NULL THEN RETURN NULL; END IF;
  SELECT * INTO p FROM odin.slicer_profiles x WHERE x.org_id = org AND x.slicer = wanted_slicer AND x.tier = wanted_tier AND lower(x.name) = lower(btrim(wanted)) AND x.is_current;
  IF NOT FOUND THEN
    PERFORM odin.fail('profile_not_found', format('%s: there is no %s profile %s for %s', field, wanted_tier, wanted, wanted_slicer),
      (SELECT format('Did you mean %s?', n) FROM odin._nearest(wanted, ARRAY(SELECT x.name FROM odin.slicer_profiles x WHERE x.org_id = org AND x.slicer = wanted_slicer AND x.tier = wanted_tier AND x.is_current)) n WHERE n IS NOT NULL), jsonb_build_object('field', field));
  END IF;
  RETURN p;
END $f$;

-- A printer definition of Cura by id, never by path.
CREATE OR REPLACE FUNCTION odin._cura_printer(wanted text, field text) RETURNS odin.slicer_presets
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p odin.slicer_presets;
BEGIN
  SELECT * INTO p FROM odin.slicer_presets x WHERE x.slicer = 'cura' AND x.tier = 'machine' AND x.name = wanted;
  IF NOT FOUND THEN
    PERFORM odin.fail('profile_not_found', format('%s: Cura has no printer definition %s', field, wanted),
      coalesce((SELECT format('Did you mean %s?', n) FROM odin._nearest(wanted, ARRAY(SELECT x.name FROM odin.slicer_presets x WHERE x.slicer = 'cura' AND x.tier = 'machine')) n),
        'Give an id such as creality_ender3pro, prusa_i3_mk3 or ultimaker2_plus; or save a printer profile with save_slicer_profile.'), jsonb_build_object('field', field));
  END IF;
  RETURN p;
END $f$;

CREATE OR REPLACE FUNCTION odin.orca_list_profiles(tier text DEFAULT 'machine', filter text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  list jsonb;
BEGIN
  PERFORM odin._need_slicer('orca');
  SELECT coalesce(jsonb_agg(jsonb_build_object('name', p.name, 'file', p.file) ORDER BY p.name), '[]') INTO list FROM odin.slicer_presets p
   WHERE p.slicer = 'orca' AND p.tier = orca_list_profiles.tier AND (filter IS NULL OR position(lower(filter) IN lower(p.name)) > 0);
  RETURN jsonb_build_object('tier', orca_list_profiles.tier, 'count', jsonb_array_length(list), 'presets', list);
END $f$;
COMMENT ON FUNCTION odin.orca_list_profiles(text, text) IS 'Lists OrcaSlicer''s presets of a tier (machine, process or filament) whose name contains filter, over all vendors. Use the exact names in orca_slice_model.';

GRANT EXECUTE ON FUNCTION odin.worker_publish_slicers(jsonb) TO odin_worker;
GRANT EXECUTE ON FUNCTION odin.list_slicer_profiles(text, text, boolean, int, text), odin.orca_list_profiles(text, text) TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.save_slicer_profile(text, text, text, jsonb, text, text, numeric, text) TO odin_operator;
