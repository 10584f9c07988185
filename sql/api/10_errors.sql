-- Raising and reading errors. Every failure of every face has one shape:
-- {"code","detail","retriable","status","hint",...}. Never a stack trace, a secret or SQL text.

CREATE OR REPLACE FUNCTION odin.fail(code text, detail text, hint text DEFAULT NULL, extra jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  state text := (SELECT e.sqlstate FROM odin.error_codes e WHERE e.code = fail.code);
BEGIN
  IF state IS NULL THEN
    RAISE EXCEPTION 'unknown error code %', code USING ERRCODE = 'XX000';
  END IF;
  RAISE EXCEPTION USING ERRCODE = state, MESSAGE = detail, HINT = coalesce(hint, ''),
    DETAIL = jsonb_build_object('code', code, 'extra', coalesce(extra, '{}'))::text;
END $f$;
COMMENT ON FUNCTION odin.fail(text, text, text, jsonb) IS 'Raises one of the codes of odin.error_codes with a detail for the caller, an optional hint and extra fields.';

-- The error object itself, for refusals that need no exception.
CREATE OR REPLACE FUNCTION odin._error(code text, detail text, hint text DEFAULT NULL, extra jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  e record;
BEGIN
  SELECT c.retriable, c.status, c.hint INTO e FROM odin.error_codes c WHERE c.code = _error.code;
  -- A code nobody knows is a mistake of the tool's, not a new kind of error.
  IF NOT FOUND THEN RETURN odin._error('internal_error', detail, hint, coalesce(extra, '{}') || '{"retriable": false}'); END IF;
  RETURN pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object('code', code, 'detail', detail, 'retriable', e.retriable,
    'status', e.status, 'hint', coalesce(nullif(_error.hint, ''), e.hint))) || coalesce(extra, '{}');
END $f$;

-- What odin.fail() put into the detail; a tool may raise our SQLSTATEs by itself with any text there.
CREATE OR REPLACE FUNCTION odin._own_detail(detail text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN CASE WHEN detail LIKE '{%' THEN detail::jsonb END;
EXCEPTION WHEN data_exception THEN
  RETURN NULL;
END $f$;

-- From what odin._invoke caught to the error object. `caught` has sqlstate, message, detail, hint, constraint, table, column.
CREATE OR REPLACE FUNCTION odin._error_of(caught jsonb, role_name text) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  state text := caught->>'sqlstate';
  said text := caught->>'message';
  own jsonb;
  c record;
BEGIN
  IF state LIKE 'OD%' AND state <> 'OD000' THEN
    own := odin._own_detail(caught->>'detail');
    SELECT coalesce((SELECT e.code FROM odin.error_codes e WHERE e.code = own->>'code'), e.code) AS code INTO c FROM odin.error_codes e WHERE e.sqlstate = state;
    IF FOUND THEN
      RETURN odin._error(c.code, said, caught->>'hint', CASE WHEN jsonb_typeof(own->'extra') = 'object' THEN own->'extra' END);
    END IF;
  END IF;
  -- A foreign key speaks of the row it points to; deleting that row is another matter.
  SELECT k.code, k.detail, k.hint INTO c FROM odin.constraint_errors k
   WHERE k.constraint_name = caught->>'constraint' AND NOT (state = '23503' AND coalesce(caught->>'detail', '') LIKE '%still referenced%');
  IF FOUND THEN
    RETURN odin._error(c.code, c.detail, c.hint);
  END IF;
  -- What the caller must not see, the administrator must.
  IF left(state, 2) NOT IN ('22', '23', '40', 'P0', '57') AND state NOT IN ('42501', '25006') THEN
    RAISE LOG 'odin_farm: a tool failed: % %', state, said;
  END IF;
  RETURN CASE
    WHEN state = '42501' THEN odin._error('permission_denied', said, odin._missing_grant(said, role_name))
    WHEN state = '23505' THEN odin._error('already_exists', format('%s: a row with these values exists already', caught->>'table'), NULL, odin._named(caught))
    WHEN state = '23503' AND caught->>'detail' LIKE '%still referenced%'
      THEN odin._error('in_use', format('%s: other rows depend on it', caught->>'table'), NULL, odin._named(caught))
    WHEN state = '23503' THEN odin._error('not_found', format('%s: the row it points to does not exist (%s)', caught->>'table', caught->>'constraint'), NULL, odin._named(caught))
    WHEN state = '23502' THEN odin._error('validation_failed', format('%s: is required', caught->>'column'), NULL, jsonb_build_object('field', caught->>'column'))
    WHEN state = '23514' THEN odin._error('validation_failed', concat(nullif(caught->>'table', '') || ': ', format('the value breaks the rule %s', caught->>'constraint')), NULL, odin._named(caught))
    WHEN state = '23P01' THEN odin._error('conflict', format('%s: overlaps with another row (%s)', caught->>'table', caught->>'constraint'), 'Choose another time or thing.', odin._named(caught) || '{"retriable": false}')
    WHEN state LIKE '22%' THEN odin._error('validation_failed', said)
    WHEN state IN ('25006') THEN odin._error('read_only', 'a read tool may not write', 'Register the tool with scope write.')
    WHEN state IN ('40001', '40P01', '55P03') THEN odin._error('conflict', 'another call changed the same rows at the same moment')
    WHEN state = '57014' AND said LIKE '%statement timeout%' THEN odin._error('timeout', 'the tool ran into its time limit')
    WHEN state = '57014' THEN odin._error('cancelled', 'the call was cancelled')
    WHEN state LIKE '53%' OR state LIKE '08%' OR state LIKE '57P%' THEN odin._error('upstream_unavailable', 'the database is short of a resource')
    WHEN state = 'P0001' THEN odin._error('validation_failed', said, caught->>'hint')
    WHEN state = '0A000' OR state = '2D000' THEN odin._error('internal_error', 'the tool tried something a tool cannot do: ' || said, 'Its author should read docs/tools-in-sql.md.', '{"retriable": false}')
    ELSE odin._error('internal_error', format('the tool failed (%s)', state), NULL, '{"retriable": false}')
  END;
END $f$;

CREATE OR REPLACE FUNCTION odin._named(caught jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_strip_nulls(jsonb_build_object('constraint', caught->>'constraint', 'table', caught->>'table'));
$f$;

-- A missing privilege names the grant that would help, not only the wall.
CREATE OR REPLACE FUNCTION odin._missing_grant(said text, role_name text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  m text[] := regexp_match(said, 'permission denied for (table|view|sequence|schema|function|relation) "?([^" ]+)"?');
BEGIN
  IF m IS NULL THEN
    RETURN format('The role %s may not do this; an administrator grants rights by role (odin_viewer, odin_operator, odin_admin) and membership (odin.members).', role_name);
  END IF;
  RETURN CASE m[1]
    WHEN 'function' THEN format('Missing: GRANT EXECUTE ON FUNCTION %s TO %I, or membership in a group role that has it.', m[2], role_name)
    WHEN 'schema' THEN format('Missing: GRANT USAGE ON SCHEMA %s TO %I.', m[2], role_name)
    ELSE format('Missing: a GRANT (SELECT, INSERT, UPDATE or DELETE) on %s %s to %I, or membership in a group role that has it.', CASE m[1] WHEN 'relation' THEN 'table' ELSE m[1] END, m[2], role_name)
  END;
END $f$;
