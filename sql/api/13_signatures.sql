-- From a function's signature to JSON Schema 2020-12 and to the SQL that calls it with JSON arguments.
-- Nothing here runs a tool; names and types come from the catalog, never from a caller.

CREATE OR REPLACE FUNCTION odin._type_schema(type_id oid, depth int DEFAULT 0) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t pg_type;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type_id;
  IF depth > 5 THEN RETURN '{"type": "object"}'; END IF;
  IF t.typcategory = 'A' AND t.typelem <> 0 THEN
    RETURN jsonb_build_object('type', 'array', 'items', odin._type_schema(t.typelem, depth + 1));
  ELSIF t.typtype = 'd' THEN
    RETURN odin._type_schema(t.typbasetype, depth + 1);
  ELSIF t.typtype = 'e' THEN
    RETURN jsonb_build_object('type', 'string', 'enum', (SELECT jsonb_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = type_id));
  ELSIF t.typtype = 'c' THEN
    RETURN odin._row_schema(t.typrelid, depth + 1);
  END IF;
  RETURN CASE
    WHEN type_id IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype) THEN '{"type": "integer"}'
    WHEN type_id IN ('numeric'::regtype, 'float4'::regtype, 'float8'::regtype) THEN '{"type": "number"}'
    WHEN type_id = 'bool'::regtype THEN '{"type": "boolean"}'
    WHEN type_id = 'uuid'::regtype THEN '{"type": "string", "format": "uuid"}'
    WHEN type_id = 'date'::regtype THEN '{"type": "string", "format": "date"}'
    WHEN type_id = 'timestamptz'::regtype THEN '{"type": "string", "format": "date-time"}'
    WHEN type_id = 'bytea'::regtype THEN '{"type": "string", "contentEncoding": "base64"}'
    WHEN type_id IN ('json'::regtype, 'jsonb'::regtype) THEN '{"type": "object", "additionalProperties": true}'
    ELSE '{"type": "string"}'
  END::jsonb;
END $f$;

CREATE OR REPLACE FUNCTION odin._row_schema(relation oid, depth int DEFAULT 0) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('type', 'object', 'properties', coalesce(jsonb_object_agg(attname,
           odin._nullable(odin._type_schema(atttypid, depth + 1)) || jsonb_strip_nulls(jsonb_build_object('description', col_description(attrelid, attnum)))), '{}'))
    FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped;
$f$;

