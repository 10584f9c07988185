-- Jobs (a plate to be printed) and runs (one attempt on one printer), and the slot map of each run.
-- At most one active run per printer and per job is a unique index; states move only along odin.transitions; nothing here is deleted.
CREATE TABLE odin.jobs (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id           bigint NOT NULL REFERENCES odin.orgs,
  customer_id      bigint,
  order_line_id    bigint NOT NULL,
  part_id          bigint NOT NULL,
  model_id         bigint NOT NULL,
  revision_id      bigint NOT NULL,
  batch_id         bigint,
  plate_no         integer NOT NULL DEFAULT 1 CHECK (plate_no >= 1),
  plates           integer NOT NULL DEFAULT 1 CHECK (plates >= plate_no),
  name             text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
  quantity         integer NOT NULL DEFAULT 1 CHECK (quantity BETWEEN 1 AND 1000000),
  pieces           integer NOT NULL DEFAULT 1 CHECK (pieces BETWEEN 1 AND 10000),
  status           text NOT NULL DEFAULT 'pending' CHECK (status IN ('submitted','rejected','pending','scheduled','printing','paused','completed','failed','cancelled')),
  hold             boolean NOT NULL DEFAULT false,
  hold_reason      text CHECK (length(hold_reason) <= 500),
  priority         smallint NOT NULL DEFAULT 3 REFERENCES odin.priorities,
  due_at           timestamptz,
  start_by         timestamptz NOT NULL DEFAULT now(),
  queue_position   numeric,
  printer_id       bigint,
  target_type      text NOT NULL DEFAULT 'any' CHECK (target_type IN ('any','specific','model','protocol','group')),
  target_filter    text CHECK (length(target_filter) <= 200),
  required_tags    text[] NOT NULL DEFAULT '{}',
  material_policy  text NOT NULL DEFAULT 'hold' CHECK (material_policy IN ('hold','substitute')),
  scheduled_printer_id bigint,
  scheduled_start  timestamptz,
  scheduled_end    timestamptz,
  estimated_seconds integer NOT NULL DEFAULT 0 CHECK (estimated_seconds >= 0),
  estimated_mg     bigint NOT NULL DEFAULT 0 CHECK (estimated_mg >= 0),
  estimated_cost   numeric(14,4),
  suggested_price  numeric(14,4),
  currency         text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  good             integer NOT NULL DEFAULT 0 CHECK (good >= 0),
  scrapped         integer NOT NULL DEFAULT 0 CHECK (scrapped >= 0),
  attempt          smallint NOT NULL DEFAULT 1 CHECK (attempt >= 1),
  requeued_from_run_id bigint,
  submitted_by     text NOT NULL DEFAULT current_user,
  approved_by      text,
  approved_at      timestamptz,
  approval_notes   text CHECK (length(approval_notes) <= 500),
  rejected_by      text,
  rejected_at      timestamptz,
  rejected_reason  text CHECK (length(rejected_reason) <= 500),
  cancelled_by     text,
  cancel_reason    text CHECK (length(cancel_reason) <= 500),
  fail_reason      text CHECK (length(fail_reason) <= 60),
  fail_notes       text CHECK (length(fail_notes) <= 500),
  notes            text CHECK (length(notes) <= 500),
  created_at       timestamptz NOT NULL DEFAULT now(),
  created_on       date NOT NULL GENERATED ALWAYS AS ((created_at AT TIME ZONE 'UTC')::date) STORED,
  updated_at       timestamptz NOT NULL DEFAULT now(),
  started_at       timestamptz,
  finished_at      timestamptz,
  UNIQUE (org_id, id),
  CONSTRAINT jobs_line_fk FOREIGN KEY (org_id, order_line_id) REFERENCES odin.order_lines (org_id, id),
  CONSTRAINT jobs_part_fk FOREIGN KEY (org_id, part_id) REFERENCES odin.order_parts (org_id, id),
  CONSTRAINT jobs_model_fk FOREIGN KEY (org_id, model_id) REFERENCES odin.models (org_id, id),
  CONSTRAINT jobs_revision_fk FOREIGN KEY (org_id, revision_id) REFERENCES odin.model_revisions (org_id, id),
  CONSTRAINT jobs_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id),
  CONSTRAINT jobs_scheduled_printer_fk FOREIGN KEY (org_id, scheduled_printer_id) REFERENCES odin.printers (org_id, id),
  CONSTRAINT jobs_target CHECK ((target_type = 'specific') = (printer_id IS NOT NULL) AND (target_type IN ('any','specific')) = (target_filter IS NULL)),
  CONSTRAINT jobs_rejected_has_reason CHECK (status <> 'rejected' OR length(btrim(rejected_reason)) > 0),
  CONSTRAINT jobs_scheduled_has_printer CHECK (status <> 'scheduled' OR scheduled_printer_id IS NOT NULL)
) WITH (fillfactor = 85);
COMMENT ON TABLE odin.jobs IS 'A plate to be printed. Hangs on an order line, so that priority, due date, customer and cost come from one place.';
COMMENT ON COLUMN odin.jobs.quantity IS 'Pieces asked for in the request this plate belongs to (its batch).';
COMMENT ON COLUMN odin.jobs.pieces IS 'Pieces on this plate; sums and stock use this.';
COMMENT ON COLUMN odin.jobs.batch_id IS 'The first job of the request; plates of one request share it.';
COMMENT ON COLUMN odin.jobs.start_by IS 'When it should start at the latest: the sooner of (due_at - printing time) and (queued + patience of its priority). The queue is in this order.';
COMMENT ON COLUMN odin.jobs.created_on IS 'The day in UTC, for reports.';
COMMENT ON COLUMN odin.jobs.queue_position IS 'Manual order: jobs with a position come before all others, lowest first.';
COMMENT ON COLUMN odin.jobs.printer_id IS 'Pinned to this printer (target_type specific).';
COMMENT ON COLUMN odin.jobs.material_policy IS 'hold: wait until exactly what was asked is loaded; substitute: any brand and colour of the same material will do.';
COMMENT ON COLUMN odin.jobs.requeued_from_run_id IS 'The scrapped run whose missing pieces this job makes again.';
CREATE INDEX jobs_queue ON odin.jobs (org_id, (coalesce(queue_position, 'infinity'::numeric)), start_by, priority, id) WHERE status IN ('pending','scheduled');
CREATE INDEX jobs_by_status ON odin.jobs (org_id, status, id);
CREATE INDEX jobs_active ON odin.jobs (org_id, status, id) WHERE status IN ('submitted','rejected','pending','scheduled','printing','paused');
CREATE INDEX jobs_by_part ON odin.jobs (part_id, status);
CREATE INDEX jobs_by_line ON odin.jobs (order_line_id, id);
CREATE INDEX jobs_by_customer ON odin.jobs (customer_id, id) WHERE customer_id IS NOT NULL;
CREATE INDEX jobs_by_model ON odin.jobs (model_id, id);
CREATE INDEX jobs_by_batch ON odin.jobs (batch_id) WHERE plates > 1;
CREATE INDEX jobs_scheduled ON odin.jobs (scheduled_printer_id, scheduled_start) WHERE scheduled_printer_id IS NOT NULL;
CREATE INDEX jobs_pinned ON odin.jobs (printer_id) WHERE printer_id IS NOT NULL;
CREATE INDEX jobs_by_revision ON odin.jobs (revision_id);
CREATE INDEX jobs_requeued ON odin.jobs (requeued_from_run_id) WHERE requeued_from_run_id IS NOT NULL;

