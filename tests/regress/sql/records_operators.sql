-- Every operator of the domain grammar on every type of column, against SQL written by hand. Only differences are printed.
\set ECHO none
\pset format unaligned
CREATE SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN shop.grade AS int CHECK (VALUE < 100);
CREATE TABLE shop.things (id int PRIMARY KEY, t text, v varchar(10), c char(4), i2 smallint, i4 int, i8 bigint, n numeric, f4 real, f8 float8, b boolean, d date, ts timestamp, tz timestamptz, tm time,
  iv interval, u uuid, j json, jb jsonb, y bytea, e shop.mood, ta text[], ia int[], ip inet, r int4range, m money, p point, g shop.grade, bt bit(4), tv tsvector, nn int NOT NULL);
INSERT INTO shop.things
SELECT k, 't' || k, 'v' || k, 'c' || k, k, k * 10, k * 100000000000, k + 0.5, k + 0.5, k + 0.25, k % 2 = 0, date '2026-01-01' + k, timestamp '2026-01-01 10:00' + k * interval '1 day',
  timestamptz '2026-01-01 10:00+00' + k * interval '1 day', time '08:00' + k * interval '1 hour', k * interval '1 hour', ('00000000-0000-0000-0000-00000000000' || k)::uuid,
  json_build_object('k', k, 'w', 'w' || k), jsonb_build_object('k', k, 'w', 'w' || k, 'deep', jsonb_build_object('f', k % 2 = 0)), decode('0' || k, 'hex'), (ARRAY['sad', 'ok', 'happy'])[1 + k % 3]::shop.mood,
  ARRAY['a' || k, 'z'], ARRAY[k, 99], ('10.0.0.' || k)::inet, int4range(k, k + 3), k::money, point(k, k), k, k::bit(4), to_tsvector('simple', 'w' || k), k
  FROM generate_series(1, 8) k;
