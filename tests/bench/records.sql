-- search_records against the same query by hand, by the same role, on the same rows, with the same answer; and the time to compile a domain.
-- For a database with the farm and nothing else in it; tests/bench/records.sh runs it.
\set ECHO none
SET client_min_messages = warning;
DO $$ BEGIN IF to_regrole('rec_bench') IS NULL THEN CREATE ROLE rec_bench; END IF; END $$; GRANT odin_viewer TO rec_bench;
INSERT INTO odin.orgs(name) SELECT 'Bench ' || k FROM generate_series(1, 10) k;
SELECT odin.add_member('rec_bench', id) FROM odin.orgs WHERE name IN ('Bench 1', 'Bench 2') \g /dev/null
INSERT INTO odin.customers(org_id, name, email, company) SELECT o.id, 'Customer ' || k, 'c' || k || '@example.com', 'Firm ' || k % 100 FROM odin.orgs o, generate_series(1, 10000) k WHERE o.name LIKE 'Bench %';
INSERT INTO odin.orders(org_id, customer_id, order_number, priority, due_at) SELECT c.org_id, c.id, 'B-' || c.id, c.id % 5, now() + c.id % 100 * interval '1 hour' FROM odin.customers c WHERE c.name LIKE 'Customer %';
ANALYZE odin.customers; ANALYZE odin.orders;
CREATE FUNCTION pg_temp.best(sql text, times int) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
  began timestamptz; best float8 := 'infinity'; r jsonb;
BEGIN
  FOR i IN 1..times LOOP
    began := clock_timestamp();
    EXECUTE sql INTO r;
    best := least(best, extract(epoch FROM clock_timestamp() - began) * 1000);
  END LOOP;
  RETURN best;
END $$;
-- The hand's query answers with the very same JSON, cursor aside: it is what a tool written for this one question would say. $1 is k, other in every run.
CREATE TEMP TABLE asked(n int, what text, hand text, tool text);
INSERT INTO asked VALUES
  (1, 'one by key', $$SELECT jsonb_build_object('model', 'odin.customers', 'records', coalesce(jsonb_agg(to_jsonb(s)), '[]'), 'count', count(*)) FROM (SELECT * FROM odin.customers WHERE id = $1 LIMIT 50) s$$,
    $$SELECT odin.search_records('customers', jsonb_build_array(jsonb_build_array('id', '=', $1)))$$),
  (2, 'page of 50, all fields', $$WITH p AS MATERIALIZED (SELECT * FROM odin.customers WHERE id > $1 ORDER BY id LIMIT 51), s AS (SELECT * FROM p ORDER BY id LIMIT 50)
     SELECT jsonb_build_object('model', 'odin.customers', 'records', jsonb_agg(to_jsonb(s)), 'count', count(*)) || CASE WHEN (SELECT count(*) FROM p) > 50 THEN jsonb_build_object('next_cursor', max(id)) ELSE '{}' END FROM s$$,
    $$SELECT odin.search_records('customers', jsonb_build_array(jsonb_build_array('id', '>', $1)))$$),
  (3, 'page of 400, all fields', $$WITH p AS MATERIALIZED (SELECT * FROM odin.customers WHERE id > $1 ORDER BY id LIMIT 401), s AS (SELECT * FROM p ORDER BY id LIMIT 400)
     SELECT jsonb_build_object('model', 'odin.customers', 'records', jsonb_agg(to_jsonb(s)), 'count', count(*)) || CASE WHEN (SELECT count(*) FROM p) > 400 THEN jsonb_build_object('next_cursor', max(id)) ELSE '{}' END FROM s$$,
    $$SELECT odin.search_records('customers', jsonb_build_array(jsonb_build_array('id', '>', $1)), NULL, NULL, 400)$$),
  (4, 'filter and order 20,000 rows', $$WITH p AS MATERIALIZED (SELECT id, name, email FROM odin.customers WHERE company ILIKE '%Firm 7%' AND (email <> 'x' OR email IS NULL) AND id <> $1 ORDER BY name, id LIMIT 51), s AS (SELECT * FROM p ORDER BY name, id LIMIT 50)
     SELECT jsonb_build_object('model', 'odin.customers', 'records', jsonb_agg(to_jsonb(s)), 'count', count(*)) || CASE WHEN (SELECT count(*) FROM p) > 50 THEN jsonb_build_object('next_cursor', max(id)) ELSE '{}' END FROM s$$,
    $$SELECT odin.search_records('customers', jsonb_build_array('["company","ilike","Firm 7"]'::jsonb, '["email","!=","x"]'::jsonb, jsonb_build_array('id', '!=', $1)), '{id,name,email}', 'name')$$),
  (5, 'over a link, 20,000 rows', $$WITH p AS MATERIALIZED (SELECT o.id, o.order_number, c.name AS "customer_id.name", o.due_at FROM odin.orders o LEFT JOIN odin.customers c ON c.org_id = o.org_id AND c.id = o.customer_id
       WHERE o.priority <= 2 AND EXISTS (SELECT 1 FROM odin.customers x WHERE x.org_id = o.org_id AND x.id = o.customer_id AND x.company = 'Firm 9') AND o.id <> $1 ORDER BY o.due_at, o.id LIMIT 51),
     s AS (SELECT id, order_number, "customer_id.name" FROM p ORDER BY due_at, id LIMIT 50)
     SELECT jsonb_build_object('model', 'odin.orders', 'records', jsonb_agg(to_jsonb(s)), 'count', count(*)) || CASE WHEN (SELECT count(*) FROM p) > 50 THEN jsonb_build_object('next_cursor', max(id)) ELSE '{}' END FROM s$$,
    $$SELECT odin.search_records('orders', jsonb_build_array('["priority","<=",2]'::jsonb, '["customer_id.company","=","Firm 9"]'::jsonb, jsonb_build_array('id', '!=', $1)), '{id,order_number,customer_id.name}', 'due_at')$$),
  (6, 'figures over 20,000 rows', $$SELECT jsonb_build_object('model', 'odin.orders', 'groups', jsonb_agg(to_jsonb(s)), 'count', count(*)) FROM (SELECT priority, count(*) FROM odin.orders WHERE id <> $1 GROUP BY 1 ORDER BY 1) s$$,
    $$SELECT odin.aggregate_records('orders', jsonb_build_array(jsonb_build_array('id', '!=', $1)), '{priority}')$$);