CREATE TABLE odin.job_materials (
  job_id      bigint NOT NULL,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  customer_id bigint,
  tool        smallint NOT NULL CHECK (tool BETWEEN 0 AND 63),
  material    text NOT NULL CHECK (material ~ '^[A-Z0-9][A-Z0-9_+-]{0,29}$'),
  brand       text,
  filament_id bigint,
  color_hex   text CHECK (color_hex ~ '^#[0-9A-F]{6}$'),
  mg          bigint NOT NULL CHECK (mg >= 0),
  PRIMARY KEY (job_id, tool),
  CONSTRAINT job_materials_job_fk FOREIGN KEY (org_id, job_id) REFERENCES odin.jobs (org_id, id),
  CONSTRAINT job_materials_filament_fk FOREIGN KEY (org_id, filament_id) REFERENCES odin.filaments (org_id, id)
);
COMMENT ON TABLE odin.job_materials IS 'Only for jobs printed in something else than their revision says (another colour or filament): replaces the revision''s row of that tool.';
CREATE INDEX job_materials_org ON odin.job_materials (org_id);
CREATE INDEX job_materials_by_customer ON odin.job_materials (customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX job_materials_by_filament ON odin.job_materials (filament_id) WHERE filament_id IS NOT NULL;

CREATE TABLE odin.runs (
  id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id          bigint NOT NULL REFERENCES odin.orgs,
  customer_id     bigint,
  job_id          bigint NOT NULL,
  order_line_id   bigint NOT NULL,
  part_id         bigint NOT NULL,
  model_id        bigint NOT NULL,
  revision_id     bigint NOT NULL,
  printer_id      bigint NOT NULL,
  status          text NOT NULL DEFAULT 'claimed' CHECK (status IN ('claimed','starting','printing','paused','unknown','completed','failed','cancelled','released')),
  pieces          integer NOT NULL CHECK (pieces >= 1),
  planned_seconds integer NOT NULL DEFAULT 0,
  planned_mg      bigint NOT NULL DEFAULT 0,
  changeovers     smallint NOT NULL DEFAULT 0,
  claimed_by      text NOT NULL DEFAULT current_user,
  claimed_at      timestamptz NOT NULL DEFAULT now(),
  started_at      timestamptz,
  finished_at     timestamptz,
  finished_on     date GENERATED ALWAYS AS ((finished_at AT TIME ZONE 'UTC')::date) STORED,
  seconds         integer CHECK (seconds >= 0),
  progress_pct    real CHECK (progress_pct BETWEEN 0 AND 100),
  used_mg         bigint CHECK (used_mg >= 0),
  energy_wh       numeric(12,2) CHECK (energy_wh >= 0),
  good            integer CHECK (good >= 0),
  scrapped        integer CHECK (scrapped >= 0),
  verdict         text CHECK (verdict IN ('assumed','good','partial','scrap')),
  verdict_by      text,
  verdict_at      timestamptz,
  fail_reason     text CHECK (fail_reason IN ('spaghetti','adhesion','clog','layer_shift','stringing','warping','filament_runout','filament_tangle','power_loss',
                                              'firmware_error','user_cancelled','printer_error','quality','other')),
  fail_notes      text CHECK (length(fail_notes) <= 500),
  finished_by     text,
  reported_by     text CHECK (reported_by IN ('printer','person','agent')),
  remote_file     text,
  cost            numeric(14,4),
  currency        text,
  UNIQUE (org_id, id),
  UNIQUE (id, printer_id),
  CONSTRAINT runs_job_fk FOREIGN KEY (org_id, job_id) REFERENCES odin.jobs (org_id, id),
  CONSTRAINT runs_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id),
  CONSTRAINT runs_counts_known CHECK (status NOT IN ('completed','failed','cancelled') OR (good IS NOT NULL AND scrapped IS NOT NULL AND finished_at IS NOT NULL)),
  CONSTRAINT runs_counts_fit CHECK (coalesce(good, 0) + coalesce(scrapped, 0) <= pieces)
) WITH (fillfactor = 85);
COMMENT ON TABLE odin.runs IS 'One attempt of a job on one printer. Ends exactly once, through odin.apply_finish(), whoever reports it.';
COMMENT ON COLUMN odin.runs.finished_on IS 'The day in UTC, for reports. A column, not an expression, so that the planner knows how few days there are.';
COMMENT ON COLUMN odin.runs.status IS 'claimed: printer and slots chosen; starting: sent; printing; paused; unknown: contact lost; completed; failed; cancelled; released: given back before anything was printed.';
COMMENT ON COLUMN odin.runs.verdict IS 'assumed: nobody looked yet, all pieces counted good; good, partial, scrap: a person or agent judged.';
CREATE UNIQUE INDEX runs_one_active_per_printer ON odin.runs (printer_id) WHERE status IN ('claimed','starting','printing','paused','unknown');
CREATE UNIQUE INDEX runs_one_active_per_job ON odin.runs (job_id) WHERE status IN ('claimed','starting','printing','paused','unknown');
CREATE INDEX runs_active ON odin.runs (org_id, status, id) WHERE status IN ('claimed','starting','printing','paused','unknown');
CREATE INDEX runs_by_job ON odin.runs (job_id, id);
CREATE INDEX runs_by_printer ON odin.runs (printer_id, id);
CREATE INDEX runs_by_line ON odin.runs (order_line_id);
CREATE INDEX runs_by_model ON odin.runs (model_id, id);
CREATE INDEX runs_by_customer ON odin.runs (customer_id) WHERE customer_id IS NOT NULL;
-- With what reports add up, so that they need not read the table.
CREATE INDEX runs_finished ON odin.runs (org_id, finished_on) INCLUDE (status, printer_id, model_id, good, scrapped, seconds, used_mg, cost) WHERE finished_at IS NOT NULL;

