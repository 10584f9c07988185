-- odin.install(): makes the farm's tables, rules and functions, or brings older ones up to this version, and
-- takes every object it made out of the extension again, so that a plain dump holds them. Never drops data.
CREATE FUNCTION odin._run_source(wanted_kind text) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE
  s record;
BEGIN
  FOR s IN SELECT * FROM odin.source() WHERE kind = wanted_kind ORDER BY path COLLATE "C" LOOP
    BEGIN
      EXECUTE s.body;
    EXCEPTION WHEN OTHERS THEN
      DECLARE
        said text; detail text; hint text; context text; state text;
      BEGIN
        GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
          context = PG_EXCEPTION_CONTEXT, state = RETURNED_SQLSTATE;
        RAISE EXCEPTION '%: %', s.path, said USING ERRCODE = state, DETAIL = concat_ws(E'\n', nullif(detail, ''), right(context, 400)), HINT = hint;
      END;
    END;
  END LOOP;
END $f$;

CREATE FUNCTION odin._detach() RETURNS int LANGUAGE plpgsql AS $f$
DECLARE
  o record;
  n int := 0;
  word text;
BEGIN
  -- A type goes with its table, an index with its table, a column's sequence by itself.
  FOR o IN
    SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS shown, i.type, i.identity
      FROM pg_depend d, pg_identify_object(d.classid, d.objid, 0) i
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
       AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'odin_farm')
       AND NOT (d.classid = 'pg_proc'::regclass AND EXISTS (SELECT 1 FROM pg_proc p WHERE p.oid = d.objid
             AND (p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c') OR p.oid = ANY (ARRAY[
               'odin.source()'::regprocedure, 'odin.install()'::regprocedure, 'odin._attach()'::regprocedure, 'odin._detach()'::regprocedure,
               'odin._run_source(text)'::regprocedure, 'odin._source_version()'::regprocedure]::oid[]))))
  LOOP
    word := CASE o.type WHEN 'composite type' THEN 'TYPE' ELSE upper(o.type) END;
    CONTINUE WHEN word IN ('INDEX', 'TRIGGER', 'POLICY', 'DEFAULT ACL', 'TABLE CONSTRAINT', 'TOAST TABLE');
    EXECUTE format('ALTER EXTENSION odin_farm DROP %s %s', word, o.identity);
    n := n + 1;
  END LOOP;
  RETURN n;
END $f$;

-- The reverse, for a farm that is there already: an extension script may replace only what is its own, and what it grants on
-- anything else is left out of every later dump (pg_init_privs). _detach() takes it all out again.
CREATE FUNCTION odin._attach() RETURNS void LANGUAGE plpgsql AS $f$
DECLARE
  o record;
BEGIN
  FOR o IN
    SELECT i.type, i.identity
      FROM (SELECT 'pg_namespace'::regclass AS classid, oid AS objid, oid AS schema FROM pg_namespace WHERE nspname <> 'odin'
            UNION ALL
            SELECT 'pg_class'::regclass, oid, relnamespace FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'S')
            UNION ALL
            SELECT 'pg_proc'::regclass, oid, pronamespace FROM pg_proc) x,
           pg_identify_object(x.classid, x.objid, 0) i
     WHERE x.schema = ANY (ARRAY['odin', 'odin_call', 'odin_private', 'odin_bi']::regnamespace[]::oid[])
       AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = x.classid AND d.objid = x.objid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e')
  LOOP
    EXECUTE format('ALTER EXTENSION odin_farm ADD %s %s', upper(o.type), o.identity);
  END LOOP;
END $f$;

CREATE FUNCTION odin.install() RETURNS text LANGUAGE plpgsql AS $f$
DECLARE
  had text;
  now_version constant text := odin._source_version();
  step record;
  answer text;
BEGIN
  PERFORM set_config('search_path', 'pg_catalog, pg_temp', true), set_config('check_function_bodies', 'off', true),
          set_config('client_min_messages', 'warning', true);
  -- Making a schema needs a right on the database that odin_owner does not have.
  -- IF NOT EXISTS will not do: an extension script may skip only what is its own, and these are not when data is adopted.
  FOREACH had IN ARRAY ARRAY['odin_call', 'odin_private', 'odin_bi'] LOOP
    IF to_regnamespace(had) IS NULL THEN EXECUTE format('CREATE SCHEMA %I AUTHORIZATION odin_owner', had); END IF;
  END LOOP;
  IF to_regclass('odin.instance') IS NOT NULL THEN PERFORM odin._attach(); END IF;
  SET LOCAL ROLE odin_owner;
  IF to_regclass('odin.instance') IS NULL THEN
    PERFORM odin._run_source('schema');
    answer := 'installed';
  ELSE
    EXECUTE 'SELECT schema_version FROM odin.instance' INTO had;
    answer := CASE WHEN had = now_version THEN 'adopted' ELSE format('updated from %s', had) END;
    -- A step is named odin_farm--A--B.sql; each runs once, in order, from the version the tables have.
    FOR step IN
      SELECT body, m[1] AS from_version, m[2] AS to_version
        FROM odin.source(), regexp_match(path, '--([^-]+)--([^-]+)[.]sql$') m
       WHERE kind = 'updates' ORDER BY string_to_array(m[1], '.')::int[]
    LOOP
      CONTINUE WHEN step.from_version <> had;
      EXECUTE step.body;
      had := step.to_version;
    END LOOP;
    IF had <> now_version THEN
      RAISE EXCEPTION 'the tables are of version % and no step leads from there to %', had, now_version;
    END IF;
  END IF;
  PERFORM odin._run_source('api');
  EXECUTE 'UPDATE odin.instance SET schema_version = $1, updated_at = now() WHERE schema_version <> $1' USING now_version;
  EXECUTE 'SELECT odin._finish_install()';
  RESET ROLE;
  PERFORM odin._detach();
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.install() IS 'Makes the farm in this database, or brings an older one up to the installed version. Run it by hand (as superuser) after restoring a dump of an older version.';

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA odin FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA odin TO odin_owner;
GRANT EXECUTE ON FUNCTION odin.current_call(), odin.call_key(), odin.call_is_preview(), odin.actor(), odin.would(jsonb),
  odin.suggest(text, jsonb, text), odin.note(text), odin.input_responses(), odin.request_state(), odin._has_written(), odin._hold_cancel(), odin._run(oid, jsonb), odin._nearest(text, text[]),
  odin._records_page(text, oid, jsonb, text[], text, int, jsonb) TO odin_viewer, odin_customer, odin_bi;

-- A dump brings the tables itself: every pg_dump since 9.5 turns both settings off before anything else.
DO $install$
BEGIN
  IF current_setting('check_function_bodies')::bool OR current_setting('row_security')::bool THEN
    PERFORM odin.install();
  END IF;
END $install$;
