-- Registering: any SQL function becomes a tool, a prompt or a resource with one statement.
-- A registration never grants anything, and what cannot work is refused here with what to change.

-- The function of a registered name, as regprocedure writes it; NULL when it is gone. Read from the catalog: a look-up by name fails for
-- a schema that odin_owner may not enter and for a type that was dropped, and one such tool would take the whole list with it.
CREATE OR REPLACE FUNCTION odin._function_oid(function text) RETURNS oid
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  path text[] := pg_catalog.parse_ident(function, false);
BEGIN
  RETURN (SELECT p.oid FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
           WHERE p.proname = path[pg_catalog.cardinality(path)] AND n.nspname = CASE WHEN pg_catalog.cardinality(path) > 1 THEN path[1] ELSE 'pg_catalog' END
             AND p.oid::pg_catalog.regprocedure::text = function);
END $f$;

-- The same for a signature somebody wrote: int for integer, blanks, lengths.
CREATE OR REPLACE FUNCTION odin._parsed_function(function text) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  path text[] := parse_ident(function, false);
  wanted text[] := ARRAY(SELECT odin._type_name(trim(a)) FROM unnest(string_to_array(regexp_replace(substring(function FROM '\((.*)\)\s*$'), '\([0-9, ]*\)', '', 'g'), ',')) WITH ORDINALITY u(a, n) ORDER BY n);
BEGIN
  -- A type of an extension or of one's own may be written without its schema, which nobody's search_path has here.
  RETURN (SELECT CASE WHEN count(*) = 1 THEN min(p.oid::bigint)::oid END FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
           WHERE ARRAY[n.nspname::text, p.proname::text] = path AND p.pronargs = cardinality(wanted)
             AND NOT EXISTS (SELECT 1 FROM unnest(p.proargtypes) WITH ORDINALITY u(t, n) WHERE format_type(u.t, NULL) <> wanted[u.n] AND regexp_replace(format_type(u.t, NULL), '^[^.]+\.', '') <> wanted[u.n]));
END $f$;

