-- What a running tool can tell its caller before it ends: progress and log lines, as notices the sidecar passes on.
-- A notice never carries data the answer would not.

CREATE OR REPLACE FUNCTION odin.progress(progress numeric, total numeric DEFAULT NULL, message text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $f$
BEGIN
  RAISE NOTICE USING ERRCODE = 'OD0PR', MESSAGE = jsonb_strip_nulls(jsonb_build_object('progress', progress, 'total', total, 'message', message))::text;
END $f$;
COMMENT ON FUNCTION odin.progress(numeric, numeric, text) IS 'In a tool: tells the caller how far it is, while it runs.';

CREATE OR REPLACE FUNCTION odin.log(level text, data jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = notice AS $f$
BEGIN
  IF level NOT IN ('debug', 'info', 'notice', 'warning', 'error', 'critical', 'alert', 'emergency') THEN
    PERFORM odin.fail('validation_failed', format('level: %s is not one of debug, info, notice, warning, error, critical, alert, emergency', level));
  END IF;
  RAISE NOTICE USING ERRCODE = 'OD0LG', MESSAGE = jsonb_build_object('level', level, 'data', data)::text;
END $f$;
COMMENT ON FUNCTION odin.log(text, jsonb) IS 'In a tool: sends the caller a log line, while it runs.';

-- Which tools there are, by what they do. Listed or not: what the caller may call, and nothing else.
CREATE OR REPLACE FUNCTION odin.search_tools(query text DEFAULT NULL, "limit" int DEFAULT 10) RETURNS TABLE(name text, description text, scope text, toolsets text[], input_schema jsonb)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  scopes text[] := (SELECT k.scopes FROM odin_private.keys k WHERE k.id = odin.call_key());
  everything boolean := coalesce(query, '') !~ '[[:alnum:]]';
  visible odin.tools[] := ARRAY(SELECT v FROM odin._visible(to_regrole(quote_ident(odin.actor())), scopes, ARRAY['tool'], NULL, false, true) v);
BEGIN
  RETURN QUERY
    SELECT v.name, v.description, v.scope, v.toolsets, v.input_schema
      FROM unnest(visible) v LEFT JOIN odin._rank_tools(CASE WHEN everything THEN '{}' ELSE ARRAY(SELECT x.id FROM unnest(visible) x) END, query) r ON r.tool_id = v.id
     WHERE everything OR r.tool_id IS NOT NULL
     ORDER BY r.score DESC NULLS LAST, v.name COLLATE "C"
     LIMIT search_tools."limit";
END $f$;
COMMENT ON FUNCTION odin.search_tools(text, int) IS 'Finds tools by what they do, with their input schemas. Not every tool is listed; call a found one with call_tool. Without a query it lists all.';

-- The dispatcher itself carries call_tool out (so that the called tool's own checks apply); this is its form in SQL.
CREATE OR REPLACE FUNCTION odin.call_tool(name text, arguments jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin.call(name, arguments);
$f$;
COMMENT ON FUNCTION odin.call_tool(text, jsonb) IS 'Calls any tool by name, also one that is not listed (find it with search_tools). The same checks apply as for a listed one.';
