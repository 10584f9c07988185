-- search_records against the same query by hand, by the same role, on the same rows; and the time to compile a domain. Best of many runs, in ms.
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
CREATE TEMP TABLE asked(n int, what text, hand text, tool text);
INSERT INTO asked VALUES
  (1, 'one by key', $$SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT * FROM odin.customers WHERE id = 777 LIMIT 50) s$$, $$SELECT odin.search_records('customers', '[["id","=",777]]')$$),
  (2, 'page of 50, all fields', $$SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT * FROM odin.customers ORDER BY id LIMIT 50) s$$, $$SELECT odin.search_records('customers')$$),
  (3, 'page of 400, all fields', $$SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT * FROM odin.customers ORDER BY id LIMIT 400) s$$, $$SELECT odin.search_records('customers', '[]', NULL, NULL, 400)$$),
  (4, 'filter and order 20,000 rows', $$SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT id, name, email FROM odin.customers WHERE company ILIKE '%Firm 7%' AND (email <> 'x' OR email IS NULL) ORDER BY name, id LIMIT 50) s$$,
    $$SELECT odin.search_records('customers', '[["company","ilike","Firm 7"],["email","!=","x"]]', '{id,name,email}', 'name')$$),
  (5, 'over a link, 20,000 rows', $$SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT o.id, o.order_number, c.name FROM odin.orders o LEFT JOIN odin.customers c ON c.org_id = o.org_id AND c.id = o.customer_id
     WHERE o.priority <= 2 AND EXISTS (SELECT 1 FROM odin.customers x WHERE x.org_id = o.org_id AND x.id = o.customer_id AND x.company = 'Firm 9') ORDER BY o.due_at, o.id LIMIT 50) s$$,
    $$SELECT odin.search_records('orders', '[["priority","<=",2],["customer_id.company","=","Firm 9"]]', '{id,order_number,customer_id.name}', 'due_at')$$),
  (6, 'figures over 20,000 rows', $$SELECT jsonb_agg(to_jsonb(s)) FROM (SELECT priority, count(*) FROM odin.orders GROUP BY 1 ORDER BY 1) s$$, $$SELECT odin.aggregate_records('orders', '[]', '{priority}')$$);
GRANT SELECT ON asked TO rec_bench;
SET ROLE rec_bench;
SET search_path = pg_catalog, pg_temp;
SELECT what, round(h::numeric, 3) AS by_hand_ms, round(t::numeric, 3) AS tool_ms, round((t / h)::numeric, 2) AS ratio, round((t - h)::numeric, 3) AS more_ms
  FROM (SELECT n, what, pg_temp.best(hand, 100) AS h, pg_temp.best(tool, 100) AS t FROM asked) x ORDER BY n;
RESET ROLE;
-- A domain of five conditions, one over a link: what the leaf takes once it knows the tables.
SELECT odin._compile_records(jsonb_build_object('op', 'where', 'table', 'odin.orders'::regclass::oid::bigint, 'domain', '[["customer_id.company","=","x"]]'::jsonb), 'rec_bench') \g /dev/null
SELECT round((pg_temp.best(format($$SELECT to_jsonb(count(odin._records_compile('rec_bench'::regrole, ('{"op":"where","table":%s,"domain":["|",["priority","<=",2],"&",["status","in",["pending","partial"]],["order_number","ilike","a"],["customer_id.company","=","x"],["due_at","<","2026-01-01"]],"k":' || k || '}')::jsonb))) FROM generate_series(1, 1000) k$$, 'odin.orders'::regclass::oid), 10))::numeric, 1) AS compile_us;
