-- Any SQL function is a tool: overloads, defaults, variadic, lists, rows, domains, sets with cursors; what cannot be one is refused with what to change.
\set ECHO none
SET client_min_messages = error;
\pset format unaligned
CREATE ROLE rec_user; CREATE ROLE rec_viewer; GRANT odin_operator TO rec_user; GRANT odin_viewer TO rec_viewer;
INSERT INTO odin.orgs(name) VALUES ('Registry'); SELECT odin.add_member(r, id) FROM odin.orgs, unnest(ARRAY['rec_user', 'rec_viewer']) r WHERE name = 'Registry' \g /dev/null
CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO rec_user, rec_viewer;
CREATE TYPE shop.size AS (w int, h numeric); CREATE TYPE shop.mood AS ENUM ('sad', 'happy'); CREATE DOMAIN shop.grade AS int CHECK (VALUE BETWEEN 1 AND 5); CREATE DOMAIN shop.grades AS int[] CHECK (cardinality(VALUE) < 3);
CREATE FUNCTION shop.over(a int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'int ' || a $$; CREATE FUNCTION shop.over(a text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'text ' || a $$;
CREATE FUNCTION shop.defaults(a int, b int DEFAULT 7, c timestamptz DEFAULT now(), d text DEFAULT 'it''s', e int[] DEFAULT '{1}', f text DEFAULT NULL) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_build_array(a, b, c = now(), d, e, f) $$;
CREATE FUNCTION shop.many(VARIADIC v int[]) RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT count(*) FROM unnest(v) $$;
CREATE FUNCTION shop.first_and_many(a text, VARIADIC v text[]) RETURNS text LANGUAGE sql STABLE AS $$ SELECT a || ':' || array_to_string(v, '+') $$;
CREATE FUNCTION shop.rich(s shop.size DEFAULT NULL, l shop.size[] DEFAULT NULL, g shop.grade DEFAULT NULL, gs shop.grades DEFAULT NULL, m shop.mood DEFAULT NULL, ms shop.mood[] DEFAULT NULL, j jsonb DEFAULT NULL, js jsonb[] DEFAULT NULL, t text[] DEFAULT NULL, n numeric[] DEFAULT NULL, y bytea DEFAULT NULL, ys bytea[] DEFAULT NULL, d date[] DEFAULT NULL)
  RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT jsonb_strip_nulls(jsonb_build_object('s', s, 'w', (s).w, 'l', l, 'g', g, 'gs', gs, 'm', m, 'ms', ms, 'j', j, 'js', js, 't', t, 'n', n, 'y', convert_from(y, 'UTF8'), 'ys', ys, 'd', d)) $$;
CREATE FUNCTION shop.page("limit" int DEFAULT 2, cursor text DEFAULT NULL, at_least int DEFAULT 0) RETURNS TABLE(id int, word text) LANGUAGE sql STABLE AS $$
  SELECT k, 'w' || k FROM generate_series(1, 5) k WHERE k >= at_least AND k > coalesce((odin.cursor_decode(cursor)->>0)::int, 0) ORDER BY k LIMIT "limit" $$;
CREATE FUNCTION shop.outs(a int, OUT b int, OUT c text) LANGUAGE sql STABLE AS $$ SELECT a + 1, 'c' $$;
CREATE FUNCTION shop.numbers(n int) RETURNS SETOF int LANGUAGE sql STABLE AS $$ SELECT generate_series(1, n) $$;
CREATE FUNCTION shop.a_size(w int) RETURNS shop.size LANGUAGE sql STABLE AS $$ SELECT (w, 2)::shop.size $$;
CREATE FUNCTION shop.nothing() RETURNS void LANGUAGE sql STABLE AS $$ SELECT NULL::void $$;
CREATE FUNCTION shop.none() RETURNS SETOF shop.size LANGUAGE sql STABLE AS $$ SELECT (1, 2)::shop.size WHERE false $$;
SELECT string_agg(odin.register_tool(f, name => n, description => 'A test.', toolset => 'core', page_by => p), ' ') AS registered
  FROM (VALUES ('shop.over(int)', 'over_int', NULL::text[]), ('shop.over(text)', 'over_text', NULL), ('shop.defaults', NULL, NULL), ('shop.many', NULL, NULL), ('shop.first_and_many', NULL, NULL), ('shop.rich', NULL, NULL), ('shop.page', NULL, '{id}'),
               ('shop.outs', NULL, NULL), ('shop.numbers', NULL, NULL), ('shop.a_size', NULL, NULL), ('shop.nothing', NULL, NULL), ('shop.none', NULL, NULL)) v(f, n, p);
SET ROLE rec_user;
SELECT tool, args, odin.call(tool, args::jsonb) AS answer FROM (VALUES
  ('over_int', '{"a": 3}'), ('over_text', '{"a": "3"}'), ('defaults', '{"a": 1}'), ('defaults', '{"a": 1, "b": 2, "c": "2020-01-01T00:00:00Z", "d": "x", "e": [], "f": "y"}'), ('many', '{}'), ('many', '{"v": [1, 2, 3]}'), ('first_and_many', '{"a": "x"}'), ('first_and_many', '{"a": "x", "v": ["y", "z"]}'),
  ('rich', '{}'), ('rich', '{"s": {"w": 2, "h": 1.5}, "l": [{"w": 1}, {"h": 2}], "g": 5, "gs": [1, 2], "m": "sad", "ms": ["happy", "sad"], "j": {"k": [1]}, "js": [{"a": 1}, {}], "t": ["a", "b\"c"], "n": [1.5, 2], "y": "aMOk", "ys": ["aGk="], "d": ["2026-01-31"]}'),
  ('rich', '{"g": 9}'), ('rich', '{"gs": [1, 2, 3]}'), ('rich', '{"m": "glad"}'), ('rich', '{"l": "none"}'), ('page', '{}'), ('outs', '{"a": 1}'), ('numbers', '{"n": 3}'), ('a_size', '{"w": 1}'), ('nothing', '{}'), ('none', '{}')) v(tool, args);
\echo a set is walked by its cursor:
WITH RECURSIVE p(n, a) AS (SELECT 1, odin.call('page', '{"limit": 2}') UNION ALL SELECT n + 1, odin.call('page', jsonb_build_object('limit', 2, 'cursor', a->>'next_cursor')) FROM p WHERE a ? 'next_cursor' AND n < 9)
SELECT n, a->'rows' AS rows FROM p ORDER BY n;
RESET ROLE;
SELECT t.name, (t.input_schema->'properties') - '{response_format,fields}'::text[] AS properties, t.input_schema->'required' AS required FROM odin.tools t WHERE t.name IN ('many', 'rich', 'defaults') ORDER BY 1;
\echo what cannot be a tool, and why:
CREATE PROCEDURE shop.proc(a int) LANGUAGE sql AS $$ SELECT 1 $$; CREATE FUNCTION shop.unnamed(int) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; CREATE FUNCTION shop.poly(a anyelement) RETURNS anyelement LANGUAGE sql AS $$ SELECT a $$;
CREATE FUNCTION shop.loose() RETURNS record LANGUAGE sql AS $$ SELECT 1, 2 $$; CREATE FUNCTION shop.looser() RETURNS SETOF record LANGUAGE sql AS $$ SELECT 1, 2 $$; CREATE FUNCTION shop.trig() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE FUNCTION shop.definer() RETURNS int LANGUAGE sql SECURITY DEFINER AS $$ SELECT 1 $$; CREATE FUNCTION shop.bare() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; CREATE AGGREGATE shop.total(int) (sfunc = int4pl, stype = int); CREATE FUNCTION shop.rows() RETURNS TABLE(id int) LANGUAGE sql AS $$ SELECT 1 $$;
CREATE FUNCTION pg_temp.refusal(f text, o jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE m text; h text;
BEGIN
  PERFORM odin._register('tool', '{"scope": "read", "area": "general", "toolset": "core", "description": "x"}' || o || jsonb_build_object('function', f));
  RETURN 'registered!';
EXCEPTION WHEN SQLSTATE 'OD036' THEN
  GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, h = PG_EXCEPTION_HINT;
  RETURN m || coalesce(' > ' || nullif(h, ''), '');
END $$;
SELECT f, pg_temp.refusal(f, o::jsonb) FROM (VALUES ('shop.proc', '{}'), ('shop.total', '{}'), ('shop.unnamed', '{}'), ('shop.poly', '{}'), ('shop.loose', '{}'), ('shop.looser', '{}'), ('shop.trig', '{}'), ('shop.definer', '{}'), ('shop.gone', '{}'), ('shop.over', '{}'),
  ('shop.bare', '{"description": null}'), ('shop.bare', '{"name": "has.dot"}'), ('shop.bare', '{"scope": "reed"}'), ('shop.bare', '{"arguments": {"x": {}}}'), ('shop.rows', '{"page_by": ["id"]}'), ('shop.page', '{"page_by": ["idd"]}'), ('shop.page', '{"default_fields": ["wrd"]}'),
  ('shop.page', '{"arguments": {"limt": {"minimum": 1}}}'), ('shop.page', '{"arguments": {"limit": {"minimum": "one"}}}'), ('shop.bare', '{"toolset": "nosuch"}'), ('shop.bare', '{"confirm": "human"}'), ('shop.bare', '{"hints": {"readonly": true}}')) v(f, o);

\echo a line in the comment registers a function, and taking it away switches the tool off:
COMMENT ON FUNCTION shop.bare() IS E'Gives one.\nAlways.\n@tool {"area": "jobs", "toolset": "core", "title": "One"}';
COMMENT ON FUNCTION shop.definer() IS E'@tool {}'; COMMENT ON FUNCTION shop.numbers(int) IS E'Counts.\n@tool {"name": "count_up", "scop": "read"}'; COMMENT ON FUNCTION shop.rows() IS E'Rows.\n@tool {broken';
CREATE ROLE rec_low; GRANT odin_operator TO rec_low; GRANT CREATE, USAGE ON SCHEMA shop TO rec_low; GRANT USAGE ON SCHEMA shop TO odin_owner; SET ROLE rec_low;
CREATE FUNCTION shop.trojan() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$; COMMENT ON FUNCTION shop.trojan() IS E'Free money.\n@tool {"toolset": "core"}';
RESET ROLE;
SELECT * FROM odin.sync_tools() WHERE tool !~ '^odin\.' ORDER BY tool;
SELECT name, title, area, description, active FROM odin.tools WHERE name IN ('bare', 'trojan', 'count_up') ORDER BY 1;
SELECT count(*) AS changed_by_a_second_sync FROM odin.sync_tools() WHERE change NOT LIKE 'refused%';
COMMENT ON FUNCTION shop.numbers(int) IS E'Counts.\n@tool {"name": "count_up", "scope": "read"}';
COMMENT ON FUNCTION shop.bare() IS 'Gives one.'; DROP FUNCTION shop.over(int);
CREATE OR REPLACE FUNCTION shop.a_size(w int) RETURNS shop.size LANGUAGE sql STABLE AS $$ SELECT (w, 3)::shop.size $$; COMMENT ON FUNCTION shop.a_size(int) IS 'Unused: the tool has its own description.';
SELECT * FROM odin.sync_tools() WHERE change NOT LIKE 'refused%' ORDER BY tool;
COMMENT ON FUNCTION shop.bare() IS E'Gives one again.\n@tool {"area": "jobs", "toolset": "core"}';
CREATE FUNCTION shop.over(a int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'back ' || a $$;
SELECT * FROM odin.sync_tools() WHERE change NOT LIKE 'refused%' ORDER BY tool;
SELECT tool, act, version, changed_by, before IS NOT NULL AS before, after IS NOT NULL AS after FROM odin.registry_log WHERE tool IN ('bare', 'over_int', 'count_up') ORDER BY id;

\echo a tool is listed for whoever may run its function, and for nobody else:
REVOKE EXECUTE ON FUNCTION shop.bare() FROM PUBLIC; GRANT EXECUTE ON FUNCTION shop.bare() TO rec_user;
SELECT r AS role, EXISTS (SELECT 1 FROM odin._visible(r::regrole, NULL, ARRAY['tool'], NULL, false, true) v WHERE v.name = 'bare') AS listed FROM unnest(ARRAY['rec_user', 'rec_viewer']) r;
SET ROLE rec_viewer; SELECT odin.call('bare')#>>'{error,code}' AS viewer, EXISTS (SELECT 1 FROM odin.search_tools('bare') t WHERE t.name = 'bare') AS finds_it; RESET ROLE;
SET ROLE rec_user; SELECT odin.call('bare') AS user; RESET ROLE;
SELECT r.tool AS listed_beyond_rights FROM (SELECT v.name AS tool, g.g FROM unnest(ARRAY['odin_viewer', 'odin_operator', 'odin_admin', 'odin_customer', 'rec_user', 'rec_viewer']) g(g), LATERAL odin._visible(g.g::regrole, NULL, ARRAY['tool', 'prompt', 'resource'], NULL, false, true) v) r
  JOIN odin.tools t ON t.name = r.tool WHERE NOT has_function_privilege(r.g, t.function, 'EXECUTE');