INSERT INTO shop.things(id, nn) VALUES (9, 9);
INSERT INTO shop.things(id, t, b, ta, nn) VALUES (10, '50% off_\', true, '{}', 10);

-- A value of each column: as JSON, as SQL, and a text found in some of its values.
CREATE TEMP TABLE samples(col text, class text, value jsonb, literal text, part text);
INSERT INTO samples VALUES
  ('t', 'plain', '"t4"', $$'t4'$$, 'T4'), ('v', 'plain', '"v4"', $$'v4'$$, 'V4'), ('c', 'plain', '"c4"', $$'c4'::bpchar$$, 'C4'), ('i2', 'plain', '4', '4', '4'), ('i4', 'plain', '40', '40', '40'),
  ('i4', 'plain', '"40"', '40', '4'), ('i4', 'plain', '40.5', '40.5', '4'), ('i4', 'plain', '99999999999', '99999999999', '4'), ('i8', 'plain', '400000000000', '400000000000', '4'), ('n', 'plain', '4.5', '4.5', '4.5'),
  ('f4', 'plain', '4.5', '4.5', '4.5'), ('f8', 'plain', '4.25', '4.25', '.25'), ('d', 'plain', '"2026-01-05"', $$date '2026-01-05'$$, '-05'), ('ts', 'plain', '"2026-01-05 10:00"', $$timestamp '2026-01-05 10:00'$$, '-05'),
  ('tz', 'plain', '"2026-01-05T10:00:00Z"', $$timestamptz '2026-01-05 10:00+00'$$, '-05'), ('tm', 'plain', '"12:00"', $$time '12:00'$$, '12'), ('iv', 'plain', '"4 hours"', $$interval '4 hours'$$, '04'),
  ('u', 'plain', '"00000000-0000-0000-0000-000000000004"', $$'00000000-0000-0000-0000-000000000004'::uuid$$, '04'), ('y', 'plain', '"\\x04"', $$'\x04'::bytea$$, 'X04'), ('e', 'plain', '"ok"', $$'ok'::shop.mood$$, 'O'),
  ('ip', 'plain', '"10.0.0.4"', $$'10.0.0.4'::inet$$, '.4'), ('r', 'plain', '"[4,7)"', $$'[4,7)'::int4range$$, '4'), ('m', 'plain', '"4"', $$'4'::money$$, '4'), ('g', 'plain', '4', '4', '4'), ('bt', 'plain', '"0100"', $$B'0100'$$, '01'),
  ('tv', 'plain', '"w4"', $$'w4'::tsvector$$, 'W4'), ('nn', 'plain', '4', '4', '4'),
  ('p', 'mute', '"(4,4)"', NULL, '4'), ('b', 'truth', 'true', 'true', 'T'), ('b', 'truth', 'false', 'false', 'F'),
  ('j', 'json', '{"w": "w4", "k": 4}', $$'{"k": 4, "w": "w4"}'::jsonb$$, 'W4'), ('jb', 'json', '{"w": "w4", "k": 4, "deep": {"f": true}}', $$'{"k": 4, "w": "w4", "deep": {"f": true}}'::jsonb$$, 'W4'),
  ('ta', 'list', '"a4"', $$'a4'$$, 'A4'), ('ia', 'list', '4', '4', '4');

-- What each operator means, by hand: %1$s the column, %2$s the value, %3$s the text. NULL = refused.
CREATE TEMP TABLE meaning(class text, op text, form text, sql text);
INSERT INTO meaning VALUES
  ('plain', '=', 'one', '%1$s = %2$s'), ('plain', '!=', 'one', '%1$s <> %2$s OR %1$s IS NULL'), ('plain', '>', 'one', '%1$s > %2$s'), ('plain', '>=', 'one', '%1$s >= %2$s'), ('plain', '<', 'one', '%1$s < %2$s'),
  ('plain', '<=', 'one', '%1$s <= %2$s'), ('plain', '=?', 'one', '%1$s = %2$s'), ('plain', '=?', 'empty', 'true'), ('plain', '=', 'empty', '%1$s IS NULL'), ('plain', '!=', 'empty', '%1$s IS NOT NULL'), ('plain', '<', 'empty', NULL),
  ('plain', 'in', 'list', '%1$s IN (%2$s)'), ('plain', 'not in', 'list', '%1$s IS NULL OR %1$s NOT IN (%2$s)'), ('plain', 'in', 'list or empty', '%1$s IN (%2$s) OR %1$s IS NULL'),
  ('plain', 'not in', 'list or empty', '%1$s IS NOT NULL AND %1$s <> %2$s'), ('plain', 'in', 'none', 'false'), ('plain', 'not in', 'none', 'true'), ('plain', '=', 'list', '%1$s = %2$s'), ('plain', 'any', 'none', NULL), ('plain', 'child_of', 'one', NULL),
  ('plain', 'parent_of', 'one', NULL), ('plain', 'not any', 'none', NULL),
  ('mute', '=', 'one', NULL), ('mute', '!=', 'one', NULL), ('mute', '<', 'one', NULL), ('mute', 'in', 'list', NULL), ('mute', '=', 'empty', '%1$s IS NULL'), ('mute', '!=', 'empty', '%1$s IS NOT NULL'), ('mute', '=?', 'empty', 'true'),
  ('truth', '=', 'one', 'coalesce(%1$s, false) = %2$s'), ('truth', '!=', 'one', 'coalesce(%1$s, false) <> %2$s'), ('truth', 'in', 'list', 'coalesce(%1$s, false) = %2$s'), ('truth', 'not in', 'list', 'coalesce(%1$s, false) <> %2$s'),
  ('truth', 'in', 'none', 'false'), ('truth', 'not in', 'none', 'true'), ('truth', '=?', 'one', '%2$s IS FALSE OR %1$s IS TRUE'), ('truth', '<', 'one', NULL), ('truth', '>=', 'one', NULL),
  ('json', '=', 'one', '%1$s::jsonb = %2$s'), ('json', '!=', 'one', '%1$s IS NULL OR %1$s::jsonb <> %2$s'), ('json', 'in', 'list', '%1$s::jsonb = %2$s'), ('json', 'not in', 'list', '%1$s IS NULL OR %1$s::jsonb <> %2$s'),
  ('json', '=', 'empty', '%1$s IS NULL'), ('json', '!=', 'empty', '%1$s IS NOT NULL'), ('json', '>', 'one', NULL), ('json', '=?', 'one', '%1$s::jsonb = %2$s'),
  ('list', '=', 'one', '%2$s = ANY (%1$s)'), ('list', '!=', 'one', '%1$s IS NULL OR %2$s <> ALL (%1$s)'), ('list', 'in', 'list', '%1$s && ARRAY[%2$s]'), ('list', 'not in', 'list', '%1$s IS NULL OR NOT %1$s && ARRAY[%2$s]'),
  ('list', '=', 'empty', '%1$s IS NULL OR cardinality(%1$s) = 0'), ('list', '!=', 'empty', 'cardinality(%1$s) > 0'), ('list', '>', 'one', NULL), ('list', 'in', 'none', 'false'), ('list', '=', 'list', '%1$s = ARRAY[%2$s]'), ('list', '=?', 'one', '%2$s = ANY (%1$s)');
INSERT INTO meaning SELECT c, o, 'text', CASE c WHEN 'list' THEN format('EXISTS (SELECT FROM unnest(%%1$s) q WHERE q::text %s)', h) ELSE format('%%1$s::text %s', h) END
  FROM unnest(ARRAY['plain', 'mute', 'truth', 'json', 'list']) c, (VALUES ('like', $$LIKE '%%%%' || %3$L || '%%%%'$$), ('ilike', $$ILIKE '%%%%' || %3$L || '%%%%'$$), ('=like', 'LIKE %3$L'), ('=ilike', 'ILIKE %3$L')) x(o, h);
INSERT INTO meaning SELECT class, 'not ' || op, form, format('(%s) IS NOT TRUE', sql) FROM meaning WHERE form = 'text' AND op IN ('like', 'ilike');
INSERT INTO meaning SELECT class, 'ilike', 'nothing', 'true' FROM samples GROUP BY 1, 2;

CREATE FUNCTION pg_temp.found(domain jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  RETURN (SELECT coalesce(string_agg(e->>'id', ',' ORDER BY (e->>'id')::int), '-') FROM jsonb_array_elements(odin.search_records('shop.things', domain, '{id}')->'records') e);
EXCEPTION WHEN SQLSTATE 'OD001' THEN RETURN 'refused';
END $$;
CREATE FUNCTION pg_temp.wanted(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r text;
BEGIN
  IF condition IS NULL THEN RETURN 'refused'; END IF;
  EXECUTE format('SELECT coalesce(string_agg(id::text, '','' ORDER BY id), ''-'') FROM shop.things WHERE %s', condition) INTO r;
  RETURN r;
END $$;
CREATE TEMP TABLE tried AS
SELECT s.col, m.op, d.domain, pg_temp.found(d.domain) AS got, pg_temp.wanted(format(m.sql, s.col, s.literal, s.part)) AS wanted
  FROM samples s JOIN meaning m USING (class),
       LATERAL (SELECT jsonb_build_array(jsonb_build_array(s.col, m.op, CASE m.form WHEN 'one' THEN s.value WHEN 'empty' THEN 'false' WHEN 'list' THEN jsonb_build_array(s.value) WHEN 'none' THEN '[]'
          WHEN 'list or empty' THEN jsonb_build_array(s.value, false) WHEN 'text' THEN to_jsonb(s.part) WHEN 'nothing' THEN '""' END)) AS domain) d;
-- Negation is the complement, whatever the operator.
INSERT INTO tried SELECT col, '! ' || op, x.domain, pg_temp.found(x.domain), coalesce((SELECT string_agg(id::text, ',' ORDER BY id) FROM shop.things WHERE id::text <> ALL (string_to_array(t.wanted, ','))), '-')
  FROM tried t, LATERAL (SELECT '["!"]'::jsonb || t.domain AS domain) x WHERE t.wanted <> 'refused';
\echo differences:
SELECT col, op, domain, got, wanted FROM tried WHERE got IS DISTINCT FROM wanted ORDER BY 1, 2, 3;
SELECT count(*) AS tried, count(DISTINCT (col, op)) AS column_and_operator, count(*) FILTER (WHERE wanted = 'refused') AS refused, count(*) FILTER (WHERE wanted NOT IN ('refused', '-')) AS with_rows FROM tried;
\echo operators that a column was not tried with:
SELECT c.col, o.op FROM (SELECT DISTINCT col FROM samples) c, unnest(ARRAY['=', '!=', '<', '>=', 'in', 'not in', 'like', 'not like', 'ilike', 'not ilike', '=like', '=ilike', '=?']) o(op)
 WHERE NOT EXISTS (SELECT 1 FROM tried t WHERE t.col = c.col AND t.op = o.op)
   AND NOT (o.op IN ('<', '>=') AND EXISTS (SELECT 1 FROM tried t WHERE t.col = c.col AND t.op IN ('<', '>') AND t.got = 'refused')) AND NOT (o.op = 'not in' AND c.col = 'p') ORDER BY 1, 2;
\echo texts with pattern signs, paths into JSON:
SELECT pg_temp.found('[["t", "ilike", "50\\% OFF\\_"]]') AS escaped, pg_temp.found('[["t", "like", "_\\"]]') AS open_escape, pg_temp.found('[["t", "=like", "t%"]]') AS raw;
SELECT pg_temp.found('[["jb.k", ">=", 7]]') AS number, pg_temp.found('[["jb.deep.f", "=", true]]') AS truth, pg_temp.found('[["jb.w", "in", ["w1", "w2"]]]') AS words, pg_temp.found('[["jb.none", "=", null]]') AS absent, pg_temp.found('[["j.w", "ilike", "W3"]]') AS text;

\echo trees, links and prefix operators:
CREATE TABLE shop.areas (id int PRIMARY KEY, name text, parent_id int REFERENCES shop.areas);
CREATE TABLE shop.tools (id int PRIMARY KEY, label text, area_id int REFERENCES shop.areas, thing_id int REFERENCES shop.things);
INSERT INTO shop.areas VALUES (1, 'Hall', NULL), (2, 'Row A', 1), (3, 'Shelf A1', 2), (4, 'Row B', 1), (5, 'Yard', NULL);
INSERT INTO shop.tools VALUES (1, 'saw', 3, 1), (2, 'drill', 4, 1), (3, 'rake', 5, 2), (4, 'loose', NULL, NULL);
-- A ring, as no tree should have: the walk must end.
INSERT INTO shop.areas VALUES (6, 'Ring', NULL), (7, 'Ring too', 6); UPDATE shop.areas SET parent_id = 7 WHERE id = 6;
CREATE FUNCTION pg_temp.ids(model text, domain jsonb) RETURNS text LANGUAGE sql AS $$
  SELECT coalesce(string_agg(e->>'id', ','), '-') FROM jsonb_array_elements(odin.search_records(model, domain, '{id}')->'records') e $$;
SELECT d AS domain, pg_temp.ids(m, d) AS got, w AS wanted, pg_temp.ids(m, d) = w AS same FROM (VALUES
  ('shop.areas', '[["id", "child_of", 1]]'::jsonb, '1,2,3,4'), ('shop.areas', '[["id", "child_of", [2, 5]]]', '2,3,5'), ('shop.areas', '[["id", "child_of", "row"]]', '2,3,4'), ('shop.areas', '[["id", "child_of", 6]]', '6,7'),
  ('shop.areas', '[["id", "parent_of", 3]]', '1,2,3'), ('shop.areas', '[["parent_id", "child_of", 2]]', '3'), ('shop.areas', '[["id", "child_of", false]]', '-'), ('shop.areas', '["!", ["id", "child_of", 1]]', '5,6,7'),
  ('shop.tools', '[["area_id", "child_of", 1]]', '1,2'), ('shop.tools', '[["area_id", "child_of", "hall"]]', '1,2'), ('shop.tools', '[["area_id", "parent_of", 3]]', '1'), ('shop.tools', '[["thing_id", "child_of", 1]]', '1,2'),
  ('shop.tools', '[["area_id.name", "ilike", "row"]]', '2'), ('shop.tools', '[["area_id.parent_id.name", "=", "Row A"]]', '1'), ('shop.tools', '[["area.name", "!=", "Yard"]]', '1,2'), ('shop.tools', '[["area_id", "ilike", "row"]]', '2'),
  ('shop.tools', '[["area_id", "not ilike", "row"]]', '1,3,4'), ('shop.tools', '[["area_id", "=", "Yard"]]', '3'), ('shop.tools', '[["area_id", "in", ["Yard", "Row B"]]]', '2,3'), ('shop.tools', '[["area_id", "=", false]]', '4'),
  ('shop.tools', '["!", ["area_id.name", "=", "Yard"]]', '1,2,4'), ('shop.tools', '[["area_id", "any", [["parent_id", "=", false]]]]', '3'), ('shop.tools', '[["area_id", "not any", [["parent_id", "=", false]]]]', '1,2,4'),
  ('shop.areas', '[["tools.label", "=", "saw"]]', '3'), ('shop.areas', '[["tools", "=", false]]', '1,2,6,7'), ('shop.areas', '[["tools", "!=", false]]', '3,4,5'), ('shop.areas', '[["tools", "in", [1, 3]]]', '3,5'),
  ('shop.areas', '[["tools", "ilike", "r"]]', '4,5'), ('shop.things', '[["tools.area_id.name", "like", "Row"]]', '1'), ('shop.areas', '[["areas.tools", "!=", false]]', '1,2'),
  ('shop.tools', '["|", ["label", "=", "saw"], ["label", "=", "rake"]]', '1,3'), ('shop.tools', '["|", "&", ["id", ">", 1], ["id", "<", 3], ["id", "=", 4]]', '2,4'), ('shop.tools', '["!", "|", ["id", "=", 1], "!", ["id", "<", 3]]', '2'),
  ('shop.tools', '[["id", ">", 1], "|", ["id", "=", 2], ["id", "=", 1]]', '2'), ('shop.tools', '["|", [["id", ">", 1], ["id", "<", 3]], [["id", "=", 4]]]', '2,4'), ('shop.tools', '["id", "=", 3]', '3'), ('shop.tools', '[[1, "=", 1]]', '1,2,3,4'),
  ('shop.tools', '[[0, "=", 1]]', '-'), ('shop.tools', '"[(''id'', ''in'', (1, 2)), (''label'', ''!='', False)]"', '1,2'), ('shop.tools', '[]', '1,2,3,4'), ('shop.tools', '"[]"', '1,2,3,4')) x(m, d, w)
 WHERE pg_temp.ids(m, d) IS DISTINCT FROM w;
