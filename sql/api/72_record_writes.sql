-- Changing records of any table the caller may change: create, update, delete. Run as the caller, under his grants and policies.
-- Never more records than limit says, and never a guess: when more match, nothing is changed.

-- The columns a caller may write, by every name they go by here.
CREATE OR REPLACE FUNCTION odin._writable(rel oid, privilege text, given jsonb, at text) RETURNS TABLE(name text, value jsonb)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  field text;
  content jsonb;
  a pg_attribute;
  others jsonb;
  known text[];
BEGIN
  IF jsonb_typeof(given) IS DISTINCT FROM 'object' OR given = '{}' THEN
    PERFORM odin.fail('validation_failed', format('%s: give an object of field and value', at), NULL, jsonb_build_object('field', at));
  END IF;
  FOR field, content IN SELECT * FROM jsonb_each(given) LOOP
    SELECT * INTO a FROM pg_attribute x WHERE x.attrelid = rel AND x.attname = field AND x.attnum > 0 AND NOT x.attisdropped;
    IF NOT FOUND THEN
      others := coalesce(others, odin._field_names()->(rel::text));
      SELECT * INTO a FROM pg_attribute x WHERE x.attrelid = rel AND x.attname = others->>field AND x.attnum > 0 AND NOT x.attisdropped;
    END IF;
    IF a.attname IS NULL THEN
      known := ARRAY(SELECT x.attname FROM pg_attribute x WHERE x.attrelid = rel AND x.attnum > 0 AND NOT x.attisdropped AND has_column_privilege(rel, x.attnum, privilege) ORDER BY x.attnum);
      PERFORM odin.fail('validation_failed', format('%s: %s has no field %s', at, rel::regclass, field),
        coalesce('Did you mean ' || odin._nearest(field, known) || '?', 'Fields you may write are: ' || array_to_string(known, ', ')), jsonb_build_object('field', field));
    ELSIF a.attgenerated <> '' OR a.attidentity = 'a' THEN
      PERFORM odin.fail('validation_failed', format('%s: the database makes %s itself', at, field), 'Leave it out.', jsonb_build_object('field', field));
    ELSIF privilege = 'UPDATE' AND a.attname = ANY (odin._record_key(rel)) THEN
      PERFORM odin.fail('validation_failed', format('%s: %s names the record and is not changed', at, field), 'Leave it out.', jsonb_build_object('field', field));
    ELSIF NOT has_column_privilege(rel, a.attnum, privilege) THEN
      PERFORM odin.fail('permission_denied', format('%s: %s may not write %s of %s', at, current_user, field, rel::regclass),
        format('Missing: GRANT %s (%I) ON %s TO %I, or membership in a group role that has it.', privilege, a.attname, rel::regclass, current_user), jsonb_build_object('field', field));
    END IF;
    name := a.attname; value := content;
    RETURN NEXT;
  END LOOP;
END $f$;

-- What names a record in an answer: its key and, where readable, what people call it.
CREATE OR REPLACE FUNCTION odin._naming(rel oid) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  key text[] := odin._record_key(rel);
  shown text;
BEGIN
  IF key IS NULL OR EXISTS (SELECT 1 FROM unnest(key) k WHERE NOT has_column_privilege(rel, k, 'SELECT')) THEN RETURN 'NULL::jsonb'; END IF;
  shown := odin._record_table(rel, current_user)->>'display';
  RETURN format('jsonb_build_object(%s)', (SELECT string_agg(format('%L, t1.%I', k, k), ', ') FROM unnest(key) k) || CASE WHEN shown IS NULL THEN '' ELSE format(', ''display_name'', t1.%I', shown) END);
END $f$;