GRANT SELECT ON asked TO PUBLIC;
-- Both sides with another value in every run, in turn; the middle of many runs, in ms. Sent: as text, one round trip each, which is what a program that asks once does.
-- Kept: prepared long before on both sides, which only a program that asks the same again and again does.
CREATE FUNCTION pg_temp.compared(n int, what text, ask text, tell text, times int) RETURNS TABLE(hand float8, tool float8) LANGUAGE plpgsql AS $$
DECLARE
  began timestamptz; a jsonb; b jsonb; hands float8[] := '{}'; tools float8[] := '{}';
BEGIN
  FOR i IN 1..times LOOP
    began := clock_timestamp();
    EXECUTE replace(ask, '$1', format('%s::bigint', 10 * i + 1)) INTO a;
    hands := hands || extract(epoch FROM clock_timestamp() - began)::float8;
    began := clock_timestamp();
    EXECUTE replace(tell, '$1', format('%s::bigint', 10 * i + 1)) INTO b;
    tools := tools || extract(epoch FROM clock_timestamp() - began)::float8;
    IF a - 'next_cursor' IS DISTINCT FROM b - 'next_cursor' OR (a ? 'next_cursor') <> (b ? 'next_cursor') OR (a->>'count')::int = 0 THEN
      RAISE EXCEPTION '%: not the same answer: % %', what, left(a::text, 500), left(b::text, 500);
    END IF;
  END LOOP;
  RETURN QUERY SELECT 1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY h), 1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY t) FROM unnest(hands[20:], tools[20:]) u(h, t);
END $$;
SELECT format('CREATE FUNCTION pg_temp.%s_%s(k bigint) RETURNS jsonb LANGUAGE plpgsql AS %L', w, n, format('BEGIN RETURN (%s); END', replace(q, '$1', 'k'))) FROM asked, LATERAL (VALUES ('hand', hand), ('tool', tool)) v(w, q) \gexec
SET ROLE rec_bench;
SET search_path = pg_catalog, pg_temp;
SELECT x.what, round(c.hand::numeric, 3) AS by_hand_ms, round(c.tool::numeric, 3) AS tool_ms, round((c.tool / c.hand)::numeric, 2) AS ratio, round((c.tool - c.hand)::numeric, 3) AS more_ms, x.how
  FROM (SELECT a.n, a.what, h.* FROM asked a, LATERAL (VALUES ('sent', a.hand, a.tool), ('kept', format('SELECT pg_temp.hand_%s($1)', a.n), format('SELECT pg_temp.tool_%s($1)', a.n))) h(how, hand, tool) ORDER BY a.n OFFSET 0) x,
       LATERAL pg_temp.compared(x.n, x.what, x.hand, x.tool, 150) c ORDER BY x.how DESC, x.n;
RESET ROLE;
-- A domain of five conditions, one over a link: what the leaf takes once it knows the tables.
SELECT odin._compile_records(jsonb_build_object('op', 'where', 'table', 'odin.orders'::regclass::oid::bigint, 'domain', '[["customer_id.company","=","x"]]'::jsonb), 'rec_bench') \g /dev/null
SELECT round((pg_temp.best(format($$SELECT to_jsonb(count(odin._records_compile('rec_bench'::regrole, ('{"op":"where","table":%s,"domain":["|",["priority","<=",2],"&",["status","in",["pending","partial"]],["order_number","ilike","a"],["customer_id.company","=","x"],["due_at","<","2026-01-01"]],"k":' || k || '}')::jsonb))) FROM generate_series(1, 1000) k$$, 'odin.orders'::regclass::oid), 10))::numeric, 1) AS compile_us;
