-- Alerts for people and agents: list, read, dismiss, preferences.

CREATE OR REPLACE FUNCTION odin.list_alerts(severity text DEFAULT NULL, unread_only boolean DEFAULT false, type text DEFAULT NULL, include_dismissed boolean DEFAULT false, "limit" integer DEFAULT 50, cursor text DEFAULT NULL)
RETURNS SETOF odin.alert_view
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  before_id bigint := coalesce((odin.cursor_decode(list_alerts.cursor)->>0)::bigint, 9223372036854775807);
  orgs bigint[] := odin._visible_orgs();
  me text := odin.actor();
BEGIN
  RETURN QUERY SELECT v.* FROM odin.alert_view v WHERE v.id = ANY (ARRAY(SELECT a.id FROM unnest(orgs) o,
      LATERAL (SELECT x.id FROM odin.alerts x WHERE x.org_id = o AND x.id < before_id AND (list_alerts.severity IS NULL OR x.severity = list_alerts.severity)
        AND (include_dismissed OR NOT x.is_dismissed) AND (NOT unread_only OR NOT x.is_read) AND (list_alerts.type IS NULL OR x.type = list_alerts.type)
        AND (x.recipient IS NULL OR x.recipient = me) ORDER BY x.org_id, x.id DESC LIMIT list_alerts."limit") a ORDER BY a.id DESC LIMIT list_alerts."limit"))
    ORDER BY v.id DESC;
END $f$;
COMMENT ON FUNCTION odin.list_alerts(text, boolean, text, boolean, integer, text) IS 'Lists alerts, newest first: yours and those for everybody. Dismissed ones are left out unless include_dismissed.';

-- Read and dismissed flags; a viewer may set them on what he is shown.
CREATE OR REPLACE FUNCTION odin._alert_flags(alert bigint, now_read boolean, now_dismissed boolean, verb text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  a odin.alerts;
BEGIN
  PERFORM odin._mine('alert', alert, 'alert_id');
  SELECT * INTO a FROM odin.alerts x WHERE x.id = alert FOR UPDATE;
  IF a.recipient IS NOT NULL AND a.recipient <> odin.actor() AND NOT odin._may(a.org_id, 'odin_admin') THEN
    PERFORM odin.fail('alert_not_found', format('alert_id: there is no alert %s', alert), NULL, '{"field":"alert_id"}');
  END IF;
  UPDATE odin.alerts x SET is_read = x.is_read OR now_read, is_dismissed = x.is_dismissed OR now_dismissed, read_by = coalesce(x.read_by, odin.actor()), read_at = coalesce(x.read_at, now())
   WHERE x.id = alert AND (NOT x.is_read OR (now_dismissed AND NOT x.is_dismissed));
  PERFORM odin.would(jsonb_build_object('action', verb, 'alert_id', alert, 'from_is_read', a.is_read, 'to_is_read', a.is_read OR now_read, 'from_is_dismissed', a.is_dismissed, 'to_is_dismissed', a.is_dismissed OR now_dismissed));
  PERFORM odin.suggest('list_alerts', '{"unread_only":true}', 'see what is left');
  RETURN jsonb_build_object('status', 'ok', 'alert_id', alert, 'is_read', a.is_read OR now_read, 'is_dismissed', a.is_dismissed OR now_dismissed);
END $f$;

CREATE OR REPLACE FUNCTION odin.mark_alert_read(alert_id bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN odin._alert_flags(mark_alert_read.alert_id, true, false, 'mark_alert_read');
END $f$;
COMMENT ON FUNCTION odin.mark_alert_read(bigint) IS 'Marks an alert as read; it stays in the list.';

CREATE OR REPLACE FUNCTION odin.dismiss_alert(alert_id bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN odin._alert_flags(dismiss_alert.alert_id, true, true, 'dismiss_alert');
END $f$;
COMMENT ON FUNCTION odin.dismiss_alert(bigint) IS 'Dismisses an alert: read, and out of the list.';

CREATE OR REPLACE FUNCTION odin.list_alert_preferences() RETURNS TABLE(type text, meaning text, usual_severity text, in_app boolean, push boolean, email boolean, threshold numeric, is_own boolean)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT t.type, t.meaning, t.severity, coalesce(o.in_app, d.in_app, true), coalesce(o.push, d.push, false), coalesce(o.email, d.email, false), coalesce(o.threshold, d.threshold, t.threshold), o.type IS NOT NULL
    FROM odin.alert_types t LEFT JOIN odin.alert_preferences o ON o.type = t.type AND o.org_id = odin.my_org() AND o.role_name = odin.actor()
    LEFT JOIN odin.alert_preferences d ON d.type = t.type AND d.org_id = odin.my_org() AND d.role_name = '*' ORDER BY t.type;
$f$;
COMMENT ON FUNCTION odin.list_alert_preferences() IS 'Lists the 15 kinds of alert, what each means, and how you get it: in the app, push, mail, and from which threshold.';

CREATE OR REPLACE FUNCTION odin.set_alert_preference(type text, in_app boolean DEFAULT NULL, push boolean DEFAULT NULL, email boolean DEFAULT NULL, threshold numeric DEFAULT NULL, for_everybody boolean DEFAULT false) RETURNS odin.alert_preferences
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  org bigint := odin._new_in(CASE WHEN set_alert_preference.for_everybody THEN 'odin_admin' ELSE 'odin_operator' END::name);
  made odin.alert_preferences;
BEGIN
  INSERT INTO odin.alert_preferences AS p (org_id, role_name, type, in_app, push, email, threshold)
  VALUES (org, CASE WHEN for_everybody THEN '*' ELSE odin.actor() END, set_alert_preference.type, coalesce(set_alert_preference.in_app, true), coalesce(set_alert_preference.push, false), coalesce(set_alert_preference.email, false), set_alert_preference.threshold)
  ON CONFLICT (org_id, role_name, type) DO UPDATE SET in_app = coalesce(set_alert_preference.in_app, p.in_app), push = coalesce(set_alert_preference.push, p.push), email = coalesce(set_alert_preference.email, p.email),
    threshold = coalesce(set_alert_preference.threshold, p.threshold) RETURNING * INTO made;
  RETURN made;
END $f$;
COMMENT ON FUNCTION odin.set_alert_preference(text, boolean, boolean, boolean, numeric, boolean) IS 'Sets how you get one kind of alert, and its threshold (spool_low in grams, bed_cooled in degrees C). for_everybody sets the org''s default; in_app false there switches the kind off.';
GRANT EXECUTE ON FUNCTION odin.list_alerts(text, boolean, text, boolean, integer, text), odin.list_alert_preferences() TO odin_viewer;
GRANT EXECUTE ON FUNCTION odin.mark_alert_read(bigint), odin.dismiss_alert(bigint), odin.set_alert_preference(text, boolean, boolean, boolean, numeric, boolean) TO odin_operator;
