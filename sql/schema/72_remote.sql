-- Remote MCP servers as a source of tools: where they are, who may call what they bring, and what they brought last.
-- A server's secret is sealed by a sidecar before it gets here; nothing in the database can read or use it.
CREATE TABLE odin.remote_servers (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name       text NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9_]{0,19}$'),
  url        text NOT NULL CHECK (url ~ '^https?://[^[:space:]@]+$' AND length(url) <= 2000),
  callers    text NOT NULL DEFAULT 'odin_operator' CHECK (callers IN ('odin_viewer', 'odin_operator', 'odin_admin')),
  confirm    text NOT NULL DEFAULT 'none' CHECK (confirm IN ('none', 'confirm', 'preview', 'human')),
  is_active  boolean NOT NULL DEFAULT true,
  sync_every interval NOT NULL DEFAULT '15 minutes' CHECK (sync_every >= interval '10 seconds'),
  sync_due   timestamptz NOT NULL DEFAULT now(),
  synced_at  timestamptz,
  failures   integer NOT NULL DEFAULT 0,
  problem    text CHECK (length(problem) <= 500),
  added_by   text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE odin.remote_servers IS 'Remote MCP servers whose tools the farm offers as its own, each as NAME_tool. Added by people with odin.add_remote_server().';
COMMENT ON COLUMN odin.remote_servers.callers IS 'The group that may call its tools. Whatever they do there, they leave the farm: a key needs a write scope.';
COMMENT ON COLUMN odin.remote_servers.confirm IS 'Confirm policy of its tools: none, confirm, preview or human.';

CREATE TABLE odin.remote_tools (
  server_id   bigint NOT NULL REFERENCES odin.remote_servers ON DELETE CASCADE,
  remote_name text NOT NULL CHECK (length(remote_name) BETWEEN 1 AND 200),
  tool        text NOT NULL UNIQUE,
  refused     text,
  PRIMARY KEY (server_id, remote_name)
);
COMMENT ON TABLE odin.remote_tools IS 'What each remote server brought, and under which name the farm offers it; refused says why one is not offered.';

CREATE TABLE odin_private.remote_secrets (
  server_id bigint PRIMARY KEY REFERENCES odin.remote_servers ON DELETE CASCADE,
  sealed    text NOT NULL CHECK (sealed ~ '^sealed:v1:[A-Za-z0-9_-]{40,}$'),
  set_by    text NOT NULL,
  set_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE odin_private.remote_secrets IS 'The header that remote servers want to see, sealed by a sidecar.';

INSERT INTO odin.toolsets VALUES ('remote', 'Tools of remote MCP servers, and what is known of these servers.', false);
GRANT SELECT ON odin.remote_servers, odin.remote_tools TO odin_operator;
INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('remote_server_not_found', 'OD720', 404, false, 'There is no such remote server.', 'Call list_remote_servers.'),
  ('remote_server_failed', 'OD721', 502, false, 'The remote server failed; whether it did anything is not known.', 'See list_remote_servers for what is wrong.');
