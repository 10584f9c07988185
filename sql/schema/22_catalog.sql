-- What can be made: filaments, models and their frozen revisions, products with their parts, consumables with a ledger, finished pieces in stock.
-- A revision is never changed once written (a new one is added), so a job knows for ever what it was made from.
CREATE TABLE odin.filaments (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  brand         text NOT NULL DEFAULT 'Generic' CHECK (length(brand) BETWEEN 1 AND 100),
  name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  material      text NOT NULL CHECK (material ~ '^[A-Z0-9][A-Z0-9_+-]{0,29}$'),
  color_name    text CHECK (length(color_name) <= 60),
  color_hex     text CHECK (color_hex ~ '^#[0-9A-F]{6}$'),
  diameter_mm   numeric(4,2) NOT NULL DEFAULT 1.75 CHECK (diameter_mm BETWEEN 0.5 AND 5),
  density       numeric(5,3) NOT NULL DEFAULT 1.24 CHECK (density BETWEEN 0.5 AND 10),
  cost_per_kg   numeric(12,4) CHECK (cost_per_kg >= 0),
  currency      text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  nozzle_min_c  smallint CHECK (nozzle_min_c BETWEEN 0 AND 500),
  nozzle_max_c  smallint CHECK (nozzle_max_c BETWEEN 0 AND 500),
  bed_min_c     smallint CHECK (bed_min_c BETWEEN 0 AND 200),
  bed_max_c     smallint CHECK (bed_max_c BETWEEN 0 AND 200),
  abrasive      boolean NOT NULL DEFAULT false,
  hygroscopic   boolean NOT NULL DEFAULT false,
  is_custom     boolean NOT NULL DEFAULT true,
  is_active     boolean NOT NULL DEFAULT true,
  notes         text CHECK (length(notes) <= 2000),
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT filaments_name_key UNIQUE (org_id, brand, name)
);
COMMENT ON TABLE odin.filaments IS 'The filament library: one row per brand, kind and colour. A spool is one reel of a filament.';
COMMENT ON COLUMN odin.filaments.material IS 'Material type in capitals, as PLA, PETG, PA_CF: what the first level of matching compares.';
COMMENT ON COLUMN odin.filaments.abrasive IS 'Needs a hardened nozzle; matching refuses a brass one.';
COMMENT ON COLUMN odin.filaments.density IS 'Grams per cubic centimetre.';
CREATE INDEX filaments_by_material ON odin.filaments (org_id, material);

CREATE TABLE odin.models (
  id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id              bigint NOT NULL REFERENCES odin.orgs,
  customer_id         bigint,
  name                text NOT NULL CHECK (length(btrim(name)) BETWEEN 1 AND 200),
  sku                 text CHECK (length(sku) <= 60),
  category            text CHECK (length(category) <= 100),
  notes               text CHECK (length(notes) <= 4000),
  markup_percent      numeric(8,2) NOT NULL DEFAULT 300 CHECK (markup_percent >= 0),
  license             text CHECK (length(license) <= 200),
  author              text CHECK (length(author) <= 200),
  source_url          text CHECK (length(source_url) <= 2000),
  thumbnail_sha256    text CHECK (thumbnail_sha256 ~ '^[0-9a-f]{64}$'),
  current_revision_id bigint,
  is_favorite         boolean NOT NULL DEFAULT false,
  is_active           boolean NOT NULL DEFAULT true,
  created_by          text NOT NULL DEFAULT current_user,
  created_at          timestamptz NOT NULL DEFAULT now(),
  updated_at          timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT models_sku_key UNIQUE (org_id, sku),
  CONSTRAINT models_customer_fk FOREIGN KEY (org_id, customer_id) REFERENCES odin.customers (org_id, id)
);
COMMENT ON TABLE odin.models IS 'A thing that can be printed. What a plate of it needs is in its current revision.';
COMMENT ON COLUMN odin.models.markup_percent IS 'Suggested price = cost x (1 + markup_percent / 100).';
COMMENT ON COLUMN odin.models.license IS 'Licence of the design, shown before it is sold.';
CREATE INDEX models_by_name ON odin.models (org_id, lower(name));
CREATE INDEX models_by_customer ON odin.models (customer_id) WHERE customer_id IS NOT NULL;

