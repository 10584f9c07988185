-- Which sidecar holds which printer, what printers say about themselves besides their state, credentials, and the machines of the `virtual` protocol.
-- A lease is good as long as its holder's heartbeat; the fence rises with every change of hands. Credentials are sealed outside; nobody here can read them.
CREATE TABLE odin.sidecars (
  holder     text PRIMARY KEY CHECK (length(holder) BETWEEN 1 AND 100),
  version    text,
  started_at timestamptz NOT NULL DEFAULT now(),
  until      timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE odin.sidecars IS 'Sidecars that work on printers; until = how long their last heartbeat is good.';

CREATE TABLE odin.printer_leases (
  printer_id bigint PRIMARY KEY,
  org_id     bigint NOT NULL REFERENCES odin.orgs,
  holder     text NOT NULL DEFAULT '',
  fence      bigint NOT NULL DEFAULT 0,
  taken_at   timestamptz,
  CONSTRAINT printer_leases_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
COMMENT ON TABLE odin.printer_leases IS 'The sidecar that may talk to each printer. fence rises with every change of hands; what an earlier holder still sends is refused by it.';
CREATE INDEX printer_leases_holder ON odin.printer_leases (holder);
CREATE INDEX printer_leases_org ON odin.printer_leases (org_id);

CREATE TABLE odin.printer_facts (
  printer_id bigint PRIMARY KEY,
  org_id     bigint NOT NULL REFERENCES odin.orgs,
  facts      jsonb NOT NULL DEFAULT '{}',
  facts_at   timestamptz,
  files      jsonb NOT NULL DEFAULT '[]',
  files_at   timestamptz,
  CONSTRAINT printer_facts_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE odin.printer_facts IS 'What changes rarely: the server''s version, its connection to the machine, what the protocol can do, and the files stored there (newest first).';
COMMENT ON COLUMN odin.printer_facts.files IS '[{"path","size_bytes","date","estimated_print_time_s"}] as the printer last listed them.';
CREATE INDEX printer_facts_org ON odin.printer_facts (org_id);

CREATE TABLE odin_private.printer_secrets (
  printer_id bigint PRIMARY KEY,
  sealed     text NOT NULL CHECK (sealed ~ '^sealed:v1:[A-Za-z0-9_-]{40,}$'),
  set_by     text NOT NULL,
  set_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE odin_private.printer_secrets IS 'Credentials of printers, sealed with a key that only the sidecars hold. Written by set_printer_credentials, read by the sidecar that holds the printer.';

CREATE TABLE odin.virtual_machines (
  printer_id   bigint PRIMARY KEY,
  org_id       bigint NOT NULL REFERENCES odin.orgs,
  speed        real NOT NULL DEFAULT 1 CHECK (speed > 0),
  file         text,
  seconds      real,
  started_at   timestamptz,
  paused_at    timestamptz,
  paused_s     real NOT NULL DEFAULT 0,
  ended        text CHECK (ended IN ('cancelled','failed')),
  tool_target  real NOT NULL DEFAULT 0,
  bed_target   real NOT NULL DEFAULT 0,
  files        jsonb NOT NULL DEFAULT '[]',
  acts         jsonb NOT NULL DEFAULT '{}',
  CONSTRAINT virtual_machines_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70);
COMMENT ON TABLE odin.virtual_machines IS 'The machines behind printers of the protocol virtual: they go on printing whoever watches. speed 60 = an hour passes in a minute. acts counts what each was told.';
CREATE INDEX virtual_machines_org ON odin.virtual_machines (org_id);

SELECT odin.guard_table('odin.' || t, trail => false) FROM unnest(ARRAY['printer_leases','printer_facts','virtual_machines']) AS t;
GRANT SELECT ON odin.printer_leases, odin.printer_facts, odin.virtual_machines TO odin_viewer;
GRANT SELECT ON odin.sidecars TO odin_admin;
INSERT INTO odin.toolsets VALUES ('printers', 'Direct control of printers: status, files, start, pause, temperatures, moves, G-code; the octoprint_* names too.', false) ON CONFLICT DO NOTHING;
