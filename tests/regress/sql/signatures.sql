-- From a function's signature to the schemas that clients see, and the way its arguments and answers take through JSON.
\pset format unaligned
\pset tuples_only on
SET client_min_messages = error;
SET timezone = 'UTC';
INSERT INTO odin.orgs(name) VALUES ('Golden');
DROP ROLE IF EXISTS regress_signatures;
CREATE ROLE regress_signatures IN ROLE odin_operator;
SELECT odin.add_member('regress_signatures', 1);
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO odin_viewer;
CREATE TYPE shop.size AS ENUM ('small', 'large');
CREATE DOMAIN shop.percent AS numeric CHECK (VALUE BETWEEN 0 AND 100);
CREATE TYPE shop.part AS (name text, grams numeric, size shop.size, tags text[]);
CREATE TABLE shop.things (id bigint, made timestamptz, blob bytea, extra jsonb);
COMMENT ON COLUMN shop.things.id IS 'Number of the thing.';
CREATE FUNCTION shop.show(tool text) RETURNS SETOF text LANGUAGE sql AS $$
  SELECT 'in   ' || key || ': ' || value FROM odin.tools t, jsonb_each(t.input_schema->'properties') WHERE t.name = tool AND NOT t.spec->'control' ? key
  UNION ALL SELECT 'need ' || coalesce(input_schema->>'required', '-') || '; besides ' || (spec->>'control') FROM odin.tools WHERE name = tool
  UNION ALL SELECT 'out  ' || coalesce(output_schema::text, '-') FROM odin.tools WHERE name = tool $$;

-- Plain types, and what each default looks like.
CREATE FUNCTION shop.plain(a smallint, b integer, c bigint, d numeric, e real, f double precision, g boolean, h text, i uuid, j date, k timestamptz, l timestamp, m interval, n bytea, o money, p inet) RETURNS text
  LANGUAGE sql AS $$ SELECT concat_ws('|', a, b, c, d, e, f, g, h, i, j, k AT TIME ZONE 'UTC', l, m, convert_from(n, 'UTF8'), o::numeric, p) $$;
CREATE FUNCTION shop.defaults(a smallint DEFAULT 3, b integer DEFAULT -5, c bigint DEFAULT 5000000000, d numeric DEFAULT 0.5, e boolean DEFAULT true, f text DEFAULT 'it''s', g varchar DEFAULT 'v', h date DEFAULT now(), i int DEFAULT NULL,
  j text DEFAULT NULLIF('x', 'y'), k shop.size DEFAULT 'small', l int[] DEFAULT '{1,2}', m jsonb DEFAULT '{}', n numeric DEFAULT -1.50, o double precision DEFAULT 1e-3) RETURNS text
  LANGUAGE sql AS $$ SELECT concat_ws('|', a, b, c, d, e, f, g, h = current_date, i, j, k, l, m, n, o) $$;
-- Types with a length: one character and one bit would be a trap.
CREATE FUNCTION shop.lengths(a char(5), b bit(4), c varchar(3), d numeric(5,2), e "char", f name) RETURNS text LANGUAGE sql AS $$ SELECT concat_ws('|', rtrim(a::text), b, c, d, e, f) $$;
CREATE FUNCTION shop.shapes(a shop.size, b shop.percent, c shop.part, d text[], e int[], f shop.part[], g jsonb, h json, i jsonb[], j shop.size[], k bytea[] DEFAULT NULL) RETURNS text
  LANGUAGE sql AS $$ SELECT concat_ws('|', a, b, (c).name, (c).grams, (c).size, (c).tags, d, e, cardinality(f), (f[2]).name, g->>'x', h->>'x', i[1]->>'x', j) $$;
CREATE FUNCTION shop.spread(VARIADIC words text[]) RETURNS text LANGUAGE sql AS $$ SELECT array_to_string(words, '+') $$;
CREATE FUNCTION shop."Odd Names"("limit" int DEFAULT 5, "select" text DEFAULT 'x', "Upper" text DEFAULT 'U') RETURNS text LANGUAGE sql AS $$ SELECT concat_ws('|', "limit", "select", "Upper") $$;
CREATE FUNCTION shop.twice(IN a int, INOUT b int, OUT c text) LANGUAGE sql AS $$ SELECT b + a, 'c'::text $$;
CREATE FUNCTION shop.one_out(a int, OUT b int) LANGUAGE sql AS $$ SELECT a * 2 $$;
CREATE FUNCTION shop.nothing() RETURNS void LANGUAGE sql AS $$ SELECT $$;
CREATE FUNCTION shop.object() RETURNS jsonb LANGUAGE sql AS $$ SELECT '{"a": 1}'::jsonb $$;
CREATE FUNCTION shop.thing() RETURNS shop.things LANGUAGE sql AS $$ SELECT 1::bigint, '2026-01-02 03:04:05+00'::timestamptz, '\x6869'::bytea, '[1]'::jsonb $$;
CREATE FUNCTION shop.things_list() RETURNS SETOF shop.things LANGUAGE sql AS $$ SELECT i::bigint, NULL::timestamptz, NULL::bytea, NULL::jsonb FROM generate_series(1, 2) i $$;
CREATE FUNCTION shop.rows() RETURNS TABLE(id int, size shop.size, tags text[], part shop.part) LANGUAGE sql AS $$ SELECT 1, 'large'::shop.size, ARRAY['t'], ROW('n', 1, 'small', NULL)::shop.part $$;
CREATE FUNCTION shop.values_list() RETURNS SETOF int LANGUAGE sql AS $$ SELECT generate_series(1, 3) $$;
CREATE FUNCTION shop.json_list() RETURNS SETOF jsonb LANGUAGE sql AS $$ SELECT jsonb_build_object('i', i) FROM generate_series(1, 2) i $$;
CREATE FUNCTION shop.bytes() RETURNS bytea LANGUAGE sql AS $$ SELECT '\x6869'::bytea $$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA shop FROM PUBLIC;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA shop TO odin_viewer;
SELECT odin.register_tool('shop.' || quote_ident(proname), name => replace(lower(proname), ' ', '_'), description => 'x') FROM pg_proc WHERE pronamespace = 'shop'::regnamespace AND proname <> 'show' ORDER BY oid;
SELECT E'\n' || name || E'\n' || (SELECT string_agg(s, E'\n') FROM shop.show(name) s) FROM odin.tools WHERE function LIKE 'shop.%' ORDER BY id;