CREATE TABLE odin.model_revisions (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id           bigint NOT NULL REFERENCES odin.orgs,
  customer_id      bigint,
  model_id         bigint NOT NULL,
  revision         integer NOT NULL CHECK (revision >= 1),
  pieces_per_plate integer NOT NULL DEFAULT 1 CHECK (pieces_per_plate BETWEEN 1 AND 10000),
  seconds          integer CHECK (seconds BETWEEN 1 AND 10000000),
  file_sha256      text CHECK (file_sha256 ~ '^[0-9a-f]{64}$'),
  file_name        text CHECK (length(file_name) <= 255),
  protocols        text[],
  printer_model    text CHECK (length(printer_model) <= 200),
  nozzle_mm        numeric(4,2) CHECK (nozzle_mm BETWEEN 0.05 AND 5),
  size_x_mm        numeric(8,2) CHECK (size_x_mm > 0),
  size_y_mm        numeric(8,2) CHECK (size_y_mm > 0),
  size_z_mm        numeric(8,2) CHECK (size_z_mm > 0),
  plate_surface    text CHECK (length(plate_surface) <= 60),
  layer_count      integer CHECK (layer_count > 0),
  changelog        text CHECK (length(changelog) <= 2000),
  created_by       text NOT NULL DEFAULT current_user,
  created_at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT model_revisions_no_key UNIQUE (model_id, revision),
  CONSTRAINT model_revisions_model_fk FOREIGN KEY (org_id, model_id) REFERENCES odin.models (org_id, id)
);
COMMENT ON TABLE odin.model_revisions IS 'A frozen version of a model: the file and what one plate of it takes. Never changed; a new revision is added.';
COMMENT ON COLUMN odin.model_revisions.pieces_per_plate IS 'Sellable pieces that one print of this file gives.';
COMMENT ON COLUMN odin.model_revisions.seconds IS 'Printing time of one plate.';
COMMENT ON COLUMN odin.model_revisions.printer_model IS 'Set when the file was sliced for one printer model only.';
COMMENT ON COLUMN odin.model_revisions.protocols IS 'Protocols that can print this file; NULL = any.';
CREATE INDEX model_revisions_by_file ON odin.model_revisions (org_id, file_sha256) WHERE file_sha256 IS NOT NULL;
ALTER TABLE odin.models ADD CONSTRAINT models_revision_fk FOREIGN KEY (org_id, current_revision_id) REFERENCES odin.model_revisions (org_id, id);

CREATE TABLE odin.revision_materials (
  revision_id bigint NOT NULL,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  customer_id bigint,
  tool        smallint NOT NULL CHECK (tool BETWEEN 0 AND 63),
  material    text NOT NULL CHECK (material ~ '^[A-Z0-9][A-Z0-9_+-]{0,29}$'),
  brand       text,
  filament_id bigint,
  color_hex   text CHECK (color_hex ~ '^#[0-9A-F]{6}$'),
  mg          bigint NOT NULL CHECK (mg BETWEEN 0 AND 100000000),
  PRIMARY KEY (revision_id, tool),
  CONSTRAINT revision_materials_revision_fk FOREIGN KEY (org_id, revision_id) REFERENCES odin.model_revisions (org_id, id) ON DELETE CASCADE,
  CONSTRAINT revision_materials_filament_fk FOREIGN KEY (org_id, filament_id) REFERENCES odin.filaments (org_id, id)
);
COMMENT ON TABLE odin.revision_materials IS 'What one plate of a revision takes per tool of the file. Three levels of match: material; brand + material; exact filament. A colour, where given, must match too.';
COMMENT ON COLUMN odin.revision_materials.mg IS 'Milligrams for one plate.';
CREATE INDEX revision_materials_org ON odin.revision_materials (org_id);

