-- The registry: which SQL functions are tools, prompts and resources, and how each shows itself.
-- Rows are written by the register functions only; a row never gives a right, the function's GRANT does.

CREATE TABLE odin.toolsets (
  name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,30}$'),
  description text NOT NULL,
  listed boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE odin.toolsets IS 'Groups of tools. Listed ones show without being asked for; the others by a header, by the key, or through search_tools.';
INSERT INTO odin.toolsets VALUES
  ('core', 'Finding and calling the tools that are not listed.', true),
  ('farm', 'The daily work: printers, queue, jobs, spools, alerts.', true),
  ('lean', 'The few tools a small model needs.', false);

CREATE TABLE odin.tools (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE CHECK (name ~ '^[A-Za-z_][A-Za-z0-9_-]{0,63}$'),
  title text,
  description text NOT NULL,
  function text NOT NULL,
  kind text NOT NULL DEFAULT 'tool' CHECK (kind IN ('tool', 'prompt', 'resource')),
  scope text NOT NULL CHECK (scope IN ('read', 'write', 'admin')),
  area text NOT NULL CHECK (area ~ '^[a-z][a-z0-9_]*$'),
  toolsets text[] NOT NULL,
  read_only boolean NOT NULL,
  hints jsonb NOT NULL DEFAULT '{}',
  confirm text NOT NULL DEFAULT 'none' CHECK (confirm IN ('none', 'confirm', 'preview', 'human')),
  previewable boolean NOT NULL DEFAULT true,
  task text NOT NULL DEFAULT 'no' CHECK (task IN ('no', 'optional', 'required')),
  timeout_ms int NOT NULL DEFAULT 30000 CHECK (timeout_ms BETWEEN 0 AND 86400000),
  raw boolean NOT NULL DEFAULT false,
  result_key text,
  page_by text[],
  columns text[],
  default_fields text[],
  next_actions jsonb NOT NULL DEFAULT '[]',
  rate_per_minute int CHECK (rate_per_minute > 0),
  concurrency int CHECK (concurrency > 0),
  caller text NOT NULL,
  input_schema jsonb NOT NULL,
  output_schema jsonb,
  spec jsonb NOT NULL,
  secret_arguments text[] NOT NULL DEFAULT '{}',
  redact boolean NOT NULL DEFAULT true,
  registration jsonb NOT NULL DEFAULT '{}',
  listing jsonb NOT NULL,
  uri text,
  mime_type text,
  active boolean NOT NULL DEFAULT true,
  inactive_reason text,
  version bigint NOT NULL DEFAULT 1,
  registered_by text NOT NULL,
  registered_at timestamptz NOT NULL DEFAULT now(),
  search tsvector
);
CREATE INDEX tools_kind ON odin.tools (kind, name) WHERE active;
CREATE INDEX tools_search ON odin.tools USING gin (search);
COMMENT ON TABLE odin.tools IS 'Every tool, prompt and resource: name, function, schemas, hints, policies. Made by odin.register_tool() and its sisters.';
COMMENT ON COLUMN odin.tools.confirm IS 'none; confirm = previews unless confirm: true; preview = commits only with a preview_token; human = a person approves first.';
COMMENT ON COLUMN odin.tools.columns IS 'Columns of a list''s rows; default_fields are shown unless the caller asks for others.';
COMMENT ON COLUMN odin.tools.redact IS 'False when no argument can hold a secret or a large value: the trail keeps it without looking.';
COMMENT ON COLUMN odin.tools.listing IS 'The tool as tools/list shows it.';

CREATE TABLE odin.tool_aliases (
  alias text PRIMARY KEY,
  tool_id bigint NOT NULL REFERENCES odin.tools ON DELETE CASCADE
);
CREATE INDEX tool_aliases_tool ON odin.tool_aliases (tool_id);
COMMENT ON TABLE odin.tool_aliases IS 'Other names a tool answers to; never listed.';

CREATE TABLE odin.registry_log (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  changed_at timestamptz NOT NULL DEFAULT now(),
  changed_by text NOT NULL,
  tool text NOT NULL,
  act text NOT NULL CHECK (act IN ('registered', 'changed', 'deactivated', 'activated', 'removed')),
  version bigint NOT NULL,
  before jsonb,
  after jsonb
);
CREATE INDEX registry_log_tool ON odin.registry_log (tool, id DESC);
COMMENT ON TABLE odin.registry_log IS 'Every change of the registry: what, who, when, before and after.';

GRANT SELECT ON odin.toolsets, odin.tools, odin.tool_aliases TO odin_viewer, odin_customer;
GRANT SELECT ON odin.registry_log TO odin_admin;
