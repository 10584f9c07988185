-- What a customer's own login may read, column by column. A new column of a table it reads, or a new table, fails here until somebody has decided about it.
CREATE TABLE t.allowed(relation text, columns text);
INSERT INTO t.allowed VALUES
  ('customers', 'id org_id customer_id name company email phone address tax_id channel external_id is_active created_at updated_at'),
  ('orders', 'id org_id customer_id is_stock order_number channel external_id status priority currency ordered_at due_at shipped_at carrier tracking_number ship_to shipping_charged discount tax_pct created_at updated_at'),
  ('order_lines', 'id org_id customer_id order_id is_stock line_no external_line_id product_id model_id description quantity from_stock fulfilled shipped unit_price status due_at priority created_at updated_at'),
  ('order_parts', 'id org_id customer_id order_line_id is_stock model_id per_unit ordered from_stock waived queued in_flight good needed shortfall updated_at'),
  ('models', 'id org_id customer_id name sku category license author source_url thumbnail_sha256 current_revision_id is_active created_at updated_at'),
  ('model_revisions', 'id org_id customer_id model_id revision pieces_per_plate file_sha256 file_name size_x_mm size_y_mm size_z_mm layer_count created_at'),
  ('revision_materials', 'revision_id org_id customer_id tool material brand color_hex'),
  ('model_files', 'id org_id customer_id model_id revision_id kind sha256 name bytes created_at'),
  ('jobs', 'id org_id customer_id order_line_id part_id model_id revision_id batch_id plate_no plates name quantity pieces status hold priority due_at scheduled_start scheduled_end good created_at updated_at started_at finished_at'),
  ('job_materials', 'job_id org_id customer_id tool material brand color_hex'),
  ('runs', 'id org_id customer_id job_id order_line_id part_id model_id revision_id status pieces started_at finished_at progress_pct good'),
  ('quotes', 'id org_id customer_id quote_number status currency price valid_until order_id created_at updated_at'),
  ('invoices', 'id org_id customer_id order_id invoice_number status issued_on due_on paid_on bill_to currency lines subtotal discount shipping tax total created_at'),
  ('customer_order_view', 'id order_number status customer_id customer_name channel external_id priority order_date due_date shipped_date carrier tracking_number total_items fulfilled_items subtotal total currency shipping_charged discount tax_pct org_id created_at updated_at'),
  ('order_job_view', 'id item_name status order_id order_number order_line_id line pieces good plate_no plates due_date created_at actual_start actual_end progress_percent customer_id org_id'),
  -- The same for everybody: words, states, errors, reference data, the tools there are; of keys its own.
  ('priorities', 'priority words patience'), ('transitions', 'machine from_state to_state'), ('error_codes', 'code sqlstate status retriable meaning hint'), ('constraint_errors', 'constraint_name code detail hint'),
  ('reference_filaments', 'position slug name density price_min price_max nozzle_min_c nozzle_max_c bed_min_c bed_max_c'),
  ('reference_platforms', 'position slug name pricing per_printer base self_hosted protocols ai_detection features plugin_features unlimited'),
  ('reference_printers', 'position slug name manufacturer protocol bed_x_mm bed_y_mm bed_z_mm price speed_mm_s watts enclosed auto_level life_hours farm_score reliability support best_for pros cons'),
  ('model_names', 'name table_name fields description'), ('model_methods', 'table_name method function ids_argument description added_by added_at'),
  ('tool_aliases', 'alias tool_id'), ('toolsets', 'name description listed'),
  ('tools', 'id name title description function kind scope area toolsets read_only hints confirm previewable task timeout_ms raw result_key page_by columns default_fields next_actions rate_per_minute concurrency caller input_schema output_schema spec secret_arguments redact registration listing uri mime_type active inactive_reason version registered_by registered_at search'),
  ('keys', 'id name role_name prefix scopes toolsets allowed_ips rate_per_minute concurrency created_at created_by expires_at revoked_at last_used_at state');
CREATE VIEW t.readable AS
SELECT c.oid AS rel, c.relname::text AS relation, a.attname::text AS col, has_column_privilege('odin_customer', c.oid, a.attnum, 'SELECT') AS may
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace::regnamespace::text LIKE 'odin%';
SELECT t.is((SELECT jsonb_agg(r.relation || '.' || r.col ORDER BY 1) FROM t.readable r
  WHERE r.may AND NOT EXISTS (SELECT 1 FROM t.allowed a WHERE a.relation = r.relation AND r.col = ANY (string_to_array(a.columns, ' ')))), NULL, 'a customer reads no column that is not on the list');