CREATE TABLE odin.model_files (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  customer_id bigint,
  model_id    bigint NOT NULL,
  revision_id bigint,
  kind        text NOT NULL CHECK (kind IN ('stl','3mf','obj','step','gcode','bgcode','gcode_3mf','image','other')),
  sha256      text NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
  name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
  bytes       bigint CHECK (bytes >= 0),
  created_by  text NOT NULL DEFAULT current_user,
  created_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT model_files_key UNIQUE (model_id, sha256),
  CONSTRAINT model_files_model_fk FOREIGN KEY (org_id, model_id) REFERENCES odin.models (org_id, id),
  CONSTRAINT model_files_revision_fk FOREIGN KEY (org_id, revision_id) REFERENCES odin.model_revisions (org_id, id)
);
COMMENT ON TABLE odin.model_files IS 'Files that belong to a model, by content hash; the bytes are in the file store.';
CREATE INDEX model_files_org ON odin.model_files (org_id, sha256);

CREATE TABLE odin.products (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  name        text NOT NULL CHECK (length(btrim(name)) BETWEEN 1 AND 200),
  sku         text CHECK (length(sku) <= 60),
  description text CHECK (length(description) <= 4000),
  price       numeric(14,4) CHECK (price >= 0),
  currency    text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  is_active   boolean NOT NULL DEFAULT true,
  created_by  text NOT NULL DEFAULT current_user,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT products_sku_key UNIQUE (org_id, sku)
);
COMMENT ON TABLE odin.products IS 'What is sold: made of printed parts (product_parts) and consumables (product_consumables).';
CREATE TABLE odin.product_parts (
  product_id bigint NOT NULL,
  org_id     bigint NOT NULL REFERENCES odin.orgs,
  model_id   bigint NOT NULL,
  quantity   integer NOT NULL CHECK (quantity BETWEEN 1 AND 10000),
  notes      text CHECK (length(notes) <= 500),
  PRIMARY KEY (product_id, model_id),
  CONSTRAINT product_parts_product_fk FOREIGN KEY (org_id, product_id) REFERENCES odin.products (org_id, id) ON DELETE CASCADE,
  CONSTRAINT product_parts_model_fk FOREIGN KEY (org_id, model_id) REFERENCES odin.models (org_id, id)
);
COMMENT ON TABLE odin.product_parts IS 'Printed pieces one unit of a product needs.';
CREATE INDEX product_parts_org ON odin.product_parts (org_id, model_id);

