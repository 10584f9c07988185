-- Printers and all that belongs to one: slots, nozzles, beds, hot state, telemetry, events, hours in which nothing may start.
-- State is what the printer last reported (narrow table, no trail); nothing here may be written from hope. A bed is occupied until a recorded clear event.
CREATE TABLE odin.printers (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id          bigint NOT NULL REFERENCES odin.orgs,
  name            text NOT NULL CHECK (length(btrim(name)) BETWEEN 1 AND 100),
  nickname        text CHECK (length(nickname) <= 100),
  model           text CHECK (length(model) <= 200),
  machine_type    text NOT NULL DEFAULT 'fdm' CHECK (machine_type IN ('fdm','resin')),
  protocol        text NOT NULL DEFAULT 'virtual' CHECK (protocol IN ('octoprint','moonraker','prusalink','bambu','duet','elegoo','virtual')),
  address         text CHECK (length(address) <= 500),
  serial          text CHECK (length(serial) <= 100),
  camera_url      text CHECK (length(camera_url) <= 2000),
  location        text CHECK (length(location) <= 200),
  group_name      text CHECK (length(group_name) <= 100),
  tags            text[] NOT NULL DEFAULT '{}',
  slot_count      smallint NOT NULL DEFAULT 1 CHECK (slot_count BETWEEN 1 AND 16),
  bed_x_mm        numeric(7,1) NOT NULL DEFAULT 220 CHECK (bed_x_mm > 0),
  bed_y_mm        numeric(7,1) NOT NULL DEFAULT 220 CHECK (bed_y_mm > 0),
  bed_z_mm        numeric(7,1) NOT NULL DEFAULT 250 CHECK (bed_z_mm > 0),
  plate_surface   text CHECK (length(plate_surface) <= 60),
  enclosed        boolean NOT NULL DEFAULT false,
  max_tool_c      numeric(5,1) NOT NULL DEFAULT 300 CHECK (max_tool_c BETWEEN 0 AND 500),
  max_bed_c       numeric(5,1) NOT NULL DEFAULT 120 CHECK (max_bed_c BETWEEN 0 AND 200),
  max_move_mm     numeric(7,1) NOT NULL DEFAULT 500 CHECK (max_move_mm BETWEEN 0 AND 2000),
  max_feed_mm_min numeric(8,1) NOT NULL DEFAULT 12000 CHECK (max_feed_mm_min BETWEEN 1 AND 60000),
  watts           numeric(7,1) CHECK (watts >= 0),
  price           numeric(12,2) CHECK (price >= 0),
  life_hours      integer CHECK (life_hours > 0),
  hour_rate       numeric(10,4) CHECK (hour_rate >= 0),
  currency        text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  changeover_minutes numeric(6,1) NOT NULL DEFAULT 15 CHECK (changeover_minutes >= 0),
  auto_dispatch   boolean NOT NULL DEFAULT false,
  auto_dispatch_off_at     timestamptz,
  auto_dispatch_off_reason text CHECK (length(auto_dispatch_off_reason) <= 500),
  is_held         boolean NOT NULL DEFAULT false,
  hold_reason     text CHECK (length(hold_reason) <= 500),
  is_active       boolean NOT NULL DEFAULT true,
  notes           text CHECK (length(notes) <= 4000),
  created_by      text NOT NULL DEFAULT current_user,
  created_at      timestamptz NOT NULL DEFAULT now(),
  updated_at      timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT printers_name_key UNIQUE (org_id, name)
);
COMMENT ON TABLE odin.printers IS 'Machines. What they do now is in printer_state; what lies on them in beds; credentials are nowhere near this table.';
COMMENT ON COLUMN odin.printers.hour_rate IS 'Cost of an hour on this machine; NULL = price / life_hours, else the rate card''s.';
COMMENT ON COLUMN odin.printers.is_held IS 'Held by a person: nothing new starts here.';
COMMENT ON COLUMN odin.printers.auto_dispatch IS 'The farm may start the next fitting job by itself once the bed is clear, where the org allows it (setting auto_dispatch). Switches itself off after a failed run, a failed start, an error of the printer, its silence while it prints, or a print the farm did not start; a person switches it on again.';
COMMENT ON COLUMN odin.printers.auto_dispatch_off_at IS 'When automatic start switched itself off; NULL since somebody switched it on again.';
COMMENT ON COLUMN odin.printers.auto_dispatch_off_reason IS 'What made automatic start switch itself off.';
CREATE INDEX printers_auto ON odin.printers (id) WHERE auto_dispatch;
CREATE INDEX printers_by_group ON odin.printers (org_id, group_name) WHERE group_name IS NOT NULL;

