-- One call, from a known principal to an answer: registry, arguments, idempotency, jail, preview, audit, in that order.
-- Everything commits together with the effect. The internal functions have no search_path of their own: only pinned functions call them.

-- A tool by name or alias.
CREATE OR REPLACE FUNCTION odin._find_tool(wanted text, wanted_kind text DEFAULT 'tool') RETURNS odin.tools
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  t odin.tools;
BEGIN
  SELECT * INTO t FROM odin.tools x WHERE x.name = wanted AND x.kind = wanted_kind;
  IF NOT FOUND THEN
    SELECT x.* INTO t FROM odin.tool_aliases a JOIN odin.tools x ON x.id = a.tool_id WHERE a.alias = wanted AND x.kind = wanted_kind;
  END IF;
  RETURN t;
END $f$;

-- Steps 2 and 3: may this principal call this tool with these arguments? NULL, or the refusal.
CREATE OR REPLACE FUNCTION odin._gate(t odin.tools, who oid, role_name text, scopes text[], wanted text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
BEGIN
  IF t.id IS NULL OR NOT t.active THEN
    RETURN odin._error('tool_not_found', format('there is no tool %s', wanted),
      CASE WHEN t.id IS NOT NULL THEN t.inactive_reason
           ELSE (SELECT 'Did you mean ' || n || '?' FROM odin._nearest(wanted, ARRAY(SELECT v.name FROM odin._visible(who, scopes, ARRAY['tool'], NULL, false, true) v)) n) END);
  ELSIF NOT odin._scope_covers(scopes, t.scope, t.area) THEN
    RETURN odin._error('scope_denied', format('%s needs a wider scope than this key has', t.name), NULL, jsonb_build_object('token_scopes', to_jsonb(scopes), 'allowed_scopes',
      CASE t.scope WHEN 'read' THEN jsonb_build_array('agent:read', 'agent:write', 'admin', 'read:' || t.area)
                   WHEN 'write' THEN jsonb_build_array('agent:write', 'admin', 'write:' || t.area) ELSE '["admin"]' END));
  ELSIF NOT coalesce(has_function_privilege(who, odin._function_oid(t.function), 'EXECUTE'), false) THEN
    IF odin._function_oid(t.function) IS NULL THEN
      RETURN odin._error('tool_not_found', format('the function of %s is gone', t.name), 'An administrator runs odin.sync_tools().');
    END IF;
    RETURN odin._error('permission_denied', format('%s may not call %s', role_name, t.name),
      format('Missing: GRANT EXECUTE ON FUNCTION %s TO %I, or membership in a group role that has it.', t.function, role_name));
  ELSIF (options->>'readonly')::boolean AND NOT t.read_only THEN
    RETURN odin._error('scope_denied', format('%s writes, and this connection is read-only', t.name));
  END IF;
  RETURN NULL;
END $f$;

-- Arguments with what stands beside them or is wrong with them; a spec that this backend does not know yet is compiled first.
CREATE OR REPLACE FUNCTION odin._prepare(t odin.tools, arguments jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $f$
DECLARE
  ready jsonb := odin._arguments_checked(t.id, t.version, coalesce(arguments, '{}'));
  problem text;
BEGIN
  IF ready IS NOT NULL THEN RETURN ready; END IF;
  problem := odin._arguments_load(t.id, t.version, t.spec);
  IF problem IS NOT NULL THEN RAISE EXCEPTION 'the spec of % does not compile: %', t.name, problem; END IF;
  RETURN odin._arguments_checked(t.id, t.version, coalesce(arguments, '{}'));
END $f$;

-- The functions behind a tool, for this backend to remember; the answer is the tool's own.
CREATE OR REPLACE FUNCTION odin._learn(t odin.tools) RETURNS oid
LANGUAGE sql AS $f$
  SELECT odin._function_learn(t.id, t.version, odin._function_oid(t.function), to_regprocedure(t.caller || '(jsonb)'));
$f$;

-- Steps 2 to 7. `who` is the role, `own_tx` says that the whole transaction is this call (the gateway's), `registry` is the registry's version if
-- the caller knows it, `done` what _plain_call left unfinished: the tool has run, and what became of it is told here. Every expression costs a
-- call some microseconds: what nearly every call passes is asked at once.
CREATE OR REPLACE FUNCTION odin._dispatch(who oid, role_name text, key_id bigint, scopes text[], key_rate int, wanted text, arguments jsonb, options jsonb, own_tx boolean, registry bigint DEFAULT NULL, wanted_kind text DEFAULT 'tool',
  done jsonb DEFAULT NULL)
RETURNS jsonb LANGUAGE plpgsql AS $f$
DECLARE
  started timestamptz := clock_timestamp() - coalesce((done->>'took_us')::int, 0) * interval '1 microsecond';
  t odin.tools;
  ready jsonb;
  args jsonb;
  control jsonb;
  idem_key text;
  stored jsonb;
  call_id bigint;
  dry boolean;
  preview boolean;
  token jsonb;
  out jsonb;
  answer jsonb;
  task jsonb;
  err jsonb;
  outcome text;
  state text; said text; detail text; hint text;
BEGIN
  <<work>> BEGIN
    IF wanted = 'call_tool' AND wanted_kind = 'tool' THEN
      -- dry_run beside the arguments instead of inside them would be lost, and the call done for good.
      SELECT k INTO said FROM jsonb_object_keys(CASE WHEN jsonb_typeof(arguments) = 'object' THEN arguments ELSE '{}' END) k WHERE k NOT IN ('name', 'arguments') LIMIT 1;
      IF said IS NOT NULL THEN
        err := odin._error('validation_failed', format('%s: no such argument of call_tool; it takes name and arguments', said), 'Put the called tool''s own arguments, dry_run too, into arguments.', jsonb_build_object('field', said));
        EXIT work;
      END IF;
      wanted := arguments->>'name';
      arguments := CASE WHEN jsonb_typeof(arguments->'arguments') = 'string' AND arguments->>'arguments' LIKE '{%' THEN (arguments->>'arguments')::jsonb ELSE arguments->'arguments' END;
    END IF;
    t := coalesce(odin._tool_known(wanted_kind, wanted, registry), odin._tool_learn(wanted_kind, wanted, registry, odin._find_tool(wanted, wanted_kind)));
    -- Nearly every call is open and has no limits; a refusal or a function made anew takes the long way.
    IF done IS NULL AND (t.active AND odin._scope_covers(scopes, t.scope, t.area) AND (t.read_only OR NOT coalesce((options->>'readonly')::boolean, false))
        AND key_rate IS NULL AND t.rate_per_minute IS NULL AND t.concurrency IS NULL
        AND has_function_privilege(who, coalesce(odin._function_known(t.id, t.version), odin._learn(t)), 'EXECUTE')) IS NOT TRUE THEN
      err := odin._gate(t, who, role_name, scopes, wanted, options);
      EXIT work WHEN err IS NOT NULL;
      PERFORM odin._learn(t);
      IF key_rate IS NOT NULL OR t.rate_per_minute IS NOT NULL THEN
        err := odin._rate_check(key_id, key_rate, t);
        EXIT work WHEN err IS NOT NULL;
      END IF;
      IF t.concurrency IS NOT NULL AND NOT odin._take_place('tool', t.id, t.concurrency) THEN
        err := odin._no_place(format('%s runs as often at once as it may (%s)', t.name, t.concurrency));
        EXIT work;
      END IF;
    END IF;
    args := odin._arguments_plain(t.id, t.version, coalesce(arguments, '{}'));
    IF args IS NULL THEN
      ready := odin._prepare(t, arguments);
      IF NOT (ready->'ok')::boolean THEN
        err := odin._error('validation_failed', ready->>'detail', NULL, jsonb_build_object('problems', ready->'problems', 'field', ready#>'{problems,0,field}'));
        EXIT work;
      END IF;
      args := ready->'arguments';
      control := ready->'control';
    END IF;
    IF t.task <> 'no' OR NOT t.read_only THEN
      control := coalesce(control, '{}');
      -- Either way of asking for a preview is enough: a header must not be undone by a default in the body.
      dry := coalesce((control->>'dry_run')::boolean, false) OR coalesce((options->>'dry_run')::boolean, false);
      IF t.task <> 'no' AND own_tx AND NOT dry THEN
        -- What came beside the arguments goes along: the worker has nothing but the task.
        task := odin._task_offer(t, role_name, key_id, args || control || (SELECT coalesce(jsonb_object_agg(k, v), '{}') FROM (VALUES ('idempotency_key', options->'idempotency_key'),
          ('preview_token', options->'preview_token'), ('confirm', options->'confirmed')) o(k, v) WHERE coalesce(v, 'null') <> 'null' AND t.spec->'control' ? k AND NOT control ? k), options);
        err := task->'error';
        EXIT work WHEN task IS NOT NULL;
      END IF;
      IF NOT t.read_only THEN
        preview := dry OR (t.confirm = 'confirm' AND NOT coalesce((control->>'confirm')::boolean, (options->>'confirmed')::boolean, false));
        idem_key := coalesce(control->>'idempotency_key', options->>'idempotency_key');
        -- Before the policies: a call that was done is answered again, whatever became of its token or approval.
        IF idem_key IS NOT NULL AND NOT preview THEN
          stored := odin._claim(role_name, who, scopes, idem_key, t.name, args);
          err := stored->'error';
          EXIT work WHEN err IS NOT NULL OR stored IS NOT NULL;
        END IF;
        IF preview OR t.confirm IN ('preview', 'human') OR control ? 'preview_token' OR options ? 'preview_token' THEN
          token := odin._token_open(coalesce(control->>'preview_token', options->>'preview_token'), role_name, t, args, preview);
          err := coalesce(token->'error', odin._policy_refusal(t, role_name, key_id, args, options || jsonb_build_object('approval_reason', control->'approval_reason'), preview, token));
          EXIT work WHEN err IS NOT NULL;
        END IF;
        call_id := coalesce((done->>'call_id')::bigint, nextval('odin.audit_calls_id_seq'));
      END IF;
    END IF;
    IF (t.raw OR (t.result_key IS NULL AND t.next_actions = '[]')) AND own_tx AND t.task = 'no' AND t.secret_arguments = '{}' AND t.confirm = 'none' AND wanted_kind = 'tool'
       AND key_rate IS NULL AND t.rate_per_minute IS NULL AND t.concurrency IS NULL THEN
      -- Open, and nothing but the right to its function is to be asked for: the next such call need not come here (extension/src/plain.rs).
      PERFORM odin._plain_learn(registry, wanted, scopes, t.id, t.version, t.name, t.read_only, t.raw, t.redact, t.timeout_ms);
    END IF;
    -- Of a read nothing but the audit row will be written: no caller has to wait for its flush.
    said := CASE WHEN t.read_only AND own_tx AND pg_current_xact_id_if_assigned() IS NULL THEN set_config('synchronous_commit', 'off', true) END;
    out := coalesce(done->'ran', odin._jail_run(who, CASE WHEN t.read_only THEN 'odin._invoke_read(oid,jsonb,boolean,text)'::regprocedure ELSE 'odin._invoke(oid,jsonb,boolean,text)'::regprocedure END, odin._caller_known(t.id, t.version), CASE WHEN control ? 'fields' THEN args || '{"_fields": true}' ELSE args END,
      coalesce(preview, false), coalesce(token->>'touched', ''), call_id, role_name, key_id, options->'input_responses',
      CASE WHEN options ? 'request_state' THEN odin._state_open(options->>'request_state', role_name, t.name, args) END, t.timeout_ms));
    answer := out->'result';
    IF answer IS NULL THEN
      IF preview AND out ? 'seen' THEN
        answer := odin._preview_answer(t, out->'seen', role_name, args, odin._call_hints());
      ELSE
        err := odin._error_of(out->'caught', role_name);
      END IF;
    ELSIF ((t.raw OR (t.result_key IS NULL AND t.next_actions = '[]' AND jsonb_typeof(answer) = 'object' AND NOT odin._call_has_hints())) AND NOT answer ? 'ask_outside') IS NOT TRUE THEN
      -- What a read tool wants to know from outside is asked for here, where writing is allowed again.
      IF t.read_only AND jsonb_typeof(answer->'ask_outside') = 'object' THEN
        answer := odin._ask_outside(answer, role_name, key_id, options);
      END IF;
      -- A raw answer is its tool's own affair; one object with nothing to add stands as it is.
      IF NOT t.raw THEN
        answer := odin._shape(t, answer, args, control, odin._call_hints());
      END IF;
    END IF;
  EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
    IF SQLSTATE = '57014' THEN PERFORM odin._hold_cancel(); END IF;
    -- Whatever fails around the tool takes the tool's effect with it.
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    -- A tool that outran its time did run (the jail says so).
    out := coalesce(out, CASE WHEN state = '57014' AND detail LIKE 'the tool went on%' THEN '{}'::jsonb END);
    err := odin._error_of(jsonb_build_object('sqlstate', state, 'message', said, 'detail', detail, 'hint', hint), role_name);
  END work;
  outcome := CASE WHEN err IS NOT NULL AND out IS NULL THEN 'refused' WHEN err IS NOT NULL THEN 'failed' WHEN task IS NOT NULL THEN 'queued' WHEN stored IS NOT NULL THEN 'replay'
                  WHEN preview THEN 'preview' WHEN t.raw AND answer ? 'input_required' THEN 'asked' ELSE 'done' END;
  IF outcome = 'done' AND (t.confirm = 'human' OR idem_key IS NOT NULL) THEN
    -- Used up only by success: a failed call leaves the approval standing.
    UPDATE odin.consents k SET state = 'used' WHERE t.confirm = 'human' AND k.role_name = _dispatch.role_name AND k.tool = t.name AND k.arguments_hash = odin._hash(t.name, odin._canonical(args)) AND k.state = 'approved';
    IF idem_key IS NOT NULL THEN
      PERFORM odin._keep_answer(role_name, who, scopes, idem_key, t.name, args, answer, call_id);
    END IF;
  END IF;
  INSERT INTO odin.audit_calls(id, called_at, duration_us, role_name, key_id, face, client, tool, arguments, outcome, code, request_id, idempotency_key, origin, xid)
  OVERRIDING SYSTEM VALUE
  VALUES (coalesce(call_id, nextval('odin.audit_calls_id_seq')), started, least(extract(epoch FROM clock_timestamp() - started) * 1e6, 2147483647)::int, role_name, key_id, coalesce(options->>'face', 'sql'),
    left(options#>>'{client,name}', 200), left(coalesce(t.name, wanted, ''), 200), CASE WHEN t.redact IS NOT FALSE OR args IS NULL THEN odin._redact(coalesce(args, arguments, '{}'), coalesce(t.secret_arguments, '{}')) ELSE args END, outcome, err->>'code',
    left(options->>'request_id', 200), idem_key, odin._origin(), pg_current_xact_id());
  RETURN CASE
    WHEN err IS NOT NULL THEN jsonb_build_object('status', 'error', 'error', err)
    WHEN task IS NOT NULL THEN jsonb_build_object('status', 'task', 'task', task->'task')
    WHEN stored IS NOT NULL THEN jsonb_build_object('status', 'complete', 'result', stored->'answer', 'raw', t.raw, 'replay', true)
    WHEN outcome = 'asked' THEN jsonb_build_object('status', 'input_required', 'input_requests', answer->'input_required',
      'request_state', odin._state_seal(answer->'state', role_name, t.name, args))
    ELSE jsonb_build_object('status', 'complete', 'result', answer, 'raw', t.raw, 'replay', false, 'format', control->'response_format') END;
END $f$;

-- For people in SQL: the same dispatcher under the role they have.
CREATE OR REPLACE FUNCTION odin.call(tool text, arguments jsonb DEFAULT '{}', options jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  me text := odin.actor();
  answer jsonb;
BEGIN
  IF odin.current_call() IS NOT NULL THEN
    RETURN jsonb_build_object('error', odin._error('internal_error', 'a tool cannot call another tool through the dispatcher', 'Call the function itself.', '{"retriable": false}'));
  ELSIF (SELECT rolsuper FROM pg_roles WHERE rolname = me) THEN
    RETURN jsonb_build_object('error', odin._error('permission_denied', 'a call never runs as a superuser', 'SET ROLE to a member of odin_viewer, odin_operator or odin_admin first.'));
  END IF;
  answer := odin._dispatch(to_regrole(quote_ident(me)), me, NULL, NULL, NULL, tool, arguments, coalesce(options, '{}') - 'face' - 'confirmed', false);
  PERFORM odin._release_cancel();
  RETURN CASE answer->>'status'
    WHEN 'error' THEN jsonb_build_object('error', answer->'error')
    WHEN 'complete' THEN CASE WHEN (answer->'replay')::boolean THEN (answer->'result') || '{"_idempotent_replay": true}' ELSE answer->'result' END
    ELSE answer END;
END $f$;
COMMENT ON FUNCTION odin.call(text, jsonb, jsonb) IS 'Calls a tool as yourself: the same checks, preview, idempotency and trail as over MCP or REST. Options: dry_run, idempotency_key, preview_token. The answer is the result, or {"error": {...}}.';