CREATE OR REPLACE FUNCTION odin._type_name(written text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN coalesce(format_type(to_regtype(written), NULL), written);
EXCEPTION WHEN insufficient_privilege OR undefined_object OR invalid_schema_name OR syntax_error THEN
  RETURN written;
END $f$;

CREATE OR REPLACE FUNCTION odin._resolve_function(function text) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  found oid[];
  p pg_proc;
  bad record;
BEGIN
  IF coalesce(trim(function), '') = '' THEN
    PERFORM odin.fail('registration_failed', 'function: give its name, schema.name');
  ELSIF function LIKE '%(%' THEN
    found := ARRAY[coalesce(odin._function_oid(function), odin._parsed_function(function))];
  ELSE
    found := ARRAY(SELECT c.oid FROM pg_proc c JOIN pg_namespace n ON n.oid = c.pronamespace
                    WHERE ARRAY[n.nspname::text, c.proname::text] = parse_ident(function) ORDER BY c.oid);
  END IF;
  IF cardinality(found) = 0 OR found[1] IS NULL THEN
    PERFORM odin.fail('registration_failed', format('function: there is no %s', function), 'Give schema.name, with argument types when it is overloaded: shop.requote(bigint, numeric).');
  ELSIF cardinality(found) > 1 THEN
    PERFORM odin.fail('registration_failed', format('function: %s is overloaded', function),
      'Say which one: ' || (SELECT string_agg(o::regprocedure::text, ' or ' ORDER BY o::regprocedure::text COLLATE "C") FROM unnest(found) o));
  END IF;
  SELECT * INTO p FROM pg_proc WHERE oid = found[1];
  IF p.prokind = 'p' THEN
    PERFORM odin.fail('registration_failed', format('function: %s is a procedure; procedures end transactions, and a call is one transaction', function), 'Make it a function.');
  ELSIF p.prokind <> 'f' THEN
    PERFORM odin.fail('registration_failed', format('function: %s is an aggregate or window function', function), 'Wrap it in a plain function.');
  END IF;
  SELECT a.* INTO bad FROM odin._function_arguments(found[1]) a JOIN pg_type y ON y.oid = a.type_id WHERE y.typtype = 'p' ORDER BY a.n LIMIT 1;
  IF bad.n IS NOT NULL THEN
    PERFORM odin.fail('registration_failed', format('function: argument %s of %s is %s, which is no type of its own, so it has no schema', coalesce(nullif(bad.name, ''), bad.n::text), found[1]::regprocedure, bad.type_id::regtype),
      format('Wrap it in a function with plain types: CREATE FUNCTION %s(%s text) ... SELECT %s(%2$s);', found[1]::regproc::text || '_text', coalesce(nullif(bad.name, ''), 'value'), found[1]::regproc));
  ELSIF p.prorettype = 'record'::regtype AND NOT coalesce(p.proargmodes && ARRAY['o', 't', 'b']::"char"[], false) THEN
    PERFORM odin.fail('registration_failed', format('function: %s returns record, so nobody knows the columns of its answer', found[1]::regprocedure), 'Declare RETURNS TABLE(...), OUT arguments, or a named type.');
  ELSIF p.prorettype NOT IN ('void'::regtype, 'record'::regtype) AND EXISTS (SELECT 1 FROM pg_type y WHERE y.oid = p.prorettype AND y.typtype = 'p') THEN
    PERFORM odin.fail('registration_failed', format('function: %s returns %s, which cannot become JSON', found[1]::regprocedure, p.prorettype::regtype),
      CASE WHEN p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) THEN 'A trigger''s function runs by itself; make a function of what a caller would ask for.' ELSE 'Wrap it in a function that returns a plain type.' END);
  ELSIF EXISTS (SELECT 1 FROM odin._function_arguments(found[1]) a WHERE coalesce(a.name, '') = '') THEN
    PERFORM odin.fail('registration_failed', format('function: argument %s of %s has no name', (SELECT min(a.n) FROM odin._function_arguments(found[1]) a WHERE coalesce(a.name, '') = ''), found[1]::regprocedure),
      'Name every argument (DROP FUNCTION, then CREATE FUNCTION with names): the names are what callers send.');
  ELSIF p.prosecdef AND NOT coalesce(p.proconfig::text LIKE '%search_path=%', false) THEN
    PERFORM odin.fail('registration_failed', format('function: %s is SECURITY DEFINER without a pinned search_path', function),
      format('ALTER FUNCTION %s SET search_path = pg_catalog, pg_temp;', found[1]::regprocedure));
  END IF;
  -- Every new function may be executed by PUBLIC, and the GRANT is the tool's access list. (The farm's own are taken care of at the end of an install.)
  IF p.proowner <> 'odin_owner'::regrole AND EXISTS (SELECT 1 FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0) THEN
    RAISE WARNING 'every role may call %: PostgreSQL lets PUBLIC execute a new function', found[1]::regprocedure
      USING HINT = format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC; then GRANT it to odin_viewer, odin_operator or odin_admin.', found[1]::regprocedure);
  ELSIF p.proowner <> 'odin_owner'::regrole AND NOT EXISTS (SELECT 1 FROM aclexplode(p.proacl) a WHERE a.grantee <> p.proowner) THEN
    RAISE WARNING 'nobody but its owner may call %', found[1]::regprocedure
      USING HINT = format('GRANT EXECUTE ON FUNCTION %s TO odin_viewer, odin_operator or odin_admin: the tool shows only to whom may call it.', found[1]::regprocedure);
  END IF;
  RETURN found[1];
END $f$;

-- The input schema, the aliases and what the dispatcher keeps for itself.
CREATE OR REPLACE FUNCTION odin._input_spec(fn oid, overrides jsonb, scope text, confirm text, is_list boolean, previewable boolean, is_raw boolean) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  a record;
  own jsonb;
  properties jsonb := '{}';
  required jsonb := '[]';
  aliases jsonb := '{}';
  control jsonb := '{}';
  names text[] := ARRAY(SELECT name FROM odin._function_arguments(fn));
  unknown text := (SELECT k FROM jsonb_object_keys(overrides) k WHERE k <> ALL (names) LIMIT 1);
