-- Any SQL function is a tool: odd types and odd signatures, as an engineer would register them; what callers see of each, and what good and bad arguments get.
\set ECHO none
\pset format unaligned
\pset tuples_only on
SET client_min_messages = error;
SET timezone = 'UTC';
CREATE ROLE any_user; GRANT odin_operator TO any_user; CREATE ROLE any_viewer; GRANT odin_viewer TO any_viewer; CREATE ROLE any_stranger; CREATE ROLE any_outsider; GRANT odin_viewer TO any_outsider;
INSERT INTO odin.orgs(name) VALUES ('Any'); SELECT odin.add_member(r, id) FROM odin.orgs, unnest(ARRAY['any_user', 'any_viewer', 'any_outsider']) r WHERE name = 'Any' \g /dev/null
CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO any_user, any_viewer;
CREATE TYPE shop.point AS (x int, y date); CREATE TYPE shop.track AS (label text, start shop.point, more shop.point[]); CREATE TYPE shop.mood AS ENUM ('sad', 'happy');
CREATE DOMAIN shop.grade AS int CHECK (VALUE BETWEEN 1 AND 5); CREATE DOMAIN shop.price AS numeric CHECK (VALUE >= 0.5) CHECK (VALUE < 100);
CREATE DOMAIN shop.mail AS text CHECK (VALUE LIKE '%@%'); COMMENT ON DOMAIN shop.mail IS 'An address with @.'; CREATE DOMAIN shop.color AS text CHECK (VALUE IN ('red', 'light blue'));
CREATE DOMAIN shop.code AS varchar(9) CHECK (length(VALUE) >= 2 AND length(VALUE) <= 4); CREATE DOMAIN shop.either AS int CHECK (VALUE > 10 OR (VALUE < 0 AND VALUE > -5)); CREATE DOMAIN shop.needed AS int NOT NULL;
CREATE DOMAIN shop.worded AS text CHECK (VALUE <> 'a AND (VALUE > 5)'); CREATE TABLE shop.things (id int, w int, twice int GENERATED ALWAYS AS (w * 2) STORED);
CREATE FUNCTION shop.a_small(a smallint, b int DEFAULT NULL, c bigint DEFAULT NULL, d oid DEFAULT NULL, e int2[] DEFAULT '{}') RETURNS text LANGUAGE sql STABLE AS $$ SELECT concat_ws('|', a, b, c, d, e) $$;
CREATE FUNCTION shop.domains(a shop.grade, b shop.price DEFAULT 1, c shop.mail DEFAULT NULL, d shop.color DEFAULT NULL, e shop.code DEFAULT NULL, f shop.either DEFAULT NULL, g shop.grade[] DEFAULT NULL, h shop.worded DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$ SELECT concat_ws('|', a, b, c, d, e, f, g, h) $$;
CREATE FUNCTION shop.needs(a shop.needed) RETURNS shop.needed LANGUAGE sql STABLE AS 'SELECT a';
CREATE FUNCTION shop.moods(a shop.mood, b shop.mood[] DEFAULT NULL) RETURNS SETOF shop.mood LANGUAGE sql STABLE AS 'SELECT unnest(a || b)';
CREATE FUNCTION shop.times(a date, b timestamptz DEFAULT NULL, c timestamp DEFAULT NULL, d time DEFAULT NULL, e interval DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$ SELECT concat_ws('|', a, b, c, d, e) $$;
CREATE FUNCTION shop.exact(a numeric, b real DEFAULT NULL, c uuid DEFAULT NULL, d bytea DEFAULT NULL, e bytea[] DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$ SELECT concat_ws('|', a, b, c, convert_from(d, 'UTF8'), convert_from(e[1], 'UTF8')) $$;
CREATE FUNCTION shop.ranges(a int4range, b tstzrange DEFAULT NULL, c datemultirange DEFAULT NULL) RETURNS int4range LANGUAGE sql STABLE AS 'SELECT a';
CREATE FUNCTION shop.others(a inet DEFAULT NULL, b regclass DEFAULT NULL, c point DEFAULT NULL, d money DEFAULT NULL, e xml DEFAULT NULL, f public.vector DEFAULT NULL) RETURNS text LANGUAGE sql STABLE AS $$ SELECT concat_ws('|', a, b, c, d::numeric, e, f) $$;
CREATE FUNCTION shop.a_track(a shop.track) RETURNS shop.track LANGUAGE sql STABLE AS 'SELECT a'; CREATE FUNCTION shop.tracks(a shop.track[]) RETURNS SETOF shop.track LANGUAGE sql STABLE AS 'SELECT * FROM unnest(a)';
CREATE FUNCTION shop.a_thing(a shop.things) RETURNS int LANGUAGE sql STABLE AS 'SELECT a.w'; CREATE FUNCTION shop.many_points(VARIADIC v shop.point[]) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT sum((p).x) FROM unnest(v) p';
CREATE FUNCTION shop.in_out(INOUT a int, INOUT b text DEFAULT 'x') LANGUAGE sql STABLE AS $$ SELECT a + 1, b || '!' $$; CREATE FUNCTION shop.one_in_out(INOUT a int) LANGUAGE sql STABLE AS 'SELECT a + 1';
CREATE FUNCTION shop.unnamed_out(a int, OUT int, OUT text) LANGUAGE sql STABLE AS $$ SELECT a, 'x' $$; CREATE FUNCTION shop.set_out(a int, OUT i int, OUT s text) RETURNS SETOF record LANGUAGE sql STABLE AS $$ SELECT k, k::text FROM generate_series(1, a) k $$;
CREATE FUNCTION shop.many_rows(n int, "limit" int DEFAULT 5000, cursor text DEFAULT NULL) RETURNS TABLE(id int) LANGUAGE sql STABLE AS $$ SELECT g.k FROM generate_series(coalesce((odin.cursor_decode(cursor)->>0)::int, 0) + 1, n) g(k) LIMIT "limit" $$;
CREATE FUNCTION shop.many_values(n int) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT generate_series(1, n)'; CREATE FUNCTION shop.own_names("limit" int DEFAULT 1, "select" text DEFAULT 's', "Ünïcode Ärg" text DEFAULT 'u') RETURNS text LANGUAGE sql STABLE AS $$ SELECT concat_ws('|', "limit", "select", "Ünïcode Ärg") $$;
SELECT odin.register_tool('shop.' || quote_ident(p.proname), description => 'A test.', toolset => 'core', page_by => CASE p.proname WHEN 'many_rows' THEN '{id}'::text[] END) FROM pg_proc p WHERE pronamespace = 'shop'::regnamespace ORDER BY p.oid \g /dev/null
SELECT odin.unregister_tool('others'), odin.register_tool('shop.others(inet, regclass, point, money, xml, vector)', description => 'A type of an extension without its schema.', toolset => 'core');

\echo what callers see:
SELECT v->>'name' || E'\n  takes   ' || ((v#>'{inputSchema,properties}') - '{response_format,fields}'::text[]) || coalesce(' needs ' || (v#>>'{inputSchema,required}'), '') || E'\n  answers ' || coalesce((v#>'{outputSchema,properties}') - '{note,count,next_cursor}'::text[], '{}')
  FROM (SELECT listing AS v, x.id FROM odin._visible('any_user'::regrole, NULL, ARRAY['tool'], NULL, false, false) x WHERE x.function LIKE 'shop.%') t ORDER BY id;

\echo good and bad arguments:
SET ROLE any_user;
SELECT t || ' ' || a || ' -> ' || CASE WHEN r ? 'error' THEN concat_ws(' ', r#>>'{error,code}', '[' || (r#>>'{error,field}') || ']', r#>>'{error,detail}', '> ' || nullif(r#>>'{error,hint}', 'Correct the named field and call again; do not repeat the same call.')) ELSE r::text END FROM (VALUES
  ('a_small', '{"a": 32767, "b": 2147483647, "c": 9223372036854775807, "d": 4294967295, "e": [1]}'), ('a_small', '{"a": 32768, "b": -2147483649, "d": -1}'), ('a_small', '{"a": 1, "c": 9223372036854775808}'), ('a_small', '{"a": 1, "e": [40000]}'), ('a_small', '{"a": 1.5}'), ('a_small', '{}'),
  ('domains', '{"a": 5, "b": 99.9, "c": "x@y", "d": "light blue", "e": "abc", "f": -3, "g": [1, 2], "h": "free"}'), ('domains', '{"a": 6, "b": 0.4, "d": "blue", "e": "a", "g": [3, 9]}'), ('domains', '{"a": 1, "c": "x"}'), ('domains', '{"a": 1, "f": 5}'), ('domains', '{"a": 1, "f": 4}'), ('domains', '{"a": 1, "h": "a AND (VALUE > 5)"}'),
  ('needs', '{"a": 1}'), ('needs', '{}'), ('needs', '{"a": null}'), ('moods', '{"a": "sad", "b": ["happy"]}'), ('moods', '{"a": "hapy"}'), ('moods', '{"a": "sad", "b": ["glad"]}'),
  ('times', '{"a": "2026-02-03", "b": "2026-02-03T04:05:06Z", "c": "2026-02-03T04:05:06", "d": "10:30", "e": "P1DT2H"}'), ('times', '{"a": "2026-02-30"}'), ('times', '{"a": "2026-02-03", "c": "never"}'), ('times', '{"a": "2026-02-03", "d": "25:00"}'), ('times', '{"a": "2026-02-03", "e": "soon"}'),
  ('exact', '{"a": 12345678901234567890.123456789, "b": 1.5, "c": "00000000-0000-0000-0000-000000000001", "d": "aMOk", "e": ["aGk="]}'), ('exact', '{"a": "12.50"}'), ('exact', '{"a": "NaN", "c": "zz"}'), ('exact', '{"a": 1, "b": 1e39}'), ('exact', '{"a": 1, "d": "!!!"}'), ('exact', '{"a": 1, "e": ["aGk"]}'),
  ('ranges', '{"a": "[1,5)", "b": "[2026-01-01,2026-02-01)", "c": "{[2026-01-01,2026-02-01)}"}'), ('ranges', '{"a": "5"}'), ('ranges', '{"a": "[5,1)"}'), ('others', '{"a": "10.0.0.1", "b": "pg_class", "c": "(1,2)", "d": "1.50", "e": "<a/>", "f": "[1,2]"}'), ('others', '{"a": "nope"}'), ('others', '{"b": "pg_nothing"}'), ('others', '{"e": "<a"}'), ('others', '{"f": "x"}'),
  ('a_track', '{"a": {"label": "l", "start": {"x": 1, "y": "2026-01-01"}, "more": [{"x": 2}, {"y": "2026-02-02"}]}}'), ('a_track', '{"a": {"start": {"x": "one"}}}'), ('a_track', '{"a": {"labl": "l", "start": {"z": 1}}}'), ('a_track', '{"a": {"start": {"y": "2026-02-31"}}}'), ('a_track', '{"a": {"start": {"x": 3000000000}}}'), ('tracks', '{"a": [{"label": "1", "more": [{"x": 1}]}, {}]}'), ('tracks', '{"a": [5]}'), ('tracks', '{"a": [{"more": [{"w": 1}]}]}'),
  ('a_thing', '{"a": {"id": 1, "w": 2}}'), ('many_points', '{"v": [{"x": 1}, {"x": 2}]}'), ('many_points', '{}'), ('in_out', '{"a": 1, "b": "y"}'), ('in_out', '{"a": 1}'), ('one_in_out', '{"a": 1}'), ('unnamed_out', '{"a": 1}'), ('set_out', '{"a": 2}'), ('set_out', '{"a": 2, "fields": ["s"]}'), ('set_out', '{"a": 2, "fields": ["t"]}'),
  ('own_names', '{"limit": 2, "Ünïcode Ärg": "ä"}')) v(t, a), LATERAL odin.call(t, a::jsonb) r;
\echo more rows than an answer holds are not cut in silence:
SELECT t, r->'count', r#>'{rows,999}', r->>'note', r ? 'next_cursor' FROM (VALUES ('many_rows', '{"n": 1000}'), ('many_rows', '{"n": 1001}'), ('many_values', '{"n": 1000}'), ('many_values', '{"n": 2500}')) v(t, a), LATERAL odin.call(t, a::jsonb) r;
WITH RECURSIVE p(n, a) AS (SELECT 1, odin.call('many_rows', '{"n": 2500}') UNION ALL SELECT n + 1, odin.call('many_rows', jsonb_build_object('n', 2500, 'cursor', a->>'next_cursor')) FROM p WHERE a ? 'next_cursor' AND n < 9)
SELECT count(DISTINCT n) AS pages, count(*) AS rows, count(DISTINCT e) AS different FROM p, jsonb_array_elements(a->'rows') e;
RESET ROLE;

\echo what is refused, and what to change:
CREATE FUNCTION shop.poly(a anyelement, b int) RETURNS text LANGUAGE sql AS 'SELECT a::text'; CREATE FUNCTION shop.polies(a int, b anyarray) RETURNS text LANGUAGE sql AS 'SELECT b::text'; CREATE FUNCTION shop.whatever(VARIADIC v "any") RETURNS int LANGUAGE internal STABLE AS 'pg_num_nulls';
CREATE FUNCTION shop.no_name(a int, text, date) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION shop.open_record(a int) RETURNS SETOF record LANGUAGE sql AS 'SELECT 1, 2'; CREATE FUNCTION shop.a_trigger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE PROCEDURE shop.a_procedure(a int) LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION shop.takes_dry_run(dry_run boolean, idempotency_key text DEFAULT NULL) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION shop.takes_fields(fields text) RETURNS TABLE(id int) LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION shop.twice(a int, b int) RETURNS int LANGUAGE sql AS 'SELECT 1'; CREATE FUNCTION shop.plain() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION pg_temp.refusal(f text, o jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE m text; h text;
BEGIN
  PERFORM odin._register('tool', '{"scope": "read", "area": "general", "toolset": "core", "description": "x"}' || o || jsonb_build_object('function', f));
  RAISE EXCEPTION 'registered' USING ERRCODE = 'OD036';
EXCEPTION WHEN SQLSTATE 'OD036' THEN
  GET STACKED DIAGNOSTICS m = MESSAGE_TEXT, h = PG_EXCEPTION_HINT;
  RETURN m || coalesce(' > ' || nullif(h, ''), '');
END $$;
SELECT f || ' ' || o || ': ' || pg_temp.refusal(f, o::jsonb) FROM (VALUES ('shop.poly', '{}'), ('shop.polies', '{}'), ('shop.whatever', '{}'), ('shop.no_name', '{}'), ('shop.open_record', '{}'), ('shop.a_trigger', '{}'), ('shop.a_procedure', '{}'), ('shop.takes_dry_run', '{"scope": "write"}'), ('shop.takes_dry_run', '{}'), ('shop.takes_fields', '{}'),
  ('shop.twice', '{"arguments": {"a": {"aliases": ["b"]}}}'), ('shop.twice', '{"arguments": {"a": {"aliases": ["response_format"]}}}'), ('shop.plain', '{"name": "with.dot"}'), ('shop.plain', format('{"name": "%s"}', repeat('n', 64))), ('shop.plain', '{"name": "search_tools"}'), ('shop.plain', '{"name": "call tool"}')) v(f, o);

\echo who owns a function does not matter, who may execute it does:
CREATE FUNCTION shop.foreign_one() RETURNS text LANGUAGE sql STABLE AS 'SELECT current_user::text'; ALTER FUNCTION shop.foreign_one() OWNER TO any_stranger; REVOKE ALL ON FUNCTION shop.foreign_one() FROM PUBLIC;
\set VERBOSITY terse
SET client_min_messages = warning; SELECT odin.register_tool('shop.foreign_one', description => 'x', toolset => 'core'); SELECT odin.register_tool('shop.plain', description => 'x', toolset => 'core'); SET client_min_messages = error;
SELECT r, EXISTS (SELECT 1 FROM odin._visible(r::regrole, NULL, ARRAY['tool'], NULL, false, true) v WHERE v.name = 'foreign_one') AS before FROM unnest(ARRAY['any_user', 'any_viewer']) r;
GRANT EXECUTE ON FUNCTION shop.foreign_one() TO any_user; REVOKE ALL ON FUNCTION shop.plain() FROM PUBLIC; GRANT EXECUTE ON FUNCTION shop.plain() TO odin_viewer;
SELECT r, EXISTS (SELECT 1 FROM odin._visible(r::regrole, NULL, ARRAY['tool'], NULL, false, true) v WHERE v.name = 'foreign_one') AS granted, EXISTS (SELECT 1 FROM odin._visible(r::regrole, NULL, ARRAY['tool'], NULL, false, true) v WHERE v.name = 'plain') AS schema_open FROM unnest(ARRAY['any_user', 'any_viewer', 'any_outsider']) r;
SET ROLE any_user; SELECT odin.call('foreign_one'); SET ROLE any_viewer; SELECT odin.call('foreign_one')#>>'{error,hint}'; SET ROLE any_outsider; SELECT r#>>'{error,code}', r#>>'{error,hint}' FROM odin.call('plain') r; RESET ROLE;

\echo every change of the registry has its version, its author and what was said before and after:
SELECT odin.register_tool('shop.plain', description => 'x', toolset => 'core', scope => 'write', confirm => 'human', timeout => '5 s');
DROP FUNCTION shop.plain(); SELECT * FROM odin.sync_tools() WHERE tool = 'plain'; CREATE FUNCTION shop.plain() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT * FROM odin.sync_tools() WHERE tool = 'plain'; SELECT odin.unregister_tool('plain');
SELECT act, version, changed_by, changed_at = now() OR changed_at < now() AS dated, before#>>'{registration,scope}' || ' ' || (before#>>'{registration,timeout_ms}') AS was, after#>>'{registration,scope}' || ' ' || (after#>>'{registration,timeout_ms}') AS is FROM odin.registry_log WHERE tool = 'plain' ORDER BY id;
