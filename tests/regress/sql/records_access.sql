-- A role that may read 3 of 10 columns and belongs to 2 of 50 orgs: no way of asking shows it more. Only leaks are printed.
\set ECHO none
\pset format unaligned
CREATE ROLE rec_clerk; CREATE ROLE rec_editor; CREATE ROLE rec_stranger;
GRANT odin_viewer TO rec_clerk; GRANT odin_operator TO rec_editor; GRANT odin_viewer TO rec_stranger;
INSERT INTO odin.orgs(name) SELECT 'Org ' || k FROM generate_series(1, 50) k;
SELECT odin.add_member(r, o.id) FROM odin.orgs o, unnest(ARRAY['rec_clerk', 'rec_editor']) r WHERE o.name IN ('Org 7', 'Org 31') \g /dev/null
SET ROLE odin_owner;
CREATE TABLE odin.ledger (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, org_id bigint NOT NULL REFERENCES odin.orgs, c1 text, c2 text, c3 int, c4 int, c5 text, c6 numeric, c7 date, c8 jsonb, customer_id bigint REFERENCES odin.customers);
CREATE TABLE odin.ledger_notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, org_id bigint NOT NULL REFERENCES odin.orgs, ledger_id bigint NOT NULL REFERENCES odin.ledger, secret text);
INSERT INTO odin.ledger(org_id, c1, c2, c3, c4, c5, c6, c7, c8) SELECT o.id, 'a' || k, 'hidden', k, k, 'hidden', k, '2026-01-01', '{"x": "hidden"}' FROM odin.orgs o, generate_series(1, 20) k WHERE o.name LIKE 'Org %' ORDER BY o.id, k;
INSERT INTO odin.ledger_notes(org_id, ledger_id, secret) SELECT org_id, id, 'hidden' FROM odin.ledger ORDER BY id;
SELECT odin.guard_table('odin.ledger'), odin.guard_table('odin.ledger_notes') \g /dev/null
SELECT odin.apply_access() \g /dev/null
GRANT SELECT (id, c1, c3) ON odin.ledger TO rec_clerk, rec_editor;
GRANT UPDATE (c1, c3), INSERT (org_id, c1, c3), DELETE ON odin.ledger TO rec_editor;
RESET ROLE;

-- Every tool that reads, asked for every column, by the clerk.
CREATE TABLE public.leaks(what text, answer jsonb); GRANT INSERT ON public.leaks TO rec_clerk, rec_editor;
SET ROLE rec_clerk;
\echo what the clerk sees:
SELECT r->>'count' AS rows_in_page, (SELECT string_agg(DISTINCT k, ',' ORDER BY k) FROM jsonb_array_elements(r->'records') e, jsonb_object_keys(e) k) AS columns
  FROM odin.call('search_records', '{"model": "ledger", "limit": 1000}') r;
SELECT r->'groups'->0->'count' AS rows_counted FROM odin.call('aggregate_records', '{"model": "ledger"}') r;
SELECT jsonb_path_query_array(r, '$.fields[*].name') AS described, r->'total_fields' AS of_fields, r->'may' AS may FROM odin.call('describe_model', '{"model": "ledger", "limit": 100}') r;
INSERT INTO public.leaks
SELECT format('%s %s', t.tool, t.args), r FROM unnest(ARRAY['org_id', 'c2', 'c4', 'c5', 'c6', 'c7', 'c8', 'c8.x', 'customer_id', 'customer_id.name', 'org_id.name', 'ledger_notes', 'ledger_notes.secret']) c,
  LATERAL (VALUES
    ('search_records', jsonb_build_object('model', 'ledger', 'fields', jsonb_build_array('id', c))),
    ('search_records', jsonb_build_object('model', 'ledger', 'domain', jsonb_build_array(jsonb_build_array(c, '!=', false)))),
    ('search_records', jsonb_build_object('model', 'ledger', 'domain', jsonb_build_array(jsonb_build_array(c, 'ilike', 'hid')))),
    ('search_records', jsonb_build_object('model', 'ledger', 'domain', jsonb_build_array('!', jsonb_build_array(c, 'in', '[1]'::jsonb)))),
    ('search_records', jsonb_build_object('model', 'ledger', 'order', c)),
    ('search_records', jsonb_build_object('model', 'ledger', 'explain', true, 'domain', jsonb_build_array(jsonb_build_array(c, '=', 1)))),
    ('aggregate_records', jsonb_build_object('model', 'ledger', 'group_by', jsonb_build_array(c))),
    ('aggregate_records', jsonb_build_object('model', 'ledger', 'measures', jsonb_build_array(c || ':max'))),
    ('aggregate_records', jsonb_build_object('model', 'ledger', 'measures', jsonb_build_array(c || ':count'))),
    ('aggregate_records', jsonb_build_object('model', 'ledger', 'having', jsonb_build_array(jsonb_build_array(c, '!=', false)))),
    ('read_records', jsonb_build_object('model', 'ledger', 'ids', '[121]'::jsonb, 'fields', jsonb_build_array(c))),
    ('odoo_record_retriever', jsonb_build_object('model', 'ledger', 'fields', jsonb_build_array(c)))) t(tool, args),
  LATERAL odin.call(t.tool, t.args) r;
