-- Spools and their ledger: integer milligrams, append-only moves, balance = sum (kept by a trigger, never written by hand).
-- Consumption is written once per (run, slot, segment, revision); a correction voids the old move and writes the next revision.
CREATE TABLE odin.spools (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id           bigint NOT NULL REFERENCES odin.orgs,
  filament_id      bigint NOT NULL,
  code             text NOT NULL CHECK (code ~ '^[A-Z0-9][A-Z0-9-]{2,39}$'),
  rfid_tag         text CHECK (length(rfid_tag) <= 100),
  initial_mg       bigint NOT NULL DEFAULT 1000000 CHECK (initial_mg BETWEEN 0 AND 100000000),
  tare_mg          bigint NOT NULL DEFAULT 250000 CHECK (tare_mg BETWEEN 0 AND 10000000),
  low_stock_mg     bigint NOT NULL DEFAULT 50000 CHECK (low_stock_mg >= 0),
  price            numeric(12,4) CHECK (price >= 0),
  currency         text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  purchased_on     date,
  vendor           text CHECK (length(vendor) <= 200),
  lot_number       text CHECK (length(lot_number) <= 100),
  status           text NOT NULL DEFAULT 'active' CHECK (status IN ('active','empty','archived')),
  storage_location text CHECK (length(storage_location) <= 200),
  notes            text CHECK (length(notes) <= 2000),
  last_dried_at    timestamptz,
  created_by       text NOT NULL DEFAULT current_user,
  created_at       timestamptz NOT NULL DEFAULT now(),
  updated_at       timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT spools_code_key UNIQUE (org_id, code),
  CONSTRAINT spools_rfid_key UNIQUE (org_id, rfid_tag),
  CONSTRAINT spools_filament_fk FOREIGN KEY (org_id, filament_id) REFERENCES odin.filaments (org_id, id)
);
COMMENT ON TABLE odin.spools IS 'Reels. What is left is in spool_balances; where a spool sits is in printer_slots.';
COMMENT ON COLUMN odin.spools.code IS 'What the label says, SPL-XXXXXXXX.';
COMMENT ON COLUMN odin.spools.tare_mg IS 'Weight of the empty reel; a weighing subtracts it.';
CREATE INDEX spools_by_filament ON odin.spools (filament_id, status);
CREATE INDEX spools_by_status ON odin.spools (org_id, status, id);