CREATE TABLE odin.run_slots (
  run_id      bigint NOT NULL,
  org_id      bigint NOT NULL REFERENCES odin.orgs,
  printer_id  bigint NOT NULL,
  tool        smallint NOT NULL,
  slot_number smallint NOT NULL,
  spool_id    bigint NOT NULL,
  planned_mg  bigint NOT NULL CHECK (planned_mg >= 0),
  PRIMARY KEY (run_id, tool),
  CONSTRAINT run_slots_run_fk FOREIGN KEY (run_id, printer_id) REFERENCES odin.runs (id, printer_id),
  CONSTRAINT run_slots_spool_fk FOREIGN KEY (org_id, spool_id) REFERENCES odin.spools (org_id, id)
);
COMMENT ON TABLE odin.run_slots IS 'The slot map of a run: which slot of its printer feeds which tool of the file. Computed when the run is claimed; bound to that printer by key.';
CREATE INDEX run_slots_org ON odin.run_slots (org_id);
CREATE INDEX run_slots_by_spool ON odin.run_slots (spool_id);

ALTER TABLE odin.beds ADD CONSTRAINT beds_run_fk FOREIGN KEY (org_id, run_id) REFERENCES odin.runs (org_id, id);
ALTER TABLE odin.spool_moves
  ADD CONSTRAINT spool_moves_job_fk FOREIGN KEY (org_id, job_id) REFERENCES odin.jobs (org_id, id),
  ADD CONSTRAINT spool_moves_run_fk FOREIGN KEY (org_id, run_id) REFERENCES odin.runs (org_id, id);