SELECT what, answer FROM (SELECT NULL::text AS what, NULL::jsonb AS answer) x WHERE false;
RESET ROLE;
\echo answers that were not refusals:
SELECT what, left(answer::text, 200) FROM public.leaks WHERE NOT answer ? 'error' OR answer::text ~ 'hidden"' ORDER BY 1;
SELECT count(*) AS refused, string_agg(DISTINCT answer#>>'{error,code}', ', ') AS codes FROM public.leaks;
TRUNCATE public.leaks;

\echo links do not lead past the rows of his orgs, or into tables he may not read:
INSERT INTO odin.customers(org_id, name) SELECT id, 'Customer of ' || name FROM odin.orgs WHERE name IN ('Org 7', 'Org 8') ORDER BY id;
INSERT INTO odin.orders(org_id, customer_id, order_number) SELECT c.org_id, c.id, 'N' || c.id FROM odin.customers c WHERE c.name LIKE 'Customer of%';
CREATE TABLE public.pointers (id int PRIMARY KEY, customer_id bigint REFERENCES odin.customers, note_id bigint REFERENCES odin.ledger_notes);
INSERT INTO public.pointers SELECT row_number() OVER (ORDER BY id), id, 1 FROM odin.customers WHERE name LIKE 'Customer of%';
GRANT SELECT ON public.pointers TO rec_clerk;
SET ROLE rec_clerk;
SELECT r->'records' AS seen FROM odin.call('search_records', '{"model": "public.pointers", "fields": ["id", "customer_id.name"]}') r;
SELECT r->'count' AS matched FROM odin.call('search_records', '{"model": "public.pointers", "domain": [["customer_id.name", "ilike", "customer"]]}') r;
SELECT r->'error'->>'detail' AS refused FROM odin.call('search_records', '{"model": "public.pointers", "domain": [["note_id.secret", "!=", false]]}') r;
RESET ROLE;

\echo the stranger belongs to no org:
SET ROLE rec_stranger;
SELECT odin.call('search_records', '{"model": "customers"}')->'count' AS customers, odin.call('search_records', '{"model": "ledger"}')#>'{error,code}' AS ledger;
RESET ROLE;

\echo the editor changes only columns and rows that are his:
SET ROLE rec_editor;
SELECT a->>'tool' AS tool, a->'args' AS args, coalesce(r#>>'{error,code}', 'done ' || (r->>'count')) AS outcome, r#>>'{error,detail}' AS detail
  FROM jsonb_array_elements('[
    {"tool": "update_records", "args": {"model": "ledger", "ids": [121], "values": {"c1": "new"}}},
    {"tool": "update_records", "args": {"model": "ledger", "ids": [121], "values": {"c2": "new"}}},
    {"tool": "update_records", "args": {"model": "ledger", "ids": [121], "values": {"org_id": 1}}},
    {"tool": "update_records", "args": {"model": "ledger", "ids": [1], "values": {"c1": "new"}}},
    {"tool": "update_records", "args": {"model": "ledger", "domain": [["c2", "=", "hidden"]], "limit": 1000, "values": {"c1": "new"}}},
    {"tool": "update_records", "args": {"model": "ledger", "domain": [["c3", "=", 5]], "limit": 1000, "values": {"c1": "new"}}},
    {"tool": "delete_records", "args": {"model": "ledger", "ids": [1]}},
    {"tool": "delete_records", "args": {"model": "customers", "ids": [1]}},
    {"tool": "create_records", "args": {"model": "ledger", "records": [{"c1": "mine"}]}},
    {"tool": "create_records", "args": {"model": "ledger", "records": [{"c1": "theirs", "org_id": 1}]}},
    {"tool": "create_records", "args": {"model": "ledger", "records": [{"c1": "x", "c5": "y"}]}}]') a, LATERAL odin.call(a->>'tool', a->'args') r;
\echo closed to everybody:
SELECT m AS model, odin.call('search_records', jsonb_build_object('model', m))#>>'{error,code}' AS reading, odin.call('create_records', jsonb_build_object('model', m, 'records', '[{"x": 1}]'::jsonb))#>>'{error,code}' AS writing
  FROM unnest(ARRAY['odin_private.keys', 'odin_private.secrets', 'pg_catalog.pg_authid', 'pg_class', 'information_schema.tables', 'odin.members', 'odin.access_rules', 'odin.tools', 'odin.audit_calls', 'odin.consents', 'odin.idempotency', 'odin.model_methods', 'odin.error_codes']) m;
RESET ROLE;
-- Not even with every right that a table can give.
GRANT odin_admin TO rec_editor; GRANT ALL ON odin.members, odin.access_rules, odin.consents, odin.error_codes, odin.model_methods, odin.audit_calls TO rec_editor;
SET ROLE rec_editor;
SELECT m AS model, odin.call('create_records', jsonb_build_object('model', m, 'records', '[{"x": 1}]'::jsonb))#>>'{error,code}' AS creating, odin.call('update_records', jsonb_build_object('model', m, 'domain', '[]'::jsonb, 'values', '{"x": 1}'::jsonb))#>>'{error,code}' AS updating,
       odin.call('delete_records', jsonb_build_object('model', m, 'domain', '[]'::jsonb, 'limit', 1000))#>>'{error,code}' AS deleting
  FROM unnest(ARRAY['odin.members', 'odin.access_rules', 'odin.consents', 'odin.error_codes', 'odin.model_methods', 'odin.audit_calls']) m;
RESET ROLE;

\echo a right given or taken is seen at once:
SET ROLE rec_clerk;
SELECT odin.call('search_records', '{"model": "ledger", "fields": ["c2"], "limit": 1}')#>>'{error,code}' AS before;
RESET ROLE; GRANT SELECT (c2) ON odin.ledger TO rec_clerk; SET ROLE rec_clerk;
SELECT odin.call('search_records', '{"model": "ledger", "fields": ["c2"], "limit": 1}')->'count' AS granted;
RESET ROLE; REVOKE SELECT (c2) ON odin.ledger FROM rec_clerk; SET ROLE rec_clerk;
SELECT odin.call('search_records', '{"model": "ledger", "fields": ["c2"], "limit": 1}')#>>'{error,code}' AS revoked;
RESET ROLE; ALTER TABLE odin.ledger RENAME COLUMN c3 TO third; SET ROLE rec_clerk;
SELECT odin.call('search_records', '{"model": "ledger", "fields": ["third"], "limit": 1}')->'count' AS renamed, odin.call('search_records', '{"model": "ledger", "fields": ["c3"], "limit": 1}')#>>'{error,code}' AS old_name;
RESET ROLE; REVOKE odin_viewer FROM rec_stranger; GRANT rec_clerk TO rec_stranger; SET ROLE rec_stranger;
SELECT odin.call('search_records', '{"model": "ledger", "limit": 1000}')->'count' AS inherited;