-- The way through.
SET ROLE regress_signatures;
SELECT odin.call('plain', '{"a": 1, "b": -2, "c": 9007199254740993, "d": 0.10, "e": 1.5, "f": 1e-3, "g": true, "h": "t", "i": "00000000-0000-0000-0000-000000000001", "j": "2026-02-03", "k": "2026-02-03T04:05:06Z", "l": "2026-02-03T04:05:06", "m": "1 day", "n": "aGk=", "o": "12.50", "p": "10.0.0.1"}');
SELECT odin.call('plain', '{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6, "g": "true", "h": "t", "i": "no uuid", "j": "2026-02-30", "k": "yesterday", "l": "x", "m": "1 day", "n": "aGk=", "o": "1", "p": "10.0.0.1"}')#>>'{error,detail}';
SELECT odin.call('defaults');
SELECT odin.call('defaults', '{"a": 4, "b": 0, "e": false, "f": "", "i": 1, "k": "large", "l": [], "m": {"x": 1}}');
SELECT odin.call('lengths', '{"a": "abcde", "b": "1010", "c": "abc", "d": 1.234, "e": "z", "f": "n"}');
SELECT odin.call('shapes', '{"a": "large", "b": 50, "c": {"name": "n", "grams": 1.5, "size": "small", "tags": ["x"]}, "d": ["a", "b,c"], "e": [1, 2], "f": [{"name": "p"}, {"name": "q"}], "g": {"x": 1}, "h": {"x": 2}, "i": [{"x": 3}], "j": ["small"]}');
SELECT odin.call('shapes', '{"a": "huge", "b": 50, "c": {"size": "tiny"}, "d": [1], "e": ["x"], "f": {}, "g": [1], "h": 1, "i": [], "j": ["large", "giant"]}')#>>'{error,detail}';
SELECT odin.call('shapes', '{"a": "large", "b": 500, "c": {}, "d": [], "e": [], "f": [], "g": {}, "h": {}, "i": [], "j": []}')#>>'{error,detail}';
SELECT odin.call('spread', '{"words": ["a", "b"]}');
SELECT odin.call('odd_names', '{"limit": 3, "Upper": "V"}');
SELECT odin.call('twice', '{"a": 1, "b": 2}'), odin.call('one_out', '{"a": 4}'), odin.call('nothing'), odin.call('object');
SELECT odin.call('thing'), odin.call('things_list'), odin.call('rows'), odin.call('values_list'), odin.call('json_list'), odin.call('bytes');
RESET ROLE;

-- Overlays: every keyword of JSON Schema, aliases, and required either way.
CREATE FUNCTION shop.overlaid(model_id bigint, quantity int DEFAULT 1, mode text DEFAULT NULL, options jsonb DEFAULT NULL) RETURNS text LANGUAGE sql AS $$ SELECT concat_ws('|', model_id, quantity, mode, options) $$;
REVOKE ALL ON FUNCTION shop.overlaid FROM PUBLIC; GRANT EXECUTE ON FUNCTION shop.overlaid TO odin_viewer;
SELECT odin.register_tool('shop.overlaid', scope => 'write', description => 'x', confirm => 'confirm', toolset => 'farm, lean', title => 'T', aliases => '{shop.overlaid, other-name}', hints => '{"destructive": false}', timeout => '2 s',
  next_actions => '[{"tool": "overlaid", "args": {"model_id": "{model_id}", "missing": "{nowhere}"}}, {"tool": "overlaid", "args": {"model_id": "{model_id}"}, "reason": "again"}]',
  arguments => '{"model_id": {"minimum": 1, "aliases": ["model", "id"], "required": false}, "quantity": {"maximum": 9, "multipleOf": 2, "required": true, "description": "How many.", "x-mcp-header": "Quantity"}, "mode": {"enum": ["a", "b"]}, "options": {"type": ["object", "array"]}}');
SELECT shop.show('overlaid');
SELECT jsonb_pretty(listing - 'inputSchema') FROM odin.tools WHERE name = 'overlaid';
SELECT alias FROM odin.tool_aliases JOIN odin.tools t ON t.id = tool_id WHERE t.name = 'overlaid' ORDER BY alias COLLATE "C";
SET ROLE regress_signatures;
SELECT odin.call('shop.overlaid', '{"id": 7, "quantity": 2, "mode": "a", "options": [1], "confirm": true}');
SELECT odin.call('overlaid', '{"quantity": 3, "mode": "c"}')#>>'{error,detail}';
RESET ROLE;
