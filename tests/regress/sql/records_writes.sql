-- Writing records: limits, previews, idempotency, errors that name the field, and the six tools of Odoo with their answers.
\set ECHO none
\pset format unaligned
CREATE ROLE rec_writer; GRANT odin_admin TO rec_writer;
INSERT INTO odin.orgs(name) VALUES ('Writers'); SELECT odin.add_member('rec_writer', id) FROM odin.orgs WHERE name = 'Writers' \g /dev/null
CREATE SCHEMA shop; GRANT USAGE ON SCHEMA shop TO rec_writer;
CREATE TABLE shop.goods (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, price numeric(40, 10) DEFAULT 1, sizes int[], made date, extra jsonb, twice numeric GENERATED ALWAYS AS (price * 2) STORED, CONSTRAINT goods_price CHECK (price >= 0));
CREATE TABLE shop.parts (good_id int REFERENCES shop.goods, no int, PRIMARY KEY (good_id, no));
GRANT SELECT, INSERT, UPDATE, DELETE ON shop.goods, shop.parts TO rec_writer; GRANT USAGE ON ALL SEQUENCES IN SCHEMA shop TO rec_writer;
SET ROLE rec_writer;
-- What an answer is, in short.
CREATE FUNCTION pg_temp.call(tool text, args jsonb) RETURNS jsonb LANGUAGE sql AS $$
  SELECT CASE WHEN jsonb_typeof(r->'error') = 'object' THEN (r->'error') - '{hint,status,retriable}'::text[] ELSE r - '{next_actions,preview_token,model,notes}'::text[] END FROM odin.call(tool, args) r $$;
\echo create:
SELECT pg_temp.call('create_records', '{"model": "shop.goods", "records": [{"name": "A", "price": "12345678901234567890.0123456789", "sizes": [1, 2], "made": "2026-02-03", "extra": {"k": [1]}}, {"name": "B"}]}');
SELECT pg_temp.call('read_records', '{"model": "shop.goods", "ids": [1, 2]}');
SELECT pg_temp.call('create_records', jsonb_build_object('model', 'shop.goods', 'records', r)) FROM unnest(ARRAY['[{"name": "C"}, {"nam": "D"}]', '[{"name": "C", "price": "dear"}]', '[{"name": "C", "made": "yesterdy"}]', '[{"price": 3}]', '[{"name": "C", "price": -1}]',
  '[{"name": "C", "id": 7}]', '[{"name": "C", "twice": 7}]', '[]', '[{}]', '[3]', '{"name": "one object is one record"}']::jsonb[]) r;
SELECT pg_temp.call('create_records', '{"model": "shop.parts", "records": [{"good_id": 1, "no": 1}, {"good_id": 1, "no": 2}]}');
SELECT pg_temp.call('create_records', '{"model": "shop.parts", "records": [{"good_id": 99, "no": 1}]}')->>'code' AS dangling, pg_temp.call('create_records', '{"model": "shop.parts", "records": [{"good_id": 1, "no": 1}]}')->>'code' AS twice;
\echo update:
SELECT pg_temp.call('update_records', jsonb_build_object('model', 'shop.goods') || a) FROM unnest(ARRAY['{"ids": [1], "values": {"price": 5}}', '{"ids": 2, "values": {"price": 6, "sizes": null}}', '{"ids": [1, 2], "values": {"price": 7}}', '{"ids": [1, 2], "limit": 2, "values": {"price": 7}}',
  '{"ids": [1, 99], "limit": 5, "values": {"price": 8}}', '{"domain": [["name", "in", ["A", "B"]]], "values": {"price": 9}}', '{"domain": [["name", "=", "nobody"]], "values": {"price": 9}}', '{"values": {"price": 9}}', '{"ids": [1], "domain": [], "values": {"price": 9}}',
  '{"ids": [1], "values": {"id": 9}}', '{"ids": [1], "values": {"twice": 9}}', '{"ids": [1], "values": {"price": "dear"}}', '{"ids": [1], "values": {}}', '{"ids": [1], "values": {"pric": 1}}', '{"domain": [["made", ">", "nonsense"]], "values": {"price": 1}}',
  '{"domain": [["price", "=", 7]], "limit": 2, "values": {"price": 8, "name": "same"}}']::jsonb[]) a;
SELECT id, name, price, sizes FROM shop.goods ORDER BY id;
\echo a preview of a farm table shows the rows, and changes nothing:
SELECT pg_temp.call('create_records', '{"model": "res.partner", "records": [{"name": "Ann", "vat": "X1"}]}');
SELECT r->'would_execute' AS would, (SELECT jsonb_agg((c->'after') - 'updated_at') FROM jsonb_array_elements(r->'changes') c) AS after FROM odin.call('update_records', '{"model": "res.partner", "ids": [1], "values": {"comment": "seen"}, "dry_run": true}') r;
SELECT pg_temp.call('read_records', '{"model": "res.partner", "ids": [1], "fields": ["name", "vat", "comment", "display_name"]}');
SELECT count(*) FILTER (WHERE op = 'insert') AS inserts, count(*) FILTER (WHERE op = 'update') AS updates FROM odin.audit_changes WHERE table_name = 'odin.customers';
\echo the same key does it once:
SELECT pg_temp.call('create_records', '{"model": "customers", "records": [{"name": "Once"}], "idempotency_key": "k1"}') = pg_temp.call('create_records', '{"model": "customers", "records": [{"name": "Once"}], "idempotency_key": "k1"}') - '_idempotent_replay' AS same,
       odin.call('aggregate_records', '{"model": "customers", "domain": [["name", "=", "Once"]]}')#>'{groups,0,count}' AS made;