CREATE TABLE odin.plans (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id       bigint NOT NULL REFERENCES odin.orgs,
  made_by      text NOT NULL DEFAULT current_user,
  made_at      timestamptz NOT NULL DEFAULT now(),
  horizon      interval NOT NULL,
  waiting      integer NOT NULL,
  assigned     integer NOT NULL,
  skipped      integer NOT NULL,
  changeovers  integer NOT NULL,
  late         integer NOT NULL,
  tardiness_s  bigint NOT NULL,
  reasons      jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE odin.plans IS 'Each time the queue was planned: how many jobs were placed, how many skipped and by which rule.';
CREATE INDEX plans_org ON odin.plans (org_id, id);

SELECT odin.guard_table('odin.' || t) FROM unnest(ARRAY['jobs','job_materials','runs']) AS t;
SELECT odin.guard_table('odin.' || t, trail => false) FROM unnest(ARRAY['run_slots','plans']) AS t;
GRANT SELECT ON odin.jobs, odin.job_materials, odin.runs TO odin_viewer;
-- A customer follows its jobs; cost, scrap, machines, people and their reasons are the farm's own.
GRANT SELECT (id, org_id, customer_id, order_line_id, part_id, model_id, revision_id, batch_id, plate_no, plates, name, quantity, pieces, status, hold, priority, due_at, scheduled_start, scheduled_end,
  good, created_at, updated_at, started_at, finished_at) ON odin.jobs TO odin_customer;
GRANT SELECT (job_id, org_id, customer_id, tool, material, brand, color_hex) ON odin.job_materials TO odin_customer;
GRANT SELECT (id, org_id, customer_id, job_id, order_line_id, part_id, model_id, revision_id, status, pieces, started_at, finished_at, progress_pct, good) ON odin.runs TO odin_customer;
GRANT SELECT ON odin.run_slots, odin.plans TO odin_viewer;
-- A job's own figures and states follow its runs; runs are written by the functions of the farm only.
GRANT INSERT, UPDATE (name, status, hold, hold_reason, priority, due_at, queue_position, printer_id, target_type, target_filter, required_tags, material_policy,
  scheduled_printer_id, scheduled_start, scheduled_end, approved_by, approved_at, approval_notes, rejected_by, rejected_at, rejected_reason,
  cancelled_by, cancel_reason, notes) ON odin.jobs TO odin_operator;
GRANT INSERT, UPDATE, DELETE ON odin.job_materials TO odin_operator;
GRANT INSERT ON odin.plans TO odin_operator;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('runs_one_active_per_printer', 'printer_busy', 'The printer has an active run.', 'Call get_printer to see it.'),
  ('runs_one_active_per_job', 'job_busy', 'The job has an active run.', 'Call get_job to see it.'),
  ('jobs_printer_fk', 'printer_not_found', 'There is no printer with this printer_id.', 'Call list_printers.'),
  ('runs_printer_fk', 'printer_not_found', 'There is no printer with this printer_id.', 'Call list_printers.'),
  ('jobs_model_fk', 'model_not_found', 'There is no model with this model_id.', 'Call list_models.'),
  ('jobs_line_fk', 'order_not_found', 'There is no order line with this order_line_id.', 'Call get_order.'),
  ('jobs_rejected_has_reason', 'validation_failed', 'A rejection needs a reason.', NULL),
  ('jobs_target', 'validation_failed', 'printer_id goes with target_type specific; target_filter with model, protocol or group.', NULL),
  ('runs_counts_fit', 'validation_failed', 'good + scrapped is more than the pieces on the plate.', NULL);
