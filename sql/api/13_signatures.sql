-- From a function's signature to JSON Schema 2020-12 and to the SQL that calls it with JSON arguments.
-- Nothing here runs a tool; names and types come from the catalog, never from a caller.

-- A type, with domains taken off.
CREATE OR REPLACE FUNCTION odin._base_type(type_id oid) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  base oid := type_id;
BEGIN
  WHILE (SELECT typtype = 'd' FROM pg_type WHERE oid = base) LOOP
    base := (SELECT typbasetype FROM pg_type WHERE oid = base);
  END LOOP;
  RETURN base;
END $f$;

CREATE OR REPLACE FUNCTION odin._type_schema(type_id oid, depth int DEFAULT 0) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t pg_type;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type_id;
  IF t.typcategory = 'A' AND t.typelem <> 0 THEN
    RETURN jsonb_build_object('type', 'array', 'items', odin._type_schema(t.typelem, depth + 1));
  ELSIF t.typtype = 'd' THEN
    RETURN odin._type_schema(t.typbasetype, depth + 1) || odin._domain_rules(type_id);
  ELSIF t.typtype = 'e' THEN
    RETURN jsonb_build_object('type', 'string', 'enum', (SELECT jsonb_agg(enumlabel ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = type_id));
  ELSIF t.typtype = 'c' THEN
    -- A row in a row in a row: deeper than this nobody reads the schema, and the server checks the values all the same.
    RETURN CASE WHEN depth > 8 THEN '{"type": "object"}' ELSE odin._row_schema(t.typrelid, depth + 1) END;
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

-- What a domain's checks mean in JSON Schema: bounds, lengths and lists of words; any other rule is said in words.
CREATE OR REPLACE FUNCTION odin._domain_rules(domain oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  number constant text := '\(?''?(-?[0-9]+(?:\.[0-9]+)?)''?\)?(?:::[a-z ]+)?';
  known constant jsonb := '{">=": "minimum", "<=": "maximum", ">": "exclusiveMinimum", "<": "exclusiveMaximum"}';
  rules jsonb := '{}';
  said text := obj_description(domain, 'pg_type');
  rule text;
  term text;
  m text[];
BEGIN
  FOR rule IN SELECT pg_get_expr(conbin, 0) FROM pg_constraint WHERE contypid = domain AND contype = 'c' ORDER BY conname LOOP
    -- Only plain conjunctions are taken apart.
    FOREACH term IN ARRAY CASE WHEN rule ~ '( OR |NOT |CASE |''[^'']*[^-0-9.''][^'']*''.* AND )' THEN ARRAY[rule]
                               ELSE regexp_split_to_array(regexp_replace(rule, '^\((\(.*\) AND \(.*\))\)$', '\1'), ' AND ') END LOOP
      m := regexp_match(term, '^\(VALUE (>=|<=|>|<) ' || number || '\)$');
      IF m IS NOT NULL THEN
        rules := rules || jsonb_build_object(known->>m[1], m[2]::jsonb);
        CONTINUE;
      END IF;
      m := regexp_match(term, '^\((?:char_)?length\(\(?VALUE\)?(?:::text)?\) (>=|<=|>|<) ([0-9]+)\)$');
      IF m IS NOT NULL THEN
        rules := rules || jsonb_build_object(CASE WHEN m[1] LIKE '>%' THEN 'minLength' ELSE 'maxLength' END, m[2]::bigint + CASE m[1] WHEN '>' THEN 1 WHEN '<' THEN -1 ELSE 0 END);
        CONTINUE;
      END IF;
      m := regexp_match(term, '^\(+VALUE\)?(?:::text)? = ANY \(+ARRAY\[((?:''[^'']*''::[a-z ]+(?:, )?)+)\]\)?(?:::text\[\])?\)+$');
      IF m IS NOT NULL THEN
        rules := rules || jsonb_build_object('enum', (SELECT jsonb_agg(w[1]) FROM regexp_matches(m[1], '''([^'']*)''', 'g') w));
      ELSE
        said := coalesce(said, 'Rule: ' || rule);
      END IF;
    END LOOP;
  END LOOP;
  RETURN rules || CASE WHEN said IS NULL THEN '{}' ELSE jsonb_build_object('description', said) END;
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
  -- RETURNS TABLE with one column is still a table.
  IF p.proargmodes && ARRAY['o', 't', 'b']::"char"[] AND p.prorettype = 'record'::regtype OR p.proargmodes && ARRAY['t']::"char"[] THEN
    -- A column without a name is called as the server calls it.
    SELECT jsonb_build_object('type', 'object', 'properties', jsonb_object_agg(o.name, odin._nullable(odin._type_schema(o.type_id)))), array_agg(o.name ORDER BY o.n)
      INTO schema, columns
      FROM (SELECT u.type_id, u.n, coalesce(nullif(p.proargnames[u.place], ''), 'column' || u.n) AS name
              FROM (SELECT x.type_id, x.place, row_number() OVER (ORDER BY x.place) AS n FROM unnest(p.proallargtypes) WITH ORDINALITY x(type_id, place)
                     WHERE p.proargmodes[x.place] IN ('o', 't', 'b')) u) o;
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
CREATE OR REPLACE FUNCTION odin._argument_value(name text, type_id oid, has_default boolean, default_sql text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t pg_type;
  type_name text := format_type(type_id, -1);
  taken text;
BEGIN
  SELECT * INTO t FROM pg_type WHERE oid = type_id;
  -- A function that takes whatever there is, with a schema given whole.
  IF name = '_arguments' AND type_id = 'jsonb'::regtype THEN RETURN 'a'; END IF;
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
  RETURN taken;
END $f$;

CREATE OR REPLACE FUNCTION odin._argument_sql(name text, type_id oid, has_default boolean, default_sql text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT format('%I => %s', name, odin._argument_value(name, type_id, has_default, default_sql));
$f$;

-- Types whose values the schema and the spec check whole; of others the server may refuse a value that fits the schema.
CREATE OR REPLACE FUNCTION odin._checked_type(type_id oid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT type_id IN ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype, 'numeric'::regtype, 'text'::regtype, 'varchar'::regtype, 'uuid'::regtype,
      'date'::regtype, 'timestamptz'::regtype, 'json'::regtype, 'jsonb'::regtype, 'text[]'::regtype, 'bool[]'::regtype, 'int8[]'::regtype, 'numeric[]'::regtype, 'jsonb[]'::regtype)
    OR EXISTS (SELECT 1 FROM pg_type t WHERE t.oid = type_id AND t.typtype = 'e');
$f$;

-- The refusal of a value that the server could not take, with its argument and the rule it breaks.
CREATE OR REPLACE FUNCTION odin._refuse_argument(argument text, said text, home text, domain text, broken text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  rule text := (SELECT pg_get_expr(c.conbin, 0) FROM pg_constraint c JOIN pg_type t ON t.oid = c.contypid JOIN pg_namespace n ON n.oid = t.typnamespace
                 WHERE n.nspname = home AND t.typname = domain AND c.conname = broken);
BEGIN
  PERFORM odin.fail('validation_failed', format('%s: %s', argument, CASE WHEN length(said) > 300 THEN left(said, 300) || '...' ELSE said END), CASE WHEN rule IS NOT NULL THEN format('The rule of %I.%I is: %s', home, domain, rule) END, jsonb_build_object('field', argument));
END $f$;

-- The function in odin_call that takes JSON and calls the tool's own; PL/pgSQL keeps its plan.
CREATE OR REPLACE FUNCTION odin._make_caller(caller text, fn oid, most_rows int, shown text[]) RETURNS void
-- Unchecked, because checking would look the argument types up with the owner's rights, and a tool's schema need not be open to him.
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET check_function_bodies = off AS $f$
DECLARE
  p pg_proc;
  answer record;
  f record;
  call text;
  body text;
  given text[] := '{}';
  declared text := '';
  taken text := '';
BEGIN
  SELECT * INTO p FROM pg_proc WHERE oid = fn;
  SELECT * INTO answer FROM odin._function_answer(fn);
  -- What the server may refuse is taken first and one by one, so that the refusal names its argument.
  FOR f IN SELECT x.*, (SELECT t.typnotnull FROM pg_type t WHERE t.oid = x.type_id) AS never_empty FROM odin._function_arguments(fn) x ORDER BY x.n LOOP
    IF NOT odin._checked_type(f.type_id) THEN
      declared := declared || format(' v%s %s;', f.n, format_type(CASE WHEN f.never_empty THEN odin._base_type(f.type_id) ELSE f.type_id END, -1));
      taken := taken || format('argument := %L; v%s := %s; ', f.name, f.n, odin._argument_value(f.name, f.type_id, f.has_default, f.default_sql));
      given := given || format('%s%I => v%s', CASE WHEN f.variadic_argument THEN 'VARIADIC ' ELSE '' END, f.name, f.n);
    ELSE
      given := given || (CASE WHEN f.variadic_argument THEN 'VARIADIC ' ELSE '' END || odin._argument_sql(f.name, f.type_id, f.has_default, f.default_sql));
    END IF;
  END LOOP;
  IF taken <> '' THEN
    declared := ' argument text; home text; kind text; broken text;' || declared;
    taken := 'BEGIN ' || taken || 'EXCEPTION WHEN data_exception OR check_violation OR not_null_violation OR undefined_object OR undefined_table OR undefined_function OR invalid_schema_name OR invalid_name OR ambiguous_function THEN '
      'GET STACKED DIAGNOSTICS home = SCHEMA_NAME, kind = PG_DATATYPE_NAME, broken = CONSTRAINT_NAME; PERFORM odin._refuse_argument(argument, SQLERRM, home, kind, broken); END; ';
  END IF;
  call := format('%I.%I(%s)', (SELECT nspname FROM pg_namespace WHERE oid = p.pronamespace), p.proname, array_to_string(given, ', '));
  body := CASE answer.shape
    WHEN 'rows' THEN format('SELECT coalesce(jsonb_agg(to_jsonb(t.*)), ''[]'') INTO r FROM (SELECT * FROM %s LIMIT %s) t', call, most_rows)
    -- Of a row the shorter form spares a statement. It makes nothing of a row that is not there, where the longer one shows its columns: a function that only reads may be asked twice.
    WHEN 'object' THEN CASE WHEN p.provolatile <> 'v' AND (SELECT t.typtype FROM pg_type t WHERE t.oid = p.prorettype) = 'c' THEN format('r := to_jsonb(%1$s); IF r IS NULL THEN SELECT to_jsonb(t.*) INTO r FROM %1$s t; END IF', call)
                       ELSE format('SELECT to_jsonb(t.*) INTO r FROM %s t', call) END
    WHEN 'json' THEN format('r := %s', call)
    WHEN 'nothing' THEN format('PERFORM %s; r := ''{}''', call)
    ELSE format('r := jsonb_build_object(''result'', %s)', call) END;
  -- Of a wide list only what is shown becomes JSON, unless the call chose its fields.
  IF answer.shape = 'rows' AND shown <@ answer.columns THEN
    body := format('IF a ? ''_fields'' THEN %s; ELSE SELECT coalesce(jsonb_agg(to_jsonb(t.*)), ''[]'') INTO r FROM (SELECT %s FROM %s x LIMIT %s) t; END IF', body,
      (SELECT string_agg(format('x.%I', c), ', ' ORDER BY n) FROM unnest(shown) WITH ORDINALITY u(c, n)), call, most_rows);
  END IF;
  -- A set of scalars is a list of values, not of one-column rows.
  IF answer.shape = 'rows' AND answer.columns IS NULL THEN
    body := format('SELECT coalesce(jsonb_agg(to_jsonb(t.v)), ''[]'') INTO r FROM (SELECT v FROM %s v LIMIT %s) t', call, most_rows);
  END IF;
  EXECUTE format('CREATE OR REPLACE FUNCTION %s(a jsonb) RETURNS jsonb LANGUAGE plpgsql AS %L', caller, format('DECLARE r jsonb;%s BEGIN %s%s; RETURN r; END', declared, taken, body));
  EXECUTE format('REVOKE ALL ON FUNCTION %s(jsonb) FROM PUBLIC', caller);
  EXECUTE format('GRANT EXECUTE ON FUNCTION %s(jsonb) TO odin_viewer, odin_customer', caller);
END $f$;
