-- Pages: whatever the order, empty values and ties included, walking by cursor gives every row once and in the order of one big page.
\set ECHO none
\pset format unaligned
CREATE SCHEMA shop;
CREATE TABLE shop.items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a int, b text, c timestamptz, d numeric NOT NULL, e boolean NOT NULL, other bigint REFERENCES shop.items);
INSERT INTO shop.items(a, b, c, d, e) SELECT nullif(k % 7, 0), CASE WHEN k % 5 > 0 THEN 'b' || k % 5 END, CASE WHEN k % 3 > 0 THEN timestamptz '2026-01-01' + (k % 3) * interval '1.000001 s' END, (k % 11) / 3.0, k % 2 = 0 FROM generate_series(1, 97) k;
UPDATE shop.items SET other = 98 - id WHERE id % 4 > 0;
CREATE TABLE shop.pairs (x int, y text, z int, PRIMARY KEY (x, y));
INSERT INTO shop.pairs SELECT k / 5, 'y' || k % 5, k FROM generate_series(0, 29) k;
CREATE VIEW shop.sums WITH (security_invoker = true) AS SELECT x, sum(z) AS total FROM shop.pairs GROUP BY x;

CREATE FUNCTION pg_temp.walk(m text, o text, size int, d jsonb DEFAULT '[]', f text[] DEFAULT NULL) RETURNS TABLE(pages int, rows jsonb) LANGUAGE plpgsql AS $$
DECLARE
  answer jsonb;
  next text;
BEGIN
  pages := 0; rows := '[]';
  LOOP
    answer := odin.search_records(m, d, f, o, size, next);
    pages := pages + 1; rows := rows || (answer->'records'); next := answer->>'next_cursor';
    EXIT WHEN next IS NULL OR pages > 200;
  END LOOP;
  RETURN NEXT;
END $$;
\echo orders whose pages differ from one big page:
SELECT o, size, w.pages FROM unnest(ARRAY[NULL, 'id desc', 'a', 'a desc', 'a nulls first', 'a desc nulls last', 'b, a desc', 'c desc, b', 'd', 'd desc, e', 'e, d', 'e desc, d desc, id desc', 'a, b, c, d, e', 'other.a desc, other', 'other.b nulls first, c desc nulls last', 'other_id']) o,
  unnest(ARRAY[1, 4, 10, 96, 97]) size, LATERAL (SELECT odin.search_records('shop.items', '[]', '{id}', nullif(o, 'other_id'), 1000)->'records' AS rows) big, LATERAL pg_temp.walk('shop.items', nullif(o, 'other_id'), size, '[]', '{id}') w
 WHERE w.rows IS DISTINCT FROM big.rows OR w.pages <> ceil(97.0 / size) OR jsonb_array_length(big.rows) <> 97;
SELECT o, w.pages, w.rows = (odin.search_records('shop.pairs', '[]', NULL, o, 1000)->'records') AS same FROM unnest(ARRAY[NULL, 'y desc', 'z desc', 'x desc, y']) o, LATERAL pg_temp.walk('shop.pairs', o, 7) w;
\echo the order is that of PostgreSQL:
SELECT (SELECT array_agg((e->>'id')::bigint ORDER BY n) FROM jsonb_array_elements(odin.search_records('shop.items', '[]', '{id}', 'a desc, c nulls first', 1000)->'records') WITH ORDINALITY r(e, n)) =
       (SELECT array_agg(id ORDER BY a DESC, c NULLS FIRST, id) FROM shop.items) AS same;
\echo a cursor belongs to its model and order:
\set VERBOSITY terse
SELECT odin.search_records('shop.items', '[]', '{id}', 'a', 5)->>'next_cursor' AS cursor \gset
SELECT odin.search_records('shop.items', '[]', '{id}', 'b', 5, :'cursor');
SELECT odin.search_records('shop.pairs', '[]', '{x}', NULL, 5, :'cursor');
SELECT odin.search_records('shop.items', '[]', '{id}', 'a', 5, 'rubbish');
SELECT odin.search_records('shop.items', '[]', '{id}', 'a', 5, odin.cursor_encode('[1, {"a": 1}]'));
\echo what is cut says so:
SELECT answer->'count' AS count, answer ? 'next_cursor' AS next, answer->>'note' AS note FROM odin.search_records('shop.sums', '[]', NULL, 'total desc', 3) answer;
CREATE TABLE shop.large (id int PRIMARY KEY, body text);
INSERT INTO shop.large SELECT k, repeat('x', 30000) FROM generate_series(1, 20) k;
SELECT answer->'count' AS count, answer ? 'next_cursor' AS next, answer->>'note' AS note FROM odin.search_records('shop.large') answer;
SELECT w.pages, jsonb_array_length(w.rows) AS rows FROM pg_temp.walk('shop.large', NULL, 50) w;
INSERT INTO shop.large VALUES (0, repeat('x', 300000));
SELECT odin.search_records('shop.large');
SELECT answer->'count' AS count FROM odin.search_records('shop.large', '[]', '{id}') answer;
SELECT odin.aggregate_records('shop.items', '[]', '{id}', '{count}', '[]', NULL, 5)->>'note' AS note;
\echo figures against SQL:
SELECT odin.aggregate_records('shop.items', '[["e", "=", true]]', '{a}', '{count,d:sum,d:avg,b:count_distinct,c:max}', '[["count", ">", 6]]', 'd:sum desc, a')->'groups' =
  (SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT a, count(*) AS count, sum(d) AS "d:sum", avg(d) AS "d:avg", count(DISTINCT b) AS "b:count_distinct", max(c) AS "c:max" FROM shop.items WHERE e GROUP BY a HAVING count(*) > 6 ORDER BY sum(d) DESC NULLS LAST, a) s) AS same;
SELECT odin.aggregate_records('shop.items', '[]', '{c:day,other.e}', '{count}', '[]', 'c:day nulls first, other.e')->'groups' AS by_day_and_link;
SELECT odin.aggregate_records('shop.items', '[["id", "<", 0]]')->'groups' AS of_nothing, odin.aggregate_records('shop.items', '[["id", "<", 0]]', '{a}')->'groups' AS groups_of_nothing;
\echo read_records keeps the order asked for and names what is missing:
SELECT odin.read_records('shop.items', '[5, 3, 999, 3]', '{a}');
SELECT odin.read_records('shop.pairs', '[{"x": 1, "y": "y2"}, {"x": 0, "y": "y0"}]', '{z}');
SELECT odin.read_records('shop.pairs', '[1]');
SELECT odin.read_records('shop.items', '[999]');
SELECT odin.read_records('shop.items', '["five"]');
\echo explain shows the way, not the data:
SELECT odin.search_records('shop.items', '[["b", "=", "a secret"], ["other.a", "=", 3]]', '{id}', 'id', 5, NULL, true);