-- Raised by the server for a value: say which field it was.
CREATE OR REPLACE FUNCTION odin._blame_value(rel oid, given jsonb, said text, at text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  f record;
  probe text;
BEGIN
  FOR f IN SELECT * FROM jsonb_each(given) LOOP
    BEGIN
      EXECUTE format('SELECT (jsonb_populate_record(NULL::%s, $1))::text', rel::regclass) INTO probe USING jsonb_build_object(f.key, f.value);
    EXCEPTION WHEN data_exception THEN
      PERFORM odin.fail('validation_failed', format('%s: %s: %s', at, f.key, SQLERRM), NULL, jsonb_build_object('field', f.key));
    END;
  END LOOP;
  PERFORM odin.fail('validation_failed', said);
END $f$;

-- Ids as callers send them back: plain values where the key is one column.
CREATE OR REPLACE FUNCTION odin._ids_of(rel oid, named jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_agg(CASE WHEN cardinality(k.key) = 1 THEN e->(k.key[1]) ELSE e - 'display_name' END ORDER BY n), '[]')
    FROM jsonb_array_elements(named) WITH ORDINALITY r(e, n), (SELECT odin._record_key(rel) AS key) k WHERE jsonb_typeof(e) = 'object';
$f$;

CREATE OR REPLACE FUNCTION odin.create_records(model text, records jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user, true);
  listed jsonb := CASE jsonb_typeof(records) WHEN 'array' THEN records ELSE jsonb_build_array(records) END;
  naming text := odin._naming(rel);
  needs_org boolean;
  one jsonb;
  n int := 0;
  named jsonb := '[]';
  made jsonb;
  columns text[];
BEGIN
  IF jsonb_array_length(listed) NOT BETWEEN 1 AND 500 THEN
    PERFORM odin.fail('validation_failed', 'records: 1 to 500 at once', NULL, '{"field": "records"}');
  END IF;
  -- A new row belongs to the caller's own org unless he says otherwise.
  needs_org := EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = rel AND a.attname = 'org_id' AND odin._own_org(rel, a.attnum));
  FOR one IN SELECT jsonb_array_elements(listed) LOOP
    n := n + 1;
    SELECT jsonb_object_agg(w.name, w.value), array_agg(w.name ORDER BY w.name) INTO one, columns FROM odin._writable(rel, 'INSERT', one, format('records[%s]', n - 1)) w;
    IF needs_org AND NOT one ? 'org_id' THEN
      one := one || jsonb_build_object('org_id', odin.my_org());
      columns := columns || 'org_id'::text;
    END IF;
    BEGIN
      EXECUTE format('INSERT INTO %1$s AS t1 (%2$s) SELECT %3$s FROM jsonb_populate_record(NULL::%1$s, $1) x RETURNING %4$s', rel::regclass,
        (SELECT string_agg(quote_ident(c), ', ') FROM unnest(columns) c), (SELECT string_agg('x.' || quote_ident(c), ', ') FROM unnest(columns) c), naming)
        INTO made USING one;
    EXCEPTION WHEN data_exception THEN
      PERFORM odin._blame_value(rel, one, SQLERRM, format('records[%s]', n - 1));
    END;
    named := named || jsonb_build_array(made);
  END LOOP;
  PERFORM odin.would(jsonb_build_object('action', 'create_records', 'model', rel::regclass::text, 'count', n));
  RETURN jsonb_build_object('model', rel::regclass::text, 'ids', odin._ids_of(rel, named), 'records', named, 'count', n);
END $f$;
COMMENT ON FUNCTION odin.create_records(text, jsonb) IS 'Creates records of any table you may write: a list of objects of field and value. Fields left out get their defaults; org_id is your own org unless given. All are created or none. Prefer a tool made for the thing (queue_job, add_spool) where there is one: it does more than a row.';

-- The records a change is for, at most `most`; raises when more match than that, unless told to take the first.
CREATE OR REPLACE FUNCTION odin._chosen(rel oid, ids jsonb, domain jsonb, most int, take_first boolean, OUT plan jsonb, OUT named jsonb, OUT matched int)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  wanted jsonb := domain;
  key text[] := odin._record_key(rel);
