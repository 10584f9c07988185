-- The functions written in Rust, declared by hand. They are the extension's only members, with
-- odin.source() and odin.install(); a table must never depend on one of them.
CREATE FUNCTION odin._jail_run(role oid, invoke regprocedure, run oid, arguments jsonb, preview boolean, bound_to text, call_id bigint, role_name text, key_id bigint, answers jsonb, state jsonb, limit_ms int)
  RETURNS jsonb LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'jail_run';
CREATE FUNCTION odin._run(run oid, arguments jsonb)
  RETURNS jsonb LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'run_tool';
CREATE FUNCTION odin._plain_call(invoke_read regprocedure, invoke_write regprocedure, credential text, tool text, arguments jsonb, options jsonb)
  RETURNS jsonb LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'plain_call';
CREATE FUNCTION odin._plain_learn(registry bigint, wanted text, scopes text[], tool bigint, version bigint, name text, read_only boolean, raw boolean, redact boolean, limit_ms int)
  RETURNS void LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'plain_learn_wrapper';
CREATE FUNCTION odin._instance_row()
  RETURNS record LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'instance_row';
CREATE FUNCTION odin._key_row(hash bytea)
  RETURNS record LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'key_row';
CREATE FUNCTION odin._arguments_plain(tool bigint, version bigint, sent jsonb)
  RETURNS jsonb LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'arguments_plain_wrapper';
CREATE FUNCTION odin._arguments_checked(tool bigint, version bigint, sent jsonb)
  RETURNS jsonb LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'arguments_checked_wrapper';
CREATE FUNCTION odin._arguments_load(tool bigint, version bigint, spec jsonb)
  RETURNS text LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'arguments_load_wrapper';
CREATE FUNCTION odin._tool_known(kind text, name text, registry bigint)
  RETURNS record LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'tool_known';
CREATE FUNCTION odin._tool_learn(kind text, name text, registry bigint, tool record)
  RETURNS record LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'tool_learn';
CREATE FUNCTION odin._function_known(tool bigint, version bigint)
  RETURNS oid LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'function_known_wrapper';
CREATE FUNCTION odin._caller_known(tool bigint, version bigint)
  RETURNS oid LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'caller_known_wrapper';
CREATE FUNCTION odin._function_learn(tool bigint, version bigint, function oid, caller oid)
  RETURNS oid LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'function_learn_wrapper';
CREATE FUNCTION odin._schema_problem(schema jsonb)
  RETURNS text LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'schema_problem_wrapper';
CREATE FUNCTION odin._canonical(value jsonb)
  RETURNS text LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'canonical_text_wrapper';
CREATE FUNCTION odin._nearest(word text, candidates text[])
  RETURNS text LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'nearest_word_wrapper';
CREATE FUNCTION odin._roles_of(role_name text)
  RETURNS text[] LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'roles_of_wrapper';
CREATE FUNCTION odin._is_expression(text text)
  RETURNS boolean LANGUAGE c STRICT IMMUTABLE AS 'MODULE_PATHNAME', 'is_expression_wrapper';
CREATE FUNCTION odin._random_hex(bytes int)
  RETURNS text LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'random_hex_wrapper';
CREATE FUNCTION odin._hmac(secret bytea, message bytea)
  RETURNS bytea LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'hmac_wrapper';
CREATE FUNCTION odin._hash(VARIADIC fields text[])
  RETURNS bytea LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'hash_wrapper';
CREATE FUNCTION odin._key_hash(credential text)
  RETURNS bytea LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'key_hash_wrapper';
CREATE FUNCTION odin._token_issuer(token text)
  RETURNS text LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'token_issuer_wrapper';
CREATE FUNCTION odin._token_claims(token text, keys jsonb, issuer text, audiences text[], algorithms text[])
  RETURNS jsonb LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'token_claims_wrapper';