\echo delete:
SELECT pg_temp.call('delete_records', jsonb_build_object('model', 'shop.goods') || a) FROM unnest(ARRAY['{"domain": []}', '{"ids": [1]}', '{"ids": [99]}', '{"domain": [["name", "=", "nobody"]]}', '{}']::jsonb[]) a;
SELECT pg_temp.call('delete_records', '{"model": "shop.parts", "ids": [{"good_id": 1, "no": 1}, {"good_id": 1, "no": 2}], "limit": 2}');
SELECT pg_temp.call('delete_records', '{"model": "shop.goods", "ids": [1]}');
\echo the names of Odoo, with their answers:
SELECT pg_temp.call(t, a) FROM (VALUES
  ('odoo_record_creator', '{"model": "shop.goods", "fields": {"name": "one"}}'::jsonb), ('odoo_record_creator', '{"model": "shop.goods", "records": [{"name": "two"}, {"name": "three"}]}'), ('odoo_record_creator', '{"model": "shop.goods"}'),
  ('odoo_record_creator', '{"model": "shop.goods", "fields": {"name": "x"}, "records": []}'), ('odoo_record_retriever', '{"model": "shop.goods", "domain": [["name", "=", "one"]], "fields": ["name", "price"]}'), ('odoo_record_retriever', '{"model": "shop.goods", "limit": 1, "fields": ["name"]}'),
  ('odoo_record_updater', '{"model": "shop.goods", "domain": [["id", ">", 4]], "values": {"price": 77}}'), ('odoo_record_updater', '{"model": "shop.goods", "domain": [["id", ">", 4]], "limit": 100, "values": {"price": 78}}'),
  ('odoo_record_updater', '{"model": "shop.goods", "domain": [["id", "=", 999]], "values": {"price": 77}}'), ('odoo_record_updater', '{"model": "shop.goods", "domain": [["id", "=", 999]]}'),
  ('odoo_record_unlinker', '{"model": "shop.goods", "domain": [["price", "=", 78]]}'), ('odoo_record_unlinker', '{"model": "shop.goods", "domain": [["price", "=", 1000]]}')) v(t, a);
SELECT r - '{fields,notes}'::text[] AS inspected, jsonb_object_length_of FROM odin.call('odoo_model_inspector', '{"model": "res.partner", "field_limit": 3, "field_name_filter": "name"}') r, LATERAL (SELECT count(*) AS jsonb_object_length_of FROM jsonb_object_keys(r->'fields')) k;
\echo methods: only those on the list, never private ones:
RESET ROLE;
CREATE FUNCTION shop.raise_price(id int, percent numeric, note text DEFAULT 'none') RETURNS numeric LANGUAGE sql AS $$ UPDATE shop.goods g SET price = price * (1 + percent / 100) WHERE g.id = raise_price.id RETURNING price $$;
CREATE FUNCTION shop.count_goods(ids int[] DEFAULT '{}') RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM shop.goods g WHERE g.id = ANY (ids) $$;
CREATE FUNCTION shop.hidden(id int) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
REVOKE EXECUTE ON FUNCTION shop.hidden(int) FROM PUBLIC;
INSERT INTO odin.model_methods(table_name, method, function, ids_argument) VALUES ('shop.goods', 'raise_price', 'shop.raise_price(int, numeric, text)', 'id'), ('shop.goods', 'count_goods', 'shop.count_goods(int[])', 'ids'),
  ('shop.goods', 'hidden', 'shop.hidden(int)', 'id'), ('shop.goods', 'gone', 'shop.gone(int)', 'id');
SET ROLE rec_writer;
SELECT pg_temp.call('odoo_model_method_executor', jsonb_build_object('model', 'shop.goods') || a) FROM unnest(ARRAY['{"method": "raise_price", "record_ids": [2], "args": [10]}', '{"method": "raise_price", "record_ids": [2], "kwargs": {"percent": 10}, "dry_run": true}',
  '{"method": "count_goods", "record_ids": [2, 3, 4]}', '{"method": "raise_price", "record_ids": [2]}', '{"method": "raise_price", "args": [10]}', '{"method": "raise_price", "record_ids": [2], "args": [1, "a", 3]}', '{"method": "raise_price", "record_ids": [2], "kwargs": {"percnt": 1}}',
  '{"method": "hidden", "record_ids": [1]}', '{"method": "gone", "record_ids": [1]}', '{"method": "_drop", "allow_private": true}', '{"method": "raise_prize"}', '{"method": "pg_sleep", "args": [1]}']::jsonb[]) a;
SELECT jsonb_path_query_array(odin.call('describe_model', '{"model": "shop.goods", "methods": true}'), '$.methods[*]') AS methods;
INSERT INTO odin.model_methods(table_name, method, function) VALUES ('shop.goods', 'mine', 'pg_sleep(float8)');
SELECT pg_temp.call('create_records', '{"model": "odin.model_methods", "records": [{"table_name": "shop.goods", "method": "mine", "function": "pg_sleep(float8)"}]}')->>'code' AS by_tool;
