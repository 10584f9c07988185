-- Plans that a backend keeps follow rights, policies and tables: the same question of several roles in one session, while everything around it changes.
\set ECHO none
\pset format unaligned
\pset tuples_only on
SET client_min_messages = error;
CREATE ROLE plan_one; CREATE ROLE plan_two; CREATE ROLE plan_boss; GRANT odin_viewer TO plan_one, plan_two; GRANT odin_admin TO plan_boss;
INSERT INTO odin.orgs(name) VALUES ('Plans A'), ('Plans B');
SELECT odin.add_member('plan_one', id) FROM odin.orgs WHERE name = 'Plans A' \g /dev/null
SELECT odin.add_member('plan_two', id) FROM odin.orgs WHERE name = 'Plans B' \g /dev/null
INSERT INTO odin.customers(org_id, name, notes) SELECT o.id, o.name || ' customer ' || k, 'note' FROM odin.orgs o, generate_series(1, 2) k WHERE o.name LIKE 'Plans %';
CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO plan_one, plan_two;
CREATE TABLE shop.parts (id int PRIMARY KEY, owner text, name text, cost int); INSERT INTO shop.parts SELECT k, CASE k % 2 WHEN 0 THEN 'plan_one' ELSE 'plan_two' END, 'part ' || k, k FROM generate_series(1, 6) k;
GRANT SELECT ON shop.parts TO plan_one, plan_two;
CREATE FUNCTION pg_temp.customers(who name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE r jsonb;
BEGIN
  EXECUTE format('SET LOCAL ROLE %I', who);
  r := odin.search_records('customers', '[["name", "ilike", "customer"]]', '{name}');
  RETURN (SELECT string_agg(e->>'name', ', ' ORDER BY e->>'name') FROM jsonb_array_elements(r->'records') e);
END $$;
CREATE FUNCTION pg_temp.parts(who name, domain jsonb DEFAULT '[["id", "<=", 4]]', model text DEFAULT 'shop.parts') RETURNS text LANGUAGE plpgsql AS $$
DECLARE m text; h text; s text;
BEGIN
  EXECUTE format('SET LOCAL ROLE %I', who);
  RETURN odin.search_records(model, domain)->>'records';
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS s = RETURNED_SQLSTATE, m = MESSAGE_TEXT;
  RETURN s || ' ' || m;
END $$;
\echo two roles, one session, in turn, past the point where a plan becomes a general one:
SELECT who, string_agg(DISTINCT said, ' / ') FROM (SELECT r AS who, k, pg_temp.customers(r) AS said FROM generate_series(1, 8) k, unnest(ARRAY['plan_one', 'plan_two']::name[]) r ORDER BY k, r) x GROUP BY 1 ORDER BY 1;
RESET ROLE;
\echo a membership more, a membership less:
SELECT odin.add_member('plan_one', id) FROM odin.orgs WHERE name = 'Plans B' \g /dev/null
SELECT pg_temp.customers('plan_one');
RESET ROLE;
SELECT odin.remove_member('plan_one', id) FROM odin.orgs WHERE name LIKE 'Plans %' \g /dev/null
SELECT coalesce(pg_temp.customers('plan_one'), 'nothing');
RESET ROLE;
\echo a policy, its change, and its end:
SELECT pg_temp.parts('plan_one'); RESET ROLE;
ALTER TABLE shop.parts ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON shop.parts USING (owner = current_user); SELECT pg_temp.parts('plan_one'); RESET ROLE; SELECT pg_temp.parts('plan_two'); RESET ROLE;
ALTER POLICY mine ON shop.parts USING (owner = current_user AND cost > 2); SELECT pg_temp.parts('plan_one'); RESET ROLE;
ALTER TABLE shop.parts DISABLE ROW LEVEL SECURITY; SELECT pg_temp.parts('plan_two', '[["id", "=", 2]]'); RESET ROLE;
\echo a column taken away, given back, renamed, added, dropped:
REVOKE SELECT ON shop.parts FROM plan_one; GRANT SELECT (id, name) ON shop.parts TO plan_one; SELECT pg_temp.parts('plan_one', '[["id", "=", 2]]'); RESET ROLE; SELECT pg_temp.parts('plan_one', '[["cost", "=", 2]]'); RESET ROLE; SELECT pg_temp.parts('plan_two', '[["id", "=", 2]]'); RESET ROLE;
GRANT SELECT ON shop.parts TO plan_one; SELECT pg_temp.parts('plan_one', '[["id", "=", 2]]'); RESET ROLE;
ALTER TABLE shop.parts RENAME name TO label; SELECT pg_temp.parts('plan_one', '[["id", "=", 2]]'); RESET ROLE;
ALTER TABLE shop.parts ADD COLUMN weight int DEFAULT 7, DROP COLUMN owner CASCADE; SELECT pg_temp.parts('plan_one', '[["id", "=", 2]]'); RESET ROLE;
ALTER TABLE shop.parts ALTER cost TYPE text; SELECT pg_temp.parts('plan_one', '[["cost", "=", "2"]]'); RESET ROLE;
\echo the table made anew, and closed:
ALTER TABLE shop.parts RENAME TO old_parts; CREATE TABLE shop.parts (id int PRIMARY KEY, fresh boolean); GRANT SELECT ON shop.parts TO plan_one; INSERT INTO shop.parts VALUES (1, true); SELECT pg_temp.parts('plan_one'); RESET ROLE;
REVOKE USAGE ON SCHEMA shop FROM plan_one; SELECT pg_temp.parts('plan_one'); RESET ROLE; GRANT USAGE ON SCHEMA shop TO plan_one;
REVOKE ALL ON shop.parts FROM plan_one; SELECT pg_temp.parts('plan_one'); RESET ROLE; GRANT SELECT ON shop.parts TO plan_one;
\echo errors keep their code and name their field; none is told by the leaf:
CREATE VIEW shop.trouble AS SELECT id, CASE WHEN id = 1 THEN 1 / (id - 1) END AS q FROM shop.parts; CREATE FUNCTION shop.own_error(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM odin.fail('conflict', 'no'); RETURN i; END $$;
CREATE VIEW shop.own AS SELECT id, shop.own_error(id) AS q FROM shop.parts; GRANT SELECT ON shop.trouble, shop.own TO plan_one;
SELECT pg_temp.parts('plan_one', '[]', 'shop.trouble'); RESET ROLE; SELECT pg_temp.parts('plan_one', '[]', 'shop.own'); RESET ROLE; SELECT pg_temp.parts('plan_one', '[["created_at", "<", "some day"]]', 'customers'); RESET ROLE; SELECT pg_temp.parts('plan_one', '[["id", "<", 1e30]]'); RESET ROLE;
\echo a table's own name comes before another's other name, and other names are found:
INSERT INTO odin.model_names(name, table_name) VALUES ('orders', 'odin.customers'), ('bits', 'shop.parts'); SET ROLE plan_one; SELECT odin.search_records('orders')->>'model', odin.search_records('bits')->>'model', odin.search_records('bits')->>'model', odin.search_records('res.partner')->>'model'; RESET ROLE;
\echo more questions than plans are kept, and pages cut by size and by number:
SET ROLE plan_two; SELECT count(*), count(DISTINCT odin.search_records('customers', '[]', '{id}', NULL, 1 + k % 900)->'count') FROM generate_series(1, 1200) k; RESET ROLE;
INSERT INTO odin.customers(org_id, name, notes) SELECT o.id, 'Long ' || k, repeat(md5(k::text), 60) FROM odin.orgs o, generate_series(1, 150) k WHERE o.name = 'Plans B';
SET ROLE plan_two;
SELECT r->'count', r->>'note', r ? 'next_cursor' FROM odin.search_records('customers', '[["name", "like", "Long"]]', '{id,notes}', NULL, 150) r;
WITH RECURSIVE p(n, a) AS (SELECT 1, odin.search_records('customers', '[["name", "like", "Long"]]', '{id,notes}', 'name desc', 150) UNION ALL SELECT n + 1, odin.search_records('customers', '[["name", "like", "Long"]]', '{id,notes}', 'name desc', 150, a->>'next_cursor') FROM p WHERE a ? 'next_cursor' AND n < 9)
SELECT count(DISTINCT n) AS pages, count(*) AS rows, count(DISTINCT e->'id') AS different FROM p, jsonb_array_elements(a->'records') e;
\echo the leaf and the long way give the same answers:
CREATE FUNCTION pg_temp.long_way(model text, domain jsonb, fields text[], "order" text, "limit" int) RETURNS jsonb LANGUAGE sql AS $$ SELECT p.records FROM odin._run_records(odin._compile_records(jsonb_build_object('op', 'search', 'table', odin._model(model, current_user)::oid::bigint, 'domain', domain, 'fields', to_jsonb(fields), 'order', "order", 'limit', "limit"), current_user), "limit", 200000, false) p $$;
SELECT model, d, r->'records' = pg_temp.long_way(model, d::jsonb, f::text[], o, l) AS same, r->'count' AS count FROM (VALUES ('customers', '[]', NULL, NULL, 3), ('customers', '[["org_id.name", "=", "Plans B"]]', '{name,org_id.name}', 'org_id.name desc, name', 5), ('orgs', '[["settings.none", "=", false]]', '{name,settings,settings.none}', NULL, 5), ('printers', '[]', NULL, NULL, 5)) v(model, d, f, o, l),
  LATERAL odin.search_records(model, d::jsonb, f::text[], o, l) r;