CREATE TABLE odin.printer_slots (
  printer_id   bigint NOT NULL,
  slot_number  smallint NOT NULL CHECK (slot_number BETWEEN 0 AND 999),
  org_id       bigint NOT NULL REFERENCES odin.orgs,
  spool_id     bigint,
  loaded_at    timestamptz,
  confirmed    boolean NOT NULL DEFAULT false,
  reported_material text CHECK (length(reported_material) <= 60),
  reported_color    text CHECK (length(reported_color) <= 20),
  PRIMARY KEY (printer_id, slot_number),
  CONSTRAINT printer_slots_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE odin.printer_slots IS 'Where a spool sits. Slots count from 1; 0 names no slot; vendor external trays use their own numbers (254, 513, ...). A spool is in one slot at most.';
COMMENT ON COLUMN odin.printer_slots.confirmed IS 'A person or the printer''s own reading confirmed this spool is there.';
CREATE INDEX printer_slots_org ON odin.printer_slots (org_id);

CREATE TABLE odin.nozzles (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  printer_id    bigint NOT NULL,
  tool          smallint NOT NULL DEFAULT 0 CHECK (tool BETWEEN 0 AND 63),
  diameter_mm   numeric(4,2) NOT NULL DEFAULT 0.4 CHECK (diameter_mm BETWEEN 0.05 AND 5),
  type          text NOT NULL DEFAULT 'brass' CHECK (type IN ('brass','stainless','hardened','ruby','tungsten','other')),
  installed_at  timestamptz NOT NULL DEFAULT now(),
  removed_at    timestamptz,
  print_seconds bigint NOT NULL DEFAULT 0,
  runs          integer NOT NULL DEFAULT 0,
  CONSTRAINT nozzles_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE,
  CONSTRAINT nozzles_removed_after CHECK (removed_at >= installed_at)
);
COMMENT ON TABLE odin.nozzles IS 'Nozzles and their life; the one in use has no removed_at.';
CREATE UNIQUE INDEX nozzles_one_in_use ON odin.nozzles (printer_id, tool) WHERE removed_at IS NULL;
CREATE INDEX nozzles_org ON odin.nozzles (org_id, printer_id);

CREATE TABLE odin.beds (
  printer_id bigint PRIMARY KEY,
  org_id     bigint NOT NULL REFERENCES odin.orgs,
  occupied   boolean NOT NULL DEFAULT false,
  run_id     bigint,
  since      timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT beds_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
COMMENT ON TABLE odin.beds IS 'Is something on the bed, and from which run. Occupied from the start of a run until somebody or something records that it was cleared.';
CREATE INDEX beds_by_run ON odin.beds (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX beds_org ON odin.beds (org_id, occupied);
CREATE TABLE odin.bed_events (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id     bigint NOT NULL REFERENCES odin.orgs,
  printer_id bigint NOT NULL,
  run_id     bigint,
  event      text NOT NULL CHECK (event IN ('occupied','cleared')),
  how        text NOT NULL CHECK (how IN ('run','foreign_print','person','machine','camera','ejector','unknown')),
  actor      text NOT NULL DEFAULT current_user,
  at         timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT bed_events_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE odin.bed_events IS 'Who or what occupied and cleared each bed, and when. Append-only.';
CREATE INDEX bed_events_list ON odin.bed_events (printer_id, id);
CREATE INDEX bed_events_org ON odin.bed_events (org_id, at);

CREATE TABLE odin.printer_state (
  printer_id        bigint PRIMARY KEY,
  org_id            bigint NOT NULL REFERENCES odin.orgs,
  state             text NOT NULL DEFAULT 'unknown' CHECK (state IN ('unknown','offline','idle','preparing','printing','paused','finished','failed','error','degraded')),
  raw_state         text,
  stage             text,
  state_since       timestamptz NOT NULL DEFAULT now(),
  reported_at       timestamptz,
  tool_c            real,
  tool_target_c     real,
  bed_c             real,
  bed_target_c      real,
  chamber_c         real,
  progress_pct      real CHECK (progress_pct BETWEEN 0 AND 100),
  remaining_seconds integer CHECK (remaining_seconds >= 0),
  file_name         text,
  layer             integer,
  total_layers      integer,
  fan_pct           real,
  speed_pct         real,
  lights_on         boolean,
  error_code        text,
  error_message     text,
  error_at          timestamptz,
  dispatch_tried_at timestamptz,
  CONSTRAINT printer_state_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE odin.printer_state IS 'What each printer last said, and when. finished and failed differ from idle: the plate is not clear. Written by the worker that holds the printer.';
COMMENT ON COLUMN odin.printer_state.reported_at IS 'When the printer last answered; NULL = never. Old = the state is not to be trusted.';
COMMENT ON COLUMN odin.printer_state.dispatch_tried_at IS 'When odin.dispatch_ready() last looked for a job for this printer in vain.';
CREATE INDEX printer_state_org ON odin.printer_state (org_id);

CREATE TABLE odin.printer_totals (
  printer_id    bigint PRIMARY KEY,
  org_id        bigint NOT NULL REFERENCES odin.orgs,
  print_seconds bigint NOT NULL DEFAULT 0,
  runs          integer NOT NULL DEFAULT 0,
  runs_failed   integer NOT NULL DEFAULT 0,
  good          bigint NOT NULL DEFAULT 0,
  scrapped      bigint NOT NULL DEFAULT 0,
  last_run_at   timestamptz,
  CONSTRAINT printer_totals_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
COMMENT ON TABLE odin.printer_totals IS 'Lifetime counters per printer, raised by every finished run; maintenance and wear read them.';
CREATE INDEX printer_totals_org ON odin.printer_totals (org_id);

CREATE TABLE odin.printer_telemetry (
  printer_id    bigint NOT NULL,
  org_id        bigint NOT NULL,
  at            timestamptz NOT NULL DEFAULT now(),
  state         text NOT NULL,
  tool_c        real,
  tool_target_c real,
  bed_c         real,
  bed_target_c  real,
  chamber_c     real,
  progress_pct  real,
  PRIMARY KEY (printer_id, at)
) PARTITION BY RANGE (at);
COMMENT ON TABLE odin.printer_telemetry IS 'Thinned history of printer_state, one partition a month; old partitions are dropped by odin.tick().';
CREATE TABLE odin.printer_telemetry_default PARTITION OF odin.printer_telemetry DEFAULT;
COMMENT ON TABLE odin.printer_telemetry_default IS 'Rows outside the prepared months; empty when the clock runs.';
CREATE INDEX printer_telemetry_org ON odin.printer_telemetry (org_id, at);

CREATE TABLE odin.printer_events (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id     bigint NOT NULL REFERENCES odin.orgs,
  printer_id bigint NOT NULL,
  run_id     bigint,
  at         timestamptz NOT NULL DEFAULT now(),
  kind       text NOT NULL CHECK (kind ~ '^[a-z][a-z_]{1,59}$'),
  severity   text NOT NULL DEFAULT 'info' CHECK (severity IN ('info','warning','critical')),
  code       text,
  message    text,
  data       jsonb NOT NULL DEFAULT '{}',
  CONSTRAINT printer_events_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE odin.printer_events IS 'What happened at a printer: state changes, errors, foreign prints, run-outs, clears. Never deleted by the farm.';
CREATE INDEX printer_events_list ON odin.printer_events (printer_id, id);
CREATE INDEX printer_events_org ON odin.printer_events (org_id, at);

CREATE TABLE odin.blackouts (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  printer_id  bigint,
  days        smallint[] NOT NULL DEFAULT '{1,2,3,4,5,6,7}' CHECK (days <@ '{1,2,3,4,5,6,7}'::smallint[] AND cardinality(days) > 0),
  from_time   time,
  until_time  time,
  from_at     timestamptz,
  until_at    timestamptz,
  time_zone   text NOT NULL DEFAULT 'UTC',
  reason      text CHECK (length(reason) <= 500),
  is_active   boolean NOT NULL DEFAULT true,
  CONSTRAINT blackouts_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE,
  CONSTRAINT blackouts_one_kind CHECK ((from_time IS NOT NULL AND until_time IS NOT NULL AND from_at IS NULL AND until_at IS NULL)
                                    OR (from_time IS NULL AND until_time IS NULL AND from_at IS NOT NULL AND until_at > from_at))
);
COMMENT ON TABLE odin.blackouts IS 'Hours in which no run may start (a run may go on through them): daily (from_time to until_time, over midnight too) or once (from_at to until_at). printer_id NULL = every printer of the org.';
COMMENT ON COLUMN odin.blackouts.days IS 'ISO week days on which a daily window begins: 1 = Monday.';
CREATE INDEX blackouts_org ON odin.blackouts (org_id, printer_id);
CREATE INDEX blackouts_by_printer ON odin.blackouts (printer_id) WHERE printer_id IS NOT NULL;

SELECT odin.guard_table('odin.' || t) FROM unnest(ARRAY['printers','printer_slots','nozzles','beds','blackouts']) AS t;
SELECT odin.guard_table('odin.' || t, trail => false) FROM unnest(ARRAY['bed_events','printer_state','printer_totals','printer_telemetry','printer_events']) AS t;
GRANT SELECT ON odin.printers, odin.printer_slots, odin.nozzles, odin.beds, odin.bed_events, odin.printer_state, odin.printer_totals, odin.printer_telemetry,
  odin.printer_events, odin.blackouts TO odin_viewer;
GRANT INSERT, UPDATE ON odin.printers, odin.nozzles, odin.blackouts TO odin_operator;
GRANT INSERT, UPDATE (spool_id, loaded_at, confirmed), DELETE ON odin.printer_slots TO odin_operator;
GRANT INSERT ON odin.printer_events TO odin_operator;
GRANT DELETE ON odin.blackouts TO odin_operator;
GRANT DELETE ON odin.printers, odin.nozzles TO odin_admin;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('printers_name_key', 'already_exists', 'A printer with this name exists.', 'Call list_printers.'),
  ('printer_slots_printer_fk', 'printer_not_found', 'There is no printer with this printer_id.', 'Call list_printers.'),
  ('nozzles_one_in_use', 'already_exists', 'This tool has a nozzle in use; it has to come off first.', 'Use change_nozzle.'),
  ('blackouts_one_kind', 'validation_failed', 'Give from_time and until_time for every day, or from_at and until_at for once.', NULL);