CREATE TABLE odin.consumables (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  name          text NOT NULL CHECK (length(btrim(name)) BETWEEN 1 AND 200),
  sku           text CHECK (length(sku) <= 60),
  unit          text NOT NULL DEFAULT 'piece' CHECK (length(unit) BETWEEN 1 AND 30),
  cost_per_unit numeric(14,4) NOT NULL DEFAULT 0 CHECK (cost_per_unit >= 0),
  currency      text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  min_stock     numeric(14,3) NOT NULL DEFAULT 0 CHECK (min_stock >= 0),
  stock         numeric(14,3) NOT NULL DEFAULT 0,
  vendor        text CHECK (length(vendor) <= 200),
  notes         text CHECK (length(notes) <= 2000),
  is_active     boolean NOT NULL DEFAULT true,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT consumables_name_key UNIQUE (org_id, name),
  CONSTRAINT consumables_stock_not_negative CHECK (stock >= 0)
);
COMMENT ON TABLE odin.consumables IS 'Screws, magnets, boxes, glue. stock = sum of consumable_moves, kept by a trigger.';
CREATE TABLE odin.consumable_moves (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  consumable_id bigint NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('restock','deduct','adjust','ship')),
  quantity      numeric(14,3) NOT NULL,
  order_line_id bigint,
  notes         text CHECK (length(notes) <= 500),
  actor         text NOT NULL DEFAULT current_user,
  at            timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT consumable_moves_consumable_fk FOREIGN KEY (org_id, consumable_id) REFERENCES odin.consumables (org_id, id),
  CONSTRAINT consumable_moves_sign CHECK (kind = 'adjust' OR (kind = 'restock') = (quantity > 0))
);
COMMENT ON TABLE odin.consumable_moves IS 'Ledger of consumables, append-only; quantity is signed.';
CREATE INDEX consumable_moves_list ON odin.consumable_moves (consumable_id, id);
CREATE INDEX consumable_moves_org ON odin.consumable_moves (org_id, at);
CREATE TABLE odin.product_consumables (
  product_id    bigint NOT NULL,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  consumable_id bigint NOT NULL,
  quantity      numeric(12,3) NOT NULL CHECK (quantity > 0),
  PRIMARY KEY (product_id, consumable_id),
  CONSTRAINT product_consumables_product_fk FOREIGN KEY (org_id, product_id) REFERENCES odin.products (org_id, id) ON DELETE CASCADE,
  CONSTRAINT product_consumables_consumable_fk FOREIGN KEY (org_id, consumable_id) REFERENCES odin.consumables (org_id, id)
);
COMMENT ON TABLE odin.product_consumables IS 'Consumables one unit of a product needs; they leave stock when the order ships.';
CREATE INDEX product_consumables_org ON odin.product_consumables (org_id, consumable_id);

CREATE TABLE odin.stock_moves (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  model_id      bigint NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('made','overshoot','taken','returned','adjust')),
  quantity      integer NOT NULL CHECK (quantity <> 0),
  order_part_id bigint,
  run_id        bigint,
  reason        text CHECK (length(reason) <= 500),
  actor         text NOT NULL DEFAULT current_user,
  at            timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT stock_moves_model_fk FOREIGN KEY (org_id, model_id) REFERENCES odin.models (org_id, id)
);
COMMENT ON TABLE odin.stock_moves IS 'Ledger of finished pieces, append-only: made for stock, overshoot of a whole plate, taken by an order line, returned.';
CREATE INDEX stock_moves_list ON odin.stock_moves (model_id, id);
CREATE INDEX stock_moves_org ON odin.stock_moves (org_id, at);
CREATE INDEX stock_moves_by_part ON odin.stock_moves (order_part_id) WHERE order_part_id IS NOT NULL;
CREATE TABLE odin.stock_balances (
  org_id   bigint NOT NULL REFERENCES odin.orgs,
  model_id bigint NOT NULL,
  quantity integer NOT NULL,
  PRIMARY KEY (model_id),
  CONSTRAINT stock_balances_model_fk FOREIGN KEY (org_id, model_id) REFERENCES odin.models (org_id, id) ON DELETE CASCADE,
  CONSTRAINT stock_balances_not_negative CHECK (quantity >= 0)
) WITH (fillfactor = 70);
COMMENT ON TABLE odin.stock_balances IS 'Finished pieces in stock per model = sum of stock_moves, kept by a trigger.';
CREATE INDEX stock_balances_org ON odin.stock_balances (org_id);