BEGIN
  IF (ids IS NULL) = (domain IS NULL) THEN
    PERFORM odin.fail('validation_failed', 'ids: give either ids or a domain', 'ids is the safer one: search_records finds them.', '{"field": "ids"}');
  ELSIF key IS NULL THEN
    PERFORM odin.fail('validation_failed', format('model: %s has no key, so its records cannot be named', rel::regclass), NULL, '{"field": "model"}');
  END IF;
  IF ids IS NOT NULL THEN wanted := odin._domain_of_ids(rel, ids); END IF;
  plan := odin._compile_records(jsonb_build_object('op', 'where', 'table', rel::bigint, 'domain', wanted), current_user);
  IF plan->'key' = '[]' THEN
    PERFORM odin.fail('permission_denied', format('%s may not read the key of %s, so its records cannot be named', current_user, rel::regclass),
      format('Missing: GRANT SELECT (%s) ON %s TO %I.', (SELECT string_agg(quote_ident(k), ', ') FROM unnest(key) k), rel::regclass, current_user));
  END IF;
  BEGIN
    EXECUTE format('SELECT coalesce(jsonb_agg(n), ''[]'') FROM (SELECT %s AS n FROM %s t1 WHERE %s ORDER BY %s LIMIT %s) s', odin._naming(rel), rel::regclass, plan->>'sql',
      (SELECT string_agg('t1.' || quote_ident(k), ', ') FROM unnest(key) k), CASE WHEN take_first THEN most ELSE 1001 END)
      INTO named USING ARRAY(SELECT jsonb_array_elements_text(plan->'params'));
  EXCEPTION WHEN data_exception THEN
    PERFORM odin._blame(plan, SQLERRM);
  END;
  matched := jsonb_array_length(named);
  IF ids IS NOT NULL AND matched < (CASE jsonb_typeof(ids) WHEN 'array' THEN (SELECT count(DISTINCT e) FROM jsonb_array_elements(ids) e) ELSE 1 END) THEN
    PERFORM odin.fail('record_not_found', format('%s of %s: not all of these exist, or are yours to see; nothing was changed', left(ids::text, 200), rel::regclass), NULL, '{"field": "ids"}');
  ELSIF matched > most THEN
    PERFORM odin.fail('too_many_records', format('%s records match and limit is %s; nothing was changed', CASE WHEN matched > 1000 THEN 'more than 1000' ELSE matched::text END, most),
      'Name the records by ids, or set limit to the number you mean to change.', jsonb_build_object('field', 'limit', 'matched', least(matched, 1000), 'limit', most));
  END IF;
END $f$;

-- UPDATE or DELETE of the chosen rows; the domain is asked again, so that a row changed meanwhile is not hit.
CREATE OR REPLACE FUNCTION odin._change_records(rel oid, chosen jsonb, plan jsonb, change text, given jsonb, what text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  key text[] := odin._record_key(rel);
  types text[] := ARRAY(SELECT format_type(a.atttypid, -1) FROM unnest(key) WITH ORDINALITY k(name, n) JOIN pg_attribute a ON a.attrelid = rel AND a.attname = k.name ORDER BY k.n);
  named jsonb;
BEGIN
  EXECUTE format('WITH changed AS (%s (%s) AND EXISTS (SELECT 1 FROM jsonb_array_elements($2) c(k) WHERE %s) RETURNING %s AS n) SELECT coalesce(jsonb_agg(n ORDER BY n), ''[]'') FROM changed', change, plan->>'sql',
    (SELECT string_agg(format('t1.%I = (c.k->>%L)::%s', key[i], key[i], types[i]), ' AND ') FROM generate_subscripts(key, 1) i), odin._naming(rel))
    INTO named USING ARRAY(SELECT jsonb_array_elements_text(plan->'params')), chosen, given;
  IF jsonb_array_length(named) < jsonb_array_length(chosen) THEN
    PERFORM odin.fail('permission_denied', format('%s of %s records could not be %s; nothing was changed', jsonb_array_length(chosen) - jsonb_array_length(named), jsonb_array_length(chosen), what),
      'The access rules let you read them but not change them, or somebody changed them at this moment.');
  END IF;
  RETURN named;
END $f$;

CREATE OR REPLACE FUNCTION odin._update_records(rel oid, ids jsonb, domain jsonb, "values" jsonb, most int, take_first boolean) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  chosen record;
  columns text[];
  given jsonb;
  named jsonb := '[]';
BEGIN
  SELECT jsonb_object_agg(w.name, w.value), array_agg(w.name) INTO given, columns FROM odin._writable(rel, 'UPDATE', "values", 'values') w;
  SELECT * INTO chosen FROM odin._chosen(rel, ids, domain, most, take_first);
  IF chosen.matched > 0 THEN
    BEGIN
      named := odin._change_records(rel, chosen.named, chosen.plan, format('UPDATE %1$s AS t1 SET %2$s FROM jsonb_populate_record(NULL::%1$s, $3) x WHERE', rel::regclass,
        (SELECT string_agg(format('%I = x.%1$I', c), ', ') FROM unnest(columns) c)), given, 'changed');
    EXCEPTION WHEN data_exception THEN
      PERFORM odin._blame_value(rel, given, SQLERRM, 'values');
    END;
  END IF;
  PERFORM odin.would(jsonb_build_object('action', 'update_records', 'model', rel::regclass::text, 'count', jsonb_array_length(named), 'ids', odin._ids_of(rel, named), 'values', given));
  RETURN named;
END $f$;

CREATE OR REPLACE FUNCTION odin.update_records(model text, "values" jsonb, ids jsonb DEFAULT NULL, domain jsonb DEFAULT NULL, "limit" int DEFAULT 1) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user, true);
  named jsonb := odin._update_records(rel, ids, domain, "values", least(greatest(coalesce("limit", 1), 1), 1000), false);
