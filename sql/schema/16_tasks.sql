-- Durable work: what cannot be answered at once is a row here, carried out by any sidecar and polled by whoever asked.
-- A row never carries a secret, and a worker that lost its lease can change nothing (fence).

CREATE TABLE odin.tasks (
  id text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{32}$'),
  org_id bigint REFERENCES odin.orgs ON DELETE CASCADE,
  kind text NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]*$'),
  role_name text NOT NULL,
  key_id bigint,
  face text NOT NULL DEFAULT 'sql',
  client jsonb,
  request_id text,
  tool text,
  arguments jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(arguments) = 'object'),
  state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'working', 'input_required', 'completed', 'failed', 'cancelled')),
  outcome jsonb,
  error jsonb,
  message text,
  progress numeric,
  progress_total numeric,
  input_requests jsonb CHECK ((input_requests IS NULL) = (state <> 'input_required')),
  input_responses jsonb NOT NULL DEFAULT '{}',
  request_state text,
  priority int NOT NULL DEFAULT 50,
  not_before timestamptz NOT NULL DEFAULT now(),
  attempts int NOT NULL DEFAULT 0,
  max_attempts int NOT NULL DEFAULT 3 CHECK (max_attempts > 0),
  fence bigint NOT NULL DEFAULT 0,
  lease_by text,
  lease_until timestamptz,
  poll_interval_ms int NOT NULL DEFAULT 500 CHECK (poll_interval_ms > 0),
  keep_for interval NOT NULL DEFAULT '24 hours',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz,
  CHECK ((finished_at IS NOT NULL) = (state IN ('completed', 'failed', 'cancelled'))),
  CHECK ((lease_until IS NOT NULL) = (state = 'working')),
  CHECK ((kind = 'tool') <= (tool IS NOT NULL))
);
CREATE INDEX tasks_open ON odin.tasks (priority, not_before) WHERE state IN ('queued', 'working');
CREATE INDEX tasks_org ON odin.tasks (org_id, created_at DESC);
CREATE INDEX tasks_finished ON odin.tasks (finished_at) WHERE finished_at IS NOT NULL;
COMMENT ON TABLE odin.tasks IS 'Work that takes longer than an answer: tools run in the background, slicing, downloads. Done by any sidecar under a lease.';
COMMENT ON COLUMN odin.tasks.kind IS 'tool = a call of a tool, run by the dispatcher; anything else names the worker that does it.';
COMMENT ON COLUMN odin.tasks.outcome IS 'What the call answered: {"status": "complete", "result": ...} or {"status": "error", "error": ...}.';
COMMENT ON COLUMN odin.tasks.fence IS 'Counts the claims. A worker reports with the number it was given; an older one changes nothing.';
SELECT odin.guard_table('odin.tasks', trail => false);
GRANT SELECT ON odin.tasks TO odin_viewer;

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('task_lost', 'OD038', 409, true, 'The task was cancelled, or given to another worker, while it ran; nothing of it remains.', NULL),
  ('task_required', 'OD039', 406, false, 'This tool runs as a task only.', 'Declare the extension io.modelcontextprotocol/tasks, and poll tasks/get.'),
  ('task_not_found', 'OD047', 404, false, 'No such task, or not one of this caller.', 'Tasks are kept for a day after they end.');
