-- Who buys what: customers, orders, order lines, and the pieces of each model a line needs.
-- Every job hangs on a line: a customer's, or one of the org's standing stock order. Counters of order_parts are kept by triggers; never write them by hand.
CREATE TABLE odin.customers (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  customer_id bigint GENERATED ALWAYS AS (id) STORED,
  name        text NOT NULL CHECK (length(btrim(name)) BETWEEN 1 AND 200),
  company     text CHECK (length(company) <= 200),
  email       text CHECK (length(email) <= 320),
  phone       text CHECK (length(phone) <= 60),
  address     text CHECK (length(address) <= 2000),
  tax_id      text CHECK (length(tax_id) <= 60),
  notes       text CHECK (length(notes) <= 4000),
  channel     text,
  external_id text,
  is_active   boolean NOT NULL DEFAULT true,
  created_by  text NOT NULL DEFAULT current_user,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT customers_external_key UNIQUE (org_id, channel, external_id)
);
COMMENT ON TABLE odin.customers IS 'People and firms who order. A login bound to a customer (odin.members) sees that customer only.';
COMMENT ON COLUMN odin.customers.customer_id IS 'The same as id: what the access rule for customers'' logins reads.';
COMMENT ON COLUMN odin.customers.channel IS 'Where the customer came from when imported; with external_id unique.';
CREATE INDEX customers_name ON odin.customers (org_id, lower(name));

CREATE TABLE odin.orders (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id           bigint NOT NULL REFERENCES odin.orgs,
  customer_id      bigint,
  is_stock         boolean NOT NULL DEFAULT false,
  order_number     text NOT NULL CHECK (length(order_number) BETWEEN 1 AND 60),
  channel          text NOT NULL DEFAULT 'manual' CHECK (length(channel) BETWEEN 1 AND 60),
  external_id      text CHECK (length(external_id) <= 200),
  status           text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending','in_progress','partial','fulfilled','shipped','cancelled')),
  priority         smallint NOT NULL DEFAULT 3 REFERENCES odin.priorities,
  currency         text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  ordered_at       timestamptz NOT NULL DEFAULT now(),
  due_at           timestamptz,
  shipped_at       timestamptz,
  carrier          text CHECK (length(carrier) <= 60),
  tracking_number  text CHECK (length(tracking_number) <= 200),
  ship_to          text CHECK (length(ship_to) <= 2000),
  shipping_charged numeric(14,2) NOT NULL DEFAULT 0 CHECK (shipping_charged >= 0),
  shipping_cost    numeric(14,2) NOT NULL DEFAULT 0 CHECK (shipping_cost >= 0),
  platform_fees    numeric(14,2) NOT NULL DEFAULT 0 CHECK (platform_fees >= 0),
  payment_fees     numeric(14,2) NOT NULL DEFAULT 0 CHECK (payment_fees >= 0),
  discount         numeric(14,2) NOT NULL DEFAULT 0 CHECK (discount >= 0),
  tax_pct          numeric(6,3)  NOT NULL DEFAULT 0 CHECK (tax_pct BETWEEN 0 AND 100),
  labor_minutes    numeric(10,2) NOT NULL DEFAULT 0 CHECK (labor_minutes >= 0),
  notes            text CHECK (length(notes) <= 4000),
  cancel_reason    text CHECK (length(cancel_reason) <= 500),
  created_by       text NOT NULL DEFAULT current_user,
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT orders_number_key UNIQUE (org_id, order_number),
  CONSTRAINT orders_external_key UNIQUE (org_id, channel, external_id),
  CONSTRAINT orders_customer_fk FOREIGN KEY (org_id, customer_id) REFERENCES odin.customers (org_id, id),
  CONSTRAINT orders_stock_has_no_customer CHECK (NOT is_stock OR customer_id IS NULL)
);
COMMENT ON TABLE odin.orders IS 'What was ordered. One row per org with is_stock holds the jobs nobody ordered (its lines are made for stock).';
COMMENT ON COLUMN odin.orders.status IS 'pending: nothing made yet; in_progress; partial: some lines complete; fulfilled: all pieces good; shipped; cancelled. Kept by triggers but for shipped and cancelled.';
COMMENT ON COLUMN odin.orders.external_id IS 'The order''s id in the channel it came from; an import with the same channel and id changes nothing twice.';
COMMENT ON COLUMN odin.orders.priority IS '0 to 10, lower is sooner (odin.priorities).';
CREATE UNIQUE INDEX orders_one_stock_order ON odin.orders (org_id) WHERE is_stock;
CREATE INDEX orders_by_status ON odin.orders (org_id, status, id);
CREATE INDEX orders_by_customer ON odin.orders (customer_id, id) WHERE customer_id IS NOT NULL;
CREATE INDEX orders_due ON odin.orders (org_id, due_at) WHERE status IN ('pending','in_progress','partial') AND due_at IS NOT NULL;

