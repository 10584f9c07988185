-- Tasks: started by a tool or instead of one, claimed under a lease, reported with a fence, polled by their owner.
-- A task runs as the role that started it, with the rights its key has at that moment; nobody else sees it through a key.

CREATE OR REPLACE FUNCTION odin._new_task(task_kind text, owner text, owner_key bigint, task_tool text, task_arguments jsonb, options jsonb) RETURNS odin.tasks
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tasks;
BEGIN
  INSERT INTO odin.tasks(id, org_id, kind, role_name, key_id, face, client, request_id, tool, arguments, priority, max_attempts, not_before, message)
  VALUES (odin._random_hex(16), (SELECT m.org_id FROM odin._memberships(owner::name) m ORDER BY m.id LIMIT 1), task_kind, owner, owner_key, coalesce(options->>'face', 'sql'),
    options->'client', left(options->>'request_id', 200), task_tool, coalesce(task_arguments, '{}'), coalesce((options->>'priority')::int, 50),
    coalesce((options->>'max_attempts')::int, 3), clock_timestamp() + make_interval(secs => coalesce((options->>'delay_seconds')::float8, 0)), options->>'message')
  RETURNING * INTO t;
  NOTIFY odin_work;
  RETURN t;
END $f$;

-- A task as MCP shows it, before its outcome is dressed as a result.
CREATE OR REPLACE FUNCTION odin._task_view(t odin.tasks) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('taskId', t.id,
      'status', CASE t.state WHEN 'queued' THEN 'working' ELSE t.state END,
      'createdAt', to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
      'lastUpdatedAt', to_char(t.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
      'ttlMs', (extract(epoch FROM t.keep_for) * 1000)::bigint, 'pollIntervalMs', t.poll_interval_ms)
    || CASE WHEN coalesce(t.message, '') <> '' THEN jsonb_build_object('statusMessage', t.message)
            WHEN t.state = 'queued' THEN '{"statusMessage": "waiting for a worker"}' ELSE '{}' END
    || CASE t.state WHEN 'completed' THEN jsonb_build_object('outcome', t.outcome)
                    WHEN 'failed' THEN jsonb_build_object('error', coalesce(t.error, '{"code": -32603, "message": "the task failed"}'))
                    WHEN 'input_required' THEN jsonb_build_object('inputRequests', t.input_requests) ELSE '{}' END;
$f$;

-- For tools: put work on the list that no transaction can do (slicing, a download, ...). The id is what the tool returns.
CREATE OR REPLACE FUNCTION odin.start_task(kind text, arguments jsonb DEFAULT '{}', message text DEFAULT NULL, priority int DEFAULT 50, max_attempts int DEFAULT 3, delay_seconds float8 DEFAULT 0) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF kind = 'tool' THEN
    PERFORM odin.fail('validation_failed', 'kind: a tool becomes a task by its own registration (task => ''optional'')', NULL, '{"field": "kind"}');
  END IF;
  RETURN (odin._new_task(kind, odin.actor(), odin.call_key(), NULL, arguments,
    jsonb_build_object('message', message, 'priority', priority, 'max_attempts', max_attempts, 'delay_seconds', delay_seconds))).id;
END $f$;
COMMENT ON FUNCTION odin.start_task(text, jsonb, text, int, int, float8) IS 'In a tool: queues work of a kind for the sidecars and returns its id. Lower priority is sooner. Rolled back with the call, so a preview queues nothing.';

-- For tools that ask first and work later: hand over to another tool as a task of the same caller. Its answer is {"task": id} (raw).
CREATE OR REPLACE FUNCTION odin.start_tool_task(tool text, arguments jsonb DEFAULT '{}', priority int DEFAULT 50) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tools := odin._find_tool(tool);
BEGIN
  IF t.id IS NULL OR NOT t.active THEN PERFORM odin.fail('tool_not_found', format('there is no tool %s', tool)); END IF;
  RETURN (odin._new_task('tool', odin.actor(), odin.call_key(), t.name, arguments, jsonb_build_object('priority', priority))).id;
END $f$;
COMMENT ON FUNCTION odin.start_tool_task(text, jsonb, int) IS 'In a tool: queues a call of another tool as the same caller, with all its checks, and returns the task''s id.';

-- Instead of running a tool: the task handle, if the tool is one for tasks and the client can poll. NULL = run it now.
CREATE OR REPLACE FUNCTION odin._task_offer(t odin.tools, role_name text, key_id bigint, call_arguments jsonb, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF t.task = 'no' OR options ? 'in_task' THEN
    RETURN NULL;
  ELSIF NOT coalesce((options#>>'{can,tasks}')::boolean, false) THEN
    IF t.task = 'required' THEN
      RETURN jsonb_build_object('error', odin._error('task_required', format('%s runs as a task only, and this client cannot poll tasks', t.name)));
    END IF;
    RETURN NULL;
  END IF;
  RETURN jsonb_build_object('task', odin._task_view(odin._new_task('tool', role_name, key_id, t.name, call_arguments, options)));
END $f$;

-- The caller's own task, locked if it is to be changed.
CREATE OR REPLACE FUNCTION odin._own_task(credential text, task_id text, options jsonb, for_change boolean, OUT t odin.tasks, OUT error jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, options);
  error := p.error;
  IF error IS NOT NULL THEN RETURN; END IF;
  IF for_change THEN
    SELECT * INTO t FROM odin.tasks x WHERE x.id = task_id AND x.role_name = (p.k).role_name FOR UPDATE;
  ELSE
    SELECT * INTO t FROM odin.tasks x WHERE x.id = task_id AND x.role_name = (p.k).role_name;
  END IF;
  IF NOT FOUND THEN error := odin._error('task_not_found', format('there is no task %s', left(task_id, 64))); END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.gateway_task_get(credential text, task_id text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  found record;
BEGIN
  SELECT * INTO found FROM odin._own_task(credential, task_id, options, false);
  IF found.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', found.error); END IF;
  RETURN jsonb_build_object('ok', true, 'task', odin._task_view(found.t));
END $f$;
COMMENT ON FUNCTION odin.gateway_task_get(text, text, jsonb) IS 'The state of a task of the key''s owner, and its outcome once it is there.';

-- Answers may come one by one; the task goes on when the last is in. Unknown keys are ignored.
CREATE OR REPLACE FUNCTION odin.gateway_task_update(credential text, task_id text, responses jsonb, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  found record;
  answered jsonb;
  open_keys text[];
BEGIN
  SELECT * INTO found FROM odin._own_task(credential, task_id, options, true);
  IF found.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', found.error); END IF;
  IF (found.t).state <> 'input_required' THEN RETURN '{"ok": true}'; END IF;
  SELECT coalesce(jsonb_object_agg(key, value), '{}') INTO answered FROM jsonb_each(coalesce(responses, '{}')) WHERE (found.t).input_requests ? key;
  open_keys := ARRAY(SELECT k FROM jsonb_object_keys((found.t).input_requests) k WHERE NOT answered ? k);
  UPDATE odin.tasks x
     SET input_responses = x.input_responses || answered,
         state = CASE WHEN cardinality(open_keys) = 0 THEN 'queued' ELSE x.state END,
         input_requests = CASE WHEN cardinality(open_keys) > 0 THEN (SELECT jsonb_object_agg(k, x.input_requests->k) FROM unnest(open_keys) k) END,
         message = CASE WHEN cardinality(open_keys) > 0 THEN x.message END,
         attempts = CASE WHEN cardinality(open_keys) = 0 THEN 0 ELSE x.attempts END,
         updated_at = clock_timestamp()
   WHERE x.id = task_id;
  NOTIFY odin_work;
  RETURN '{"ok": true}';
END $f$;
COMMENT ON FUNCTION odin.gateway_task_update(text, text, jsonb, jsonb) IS 'Answers to the questions of a task; it goes on when all are in.';

-- Cancelled is final at once: the fence moves, so whatever a worker still does for it cannot commit.
CREATE OR REPLACE FUNCTION odin._cancel_task(task_id text, why text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  UPDATE odin.tasks x
     SET state = 'cancelled', fence = x.fence + 1, lease_by = NULL, lease_until = NULL, input_requests = NULL, message = why,
         finished_at = clock_timestamp(), updated_at = clock_timestamp()
   WHERE x.id = task_id AND x.state IN ('queued', 'working', 'input_required');
  IF FOUND THEN NOTIFY odin_work; END IF;
  RETURN FOUND;
END $f$;

CREATE OR REPLACE FUNCTION odin.gateway_task_cancel(credential text, task_id text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  found record;
BEGIN
  SELECT * INTO found FROM odin._own_task(credential, task_id, options, true);
  IF found.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', found.error); END IF;
  RETURN jsonb_build_object('ok', true, 'cancelled', odin._cancel_task(task_id, 'cancelled by its owner'));
END $f$;
COMMENT ON FUNCTION odin.gateway_task_cancel(text, text, jsonb) IS 'Ends a task of the key''s owner; nothing it had not committed remains. Harmless on a finished one.';

-- Workers. A lease is renewed while the work goes on; a task whose lease ran out is given to somebody else, at most max_attempts times.
CREATE OR REPLACE FUNCTION odin.worker_claim_tasks(worker text, kinds text[], most int, lease_seconds int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  claimed jsonb;
BEGIN
  UPDATE odin.tasks x
     SET state = 'failed', fence = x.fence + 1, lease_by = NULL, lease_until = NULL, finished_at = clock_timestamp(), updated_at = clock_timestamp(),
         message = format('given up after %s attempts', x.attempts), error = jsonb_build_object('code', -32603, 'message', format('no worker finished this task in %s attempts', x.attempts))
   WHERE x.state = 'working' AND x.lease_until < clock_timestamp() AND x.attempts >= x.max_attempts;
  WITH due AS (
    SELECT x.id FROM odin.tasks x
     WHERE x.kind = ANY (kinds) AND ((x.state = 'queued' AND x.not_before <= clock_timestamp()) OR (x.state = 'working' AND x.lease_until < clock_timestamp()))
     ORDER BY x.priority, x.not_before FOR UPDATE SKIP LOCKED LIMIT most),
  taken AS (
    UPDATE odin.tasks x
       SET state = 'working', lease_by = worker, lease_until = clock_timestamp() + make_interval(secs => lease_seconds), fence = x.fence + 1,
           attempts = x.attempts + 1, updated_at = clock_timestamp()
      FROM due WHERE x.id = due.id
    RETURNING x.*)
  SELECT coalesce(jsonb_agg(jsonb_build_object('id', t.id, 'kind', t.kind, 'fence', t.fence, 'attempt', t.attempts, 'arguments', t.arguments, 'tool', t.tool,
           'role', t.role_name, 'org_id', t.org_id, 'request_id', t.request_id) ORDER BY t.priority, t.not_before), '[]') INTO claimed FROM taken t;
  RETURN claimed;
END $f$;
COMMENT ON FUNCTION odin.worker_claim_tasks(text, text[], int, int) IS 'Gives a worker tasks of its kinds, each with a fence number, for a lease. Two workers never get the same one.';

-- {"ok": false} = the lease is lost or the task cancelled: stop.
CREATE OR REPLACE FUNCTION odin.worker_heartbeat(task_id text, task_fence bigint, lease_seconds int, status jsonb DEFAULT '{}') RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  UPDATE odin.tasks x
     SET lease_until = clock_timestamp() + make_interval(secs => lease_seconds),
         progress = coalesce((status->>'progress')::numeric, x.progress), progress_total = coalesce((status->>'total')::numeric, x.progress_total),
         message = coalesce(left(status->>'message', 500), x.message), updated_at = CASE WHEN status = '{}' THEN x.updated_at ELSE clock_timestamp() END
   WHERE x.id = task_id AND x.fence = task_fence AND x.state = 'working';
  RETURN jsonb_build_object('ok', FOUND);
END $f$;
COMMENT ON FUNCTION odin.worker_heartbeat(text, bigint, int, jsonb) IS 'Renews a lease and records progress {"progress", "total", "message"}. ok = false means: stop, the task is not yours any more.';

-- How a task ended. {"status": "complete"|"error"|"input_required"|"failed"|"retry", ...}; false when the fence is old.
CREATE OR REPLACE FUNCTION odin.worker_report(task_id text, task_fence bigint, answer jsonb) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  ended text := CASE WHEN answer#>'{result,protocol_error}' IS NOT NULL AND (answer->>'raw')::boolean THEN 'failed' ELSE CASE answer->>'status' WHEN 'complete' THEN 'completed' WHEN 'error' THEN 'completed' WHEN 'input_required' THEN 'input_required'
                                       WHEN 'retry' THEN 'queued' ELSE 'failed' END END;
BEGIN
  UPDATE odin.tasks x
     SET state = CASE WHEN ended = 'queued' AND x.attempts >= x.max_attempts THEN 'failed' ELSE ended END,
         lease_by = NULL, lease_until = NULL, updated_at = clock_timestamp(),
         finished_at = CASE WHEN ended IN ('completed', 'failed') OR (ended = 'queued' AND x.attempts >= x.max_attempts) THEN clock_timestamp() END,
         outcome = CASE WHEN ended = 'completed' THEN answer ELSE x.outcome END,
         error = CASE WHEN ended IN ('failed', 'queued') THEN coalesce(answer#>'{result,protocol_error}', answer->'error') END,
         input_requests = CASE WHEN ended = 'input_required' THEN answer->'input_requests' END,
         request_state = CASE WHEN ended = 'input_required' THEN answer->>'request_state' ELSE x.request_state END,
         not_before = CASE WHEN ended = 'queued' THEN clock_timestamp() + make_interval(secs => coalesce((answer->>'delay_seconds')::float8, power(2, least(x.attempts, 10)))) ELSE x.not_before END,
         message = CASE WHEN ended = 'input_required' THEN 'waiting for an answer' ELSE coalesce(answer->>'message', CASE WHEN ended = 'completed' THEN NULL ELSE x.message END) END
   WHERE x.id = task_id AND x.fence = task_fence AND x.state = 'working';
  IF NOT FOUND THEN RETURN false; END IF;
  -- Whoever waits for it hears so at once.
  IF ended <> 'queued' THEN NOTIFY odin_tasks; END IF;
  RETURN true;
END $f$;
COMMENT ON FUNCTION odin.worker_report(text, bigint, jsonb) IS 'How a task ended: complete, error, input_required, failed, or retry (later, until max_attempts). False: the fence is old, nothing was recorded.';

-- A tool as a task: the call and the record of its end are one transaction, so it happens once, however often it is claimed.
CREATE OR REPLACE FUNCTION odin.worker_run_tool(task_id text, task_fence bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tasks;
  k odin_private.keys;
  who oid;
  answer jsonb;
BEGIN
  SELECT * INTO t FROM odin.tasks x WHERE x.id = task_id AND x.fence = task_fence AND x.state = 'working' AND x.kind = 'tool';
  IF NOT FOUND THEN RETURN '{"status": "lost"}'; END IF;
  IF t.key_id IS NOT NULL THEN SELECT * INTO k FROM odin_private.keys x WHERE x.id = t.key_id; END IF;
  who := to_regrole(quote_ident(t.role_name));
  IF who IS NULL OR (t.key_id IS NOT NULL AND (k.id IS NULL OR k.revoked_at IS NOT NULL OR k.expires_at < clock_timestamp())) THEN
    answer := jsonb_build_object('status', 'error', 'error', odin._error('not_authenticated', 'the key that started this task is no longer good'));
  ELSE
    answer := odin._dispatch(who, t.role_name, t.key_id, k.scopes, NULL, t.tool, t.arguments,
      jsonb_strip_nulls(jsonb_build_object('in_task', t.id, 'face', t.face, 'client', t.client, 'request_id', t.request_id,
        'input_responses', nullif(t.input_responses, '{}'), 'request_state', t.request_state)), true);
    PERFORM pg_advisory_unlock_all();
  END IF;
  IF NOT odin.worker_report(task_id, task_fence, answer) THEN
    RAISE EXCEPTION USING ERRCODE = 'OD038', MESSAGE = 'the task was cancelled or given to another worker; nothing of this run remains';
  END IF;
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.worker_run_tool(text, bigint) IS 'Runs the tool of a claimed task under its owner''s role and records how it ended, in one transaction.';

CREATE OR REPLACE FUNCTION odin._expire_tasks() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $f$
  DELETE FROM odin.tasks x WHERE x.ctid = ANY (ARRAY(SELECT y.ctid FROM odin.tasks y WHERE y.finished_at < clock_timestamp() - y.keep_for LIMIT 5000));
  DELETE FROM odin.tasks x WHERE x.state = 'input_required' AND x.updated_at < clock_timestamp() - interval '7 days';
$f$;

GRANT EXECUTE ON FUNCTION odin.start_task(text, jsonb, text, int, int, float8), odin.start_tool_task(text, jsonb, int) TO odin_operator;
GRANT EXECUTE ON FUNCTION odin.gateway_task_get(text, text, jsonb), odin.gateway_task_update(text, text, jsonb, jsonb), odin.gateway_task_cancel(text, text, jsonb) TO odin_gateway;
GRANT EXECUTE ON FUNCTION odin.worker_claim_tasks(text, text[], int, int), odin.worker_heartbeat(text, bigint, int, jsonb), odin.worker_report(text, bigint, jsonb), odin.worker_run_tool(text, bigint) TO odin_worker;
