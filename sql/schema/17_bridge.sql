-- Between sidecars: questions put to older MCP clients, their answers, cancellations, and what a session asked for.
-- Everything here is about the next minutes; losing it in a crash loses no work, so it is not written ahead.

CREATE UNLOGGED TABLE odin_private.bridge_questions (
  id text PRIMARY KEY,
  key_id bigint NOT NULL,
  session text NOT NULL,
  answer jsonb,
  expires_at timestamptz NOT NULL
);
COMMENT ON TABLE odin_private.bridge_questions IS 'Questions a tool put to a client in the middle of a call. The answer may arrive at any sidecar.';

CREATE UNLOGGED TABLE odin_private.bridge_cancels (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  key_id bigint NOT NULL,
  session text NOT NULL,
  request text NOT NULL,
  cancelled_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE odin_private.bridge_cancels IS 'Calls to stop that may run at another sidecar, named by key, session and JSON-RPC id.';

CREATE UNLOGGED TABLE odin_private.bridge_sessions (
  key_id bigint NOT NULL,
  session text NOT NULL,
  log_level text,
  watches text[] NOT NULL DEFAULT '{}',
  used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz,
  PRIMARY KEY (key_id, session)
);
CREATE INDEX bridge_sessions_ended ON odin_private.bridge_sessions (ended_at) WHERE ended_at IS NOT NULL;
COMMENT ON TABLE odin_private.bridge_sessions IS 'What an older client set for its session: log level, watched resources, its end. Sessions that set nothing have no row.';