BEGIN
  IF unknown IS NOT NULL THEN
    PERFORM odin.fail('registration_failed', format('arguments: %s is no argument of %s', unknown, fn::regprocedure),
      coalesce('Did you mean ' || odin._nearest(unknown, names) || '?', format('Its arguments are: %s', array_to_string(names, ', '))));
  END IF;
  FOR a IN SELECT * FROM odin._function_arguments(fn) LOOP
    own := coalesce(overrides->a.name, '{}');
    properties := properties || jsonb_build_object(a.name, odin._closed_objects(odin._type_schema(a.type_id)) || odin._plain_default(a.default_sql) || (own - 'aliases' - 'required' - 'secret'));
    IF coalesce((own->>'required')::boolean, NOT a.has_default) THEN required := required || to_jsonb(a.name); END IF;
    aliases := aliases || coalesce((SELECT jsonb_object_agg(x, a.name) FROM jsonb_array_elements_text(own->'aliases') x), '{}');
  END LOOP;
  IF scope <> 'read' THEN
    control := '{"idempotency_key": {"type": "string", "maxLength": 255}}';
    IF previewable THEN
      control := control || '{"dry_run": {"type": "boolean", "description": "Preview only."}, "preview_token": {"type": "string", "maxLength": 2000}}';
    END IF;
    IF confirm = 'confirm' THEN
      control := control || '{"confirm": {"type": "boolean", "default": false, "description": "false: preview only."}}';
    ELSIF confirm = 'human' THEN
      control := control || '{"approval_reason": {"type": "string", "maxLength": 500, "description": "Why, for the person who has to approve."}}';
    END IF;
  END IF;
  IF is_list THEN
    control := control || '{"fields": {"type": "array", "items": {"type": "string"}, "description": "Columns; [\"*\"] for all."}}';
  END IF;
  IF NOT is_raw AND (scope = 'read' OR confirm = 'confirm') THEN
    control := control || '{"response_format": {"enum": ["json", "markdown"]}}';
  END IF;
  unknown := (SELECT k FROM jsonb_object_keys(control) k WHERE properties ? k ORDER BY k LIMIT 1);
  IF unknown IS NOT NULL THEN
    PERFORM odin.fail('registration_failed', format('arguments: %s is an argument that every tool of this kind has, and %s has one of its own', unknown, fn::regprocedure), format('Give the function''s argument another name: own_%s.', unknown));
  END IF;
  unknown := (SELECT key FROM jsonb_each_text(aliases) WHERE properties ? key OR control ? key ORDER BY key LIMIT 1);
  IF unknown IS NOT NULL THEN
    PERFORM odin.fail('registration_failed', format('arguments: the alias %s is an argument already', unknown), 'Choose another alias, or leave it out.');
  END IF;
  RETURN jsonb_build_object('aliases', aliases, 'ranges', odin._ranges(fn), 'control', (SELECT coalesce(jsonb_agg(k), '[]') FROM jsonb_object_keys(control) k),
    'schema', jsonb_build_object('type', 'object', 'properties', properties || control, 'additionalProperties', false)
              || CASE WHEN required = '[]' THEN '{}' ELSE jsonb_build_object('required', required) END);
END $f$;

-- A column that a row type does not have would be dropped in silence.
CREATE OR REPLACE FUNCTION odin._closed_objects(schema jsonb) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT schema
    || CASE WHEN schema ? 'items' THEN jsonb_build_object('items', odin._closed_objects(schema->'items')) ELSE '{}' END
    || CASE WHEN schema ? 'properties' THEN jsonb_build_object('additionalProperties', false, 'properties',
         (SELECT jsonb_object_agg(key, odin._closed_objects(value)) FROM jsonb_each(schema->'properties'))) ELSE '{}' END;
$f$;