CREATE INDEX models_by_revision ON odin.models (current_revision_id) WHERE current_revision_id IS NOT NULL;
CREATE INDEX model_revisions_by_customer ON odin.model_revisions (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX model_files_by_customer ON odin.model_files (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX model_files_by_revision ON odin.model_files (revision_id) WHERE revision_id IS NOT NULL;
CREATE INDEX revision_materials_by_customer ON odin.revision_materials (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX revision_materials_by_filament ON odin.revision_materials (filament_id) WHERE filament_id IS NOT NULL;
ALTER TABLE odin.order_lines
  ADD CONSTRAINT order_lines_product_fk FOREIGN KEY (org_id, product_id) REFERENCES odin.products (org_id, id),
  ADD CONSTRAINT order_lines_model_fk FOREIGN KEY (org_id, model_id) REFERENCES odin.models (org_id, id);
ALTER TABLE odin.order_parts
  ADD CONSTRAINT order_parts_model_fk FOREIGN KEY (org_id, model_id) REFERENCES odin.models (org_id, id);

SELECT odin.guard_table('odin.' || t) FROM unnest(ARRAY['filaments','models','model_revisions','revision_materials','model_files',
  'products','product_parts','consumables','product_consumables','stock_balances']) AS t;
SELECT odin.guard_table('odin.' || t, trail => false) FROM unnest(ARRAY['consumable_moves','stock_moves']) AS t;
GRANT SELECT ON odin.filaments, odin.models, odin.model_revisions, odin.revision_materials, odin.model_files, odin.products, odin.product_parts,
  odin.consumables, odin.product_consumables, odin.consumable_moves, odin.stock_moves, odin.stock_balances TO odin_viewer;
-- A customer's own models: what they are, not what making them takes.
GRANT SELECT (id, org_id, customer_id, name, sku, category, license, author, source_url, thumbnail_sha256, current_revision_id, is_active, created_at, updated_at) ON odin.models TO odin_customer;
GRANT SELECT (id, org_id, customer_id, model_id, revision, pieces_per_plate, file_sha256, file_name, size_x_mm, size_y_mm, size_z_mm, layer_count, created_at) ON odin.model_revisions TO odin_customer;
GRANT SELECT (revision_id, org_id, customer_id, tool, material, brand, color_hex) ON odin.revision_materials TO odin_customer;
GRANT SELECT (id, org_id, customer_id, model_id, revision_id, kind, sha256, name, bytes, created_at) ON odin.model_files TO odin_customer;
GRANT INSERT, UPDATE ON odin.filaments, odin.models, odin.products, odin.product_parts, odin.product_consumables TO odin_operator;
GRANT INSERT ON odin.model_revisions, odin.revision_materials, odin.model_files, odin.stock_moves, odin.consumable_moves TO odin_operator;
GRANT INSERT, UPDATE (name, sku, unit, cost_per_unit, currency, min_stock, vendor, notes, is_active, updated_at) ON odin.consumables TO odin_operator;
GRANT DELETE ON odin.product_parts, odin.product_consumables, odin.model_files TO odin_operator;
GRANT DELETE ON odin.filaments, odin.models, odin.products, odin.consumables TO odin_admin;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('filaments_name_key', 'already_exists', 'A filament with this brand and name exists.', 'Call list_filaments.'),
  ('models_sku_key', 'already_exists', 'A model with this sku exists.', NULL),
  ('products_sku_key', 'already_exists', 'A product with this sku exists.', NULL),
  ('consumables_name_key', 'already_exists', 'A consumable with this name exists.', NULL),
  ('consumables_stock_not_negative', 'out_of_stock', 'There is less of this consumable in stock than that.', 'Call adjust_consumable with a restock, or correct the count.'),
  ('stock_balances_not_negative', 'out_of_stock', 'There are fewer finished pieces in stock than that.', 'Call list_stock.'),
  ('order_lines_product_fk', 'product_not_found', 'There is no product with this product_id.', 'Call list_products.'),
  ('order_lines_model_fk', 'model_not_found', 'There is no model with this model_id.', 'Call list_models.'),
  ('order_parts_model_fk', 'model_not_found', 'There is no model with this model_id.', 'Call list_models.'),
  ('product_parts_model_fk', 'model_not_found', 'There is no model with this model_id.', 'Call list_models.'),
  ('revision_materials_filament_fk', 'filament_not_found', 'There is no filament with this filament_id.', 'Call list_filaments.'),
  ('product_consumables_consumable_fk', 'consumable_not_found', 'There is no consumable with this consumable_id.', 'Call list_consumables.');
