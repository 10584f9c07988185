-- What the farm wants a printer to do: one row per command, written by a tool in its own transaction and carried out by the sidecar that holds the printer.
-- A row says what is wanted; only the printer's own report says what happened. Sent at most once: 'sent' is committed before the first byte leaves.
CREATE TABLE odin.commands (
  id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  org_id       bigint NOT NULL REFERENCES odin.orgs,
  printer_id   bigint,
  run_id       bigint,
  verb         text NOT NULL CHECK (verb ~ '^[a-z][a-z_]{1,39}$'),
  arguments    jsonb NOT NULL DEFAULT '{}',
  state        text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued','claimed','sent','done','failed','in_doubt','cancelled')),
  deadline     timestamptz NOT NULL DEFAULT now() + interval '5 minutes',
  attempts     smallint NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  holder       text,
  fence        bigint,
  result       jsonb,
  error        jsonb,
  requested_by text NOT NULL DEFAULT current_user,
  call_id      bigint,
  created_at   timestamptz NOT NULL DEFAULT now(),
  claimed_at   timestamptz,
  sent_at      timestamptz,
  finished_at  timestamptz,
  UNIQUE (org_id, id),
  CONSTRAINT commands_printer_fk FOREIGN KEY (org_id, printer_id) REFERENCES odin.printers (org_id, id) ON DELETE CASCADE,
  CONSTRAINT commands_run_fk FOREIGN KEY (org_id, run_id) REFERENCES odin.runs (org_id, id),
  CONSTRAINT commands_of_a_printer CHECK (printer_id IS NOT NULL OR verb = 'discover'),
  CONSTRAINT commands_ended CHECK ((state IN ('done','failed','cancelled')) = (finished_at IS NOT NULL)),
  CONSTRAINT commands_failed_says_why CHECK (state <> 'failed' OR error IS NOT NULL)
) WITH (fillfactor = 80);
COMMENT ON TABLE odin.commands IS 'Commands to printers: queued, claimed by the sidecar that holds the printer, sent at most once, confirmed by the printer''s own state; in_doubt until reconciled.';
COMMENT ON COLUMN odin.commands.printer_id IS 'NULL only for a search for printers in the network: any sidecar may do that.';
COMMENT ON COLUMN odin.commands.fence IS 'The fencing token of the lease it was claimed under; a sidecar with another one can change nothing here.';
COMMENT ON COLUMN odin.commands.state IS 'queued; claimed: nothing has left yet; sent: may have reached the printer; in_doubt: whoever sent it is gone, the printer has to be looked at; done: the printer confirms; failed; cancelled: never sent.';
CREATE INDEX commands_open ON odin.commands (printer_id, id) WHERE state IN ('queued','claimed','sent','in_doubt');
CREATE UNIQUE INDEX commands_one_at_work ON odin.commands (printer_id) WHERE state IN ('claimed','sent','in_doubt');
CREATE INDEX commands_by_run ON odin.commands (run_id) WHERE run_id IS NOT NULL;
CREATE INDEX commands_by_printer ON odin.commands (printer_id, id);
CREATE INDEX commands_org ON odin.commands (org_id, id);

SELECT odin.guard_table('odin.commands');
GRANT SELECT ON odin.commands TO odin_viewer;

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('command_not_found',   'OD501', 404, false, 'No such command, or it is not yours to see.', NULL),
  ('command_expired',     'OD502', 504, true,  'The command was not sent in time: no sidecar could reach the printer. Nothing was sent.', 'Check the printer with get_printer, then call again.'),
  ('command_in_doubt',    'OD503', 409, false, 'The command may or may not have reached the printer, and the printer''s state does not tell.', 'Look at the printer before you repeat it.'),
  ('command_unconfirmed', 'OD504', 504, false, 'The command was sent, but the printer''s state never showed it.', 'Look at the printer; it may still obey later.'),
  ('printer_refused',     'OD505', 409, false, 'The printer''s server refused the command.', 'Check its state with get_printer.'),
  ('printer_auth',        'OD506', 502, false, 'The printer''s server does not accept the farm''s credentials.', 'An administrator sets them again with set_printer_credentials; test_printer says what is wrong.'),
  ('printer_not_ready',   'OD507', 409, false, 'The printer is not in a state in which this is safe.', 'See get_printer for what it reports.'),
  ('printer_limit',       'OD508', 422, false, 'The value is beyond what this printer allows.', NULL),
  ('not_supported',       'OD509', 501, false, 'This printer''s protocol cannot do this.', NULL),
  ('file_not_on_printer', 'OD510', 404, false, 'The printer has no such file.', 'See printer_files.'),
  ('printer_fault',       'OD511', 502, true,  'The printer''s server failed or answered something unexpected.', NULL)
ON CONFLICT (code) DO NOTHING;
INSERT INTO odin.constraint_errors(constraint_name, code, detail, hint) VALUES
  ('commands_printer_fk', 'printer_not_found', 'There is no printer with this printer_id.', 'Call list_printers.');