SELECT t.is((SELECT jsonb_agg(a.relation || '.' || w ORDER BY 1) FROM t.allowed a, unnest(string_to_array(a.columns, ' ')) w
  WHERE NOT EXISTS (SELECT 1 FROM t.readable r WHERE r.relation = a.relation AND r.col = w AND r.may)), NULL, 'and every column on the list');
SELECT t.ok(NOT has_table_privilege('odin_customer', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AND NOT has_any_column_privilege('odin_customer', c.oid, 'INSERT, UPDATE'), format('and writes nothing to %s', c.relname))
  FROM pg_class c WHERE c.relname IN (SELECT relation FROM t.allowed) AND c.relnamespace = 'odin'::regnamespace AND c.relkind = 'r';

-- A farm with money in it: an order with fees and notes, a finished and a failed run, a quote, an invoice. Every figure and word of the farm's own is a mark that must not be found.
SELECT t.op('create_order', '{"customer_id":1,"order_number":"ADA-1","notes":"secretnote","platform_fees":7771,"payment_fees":7772,"lines":[{"model_id":1,"quantity":4,"unit_price":5}]}')->>'id' AS ord \gset
SELECT t.as('admin', 'set_rate_card', '{"margin_pct":777.5,"labor_per_hour":777.7}') \g /dev/null
UPDATE odin.orders SET shipping_cost = 7773, labor_minutes = 7774, cancel_reason = 'secretreason' WHERE id = :ord;
UPDATE odin.customers SET notes = 'secretcustomer' WHERE id = 1;
UPDATE odin.order_lines SET notes = 'secretline' WHERE order_id = :ord;
SELECT j.id AS job FROM odin.jobs j JOIN odin.order_lines l ON l.id = j.order_line_id WHERE l.order_id = :ord ORDER BY j.id LIMIT 1 \gset
SELECT t.op('start_job', jsonb_build_object('job_id', :job, 'printer_id', 1, 'started_by_hand', true)), t.op('complete_job', jsonb_build_object('job_id', :job, 'good', 3, 'scrapped', 1, 'scrap_reason', 'warping', 'notes', 'secretrun')) \g /dev/null
UPDATE odin.jobs SET notes = 'secretjob', estimated_cost = 7775, suggested_price = 7776 WHERE id = :job;
SELECT t.op('create_quote', '{"lines":[{"model_id":1,"quantity":4}],"customer_id":1,"notes":"secretquote"}') \g /dev/null
SELECT t.op('create_invoice', jsonb_build_object('order_id', :ord))->>'invoice_id' AS inv \gset
CREATE FUNCTION t.leaks(answer text) RETURNS text LANGUAGE sql AS $f$
  SELECT string_agg(m[1], ' ') FROM regexp_matches(answer, '(secret[a-z]+|777[0-9.]+|ft_operator|warping|"cost": [0-9]|margin_pct|rate_card_id": [0-9])', 'g') m $f$;
SELECT t.is(to_jsonb(t.leaks(t.as('admin', 'get_order', jsonb_build_object('order_id', :ord))::text) ~ 'secretnote'), 'true', 'staff read the notes of an order');
SELECT t.ok(t.as('viewer', 'get_order', jsonb_build_object('order_id', :ord))#>'{lines,0,parts,0}' ? 'scrapped', 'and what was scrapped');
SELECT unnest(ARRAY[t.ok(answer IS NOT NULL AND NOT answer ? 'error', tool || ' answers a customer'), t.is(to_jsonb(t.leaks(answer::text)), NULL, tool || ' tells a customer nothing of the farm''s own')])
  FROM (SELECT tool || CASE WHEN args ? 'fields' THEN ' with all fields' ELSE '' END AS tool, t.as('customer', tool, args) AS answer FROM (VALUES
    ('list_orders', '{}'::jsonb), ('list_orders', '{"fields":["id","notes","shipping_cost","platform_fees","payment_fees","labor_minutes","cancel_reason","total","customer_name"]}'), ('get_order', jsonb_build_object('order_id', :ord)),
    ('list_quotes', '{}'), ('list_quotes', '{"fields":["id","price","cost","notes","inputs","breakdown","rate_card_id","created_by"]}'), ('list_invoices', '{}'), ('list_invoices', '{"fields":["id","total","created_by","void_reason","lines"]}'),
    ('invoice_html', jsonb_build_object('invoice_id', :inv)), ('list_order_jobs', '{}'), ('list_order_jobs', jsonb_build_object('order_id', :ord)),
    ('list_record_models', '{}'), ('describe_model', '{"model":"odin.jobs"}'), ('search_records', '{"model":"odin.jobs"}'), ('search_records', '{"model":"odin.orders"}'), ('search_records', '{"model":"odin.quotes"}'),
    ('search_records', '{"model":"odin.runs"}'), ('search_records', '{"model":"odin.customers"}'), ('search_records', '{"model":"odin.order_parts"}'), ('search_records', '{"model":"odin.customer_order_view"}'),
    ('read_records', jsonb_build_object('model', 'odin.jobs', 'ids', jsonb_build_array(:job)))) v(tool, args)) x;
SELECT t.ok((t.as('customer', 'list_orders')#>>'{orders,0,total}')::numeric = 20 AND t.as('customer', 'list_quotes')#>>'{quotes,0,price}' IS NOT NULL, 'what it pays it does see');
SELECT t.is(t.as('customer', 'get_order', jsonb_build_object('order_id', :ord))#>'{lines,0,parts,0,good}', '3', 'and how far its order is');
SELECT t.ok(t.as('customer', 'search_records', jsonb_build_object('model', 'odin.jobs', 'fields', '["id","' || c || '"]')) ? 'error' AND t.as('customer', 'aggregate_records', jsonb_build_object('model', 'odin.jobs', 'aggregates', jsonb_build_array(c || ':sum'))) ? 'error'
  AND t.as('customer', 'search_records', jsonb_build_object('model', 'odin.jobs', 'domain', jsonb_build_array(jsonb_build_array(c, '>', 0)))) ? 'error' AND t.as('customer', 'search_records', jsonb_build_object('model', 'odin.jobs', 'order', c)) ? 'error',
  format('records: jobs.%s is neither read, summed, filtered nor sorted by', c)) FROM unnest('{estimated_cost,suggested_price,estimated_mg,scrapped}'::text[]) c;
GRANT USAGE ON SCHEMA t TO odin_customer;
SET ROLE ft_customer;
SELECT t.ok((SELECT odin.resource_order(:'ord') ? 'jobs'), 'the order''s resource answers a customer');
SELECT t.is(to_jsonb(t.leaks(odin.resource_order(:'ord')::text)), NULL, 'and tells nothing of the farm''s own');
RESET ROLE;
-- Every column that is not on the list, tried by plain SQL as that login.
CREATE FUNCTION t.refused(statement text) RETURNS boolean LANGUAGE plpgsql AS $f$
BEGIN
  PERFORM set_config('role', 'ft_customer', true);
  EXECUTE statement;
  PERFORM set_config('role', 'none', true);
  RETURN false;
EXCEPTION WHEN insufficient_privilege THEN
  RETURN true;
END $f$;
SELECT t.is((SELECT jsonb_agg(r.relation || '.' || r.col ORDER BY 1) FROM t.readable r WHERE NOT r.may AND r.relation IN ('customers', 'orders', 'order_lines', 'order_parts', 'models', 'model_revisions', 'revision_materials', 'model_files', 'jobs', 'job_materials', 'runs', 'quotes', 'invoices', 'orgs', 'order_view', 'job_view')
  AND NOT t.refused(format('SELECT %I FROM odin.%I LIMIT 0', r.col, r.relation))), NULL, 'plain SQL is refused every other column');
SELECT t.ok(t.refused(q), 'refused to a customer: ' || q) FROM unnest(ARRAY['SELECT * FROM odin.rate_cards', 'SELECT * FROM odin.run_costs', 'SELECT * FROM odin.spools', 'SELECT * FROM odin.order_profit_view', 'SELECT * FROM odin_bi.fact_runs', 'SELECT * FROM odin.printers',
  'SELECT odin._estimate(1)', 'SELECT odin._setting(1, ''max_attempts'', '''')', 'SELECT odin.order_profit(1)', 'SELECT odin.why(1)']) q;

-- Staff of another farm in the same database: what looks past row security looks at his own farm only.
SELECT min(id) AS revision FROM odin.model_revisions WHERE org_id = (SELECT org FROM t.ids) \gset
SET ROLE ft_other;
SELECT e.cost IS NULL AND e.seconds IS NULL AS hidden FROM odin._estimate(:revision) e \gset
SELECT NOT EXISTS (SELECT 1 FROM odin._job_needs(NULL, :revision)) AS hidden_needs \gset
SET ROLE ft_viewer;
SELECT e.cost IS NOT NULL AS shown FROM odin._estimate(:revision) e \gset
SELECT EXISTS (SELECT 1 FROM odin._job_needs(NULL, :revision)) AS shown_needs \gset
RESET ROLE;
SELECT t.ok(:'hidden', 'another farm''s staff cannot ask for the cost of a plate');
SELECT t.ok(:'shown', 'its own staff can');
SELECT t.ok(:'hidden_needs', 'nor for what its jobs are made of');
SELECT t.ok(:'shown_needs', 'which its own staff can');
SELECT t.ok(NOT has_function_privilege('ft_viewer', 'odin._setting(bigint, text, text)', 'EXECUTE'), 'settings are read through get_settings only');
