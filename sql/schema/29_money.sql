-- Money: versioned rate cards, the cost of every run, quotes and invoices. Amounts are numeric with a currency, never float.
-- A rate card is never changed (a new version is added); a quote and an invoice keep the figures they were made from.
CREATE TABLE odin.rate_cards (
  id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id             bigint NOT NULL REFERENCES odin.orgs,
  version            integer NOT NULL CHECK (version >= 1),
  currency           text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  material_per_kg    numeric(12,4) NOT NULL DEFAULT 25 CHECK (material_per_kg >= 0),
  machine_per_hour   numeric(12,4) NOT NULL DEFAULT 0.06 CHECK (machine_per_hour >= 0),
  electricity_per_kwh numeric(12,4) NOT NULL DEFAULT 0.12 CHECK (electricity_per_kwh >= 0),
  watts              numeric(8,1) NOT NULL DEFAULT 100 CHECK (watts >= 0),
  labor_per_hour     numeric(12,4) NOT NULL DEFAULT 15 CHECK (labor_per_hour >= 0),
  labor_minutes_per_run   numeric(8,2) NOT NULL DEFAULT 10 CHECK (labor_minutes_per_run >= 0),
  labor_minutes_per_order numeric(8,2) NOT NULL DEFAULT 5 CHECK (labor_minutes_per_order >= 0),
  failure_pct        numeric(6,3) NOT NULL DEFAULT 7 CHECK (failure_pct >= 0 AND failure_pct < 100),
  packaging_per_order numeric(12,4) NOT NULL DEFAULT 0.45 CHECK (packaging_per_order >= 0),
  overhead_per_month numeric(14,2) NOT NULL DEFAULT 0 CHECK (overhead_per_month >= 0),
  pieces_per_month   numeric(12,1) NOT NULL DEFAULT 100 CHECK (pieces_per_month > 0),
  margin_pct         numeric(8,3) NOT NULL DEFAULT 50 CHECK (margin_pct >= 0),
  notes              text CHECK (length(notes) <= 1000),
  created_by         text NOT NULL DEFAULT current_user,
  created_at         timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT rate_cards_version_key UNIQUE (org_id, version)
);
COMMENT ON TABLE odin.rate_cards IS 'What things cost the farm, versioned; the highest version is in force. Costs name the version they were computed with.';
COMMENT ON COLUMN odin.rate_cards.machine_per_hour IS 'Used for a printer that has neither hour_rate nor price and life_hours.';
COMMENT ON COLUMN odin.rate_cards.failure_pct IS 'Share of prints that fail: estimates are divided by (1 - failure_pct / 100). Real costs charge real scrap instead.';

CREATE TABLE odin.run_costs (
  run_id       bigint PRIMARY KEY,
  org_id       bigint NOT NULL REFERENCES odin.orgs,
  rate_card_id bigint NOT NULL,
  material     numeric(14,4) NOT NULL,
  machine      numeric(14,4) NOT NULL,
  energy       numeric(14,4) NOT NULL,
  labor        numeric(14,4) NOT NULL,
  total        numeric(14,4) GENERATED ALWAYS AS (material + machine + energy + labor) STORED,
  scrap_share  numeric(14,4) NOT NULL DEFAULT 0,
  currency     text NOT NULL,
  finished_at  timestamptz NOT NULL DEFAULT now(),
  finished_on  date NOT NULL GENERATED ALWAYS AS ((finished_at AT TIME ZONE 'UTC')::date) STORED,
  CONSTRAINT run_costs_run_fk FOREIGN KEY (org_id, run_id) REFERENCES odin.runs (org_id, id),
  CONSTRAINT run_costs_card_fk FOREIGN KEY (org_id, rate_card_id) REFERENCES odin.rate_cards (org_id, id)
);
COMMENT ON TABLE odin.run_costs IS 'What each finished run really cost. Scrap is charged to the order line that needed the run; scrap_share says how much of the total went into scrap.';
CREATE INDEX run_costs_by_card ON odin.run_costs (rate_card_id);
CREATE INDEX run_costs_org ON odin.run_costs (org_id);