CREATE TABLE odin.spool_moves (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  spool_id    bigint NOT NULL,
  kind        text NOT NULL CHECK (kind IN ('receive','load','unload','reserve','release','consume','purge','adjust','void')),
  mg          bigint NOT NULL DEFAULT 0,
  reserved_mg bigint NOT NULL DEFAULT 0,
  job_id      bigint,
  run_id      bigint,
  printer_id  bigint,
  slot_number smallint,
  segment     smallint NOT NULL DEFAULT 0 CHECK (segment BETWEEN 0 AND 999),
  revision    smallint NOT NULL DEFAULT 0 CHECK (revision >= 0),
  void_of     bigint REFERENCES odin.spool_moves,
  basis       text CHECK (basis IN ('slicer','extruded','scale','person','scaled','ledger')),
  reason      text CHECK (length(reason) <= 500),
  actor       text NOT NULL DEFAULT current_user,
  call_id     bigint,
  at          timestamptz NOT NULL DEFAULT now(),
  day         date NOT NULL GENERATED ALWAYS AS ((at AT TIME ZONE 'UTC')::date) STORED,
  CONSTRAINT spool_moves_spool_fk FOREIGN KEY (org_id, spool_id) REFERENCES odin.spools (org_id, id),
  CONSTRAINT spool_moves_sign CHECK (
    CASE kind WHEN 'receive' THEN mg > 0 AND reserved_mg = 0
              WHEN 'consume' THEN mg <= 0 AND reserved_mg <= 0
              WHEN 'purge'   THEN mg < 0 AND reserved_mg = 0
              WHEN 'reserve' THEN mg = 0 AND reserved_mg > 0
              WHEN 'release' THEN mg = 0 AND reserved_mg < 0
              WHEN 'load'    THEN mg = 0 AND reserved_mg = 0
              WHEN 'unload'  THEN mg = 0 AND reserved_mg = 0
              ELSE true END),
  CONSTRAINT spool_moves_void_names_one CHECK ((kind = 'void') = (void_of IS NOT NULL))
);
COMMENT ON TABLE odin.spool_moves IS 'The ledger of filament. mg changes the balance, reserved_mg what is promised to jobs and runs. No row is ever changed or deleted.';
COMMENT ON COLUMN odin.spool_moves.day IS 'The day of the move in UTC. A column, not an expression, so that the planner knows how few days there are.';
COMMENT ON COLUMN odin.spool_moves.segment IS 'Which spool of a run that changed spools on the way (run-out), from 0.';
COMMENT ON COLUMN odin.spool_moves.basis IS 'Where the amount comes from: the slicer, length extruded, a scale, a person, the slicer''s figure scaled to progress, or the ledger itself.';
CREATE UNIQUE INDEX spool_moves_consume_once ON odin.spool_moves (run_id, slot_number, segment, revision) WHERE kind = 'consume' AND run_id IS NOT NULL;
CREATE UNIQUE INDEX spool_moves_void_once ON odin.spool_moves (void_of) WHERE void_of IS NOT NULL;
CREATE INDEX spool_moves_by_spool ON odin.spool_moves (spool_id, id);
CREATE INDEX spool_moves_by_run ON odin.spool_moves (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX spool_moves_by_job ON odin.spool_moves (job_id) WHERE job_id IS NOT NULL;
-- With what reports add up, so that they need not read the table.
CREATE INDEX spool_moves_org ON odin.spool_moves (org_id, day) INCLUDE (kind, spool_id, mg);

CREATE TABLE odin.spool_balances (
  spool_id    bigint PRIMARY KEY,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  balance_mg  bigint NOT NULL DEFAULT 0,
  reserved_mg bigint NOT NULL DEFAULT 0,
  updated_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT spool_balances_spool_fk FOREIGN KEY (org_id, spool_id) REFERENCES odin.spools (org_id, id) ON DELETE CASCADE,
  CONSTRAINT spool_balances_not_negative CHECK (balance_mg >= 0),
  CONSTRAINT spool_balances_reserved_not_negative CHECK (reserved_mg >= 0)
) WITH (fillfactor = 70);
COMMENT ON TABLE odin.spool_balances IS 'What is left on a spool and what of it is promised = sums of spool_moves, kept by a trigger; never negative.';
CREATE INDEX spool_balances_org ON odin.spool_balances (org_id);

ALTER TABLE odin.printer_slots ADD CONSTRAINT printer_slots_spool_fk FOREIGN KEY (org_id, spool_id) REFERENCES odin.spools (org_id, id);
CREATE UNIQUE INDEX printer_slots_one_place ON odin.printer_slots (spool_id) WHERE spool_id IS NOT NULL;

SELECT odin.guard_table('odin.spools');
SELECT odin.guard_table('odin.spool_moves', trail => false);
SELECT odin.guard_table('odin.spool_balances');
GRANT SELECT ON odin.spools, odin.spool_moves, odin.spool_balances TO odin_viewer;
GRANT INSERT, UPDATE ON odin.spools TO odin_operator;
GRANT INSERT ON odin.spool_moves TO odin_operator;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('spools_code_key', 'already_exists', 'A spool with this code exists.', NULL),
  ('spools_rfid_key', 'already_exists', 'A spool with this rfid_tag exists.', NULL),
  ('spools_filament_fk', 'filament_not_found', 'There is no filament with this filament_id.', 'Call list_filaments.'),
  ('spool_moves_spool_fk', 'spool_not_found', 'There is no spool with this spool_id.', 'Call list_spools.'),
  ('spool_moves_consume_once', 'already_exists', 'This use was recorded before; recording it again changes nothing.', 'Use correct_usage to correct it.'),
  ('spool_moves_void_once', 'already_exists', 'This move was voided before.', NULL),
  ('spool_balances_not_negative', 'spool_short', 'The spool holds less than that.', 'Weigh it with weigh_spool.'),
  ('spool_balances_reserved_not_negative', 'validation_failed', 'Less is reserved than would be released.', NULL),
  ('printer_slots_one_place', 'spool_in_use', 'The spool is loaded in another slot.', 'Use assign_spool, which moves it.'),
  ('printer_slots_spool_fk', 'spool_not_found', 'There is no spool with this spool_id.', 'Call list_spools.');