BEGIN
  RETURN jsonb_build_object('model', rel::regclass::text, 'ids', odin._ids_of(rel, named), 'records', named, 'count', jsonb_array_length(named))
    || CASE WHEN named = '[]' THEN '{"note": "No record matches; nothing was changed."}' ELSE '{}' END::jsonb;
END $f$;
COMMENT ON FUNCTION odin.update_records(text, jsonb, jsonb, jsonb, int) IS 'Changes fields of records, chosen by ids (better) or by a domain. limit is the most records that may change, 1 unless you say more; when more match, nothing is changed and the answer says how many. dry_run shows the rows before and after.';

CREATE OR REPLACE FUNCTION odin._delete_records(rel oid, ids jsonb, domain jsonb, most int, take_first boolean) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  chosen record;
  named jsonb := '[]';
BEGIN
  SELECT * INTO chosen FROM odin._chosen(rel, ids, domain, most, take_first);
  IF chosen.matched > 0 THEN
    named := odin._change_records(rel, chosen.named, chosen.plan, format('DELETE FROM %s AS t1 WHERE', rel::regclass), NULL, 'deleted');
  END IF;
  PERFORM odin.would(jsonb_build_object('action', 'delete_records', 'model', rel::regclass::text, 'count', jsonb_array_length(named), 'ids', odin._ids_of(rel, named)));
  RETURN named;
END $f$;

CREATE OR REPLACE FUNCTION odin.delete_records(model text, ids jsonb DEFAULT NULL, domain jsonb DEFAULT NULL, "limit" int DEFAULT 1) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rel oid := odin._model(model, current_user, true);
  named jsonb := odin._delete_records(rel, ids, domain, least(greatest(coalesce("limit", 1), 1), 1000), false);
BEGIN
  RETURN jsonb_build_object('model', rel::regclass::text, 'ids', odin._ids_of(rel, named), 'records', named, 'count', jsonb_array_length(named))
    || CASE WHEN named = '[]' THEN '{"note": "No record matches; nothing was deleted."}' ELSE '{}' END::jsonb;
END $f$;
COMMENT ON FUNCTION odin.delete_records(text, jsonb, jsonb, int) IS 'Deletes records, chosen by ids (better) or by a domain. limit is the most records that may go, 1 unless you say more; when more match, nothing is deleted and the answer says how many. Many things are cancelled or archived rather than deleted: look for a tool that does that first.';
