-- Every error a caller can meet: stable codes, their statuses, and the constraints that speak in farm words.
-- A code is never renamed and never reused for another meaning.

CREATE TABLE odin.error_codes (
  code text PRIMARY KEY CHECK (code ~ '^[a-z][a-z0-9_]*$'),
  sqlstate text NOT NULL UNIQUE CHECK (sqlstate ~ '^OD[0-9A-Z]{3}$'),
  status int NOT NULL CHECK (status BETWEEN 400 AND 599),
  retriable boolean NOT NULL DEFAULT false,
  meaning text NOT NULL,
  hint text
);
COMMENT ON TABLE odin.error_codes IS 'Stable error codes: agents and programs branch on them. Rendered to docs/errors.md.';

CREATE TABLE odin.constraint_errors (
  constraint_name text PRIMARY KEY,
  code text NOT NULL REFERENCES odin.error_codes,
  detail text NOT NULL,
  hint text
);
COMMENT ON TABLE odin.constraint_errors IS 'What a violated constraint means in the farm''s words.';
CREATE INDEX constraint_errors_code ON odin.constraint_errors (code);

INSERT INTO odin.error_codes(code, sqlstate, status, retriable, meaning, hint) VALUES
  ('validation_failed', 'OD001', 422, false, 'An argument is missing, unknown or out of range.', 'Correct the named field and call again; do not repeat the same call.'),
  ('not_found', 'OD002', 404, false, 'The thing does not exist, or the caller may not see it.', NULL),
  ('tool_not_found', 'OD003', 404, false, 'No such tool, or not one this caller may use.', 'Use search_tools to find it.'),
  ('not_authenticated', 'OD004', 401, false, 'No valid key was presented.', 'Send Authorization: Bearer with a key that is neither expired nor revoked.'),
  ('permission_denied', 'OD005', 403, false, 'The role lacks a right.', NULL),
  ('scope_denied', 'OD006', 403, false, 'The key''s scopes do not cover this tool.', 'Ask for a key with one of allowed_scopes.'),
  ('human_only', 'OD007', 403, false, 'Only a person in the database may do this; no key can, whatever its scope.', 'Ask the farm''s administrator.'),
  ('idempotency_conflict', 'OD010', 409, false, 'The idempotency key was used with other arguments.', 'Use a fresh key for a different call.'),
  ('idempotency_in_progress', 'OD011', 409, true, 'A call with this idempotency key is still running.', 'Wait a moment and repeat the same call with the same key.'),
  ('idempotency_authz_changed', 'OD012', 409, false, 'The caller''s rights changed since the first call with this key.', 'Read the current state before deciding; use a fresh key.'),
  ('idempotency_uncacheable_success', 'OD013', 409, false, 'The first call succeeded but its answer was too large to keep.', 'Read the current state; do not repeat the write.'),
  ('idempotency_unsupported', 'OD014', 413, false, 'This request is too large for an idempotency key.', 'Send at most 1 MB of arguments, or leave the key out.'),
  ('dry_run_unsupported', 'OD015', 501, false, 'The effect of this tool cannot be rolled back, so it has no preview.', NULL),
  ('preview_stale', 'OD016', 409, false, 'What the preview showed has changed since, or the token is not for this call.', 'Preview again and show the new one.'),
  ('preview_required', 'OD017', 428, false, 'This tool commits only with the preview_token of a preview.', 'Call with dry_run: true, show the preview, then call again with its preview_token.'),
  ('approval_required', 'OD018', 403, false, 'A person has to approve this call first.', 'Tell the user; call again with the same arguments once it is approved.'),
  ('approval_denied', 'OD019', 403, false, 'A person denied this call.', 'Do not retry; ask the user how to go on.'),
  ('rate_limited', 'OD020', 429, true, 'Too many calls.', 'Wait for retry_after seconds.'),
  ('timeout', 'OD021', 504, true, 'The tool ran into its time limit; nothing was changed.', 'Ask for less at once.'),
  ('cancelled', 'OD022', 499, false, 'The call was cancelled; nothing was changed.', NULL),
  ('conflict', 'OD023', 409, true, 'Another call changed the same rows at the same moment; nothing was changed.', 'Read the current state and call again.'),
  ('upstream_unavailable', 'OD024', 503, true, 'Something the call needs cannot be reached.', 'Try again later.'),
  ('schema_outdated', 'OD025', 503, false, 'The tables are of another version than the code.', 'The administrator runs ALTER EXTENSION odin_farm UPDATE, or SELECT odin.install() after a restore.'),
  ('internal_error', 'OD026', 500, true, 'Something went wrong inside; nothing was changed.', 'If it happens again, give the administrator the request id.'),
  ('invalid_state_transition', 'OD027', 400, false, 'The thing is not in a state that allows this.', NULL),
  ('quota_exceeded', 'OD028', 429, false, 'A quota would be passed.', NULL),
  ('feature_disabled', 'OD029', 403, false, 'This feature is switched off for the org.', NULL),
  ('itar_outbound_blocked', 'OD030', 403, false, 'Air-gap mode: this farm makes no outbound connection there.', NULL),
  ('http_error', 'OD031', 500, false, 'An error of another kind.', NULL),
  ('read_only', 'OD032', 405, false, 'A read tool tried to write, or the connection is read-only.', NULL),
  ('input_invalid', 'OD033', 400, false, 'The answer to a question of a tool is not for this call, or too old.', 'Call the tool again from the start.'),
  ('already_exists', 'OD034', 409, false, 'A thing with this name or number exists already.', NULL),
  ('in_use', 'OD035', 409, false, 'Other rows depend on this one.', NULL),
  ('registration_failed', 'OD036', 422, false, 'A tool cannot be registered as asked.', NULL),
  ('request_too_large', 'OD037', 413, false, 'The request is larger than allowed.', NULL),
  ('preview', 'OD000', 500, false, 'Internal: rolls a preview back; no caller sees it.', NULL),
  ('printer_not_found', 'OD040', 404, false, 'No such printer.', 'Use list_printers for the ids.'),
  ('job_not_found', 'OD041', 404, false, 'No such job.', 'Use list_jobs for the ids.'),
  ('spool_not_found', 'OD042', 404, false, 'No such spool.', 'Use list_spools for the ids.'),
  ('alert_not_found', 'OD043', 404, false, 'No such alert.', 'Use list_alerts for the ids.'),
  ('maintenance_task_not_found', 'OD044', 404, false, 'No such maintenance task.', 'Use list_maintenance_tasks for the ids.'),
  ('model_not_found', 'OD045', 404, false, 'No such model.', NULL),
  ('user_not_found', 'OD046', 404, false, 'No such user.', NULL);
GRANT SELECT ON odin.error_codes, odin.constraint_errors TO odin_viewer, odin_customer, odin_bi;