CREATE TABLE odin.quotes (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id       bigint NOT NULL REFERENCES odin.orgs,
  customer_id  bigint,
  quote_number text NOT NULL,
  status       text NOT NULL DEFAULT 'draft' CHECK (status IN ('draft','sent','accepted','declined','expired')),
  rate_card_id bigint NOT NULL,
  currency     text NOT NULL,
  inputs       jsonb NOT NULL,
  breakdown    jsonb NOT NULL,
  cost         numeric(14,2) NOT NULL CHECK (cost >= 0),
  price        numeric(14,2) NOT NULL CHECK (price >= 0),
  valid_until  date NOT NULL,
  order_id     bigint,
  notes        text CHECK (length(notes) <= 2000),
  created_by   text NOT NULL DEFAULT current_user,
  created_at   timestamptz NOT NULL DEFAULT now(),
  updated_at   timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT quotes_number_key UNIQUE (org_id, quote_number),
  CONSTRAINT quotes_customer_fk FOREIGN KEY (org_id, customer_id) REFERENCES odin.customers (org_id, id),
  CONSTRAINT quotes_card_fk FOREIGN KEY (org_id, rate_card_id) REFERENCES odin.rate_cards (org_id, id),
  CONSTRAINT quotes_order_fk FOREIGN KEY (org_id, order_id) REFERENCES odin.orders (org_id, id)
);
COMMENT ON TABLE odin.quotes IS 'Offers, with the inputs, the breakdown and the rate card version they were made from.';
CREATE INDEX quotes_by_card ON odin.quotes (rate_card_id);
CREATE INDEX quotes_by_order ON odin.quotes (order_id) WHERE order_id IS NOT NULL;
CREATE INDEX quotes_by_customer ON odin.quotes (customer_id) WHERE customer_id IS NOT NULL;

CREATE TABLE odin.invoices (
  id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id         bigint NOT NULL REFERENCES odin.orgs,
  customer_id    bigint,
  order_id       bigint NOT NULL,
  invoice_number text NOT NULL,
  status         text NOT NULL DEFAULT 'issued' CHECK (status IN ('issued','paid','void')),
  issued_on      date NOT NULL DEFAULT current_date,
  due_on         date NOT NULL,
  paid_on        date,
  bill_to        text,
  currency       text NOT NULL,
  lines          jsonb NOT NULL,
  subtotal       numeric(14,2) NOT NULL,
  discount       numeric(14,2) NOT NULL DEFAULT 0,
  shipping       numeric(14,2) NOT NULL DEFAULT 0,
  tax            numeric(14,2) NOT NULL DEFAULT 0,
  total          numeric(14,2) NOT NULL,
  void_reason    text CHECK (length(void_reason) <= 500),
  created_by     text NOT NULL DEFAULT current_user,
  created_at     timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT invoices_number_key UNIQUE (org_id, invoice_number),
  CONSTRAINT invoices_order_fk FOREIGN KEY (org_id, order_id) REFERENCES odin.orders (org_id, id)
);
COMMENT ON TABLE odin.invoices IS 'Numbered without gaps per org. Figures are a snapshot; a wrong invoice is voided, never changed.';
CREATE UNIQUE INDEX invoices_one_per_order ON odin.invoices (order_id) WHERE status <> 'void';
CREATE INDEX invoices_by_order ON odin.invoices (order_id);
CREATE INDEX invoices_by_customer ON odin.invoices (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX invoices_list ON odin.invoices (org_id, status, id);

SELECT odin.guard_table('odin.' || t) FROM unnest(ARRAY['rate_cards','quotes','invoices']) AS t;
SELECT odin.guard_table('odin.run_costs', trail => false);
GRANT SELECT ON odin.rate_cards, odin.run_costs, odin.quotes, odin.invoices TO odin_viewer;
-- A customer reads the price and the bill, not the reckoning behind them.
GRANT SELECT (id, org_id, customer_id, quote_number, status, currency, price, valid_until, order_id, created_at, updated_at) ON odin.quotes TO odin_customer;
GRANT SELECT (id, org_id, customer_id, order_id, invoice_number, status, issued_on, due_on, paid_on, bill_to, currency, lines, subtotal, discount, shipping, tax, total, created_at) ON odin.invoices TO odin_customer;
GRANT INSERT ON odin.quotes, odin.invoices TO odin_operator;
GRANT UPDATE (status, valid_until, order_id, notes, updated_at) ON odin.quotes TO odin_operator;
GRANT UPDATE (status, paid_on, void_reason) ON odin.invoices TO odin_operator;
GRANT INSERT ON odin.rate_cards TO odin_admin;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('invoices_one_per_order', 'already_exists', 'The order has an invoice.', 'Void it first to issue another.'),
  ('quotes_customer_fk', 'customer_not_found', 'There is no customer with this customer_id.', 'Call list_customers.'),
  ('invoices_order_fk', 'order_not_found', 'There is no order with this order_id.', 'Call list_orders.');