CREATE TABLE odin.order_lines (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id           bigint NOT NULL REFERENCES odin.orgs,
  customer_id      bigint,
  order_id         bigint NOT NULL,
  is_stock         boolean NOT NULL DEFAULT false,
  line_no          integer,
  external_line_id text CHECK (length(external_line_id) <= 200),
  product_id       bigint,
  model_id         bigint,
  description      text NOT NULL CHECK (length(description) BETWEEN 1 AND 500),
  quantity         integer NOT NULL CHECK (quantity BETWEEN 0 AND 100000),
  from_stock       integer NOT NULL DEFAULT 0 CHECK (from_stock >= 0),
  fulfilled        integer NOT NULL DEFAULT 0 CHECK (fulfilled >= 0),
  shipped          integer NOT NULL DEFAULT 0 CHECK (shipped >= 0),
  unit_price       numeric(14,4) NOT NULL DEFAULT 0 CHECK (unit_price >= 0),
  status           text NOT NULL DEFAULT 'open' CHECK (status IN ('open','cancelled')),
  due_at           timestamptz,
  priority         smallint REFERENCES odin.priorities,
  notes            text CHECK (length(notes) <= 2000),
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT order_lines_order_fk FOREIGN KEY (org_id, order_id) REFERENCES odin.orders (org_id, id),
  CONSTRAINT order_lines_no_key UNIQUE (order_id, line_no),
  CONSTRAINT order_lines_external_key UNIQUE (order_id, external_line_id),
  CONSTRAINT order_lines_something CHECK (num_nonnulls(product_id, model_id) = 1),
  CONSTRAINT order_lines_from_stock_fits CHECK (from_stock <= quantity)
);
COMMENT ON TABLE odin.order_lines IS 'One product or model, so many times. fulfilled = complete units (good and from stock), kept by triggers.';
COMMENT ON COLUMN odin.order_lines.quantity IS 'Units ordered. A unit of a product may need several pieces of several models: odin.order_parts.';
CREATE INDEX order_lines_by_order ON odin.order_lines (order_id, id);
CREATE INDEX order_lines_by_customer ON odin.order_lines (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX order_lines_by_product ON odin.order_lines (product_id) WHERE product_id IS NOT NULL;

CREATE TABLE odin.order_parts (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  customer_id   bigint,
  order_line_id bigint NOT NULL,
  is_stock      boolean NOT NULL DEFAULT false,
  model_id      bigint NOT NULL,
  per_unit      integer NOT NULL DEFAULT 1 CHECK (per_unit BETWEEN 1 AND 10000),
  ordered       integer NOT NULL CHECK (ordered >= 0),
  from_stock    integer NOT NULL DEFAULT 0 CHECK (from_stock >= 0),
  waived        integer NOT NULL DEFAULT 0 CHECK (waived >= 0),
  queued        integer NOT NULL DEFAULT 0 CHECK (queued >= 0),
  in_flight     integer NOT NULL DEFAULT 0 CHECK (in_flight >= 0),
  good          integer NOT NULL DEFAULT 0 CHECK (good >= 0),
  scrapped      integer NOT NULL DEFAULT 0 CHECK (scrapped >= 0),
  to_stock      integer NOT NULL DEFAULT 0 CHECK (to_stock >= 0),
  needed        integer GENERATED ALWAYS AS (greatest(ordered - from_stock - waived, 0)) STORED,
  shortfall     integer GENERATED ALWAYS AS (greatest(greatest(ordered - from_stock - waived, 0) - (good - to_stock) - in_flight - queued, 0)) STORED,
  updated_at    timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT order_parts_line_fk FOREIGN KEY (org_id, order_line_id) REFERENCES odin.order_lines (org_id, id),
  CONSTRAINT order_parts_model_key UNIQUE (order_line_id, model_id)
) WITH (fillfactor = 80);
COMMENT ON TABLE odin.order_parts IS 'The pieces of one model that a line needs. Always: good + in_flight + queued >= ordered - from_stock - waived; a shortfall queues itself again.';
COMMENT ON COLUMN odin.order_parts.waived IS 'Pieces somebody decided not to make (a cancelled job); they are not made again.';
COMMENT ON COLUMN odin.order_parts.queued IS 'Pieces on jobs that wait (submitted, rejected, pending, scheduled).';
COMMENT ON COLUMN odin.order_parts.in_flight IS 'Pieces on jobs that print or are paused.';
COMMENT ON COLUMN odin.order_parts.to_stock IS 'Good pieces beyond what was needed, moved to finished stock.';
COMMENT ON COLUMN odin.order_parts.scrapped IS 'Pieces that were printed and thrown away.';
CREATE INDEX order_parts_by_model ON odin.order_parts (model_id);
CREATE INDEX order_parts_short ON odin.order_parts (org_id) WHERE shortfall > 0;

CREATE TABLE odin.order_counters (
  org_id bigint NOT NULL REFERENCES odin.orgs,
  kind   text NOT NULL CHECK (kind IN ('order','quote','invoice')),
  next   bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (org_id, kind)
);
COMMENT ON TABLE odin.order_counters IS 'The next number per org and kind; taken under a row lock, so invoice numbers have no gaps.';

CREATE INDEX order_lines_by_model ON odin.order_lines (model_id) WHERE model_id IS NOT NULL;
CREATE INDEX customers_self ON odin.customers (customer_id);
CREATE INDEX order_parts_by_customer ON odin.order_parts (customer_id) WHERE customer_id IS NOT NULL;
SELECT odin.guard_table('odin.customers');
SELECT odin.guard_table('odin.orders');
SELECT odin.guard_table('odin.order_lines');
SELECT odin.guard_table('odin.order_parts', trail => false);
SELECT odin.guard_table('odin.order_counters', trail => false);
GRANT SELECT ON odin.customers, odin.orders, odin.order_lines, odin.order_parts TO odin_viewer;
-- A customer reads what it bought, never what it costs the farm, nor what the staff write to each other.
GRANT SELECT (id, org_id, customer_id, name, company, email, phone, address, tax_id, channel, external_id, is_active, created_at, updated_at) ON odin.customers TO odin_customer;
GRANT SELECT (id, org_id, customer_id, is_stock, order_number, channel, external_id, status, priority, currency, ordered_at, due_at, shipped_at, carrier, tracking_number, ship_to,
  shipping_charged, discount, tax_pct, created_at, updated_at) ON odin.orders TO odin_customer;
GRANT SELECT (id, org_id, customer_id, order_id, is_stock, line_no, external_line_id, product_id, model_id, description, quantity, from_stock, fulfilled, shipped, unit_price, status, due_at,
  priority, created_at, updated_at) ON odin.order_lines TO odin_customer;
GRANT SELECT (id, org_id, customer_id, order_line_id, is_stock, model_id, per_unit, ordered, from_stock, waived, queued, in_flight, good, needed, shortfall, updated_at) ON odin.order_parts TO odin_customer;
GRANT INSERT, UPDATE ON odin.customers, odin.orders, odin.order_lines TO odin_operator;
GRANT INSERT (org_id, customer_id, order_line_id, is_stock, model_id, per_unit, ordered, from_stock),
      UPDATE (ordered, from_stock, waived, updated_at) ON odin.order_parts TO odin_operator;
GRANT DELETE ON odin.customers TO odin_admin;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('orders_number_key', 'already_exists', 'An order with this order_number exists.', 'Leave order_number out to get the next one.'),
  ('orders_external_key', 'already_exists', 'This order was imported from that channel before.', 'Use import_order: it returns the order there is.'),
  ('customers_external_key', 'already_exists', 'This customer was imported from that channel before.', NULL),
  ('orders_customer_fk', 'customer_not_found', 'There is no customer with this customer_id.', 'Call list_customers.'),
  ('order_lines_external_key', 'already_exists', 'The order has a line with this external id.', NULL),
  ('order_lines_something', 'validation_failed', 'A line needs a product_id or a model_id, one of the two.', NULL),
  ('order_lines_from_stock_fits', 'validation_failed', 'from_stock is more than quantity.', NULL),
  ('order_parts_model_key', 'already_exists', 'The line has this model already.', NULL);