-- A column of an answer may be NULL whatever its type; JSON columns hold any JSON; bytes are rendered as PostgreSQL does.
CREATE OR REPLACE FUNCTION odin._nullable(schema jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE WHEN schema ? 'additionalProperties' THEN '{}'::jsonb
              WHEN schema ? 'contentEncoding' THEN '{"type": ["string", "null"], "pattern": "^\\\\x([0-9a-f]{2})*$"}'::jsonb
              WHEN schema ? 'enum' THEN jsonb_set(schema, '{enum}', schema->'enum' || 'null') || jsonb_build_object('type', jsonb_build_array(schema->'type', 'null'))
              ELSE schema || jsonb_build_object('type', jsonb_build_array(schema->'type', 'null')) END;
$f$;

-- Input arguments of a function, in order. A VARIADIC one may be left out: an empty list.
CREATE OR REPLACE FUNCTION odin._function_arguments(fn oid) RETURNS TABLE(n int, name text, type_id oid, variadic_argument boolean, has_default boolean, default_sql text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT a.n::int, p.proargnames[a.place], a.type_id, p.provariadic <> 0 AND a.n = p.pronargs, p.provariadic <> 0 AND a.n = p.pronargs OR a.n > p.pronargs - p.pronargdefaults,
         CASE WHEN p.provariadic <> 0 AND a.n = p.pronargs THEN format('''{}''::%s', format_type(a.type_id, -1)) ELSE pg_get_function_arg_default(fn, a.place::int) END
    FROM pg_proc p,
         LATERAL (SELECT row_number() OVER (ORDER BY u.place) AS n, u.place, u.type_id
                    FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY u(type_id, place)
                   WHERE p.proargmodes IS NULL OR p.proargmodes[u.place] IN ('i', 'b', 'v')) a
   WHERE p.oid = fn ORDER BY a.n;
$f$;

-- How a function answers: 'rows', 'object' (a composite or OUT columns), 'json', 'nothing' or 'scalar'; and the schema of one row or value.
CREATE OR REPLACE FUNCTION odin._function_answer(fn oid, OUT shape text, OUT schema jsonb, OUT columns text[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p pg_proc;
  relation oid;
BEGIN
  SELECT * INTO p FROM pg_proc WHERE oid = fn;
  SELECT typrelid INTO relation FROM pg_type WHERE oid = p.prorettype AND typtype = 'c';
  IF p.proargmodes && ARRAY['o', 't', 'b']::"char"[] AND p.prorettype = 'record'::regtype THEN
    SELECT jsonb_build_object('type', 'object', 'properties', jsonb_object_agg(p.proargnames[u.place], odin._nullable(odin._type_schema(u.type_id)))),
           array_agg(p.proargnames[u.place] ORDER BY u.place)
      INTO schema, columns
      FROM unnest(p.proallargtypes) WITH ORDINALITY u(type_id, place) WHERE p.proargmodes[u.place] IN ('o', 't', 'b');
    shape := 'object';
  ELSIF relation IS NOT NULL THEN
    shape := 'object';
    schema := odin._row_schema(relation);
    columns := ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped ORDER BY attnum);
  ELSIF p.prorettype = 'void'::regtype THEN
    shape := 'nothing';
    schema := '{"type": "object"}';
  ELSIF p.prorettype IN ('json'::regtype, 'jsonb'::regtype) THEN
    shape := 'json';
    schema := '{"type": "object"}';
  ELSE
    shape := 'scalar';
    schema := odin._nullable(odin._type_schema(p.prorettype));
  END IF;
  IF p.proretset THEN shape := 'rows'; END IF;
END $f$;

-- SQL that takes one argument out of the JSON object a. An argument left out is NULL, or its default.
CREATE OR REPLACE FUNCTION odin._argument_sql(name text, type_id oid, has_default boolean, default_sql text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t pg_type;
  type_name text := format_type(type_id, -1);
  taken text;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type_id;
  -- A function that takes whatever there is, with a schema given whole.
  IF name = '_arguments' AND type_id = 'jsonb'::regtype THEN RETURN '_arguments => a'; END IF;
  IF type_id = 'jsonb'::regtype THEN
    taken := format('(a->%L)', name);
  ELSIF type_id = 'bytea'::regtype THEN
    taken := format('decode(a->>%L, ''base64'')', name);
  ELSIF t.typelem = 'bytea'::regtype AND t.typcategory = 'A' THEN
    taken := format('(CASE WHEN jsonb_typeof(a->%1$L) = ''array'' THEN ARRAY(SELECT decode(e, ''base64'') FROM jsonb_array_elements_text(a->%1$L) e) END)', name);
  ELSIF t.typcategory = 'A' OR t.typtype IN ('c', 'd') THEN
    -- Lists (of lists, of rows), rows and domains: the server's own reading of JSON, which checks a domain's rules too.
    taken := format('(CASE WHEN a->%1$L <> ''null'' THEN (SELECT x.v FROM jsonb_to_record(jsonb_build_object(''v'', a->%1$L)) AS x(v %2$s)) END)', name, type_name);
  ELSE
    taken := format('(a->>%L)::%s', name, type_name);
  END IF;
  IF has_default AND default_sql IS NOT NULL AND default_sql NOT LIKE 'NULL%' THEN
    taken := format('CASE WHEN a ? %L THEN %s ELSE %s END', name, taken, default_sql);
  END IF;
  RETURN format('%I => %s', name, taken);
END $f$;

-- The function in odin_call that takes JSON and calls the tool's own; PL/pgSQL keeps its plan.
CREATE OR REPLACE FUNCTION odin._make_caller(caller text, fn oid, most_rows int) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p pg_proc;
  answer record;
  call text;
  body text;
BEGIN
  SELECT * INTO p FROM pg_proc WHERE oid = fn;
  SELECT * INTO answer FROM odin._function_answer(fn);
  SELECT format('%I.%I(%s)', n.nspname, p.proname, (SELECT string_agg(CASE WHEN variadic_argument THEN 'VARIADIC ' ELSE '' END
           || odin._argument_sql(f.name, f.type_id, f.has_default, f.default_sql), ', ' ORDER BY f.n) FROM odin._function_arguments(fn) f))
    INTO call FROM pg_namespace n WHERE n.oid = p.pronamespace;
  body := CASE answer.shape
    WHEN 'rows' THEN format('SELECT coalesce(jsonb_agg(to_jsonb(t.*)), ''[]'') INTO r FROM (SELECT * FROM %s LIMIT %s) t', call, most_rows)
    WHEN 'object' THEN format('SELECT to_jsonb(t.*) INTO r FROM %s t', call)
    WHEN 'json' THEN format('r := %s', call)
    WHEN 'nothing' THEN format('PERFORM %s; r := ''{}''', call)
    ELSE format('r := jsonb_build_object(''result'', %s)', call) END;
  -- A set of scalars is a list of values, not of one-column rows.
  IF answer.shape = 'rows' AND answer.columns IS NULL THEN
    body := format('SELECT coalesce(jsonb_agg(to_jsonb(t.v)), ''[]'') INTO r FROM (SELECT v FROM %s v LIMIT %s) t', call, most_rows);
  END IF;
  EXECUTE format('CREATE OR REPLACE FUNCTION %s(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS %L', caller, format('DECLARE r jsonb; BEGIN %s; RETURN r; END', body));
  EXECUTE format('REVOKE ALL ON FUNCTION %s(jsonb) FROM PUBLIC', caller);
  EXECUTE format('GRANT EXECUTE ON FUNCTION %s(jsonb) TO odin_viewer, odin_customer', caller);
END $f$;
