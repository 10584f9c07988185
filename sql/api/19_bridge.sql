-- Questions, answers and cancellations between sidecars, for the gateway's login.
-- A client reaches only what its own key asked or runs; NOTIFY is an empty wake-up, the truth is in the tables.

CREATE OR REPLACE FUNCTION odin.gateway_bridge_ask(credential text, question text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, options);
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  INSERT INTO odin_private.bridge_questions(id, key_id, session, expires_at)
  VALUES (question, (p.k).id, coalesce(options->>'session', ''), clock_timestamp() + make_interval(secs => coalesce((options->>'seconds')::int, 300)));
  RETURN '{"ok": true}';
END $f$;
COMMENT ON FUNCTION odin.gateway_bridge_ask(text, text, jsonb) IS 'Records a question put to a client, under an id nobody can guess.';

CREATE OR REPLACE FUNCTION odin.gateway_bridge_answer(credential text, question text, answer jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, '{}');
  IF p.error IS NOT NULL THEN RETURN 'false'; END IF;
  UPDATE odin_private.bridge_questions q SET answer = gateway_bridge_answer.answer
   WHERE q.id = question AND q.key_id = (p.k).id AND q.answer IS NULL AND q.expires_at > clock_timestamp();
  IF NOT FOUND THEN RETURN 'false'; END IF;
  NOTIFY odin_bridge;
  RETURN 'true';
END $f$;
COMMENT ON FUNCTION odin.gateway_bridge_answer(text, text, jsonb) IS 'A client''s answer: true if its own key was asked and nobody answered before.';

CREATE OR REPLACE FUNCTION odin.gateway_bridge_cancel(credential text, session text, request text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, '{}');
  IF p.error IS NOT NULL THEN RETURN 'false'; END IF;
  INSERT INTO odin_private.bridge_cancels(key_id, session, request) VALUES ((p.k).id, gateway_bridge_cancel.session, left(gateway_bridge_cancel.request, 200));
  NOTIFY odin_bridge;
  RETURN 'true';
END $f$;
COMMENT ON FUNCTION odin.gateway_bridge_cancel(text, text, text) IS 'Asks whichever sidecar runs this call of this key to stop it.';

-- What has arrived for one sidecar: answers to the questions it asked, and new cancellations. A late cancellation must not
-- hit a later call, so only fresh ones are given out.
CREATE OR REPLACE FUNCTION odin.gateway_bridge_collect(asked text[], seen bigint) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  answers jsonb;
BEGIN
  WITH taken AS (DELETE FROM odin_private.bridge_questions q WHERE q.id = ANY (asked) AND q.answer IS NOT NULL RETURNING q.id, q.answer)
  SELECT coalesce(jsonb_object_agg(id, answer), '{}') INTO answers FROM taken;
  RETURN jsonb_build_object('answers', answers,
    'last', (SELECT coalesce(max(c.id), greatest(seen, 0)) FROM odin_private.bridge_cancels c),
    'cancels', (SELECT coalesce(jsonb_agg(jsonb_build_object('key_id', c.key_id, 'session', c.session, 'request', c.request) ORDER BY c.id), '[]')
                  FROM odin_private.bridge_cancels c WHERE seen >= 0 AND c.id > seen AND c.cancelled_at > clock_timestamp() - interval '30 seconds'));
END $f$;
COMMENT ON FUNCTION odin.gateway_bridge_collect(text[], bigint) IS 'For one sidecar: answers to its questions (given out once) and cancellations newer than the last it saw.';

CREATE OR REPLACE FUNCTION odin.gateway_session_set(credential text, session text, change jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, '{}');
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  INSERT INTO odin_private.bridge_sessions AS s (key_id, session, log_level, watches, ended_at)
  VALUES ((p.k).id, gateway_session_set.session, change->>'log_level', array_remove(ARRAY[change->>'watch'], NULL), CASE WHEN change ? 'end' THEN clock_timestamp() END)
  ON CONFLICT ON CONSTRAINT bridge_sessions_pkey DO UPDATE
     SET log_level = coalesce(excluded.log_level, s.log_level), used_at = clock_timestamp(), ended_at = coalesce(s.ended_at, excluded.ended_at),
         watches = (array_remove(array_remove(s.watches, change->>'watch'), change->>'unwatch') || excluded.watches)[1:100];
  NOTIFY odin_sessions;
  RETURN '{"ok": true}';
END $f$;
COMMENT ON FUNCTION odin.gateway_session_set(text, text, jsonb) IS 'What an older client sets for its session: {"log_level"}, {"watch": uri}, {"unwatch": uri}, or {"end": true}. At most 100 watched resources.';

CREATE OR REPLACE FUNCTION odin.gateway_session_get(credential text, session text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, '{}');
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  RETURN jsonb_build_object('ok', true) || coalesce((SELECT jsonb_build_object('log_level', s.log_level, 'watches', to_jsonb(s.watches))
    FROM odin_private.bridge_sessions s WHERE s.key_id = (p.k).id AND s.session = gateway_session_get.session), '{}');
END $f$;
COMMENT ON FUNCTION odin.gateway_session_get(text, text) IS 'What a session has set: log level and watched resources.';

CREATE OR REPLACE FUNCTION odin.gateway_sessions_ended(since timestamptz) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('sessions', coalesce(jsonb_agg(jsonb_build_array(s.key_id, s.session)), '[]'))
    FROM odin_private.bridge_sessions s WHERE s.ended_at >= coalesce(since, clock_timestamp() - interval '1 day');
$f$;
COMMENT ON FUNCTION odin.gateway_sessions_ended(timestamptz) IS 'Sessions that clients have ended since; every sidecar refuses them from then on.';

CREATE OR REPLACE FUNCTION odin._expire_bridge() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $f$
  DELETE FROM odin_private.bridge_questions WHERE expires_at < clock_timestamp() - interval '1 minute';
  DELETE FROM odin_private.bridge_cancels WHERE cancelled_at < clock_timestamp() - interval '5 minutes';
  DELETE FROM odin_private.bridge_sessions WHERE used_at < clock_timestamp() - interval '7 days';
$f$;

GRANT EXECUTE ON FUNCTION odin.gateway_bridge_ask(text, text, jsonb), odin.gateway_bridge_answer(text, text, jsonb), odin.gateway_bridge_cancel(text, text, text),
  odin.gateway_bridge_collect(text[], bigint), odin.gateway_session_set(text, text, jsonb), odin.gateway_session_get(text, text), odin.gateway_sessions_ended(timestamptz) TO odin_gateway;
