-- Alerts, their 15 types, and who wants which how.
-- An alert is written in the transaction of what caused it, so it is neither lost nor invented; channels outside read the table.
CREATE TABLE odin.alert_types (
  type      text PRIMARY KEY CHECK (type ~ '^[a-z_]{3,40}$'),
  severity  text NOT NULL CHECK (severity IN ('info','warning','critical')),
  meaning   text NOT NULL,
  threshold numeric
);
COMMENT ON TABLE odin.alert_types IS 'Kinds of alert with their usual severity; threshold is the default where one is needed (spool_low: grams, bed_cooled: degrees C).';
INSERT INTO odin.alert_types(type, severity, meaning, threshold) VALUES
  ('print_complete','info','A run ended well.',NULL), ('print_failed','warning','A run failed.',NULL), ('printer_error','critical','A printer reports an error.',NULL),
  ('spool_low','warning','A spool holds less than its threshold.',100), ('maintenance_overdue','warning','A maintenance task is overdue on a printer.',NULL),
  ('job_submitted','info','A job waits for approval.',NULL), ('job_approved','info','Your job was approved.',NULL), ('job_rejected','warning','Your job was rejected; the reason is in the message.',NULL),
  ('spaghetti_detected','critical','A camera sees a print that came loose.',NULL), ('first_layer_issue','warning','A camera sees a bad first layer.',NULL),
  ('detachment_detected','critical','A camera sees a part off the bed.',NULL), ('bed_cooled','info','The bed is cool enough to take the print off.',40),
  ('queue_added','info','A job was queued.',NULL), ('queue_skipped','info','A plan left a job out.',NULL), ('queue_failed_start','warning','A job could not be started.',NULL);

CREATE TABLE odin.alerts (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id       bigint NOT NULL REFERENCES odin.orgs,
  recipient    text,
  type         text NOT NULL REFERENCES odin.alert_types,
  severity     text NOT NULL CHECK (severity IN ('info','warning','critical')),
  title        text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
  message      text CHECK (length(message) <= 2000),
  is_read      boolean NOT NULL DEFAULT false,
  is_dismissed boolean NOT NULL DEFAULT false,
  read_by      text,
  read_at      timestamptz,
  printer_id   bigint,
  job_id       bigint,
  run_id       bigint,
  spool_id     bigint,
  order_id     bigint,
  data         jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 85);
COMMENT ON TABLE odin.alerts IS 'What somebody should know. recipient NULL = the whole staff of the org, else one role.';
CREATE INDEX alerts_list ON odin.alerts (org_id, id);
CREATE INDEX alerts_unread ON odin.alerts (org_id, severity, id) WHERE NOT is_read AND NOT is_dismissed;
CREATE INDEX alerts_open_spool ON odin.alerts (spool_id) WHERE spool_id IS NOT NULL AND NOT is_dismissed;
CREATE INDEX alerts_open_printer ON odin.alerts (printer_id, type) WHERE printer_id IS NOT NULL AND NOT is_dismissed;

CREATE TABLE odin.alert_preferences (
  org_id    bigint NOT NULL REFERENCES odin.orgs,
  role_name text NOT NULL,
  type      text NOT NULL REFERENCES odin.alert_types,
  in_app    boolean NOT NULL DEFAULT true,
  push      boolean NOT NULL DEFAULT false,
  email     boolean NOT NULL DEFAULT false,
  threshold numeric,
  PRIMARY KEY (org_id, role_name, type)
);
COMMENT ON TABLE odin.alert_preferences IS 'Per person and type: in the app, push, mail, and a threshold of their own. role_name * is the org''s default; in_app false for * means the alert is not written.';

SELECT odin.guard_table('odin.alerts');
SELECT odin.guard_table('odin.alert_preferences');
GRANT SELECT ON odin.alert_types, odin.alerts, odin.alert_preferences TO odin_viewer;
GRANT INSERT, UPDATE (is_read, is_dismissed, read_by, read_at) ON odin.alerts TO odin_operator;
GRANT INSERT, UPDATE, DELETE ON odin.alert_preferences TO odin_operator;
