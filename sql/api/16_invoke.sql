-- The inner half of a call, inside the jail: run the tool as the caller's role, force what is deferred, roll a preview back.
-- Errors are caught here, below Rust, where SQLSTATE and constraint names still exist. After the tool has run nothing here may
-- be looked up by search_path, not even an operator: the path may be the tool's. The dispatcher puts settings back afterwards.
-- From a cancelled tool on nothing is cancelled any more, or the call would be missing in the trail.
-- All take the same: what to run, its arguments, whether it is only a preview, and the fingerprint ('' = none) that a preview gave.

CREATE OR REPLACE FUNCTION odin._invoke(run oid, arguments jsonb, preview boolean, bound_to text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  result jsonb;
  seen jsonb;
  trail record;
  state text; said text; detail text; hint text; con text; tab text; col text;
BEGIN
  -- Every constraint speaks at its own statement; what a tool defers again is refused by the jail.
  SET CONSTRAINTS ALL IMMEDIATE;
  result := odin._run(run, arguments);
  IF preview OR bound_to OPERATOR(pg_catalog.<>) '' THEN
    SELECT * INTO trail FROM odin._call_changes();
    IF preview THEN
      seen := pg_catalog.jsonb_build_object('result', result, 'changes', trail.changes, 'total', trail.total, 'touched', trail.touched);
      RAISE EXCEPTION USING ERRCODE = 'OD000', MESSAGE = 'preview';
    ELSIF trail.touched OPERATOR(pg_catalog.<>) bound_to THEN
      RAISE EXCEPTION USING ERRCODE = 'OD016', MESSAGE = 'what the preview showed has changed since';
    END IF;
  END IF;
  RETURN pg_catalog.jsonb_build_object('result', result);
EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
  IF SQLSTATE OPERATOR(pg_catalog.=) '57014' THEN PERFORM odin._hold_cancel(); END IF;
  -- Only this block can have filled it, so no tool can make up its own preview.
  IF seen IS NOT NULL THEN RETURN pg_catalog.jsonb_build_object('seen', seen); END IF;
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
    con = CONSTRAINT_NAME, tab = TABLE_NAME, col = COLUMN_NAME;
  RETURN pg_catalog.jsonb_build_object('caught', pg_catalog.jsonb_build_object('sqlstate', state, 'message', said, 'detail', detail, 'hint', hint,
    'constraint', con, 'table', tab, 'column', col));
END $f$;

-- Read tools: the same, and the database itself refuses any write. Before PostgreSQL 16 a tool can RESET the setting, so
-- what counts in the end is that no transaction id was taken: without one nothing can have changed.
CREATE OR REPLACE FUNCTION odin._invoke_read(run oid, arguments jsonb, preview boolean, bound_to text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET transaction_read_only = on AS $f$
DECLARE
  writing boolean := pg_current_xact_id_if_assigned() IS NOT NULL;
  result jsonb;
  state text; said text; detail text; hint text; con text; tab text; col text;
BEGIN
  result := odin._run(run, arguments);
  IF odin._has_written() OR (NOT writing AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL) THEN
    RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = 'a read tool may not write';
  END IF;
  RETURN pg_catalog.jsonb_build_object('result', result);
EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
  IF SQLSTATE OPERATOR(pg_catalog.=) '57014' THEN PERFORM odin._hold_cancel(); END IF;
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
    con = CONSTRAINT_NAME, tab = TABLE_NAME, col = COLUMN_NAME;
  RETURN pg_catalog.jsonb_build_object('caught', pg_catalog.jsonb_build_object('sqlstate', state, 'message', said, 'detail', detail, 'hint', hint,
    'constraint', con, 'table', tab, 'column', col));
END $f$;

-- Values for an argument, from a function that takes the text typed so far; without an answer there is none.
CREATE OR REPLACE FUNCTION odin._invoke_completion(run oid, arguments jsonb, preview boolean, bound_to text) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET transaction_read_only = on AS $f$
DECLARE
  result jsonb;
BEGIN
  EXECUTE format('SELECT to_jsonb(ARRAY(SELECT v::text FROM %s($1) v LIMIT 101))', run::regproc) INTO result USING arguments->>'value';
  IF odin._has_written() THEN RAISE EXCEPTION USING ERRCODE = '25006', MESSAGE = 'a completion may not write'; END IF;
  RETURN result;
EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
  RETURN '[]';
END $f$;
