-- Generic records: other names for our tables and fields, and the functions that count as methods of a model.
-- A name gives no right: every read and write runs as the caller, under his own grants and policies.

INSERT INTO odin.toolsets VALUES
  ('records', 'Any table the caller may touch: search, read, figures, create, change, delete.', false);

CREATE TABLE odin.model_names (
  name        text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_.]{0,62}$'),
  table_name  text NOT NULL CHECK (table_name <> ''),
  fields      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(fields) = 'object'),
  description text
);
CREATE INDEX model_names_table ON odin.model_names (table_name);
COMMENT ON TABLE odin.model_names IS 'Other names of tables for the record tools, like res.partner, and of their fields. A table''s own name always works too.';
COMMENT ON COLUMN odin.model_names.fields IS 'Other names of fields: {"partner_id": "customer_id"}. A column''s own name comes first.';

INSERT INTO odin.model_names(name, table_name, fields, description) VALUES
  ('res.company', 'odin.orgs', '{"currency_id": "currency", "tz": "timezone", "create_date": "created_at"}', 'The farm or a department of it.'),
  ('res.partner', 'odin.customers', '{"vat": "tax_id", "comment": "notes", "street": "address", "contact_address": "address", "commercial_company_name": "company", "ref": "external_id", "active": "is_active", "company_id": "org_id", "create_date": "created_at", "write_date": "updated_at", "create_uid": "created_by", "sale_order_ids": "orders"}', 'Customers.'),
  ('sale.order', 'odin.orders', '{"name": "order_number", "partner_id": "customer_id", "state": "status", "date_order": "ordered_at", "commitment_date": "due_at", "client_order_ref": "external_id", "note": "notes", "order_line": "order_lines", "currency_id": "currency", "company_id": "org_id", "create_date": "created_at", "write_date": "updated_at", "create_uid": "created_by"}', 'Orders.'),
  ('sale.order.line', 'odin.order_lines', '{"name": "description", "product_uom_qty": "quantity", "qty_delivered": "shipped", "price_unit": "unit_price", "order_partner_id": "customer_id", "sequence": "line_no", "state": "status", "company_id": "org_id", "create_date": "created_at", "write_date": "updated_at"}', 'Lines of orders.'),
  ('product.product', 'odin.products', '{"default_code": "sku", "list_price": "price", "lst_price": "price", "description_sale": "description", "currency_id": "currency", "active": "is_active", "company_id": "org_id", "create_date": "created_at", "write_date": "updated_at", "bom_line_ids": "product_parts"}', 'What is sold.'),
  ('product.template', 'odin.products', '{"default_code": "sku", "list_price": "price", "description_sale": "description", "active": "is_active"}', 'What is sold.'),
  ('stock.quant', 'odin.stock_balances', '{"product_id": "model_id", "company_id": "org_id", "inventory_quantity": "quantity"}', 'Finished pieces in stock, per model.'),
  ('stock.move', 'odin.stock_moves', '{"product_id": "model_id", "product_uom_qty": "quantity", "date": "at", "company_id": "org_id", "origin": "reason"}', 'Ledger of finished pieces.'),
  ('stock.lot', 'odin.spools', '{"name": "code", "product_id": "filament_id", "ref": "lot_number", "note": "notes", "company_id": "org_id", "create_date": "created_at"}', 'Spools.'),
  ('mrp.bom', 'odin.product_parts', '{"product_qty": "quantity", "company_id": "org_id"}', 'Printed pieces a product needs.'),
  ('mrp.production', 'odin.jobs', '{"product_id": "model_id", "product_qty": "pieces", "qty_produced": "good", "state": "status", "date_deadline": "due_at", "date_start": "started_at", "date_finished": "finished_at", "workorder_ids": "runs", "user_id": "submitted_by", "company_id": "org_id", "create_date": "created_at", "write_date": "updated_at"}', 'Jobs: plates to be printed.'),
  ('mrp.workorder', 'odin.runs', '{"production_id": "job_id", "workcenter_id": "printer_id", "state": "status", "date_start": "started_at", "date_finished": "finished_at", "qty_produced": "good", "company_id": "org_id"}', 'Runs: attempts on a printer.'),
  ('mrp.workcenter', 'odin.printers', '{"active": "is_active", "note": "notes", "costs_hour": "hour_rate", "company_id": "org_id", "create_date": "created_at"}', 'Printers.'),
  ('maintenance.equipment', 'odin.printers', '{"active": "is_active", "note": "notes", "serial_no": "serial", "company_id": "org_id"}', 'Printers.'),
  ('maintenance.request', 'odin.maintenance_log', '{"equipment_id": "printer_id", "name": "task_name", "description": "notes", "close_date": "performed_at", "user_id": "performed_by", "company_id": "org_id"}', 'Maintenance done.'),
  ('account.move', 'odin.invoices', '{"name": "invoice_number", "partner_id": "customer_id", "state": "status", "invoice_date": "issued_on", "invoice_date_due": "due_on", "amount_untaxed": "subtotal", "amount_tax": "tax", "amount_total": "total", "currency_id": "currency", "company_id": "org_id", "create_date": "created_at"}', 'Invoices.');

CREATE TABLE odin.model_methods (
  table_name  text NOT NULL CHECK (table_name <> ''),
  method      text NOT NULL CHECK (method ~ '^[a-z][a-z0-9_]{0,62}$'),
  function    text NOT NULL,
  ids_argument text,
  description text,
  added_by    text NOT NULL DEFAULT current_user,
  added_at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (table_name, method)
);
COMMENT ON TABLE odin.model_methods IS 'The functions that odoo_model_method_executor may reach, as methods of a model. What is not here cannot be called; people only.';
COMMENT ON COLUMN odin.model_methods.function IS 'The function with its argument types: odin.cancel_order(bigint, text).';
COMMENT ON COLUMN odin.model_methods.ids_argument IS 'Its argument that takes the record: one id (called once a record) or an array of ids. NULL: it takes none.';

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('record_model_not_found', 'OD701', 404, false, 'No such model (table or view), or not one this caller may touch.', 'Call list_record_models.'),
  ('record_not_found', 'OD702', 404, false, 'No such record, or not one this caller may see.', NULL),
  ('too_many_records', 'OD703', 409, false, 'More records match than limit allows; nothing was changed.', 'Name the records by ids, or say with limit how many you mean to change.'),
  ('record_model_closed', 'OD704', 403, false, 'This table is not for the record tools.', NULL),
  ('method_not_found', 'OD705', 404, false, 'The model has no such method, or it is not on the list of allowed methods.', 'Call describe_model with methods: true.');

GRANT SELECT ON odin.model_names, odin.model_methods TO odin_viewer, odin_customer, odin_bi;
GRANT INSERT, UPDATE, DELETE ON odin.model_names TO odin_admin;
