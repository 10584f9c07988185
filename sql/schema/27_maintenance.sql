-- Maintenance: what has to be done how often, and what was done. Due status is computed per printer and task (view in api/27_maintenance.sql).
-- A log row is never changed; names are copied so that history survives the task.
CREATE TABLE odin.maintenance_tasks (
  id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id               bigint NOT NULL REFERENCES odin.orgs,
  name                 text NOT NULL CHECK (length(btrim(name)) BETWEEN 1 AND 200),
  description          text CHECK (length(description) <= 2000),
  printer_model_filter text CHECK (length(printer_model_filter) <= 200),
  printer_id           bigint,
  interval_print_hours numeric(10,1) CHECK (interval_print_hours > 0),
  interval_days        integer CHECK (interval_days > 0),
  estimated_cost       numeric(12,2) NOT NULL DEFAULT 0 CHECK (estimated_cost >= 0),
  estimated_downtime_minutes integer NOT NULL DEFAULT 30 CHECK (estimated_downtime_minutes >= 0),
  blocks_printing      boolean NOT NULL DEFAULT false,
  is_active            boolean NOT NULL DEFAULT true,
  created_at           timestamptz NOT NULL DEFAULT now(),
  updated_at           timestamptz NOT NULL DEFAULT now(),
  UNIQUE (org_id, id),
  CONSTRAINT maintenance_tasks_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE,
  CONSTRAINT maintenance_tasks_interval CHECK (num_nonnulls(interval_print_hours, interval_days) >= 1)
);
COMMENT ON TABLE odin.maintenance_tasks IS 'Recurring work, by printing hours, days or both, for one printer, for the printers whose model contains printer_model_filter, or for all.';
COMMENT ON COLUMN odin.maintenance_tasks.blocks_printing IS 'While it is overdue nothing starts on that printer.';
CREATE INDEX maintenance_tasks_org ON odin.maintenance_tasks (org_id) WHERE is_active;

CREATE TABLE odin.maintenance_log (
  id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id           bigint NOT NULL REFERENCES odin.orgs,
  printer_id       bigint NOT NULL,
  printer_name     text NOT NULL,
  task_id          bigint,
  task_name        text NOT NULL,
  performed_by     text NOT NULL DEFAULT current_user,
  performed_at     timestamptz NOT NULL DEFAULT now(),
  notes            text CHECK (length(notes) <= 2000),
  cost             numeric(12,2) NOT NULL DEFAULT 0 CHECK (cost >= 0),
  currency         text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3}$'),
  downtime_minutes integer NOT NULL DEFAULT 0 CHECK (downtime_minutes >= 0),
  print_seconds_at_service bigint NOT NULL DEFAULT 0,
  CONSTRAINT maintenance_log_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id),
  CONSTRAINT maintenance_log_task_fk FOREIGN KEY (org_id, task_id) REFERENCES odin.maintenance_tasks (org_id, id)
);
COMMENT ON TABLE odin.maintenance_log IS 'Work done, by whom, with cost and downtime. Append-only.';
CREATE INDEX maintenance_log_last ON odin.maintenance_log (printer_id, task_id, performed_at DESC);
CREATE INDEX maintenance_log_by_task ON odin.maintenance_log (task_id) WHERE task_id IS NOT NULL;
CREATE INDEX maintenance_tasks_by_printer ON odin.maintenance_tasks (printer_id) WHERE printer_id IS NOT NULL;
CREATE INDEX maintenance_log_org ON odin.maintenance_log (org_id, id);

SELECT odin.guard_table('odin.maintenance_tasks');
SELECT odin.guard_table('odin.maintenance_log');
GRANT SELECT ON odin.maintenance_tasks, odin.maintenance_log TO odin_viewer;
GRANT INSERT, UPDATE ON odin.maintenance_tasks TO odin_operator;
GRANT INSERT ON odin.maintenance_log TO odin_operator;
GRANT DELETE ON odin.maintenance_tasks TO odin_admin;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('maintenance_tasks_interval', 'validation_failed', 'Give interval_print_hours, interval_days or both.', NULL),
  ('maintenance_log_printer_fk', 'printer_not_found', 'There is no printer with this printer_id.', 'Call list_printers.'),
  ('maintenance_log_task_fk', 'maintenance_task_not_found', 'There is no maintenance task with this task_id.', 'Call list_maintenance_tasks.');