CREATE FUNCTION odin._plan(input jsonb)
  RETURNS jsonb LANGUAGE c STRICT IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'plan_jobs_wrapper';
CREATE FUNCTION odin._row_differs(one record, other record)
  RETURNS record LANGUAGE c STRICT STABLE AS 'MODULE_PATHNAME', 'row_differs';
CREATE FUNCTION odin._origin()
  RETURNS bigint LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'origin_wrapper';
CREATE FUNCTION odin._code_version()
  RETURNS text LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'code_version_wrapper';
CREATE FUNCTION odin._has_written()
  RETURNS boolean LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'has_written_wrapper';
CREATE FUNCTION odin._hold_cancel()
  RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'hold_cancel_wrapper';
CREATE FUNCTION odin._release_cancel()
  RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'release_cancel_wrapper';
CREATE FUNCTION odin._call_has_hints()
  RETURNS boolean LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'call_has_hints_wrapper';
CREATE FUNCTION odin._call_hints()
  RETURNS jsonb LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'call_hints_wrapper';
CREATE FUNCTION odin.current_call()
  RETURNS bigint LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'current_call_wrapper';
CREATE FUNCTION odin.call_key()
  RETURNS bigint LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'call_key_wrapper';
CREATE FUNCTION odin.call_is_preview()
  RETURNS boolean LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'call_is_preview_wrapper';
CREATE FUNCTION odin._call_keeps_images()
  RETURNS boolean LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'call_keeps_images_wrapper';
CREATE FUNCTION odin.actor()
  RETURNS text LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'actor_wrapper';
CREATE FUNCTION odin.would(what jsonb)
  RETURNS void LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'would_wrapper';
CREATE FUNCTION odin.suggest(tool text, args jsonb DEFAULT '{}', reason text DEFAULT NULL)
  RETURNS void LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'suggest_wrapper';
CREATE FUNCTION odin.note(text text)
  RETURNS void LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'note_wrapper';
CREATE FUNCTION odin.input_responses()
  RETURNS jsonb LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'input_responses_wrapper';
CREATE FUNCTION odin.request_state()
  RETURNS jsonb LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'request_state_wrapper';
CREATE FUNCTION odin._records_compile(role oid, request jsonb)
  RETURNS jsonb LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'records_compile_wrapper';
CREATE FUNCTION odin._records_page(model text, relation oid, domain jsonb, fields text[], "order" text, "limit" int, cursor jsonb)
  RETURNS jsonb LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'records_page';
CREATE FUNCTION odin._records_learn(role oid, described oid, description jsonb)
  RETURNS boolean LANGUAGE c STRICT VOLATILE AS 'MODULE_PATHNAME', 'records_learn_wrapper';

COMMENT ON FUNCTION odin.current_call() IS 'Number of the call being carried out (odin.audit_calls.id), NULL outside a call. Cannot be forged by SQL.';
COMMENT ON FUNCTION odin.call_key() IS 'Key of the call being carried out, NULL outside a call or when a SQL user calls.';
COMMENT ON FUNCTION odin.call_is_preview() IS 'True while a call is only a preview: all it does is rolled back.';
COMMENT ON FUNCTION odin.actor() IS 'Who acts: the owner of the key inside a call, else the SQL user; right inside SECURITY DEFINER too.';
COMMENT ON FUNCTION odin.would(jsonb) IS 'In a write tool: what a preview reports as would_execute. Ignored when the call commits.';
COMMENT ON FUNCTION odin.suggest(text, jsonb, text) IS 'In a tool: add a next action to the answer.';
COMMENT ON FUNCTION odin.note(text) IS 'In a tool: add a sentence to the answer''s notes.';
COMMENT ON FUNCTION odin.input_responses() IS 'In a tool that asked for input: the answers, by the keys it asked under; NULL on the first call.';
COMMENT ON FUNCTION odin.request_state() IS 'In a tool that asked for input: the state it gave, unchanged; NULL on the first call.';