-- Whole numbers that hold less than JSON does: the leaf checks them, so that no schema has to carry the bounds.
CREATE OR REPLACE FUNCTION odin._ranges(fn oid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(jsonb_object_agg(a.name, CASE a.type_id WHEN 'int2'::regtype THEN '[-32768, 32767]' WHEN 'int4'::regtype THEN '[-2147483648, 2147483647]' ELSE '[0, 4294967295]' END::jsonb), '{}')
    FROM odin._function_arguments(fn) a WHERE a.type_id IN ('int2'::regtype, 'int4'::regtype, 'oid'::regtype);
$f$;

-- A literal default is shown to callers; an expression (now(), a lookup) is the function's own business.
CREATE OR REPLACE FUNCTION odin._plain_default(default_sql text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  m text[];
BEGIN
  IF default_sql ~ '^-?[0-9]+(\.[0-9]+)?$' OR default_sql IN ('true', 'false') THEN
    RETURN jsonb_build_object('default', default_sql::jsonb);
  END IF;
  -- A negative number and a whole one for a type of its own are shown as text with a cast.
  m := regexp_match(default_sql, '^\(?''?(-?[0-9]+(?:\.[0-9]+)?)''?\)?::(?:smallint|integer|bigint|numeric|real|double precision)$');
  IF m IS NOT NULL THEN RETURN jsonb_build_object('default', m[1]::jsonb); END IF;
  m := regexp_match(default_sql, '^''((?:[^'']|'''')*)''::(?:text|character varying|bpchar)$');
  RETURN CASE WHEN m IS NULL THEN '{}'::jsonb ELSE jsonb_build_object('default', replace(m[1], '''''', '''')) END;
END $f$;

-- The output schema: what callers find in structuredContent; of a list's rows only the columns shown unless asked for others. Nothing is required of a write, because a preview answers otherwise.
CREATE OR REPLACE FUNCTION odin._output_schema(fn oid, result_key text, given jsonb, scope text, is_raw boolean, shown text[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  answer record;
  made jsonb;
BEGIN
  IF is_raw THEN RETURN given; END IF;
  SELECT * INTO answer FROM odin._function_answer(fn);
  made := CASE WHEN given IS NOT NULL AND answer.shape <> 'rows' THEN '{"type": "object"}' || CASE WHEN scope = 'read' THEN given ELSE given - 'required' END
    ELSE CASE answer.shape
    WHEN 'rows' THEN jsonb_build_object('type', 'object', 'required', jsonb_build_array(result_key, 'count'), 'properties',
      jsonb_build_object(result_key, jsonb_build_object('type', 'array', 'items', coalesce(given, CASE WHEN shown IS NULL THEN answer.schema
          ELSE jsonb_build_object('type', 'object', 'properties', (SELECT jsonb_object_agg(c, answer.schema->'properties'->c) FROM unnest(shown) c)) END)), 'count', '{"type": "integer"}'::jsonb,
        'next_cursor', '{"type": "string"}'::jsonb, 'note', '{"type": "string"}'::jsonb))
    WHEN 'object' THEN answer.schema
    WHEN 'scalar' THEN jsonb_build_object('type', 'object', 'properties', jsonb_build_object('result', answer.schema))
    ELSE answer.schema END END;
  -- Beside a row's own notes there are those of the call, a list.
  IF scope <> 'read' AND made->'properties' ? 'notes' THEN
    made := jsonb_set(made, '{properties,notes}', '{"type": ["string", "array", "null"]}');
  END IF;
  RETURN made;
END $f$;

-- x-mcp-header marks an argument that clients repeat as a header; a wrong mark makes clients drop the tool.
CREATE OR REPLACE FUNCTION odin._check_header_marks(schema jsonb) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  bad text;
BEGIN
  SELECT format('%s: x-mcp-header must be a header name on an integer, string or boolean argument', key) INTO bad FROM jsonb_each(schema->'properties')
   WHERE value ? 'x-mcp-header' AND (value->>'type' IS NULL OR value->>'type' NOT IN ('integer', 'string', 'boolean') OR value->>'x-mcp-header' !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$');
  IF bad IS NULL THEN
    SELECT format('x-mcp-header %s is used twice', lower(value->>'x-mcp-header')) INTO bad FROM jsonb_each(schema->'properties')
     WHERE value ? 'x-mcp-header' GROUP BY lower(value->>'x-mcp-header') HAVING count(*) > 1;
  END IF;
  IF bad IS NOT NULL THEN PERFORM odin.fail('registration_failed', bad); END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.register_tool(
  function text, name text DEFAULT NULL, title text DEFAULT NULL, description text DEFAULT NULL, scope text DEFAULT 'read', area text DEFAULT 'general',
  toolset text DEFAULT 'farm', hints jsonb DEFAULT '{}', confirm text DEFAULT 'none', timeout interval DEFAULT '30 s', arguments jsonb DEFAULT '{}',
  aliases text[] DEFAULT '{}', next_actions jsonb DEFAULT '[]', output jsonb DEFAULT NULL, result_key text DEFAULT NULL, page_by text[] DEFAULT NULL,
  default_fields text[] DEFAULT NULL, raw boolean DEFAULT false, previewable boolean DEFAULT true, task text DEFAULT 'no', most_rows int DEFAULT 1000,
  rate_per_minute int DEFAULT NULL, concurrency int DEFAULT NULL, input jsonb DEFAULT NULL, icons jsonb DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._humans_only('registering a tool');
  RETURN odin._register('tool', jsonb_build_object('function', function, 'name', name, 'title', title, 'description', description, 'scope', scope, 'area', area,
    'toolset', toolset, 'hints', hints, 'confirm', confirm, 'timeout_ms', (extract(epoch FROM timeout) * 1000)::int, 'arguments', arguments, 'aliases', to_jsonb(aliases),
    'next_actions', next_actions, 'output', output, 'result_key', result_key, 'page_by', to_jsonb(page_by), 'default_fields', to_jsonb(default_fields), 'raw', raw,
    'previewable', previewable, 'task', task, 'most_rows', most_rows, 'rate_per_minute', rate_per_minute, 'concurrency', concurrency, 'input', input, 'icons', icons));
END $f$;
COMMENT ON FUNCTION odin.register_tool IS 'Makes a SQL function a tool: arguments and their types from its signature, description from its COMMENT, access from its GRANTs; the rest by these arguments. Registering again changes it. docs/tools-in-sql.md has a worked example.';

CREATE OR REPLACE FUNCTION odin.register_prompt(function text, name text DEFAULT NULL, title text DEFAULT NULL, description text DEFAULT NULL, arguments jsonb DEFAULT '{}', area text DEFAULT 'general')
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._humans_only('registering a prompt');
  RETURN odin._register('prompt', jsonb_build_object('function', function, 'name', name, 'title', title, 'description', description, 'scope', 'read', 'area', area,
    'toolset', 'core', 'arguments', arguments, 'raw', true));
END $f$;
COMMENT ON FUNCTION odin.register_prompt IS 'Makes a SQL function a prompt: it returns text (one user message) or a JSON array of messages.';

CREATE OR REPLACE FUNCTION odin.register_resource(uri text, function text, name text DEFAULT NULL, title text DEFAULT NULL, description text DEFAULT NULL, mime_type text DEFAULT 'application/json', area text DEFAULT 'general', arguments jsonb DEFAULT '{}')
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._humans_only('registering a resource');
  IF uri !~ '^[a-z][a-z0-9+.-]*://' THEN
    PERFORM odin.fail('registration_failed', format('uri: %s is not scheme://path', uri));
  END IF;
  RETURN odin._register('resource', jsonb_build_object('function', function, 'name', coalesce(name, 'resource_' || regexp_replace(uri, '[^A-Za-z0-9]+', '_', 'g')), 'title', title,
    'description', description, 'scope', 'read', 'area', area, 'toolset', 'core', 'arguments', arguments, 'raw', true, 'uri', uri, 'mime_type', mime_type));
END $f$;
COMMENT ON FUNCTION odin.register_resource IS 'Makes a SQL function a resource under a URI; {variables} of the URI are the function''s arguments. It returns text, jsonb or bytea.';

CREATE OR REPLACE FUNCTION odin.unregister_tool(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tools;
BEGIN
  PERFORM odin._humans_only('removing a tool');
  DELETE FROM odin.tools x WHERE x.name = unregister_tool.name RETURNING * INTO t;
  IF NOT FOUND THEN RETURN false; END IF;
  EXECUTE format('DROP FUNCTION IF EXISTS %s(jsonb)', t.caller);
  PERFORM odin._registry_changed(t.name, 'removed', t.version, odin._entry(t), NULL);
  RETURN true;
END $f$;
COMMENT ON FUNCTION odin.unregister_tool(text) IS 'Takes a tool, prompt or resource out of the registry; the function itself stays.';

CREATE OR REPLACE FUNCTION odin._registry_changed(tool text, act text, version bigint, before jsonb, after jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  INSERT INTO odin.registry_log(changed_by, tool, act, version, before, after) VALUES (odin.actor(), tool, act, version, before, after);
  PERFORM pg_notify('odin_registry', '');
END $f$;

-- Backends remember tools by the registry's version: whoever changes one, by whatever way, makes them look again.
CREATE OR REPLACE FUNCTION odin._registry_moves_on() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  UPDATE odin.instance SET registry_version = registry_version + 1;
  RETURN NULL;
END $f$;
CREATE OR REPLACE TRIGGER registry_moves_on AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON odin.tools FOR EACH STATEMENT EXECUTE FUNCTION odin._registry_moves_on();
CREATE OR REPLACE TRIGGER registry_moves_on AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON odin.tool_aliases FOR EACH STATEMENT EXECUTE FUNCTION odin._registry_moves_on();
