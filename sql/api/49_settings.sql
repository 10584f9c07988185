-- An org's own rules: approval, automatic start, attempts, currency, time zone. Switches live in odin.orgs.settings; this is the checked way to them.

CREATE OR REPLACE FUNCTION odin.get_settings() RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  o odin.orgs;
BEGIN
  SELECT * INTO o FROM odin.orgs x WHERE x.id = odin.my_org();
  RETURN jsonb_build_object('org_id', o.id, 'org_name', o.name, 'currency', o.currency, 'timezone', o.timezone, 'require_job_approval', coalesce(o.settings->>'require_job_approval', 'false'),
    'auto_dispatch', coalesce((o.settings->>'auto_dispatch')::boolean, false), 'max_attempts', coalesce((o.settings->>'max_attempts')::integer, 3),
    'printer_stale_seconds', coalesce((o.settings->>'printer_stale_seconds')::integer, 300), 'printer_stall_seconds', coalesce((o.settings->>'printer_stall_seconds')::integer, 900));
END $f$;
COMMENT ON FUNCTION odin.get_settings() IS 'Shows the rules of your org: job approval, automatic start, attempts before a job is held, after how many seconds a silent printer counts as offline, currency, time zone.';

CREATE OR REPLACE FUNCTION odin.set_settings(require_job_approval text DEFAULT NULL, auto_dispatch boolean DEFAULT NULL, max_attempts integer DEFAULT NULL, printer_stale_seconds integer DEFAULT NULL, printer_stall_seconds integer DEFAULT NULL,
  currency text DEFAULT NULL, timezone text DEFAULT NULL) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in('odin_admin');
BEGIN
  IF set_settings.timezone IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_timezone_names z WHERE z.name = set_settings.timezone) THEN
    PERFORM odin.fail('validation_failed', format('timezone: there is no time zone %s', set_settings.timezone), 'A name such as Europe/Berlin or UTC.', '{"field":"timezone"}');
  END IF;
  UPDATE odin.orgs o SET currency = coalesce(set_settings.currency, o.currency), timezone = coalesce(set_settings.timezone, o.timezone),
    settings = o.settings || jsonb_strip_nulls(jsonb_build_object('require_job_approval', set_settings.require_job_approval, 'auto_dispatch', set_settings.auto_dispatch, 'max_attempts', set_settings.max_attempts,
      'printer_stale_seconds', set_settings.printer_stale_seconds, 'printer_stall_seconds', set_settings.printer_stall_seconds))
   WHERE o.id = org;
  RETURN odin.get_settings();
END $f$;
COMMENT ON FUNCTION odin.set_settings(text, boolean, integer, integer, integer, text, text) IS 'Changes the rules of your org (administrators). require_job_approval: false, true (viewers'' jobs wait for approval) or all (everybody''s but administrators''). auto_dispatch: printers set to it may start the next job by themselves. What you leave out stays.';
GRANT EXECUTE ON FUNCTION odin.get_settings() TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.set_settings(text, boolean, integer, integer, integer, text, text) TO odin_admin;
