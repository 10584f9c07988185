-- The parts of a call beside the tool itself: claims, tokens, states, policies, limits and the shape of answers.
-- Tokens and states are sealed with a key that never leaves odin_private. Only pinned functions call what has no search_path.

CREATE OR REPLACE FUNCTION odin._secret(secret_name text) RETURNS bytea
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT value FROM odin_private.secrets WHERE name = secret_name;
$f$;

-- What a role and key may do, as a fingerprint: a replay under other rights is refused.
CREATE OR REPLACE FUNCTION odin._rights_hash(who oid, role_name text, scopes text[]) RETURNS bytea
LANGUAGE sql STABLE AS $f$
  SELECT odin._hash(role_name, (SELECT string_agg(s, ',' ORDER BY s) FROM unnest(scopes) s),
    concat_ws(',', pg_has_role(who, 'odin_viewer', 'USAGE'), pg_has_role(who, 'odin_operator', 'USAGE'), pg_has_role(who, 'odin_admin', 'USAGE')),
    (SELECT string_agg(m.org_id::text || '/' || coalesce(m.customer_id::text, ''), ',' ORDER BY m.org_id, m.customer_id) FROM odin._memberships(role_name::name) m));
$f$;

-- NULL = go ahead, the key is ours until the transaction ends; {"error"} = refused; {"answer"} = replay.
CREATE OR REPLACE FUNCTION odin._claim(role_name text, who oid, scopes text[], idem_key text, tool text, args jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $f$
DECLARE
  kept odin.idempotency;
BEGIN
  IF octet_length(args::text) > 1000000 THEN
    RETURN jsonb_build_object('error', odin._error('idempotency_unsupported', 'the arguments are larger than 1 MB'));
  ELSIF octet_length(idem_key) NOT BETWEEN 1 AND 255 THEN
    RETURN jsonb_build_object('error', odin._error('validation_failed', 'idempotency_key: must have 1 to 255 bytes', NULL, '{"field": "idempotency_key"}'));
  ELSIF NOT pg_try_advisory_xact_lock(hashtextextended(role_name || E'\n' || idem_key, 4711)) THEN
    RETURN jsonb_build_object('error', odin._error('idempotency_in_progress', 'a call with this idempotency key is still running', NULL, '{"retry_after": 1}'));
  END IF;
  SELECT * INTO kept FROM odin.idempotency i WHERE i.role_name = _claim.role_name AND i.key = idem_key;
  IF NOT FOUND THEN
    RETURN NULL;
  ELSIF kept.expires_at < clock_timestamp() THEN
    DELETE FROM odin.idempotency i WHERE i.role_name = _claim.role_name AND i.key = idem_key;
    RETURN NULL;
  ELSIF kept.request_hash <> odin._hash(tool, odin._canonical(args)) THEN
    RETURN jsonb_build_object('error', odin._error('idempotency_conflict', format('this idempotency key was used for %s with other arguments', kept.tool)));
  ELSIF kept.rights_hash <> odin._rights_hash(who, role_name, scopes) THEN
    RETURN jsonb_build_object('error', odin._error('idempotency_authz_changed', 'role, scopes or memberships changed since the first call with this key'));
  ELSIF kept.answer IS NULL THEN
    RETURN jsonb_build_object('error', odin._error('idempotency_uncacheable_success', format('call %s succeeded, but its answer was too large to keep', kept.call_id)));
  END IF;
  RETURN jsonb_build_object('answer', kept.answer);
END $f$;

CREATE OR REPLACE FUNCTION odin._keep_answer(role_name text, who oid, scopes text[], idem_key text, tool text, args jsonb, answer jsonb, call_id bigint) RETURNS void
LANGUAGE plpgsql AS $f$
BEGIN
  INSERT INTO odin.idempotency(role_name, key, tool, request_hash, rights_hash, answer, call_id, expires_at)
  VALUES (_keep_answer.role_name, idem_key, tool, odin._hash(tool, odin._canonical(args)), odin._rights_hash(who, _keep_answer.role_name, scopes),
    CASE WHEN octet_length(answer::text) <= 262144 THEN answer END, call_id, clock_timestamp() + interval '24 hours');
END $f$;

-- A sealed text: base64url of the JSON, a dot, base64url of its HMAC.
CREATE OR REPLACE FUNCTION odin._seal(what jsonb) RETURNS text
LANGUAGE sql STABLE AS $f$
  SELECT translate(encode(convert_to(what::text, 'UTF8'), 'base64'), E'+/=\n', '-_') || '.' || translate(encode(odin._hmac(odin._secret('seal'), convert_to(what::text, 'UTF8')), 'base64'), E'+/=\n', '-_');
$f$;

CREATE OR REPLACE FUNCTION odin._unbase64url(part text) RETURNS bytea
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN decode(rpad(translate(part, '-_', '+/'), ((length(part) + 3) / 4) * 4, '='), 'base64');
EXCEPTION WHEN OTHERS THEN
  RETURN NULL;
END $f$;

CREATE OR REPLACE FUNCTION odin._unseal(sealed text) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  body bytea := odin._unbase64url(split_part(sealed, '.', 1));
  tag bytea := odin._unbase64url(split_part(sealed, '.', 2));
BEGIN
  -- Comparing hashes of the tags tells a forger nothing by its timing.
  IF body IS NULL OR tag IS NULL OR sha256(tag) <> sha256(odin._hmac(odin._secret('seal'), body)) THEN RETURN NULL; END IF;
  RETURN convert_from(body, 'UTF8')::jsonb;
END $f$;

CREATE OR REPLACE FUNCTION odin._token(role_name text, tool text, args jsonb, touched text) RETURNS text
LANGUAGE sql STABLE AS $f$
  SELECT odin._seal(jsonb_build_object('k', 'preview', 'w', encode(odin._hash(role_name, tool, odin._canonical(args)), 'hex'), 't', touched,
    'x', extract(epoch FROM clock_timestamp() + interval '1 hour')::bigint));
$f$;

-- NULL without a token; {"touched"} when it is good; {"error"} when it is not.
CREATE OR REPLACE FUNCTION odin._token_open(sealed text, role_name text, t odin.tools, args jsonb, preview boolean) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  token jsonb;
BEGIN
  IF sealed IS NULL OR preview THEN RETURN NULL; END IF;
  token := odin._unseal(sealed);
  IF token IS NULL OR token->>'k' <> 'preview' OR token->>'w' <> encode(odin._hash(role_name, t.name, odin._canonical(args)), 'hex') THEN
    RETURN jsonb_build_object('error', odin._error('preview_stale', 'preview_token: it is not from a preview of this very call by this caller'));
  ELSIF (token->>'x')::bigint < extract(epoch FROM clock_timestamp()) THEN
    RETURN jsonb_build_object('error', odin._error('preview_stale', 'preview_token: it is older than an hour'));
  END IF;
  RETURN jsonb_build_object('touched', token->'t');
END $f$;

-- The state a tool gave with its question; bound to principal, tool and arguments, good for a day.
CREATE OR REPLACE FUNCTION odin._state_seal(state jsonb, role_name text, tool text, args jsonb) RETURNS text
LANGUAGE sql STABLE AS $f$
  SELECT odin._seal(jsonb_build_object('k', 'state', 'w', encode(odin._hash(role_name, tool, odin._canonical(args)), 'hex'), 's', state,
    'x', extract(epoch FROM clock_timestamp() + interval '1 day')::bigint));
$f$;

CREATE OR REPLACE FUNCTION odin._state_open(sealed text, role_name text, tool text, args jsonb) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  state jsonb;
BEGIN
  IF sealed IS NULL THEN RETURN NULL; END IF;
  state := odin._unseal(sealed);
  IF state IS NULL OR state->>'k' <> 'state' OR state->>'w' <> encode(odin._hash(role_name, tool, odin._canonical(args)), 'hex')
     OR (state->>'x')::bigint < extract(epoch FROM clock_timestamp()) THEN
    PERFORM odin.fail('input_invalid', 'requestState: it was altered, is too old, or belongs to another call');
  END IF;
  RETURN state->'s';
END $f$;

-- What a call that waits for a person would do, for whoever decides: run and rolled back.
CREATE OR REPLACE FUNCTION odin._consent_preview(t odin.tools, role_name text, key_id bigint, args jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $f$
DECLARE
  out jsonb;
  would jsonb;
BEGIN
  IF NOT t.previewable THEN RETURN NULL; END IF;
  out := odin._jail_run(to_regrole(quote_ident(role_name)), 'odin._invoke(oid,jsonb,boolean,text)'::regprocedure, to_regprocedure(t.caller || '(jsonb)'), args,
    true, '', NULL, role_name, key_id, NULL, NULL, t.timeout_ms);
  would := odin._call_hints()->'would';
  IF out ? 'caught' THEN RETURN jsonb_build_object('error', odin._error_of(out->'caught', role_name)); END IF;
  RETURN jsonb_build_object('would_execute', odin._redact(CASE WHEN coalesce(would, '{}') = '{}' THEN jsonb_build_object('action', t.name) || args ELSE would END, t.secret_arguments), 'changes', out#>'{seen,changes}');
END $f$;

-- preview and human policies. A preview is always allowed: it changes nothing.
CREATE OR REPLACE FUNCTION odin._policy_refusal(t odin.tools, role_name text, key_id bigint, args jsonb, options jsonb, preview boolean, token jsonb) RETURNS jsonb
LANGUAGE plpgsql AS $f$
#variable_conflict use_column
DECLARE
  c odin.consents;
  fingerprint bytea;
BEGIN
  IF preview AND NOT t.previewable THEN
    RETURN odin._error('dry_run_unsupported', format('%s has an effect that cannot be rolled back, so it has no preview', t.name));
  ELSIF preview OR t.confirm IN ('none', 'confirm') THEN
    RETURN NULL;
  ELSIF t.confirm = 'preview' THEN
    RETURN CASE WHEN token IS NULL THEN odin._error('preview_required', format('%s commits only with the preview_token of a preview', t.name)) END;
  END IF;
  fingerprint := odin._hash(t.name, odin._canonical(args));
  SELECT * INTO c FROM odin.consents k WHERE k.role_name = _policy_refusal.role_name AND k.tool = t.name AND k.arguments_hash = fingerprint
   ORDER BY k.id DESC LIMIT 1 FOR UPDATE;
  IF FOUND AND c.expires_at < clock_timestamp() AND c.state IN ('pending', 'approved', 'denied') THEN
    UPDATE odin.consents SET state = 'expired' WHERE id = c.id AND state <> 'denied';
    c := NULL;
  END IF;
  IF c.state = 'approved' THEN
    RETURN NULL;
  ELSIF c.state = 'denied' THEN
    RETURN odin._error('approval_denied', format('%s denied this call%s', c.decided_by, coalesce(': ' || c.reason, '')), NULL, jsonb_build_object('consent_id', c.id, 'denied_until', c.expires_at));
  ELSIF c.state IS DISTINCT FROM 'pending' THEN
    INSERT INTO odin.consents(org_id, role_name, key_id, tool, why, preview, arguments, arguments_hash)
    VALUES ((SELECT m.org_id FROM odin._memberships(_policy_refusal.role_name::name) m LIMIT 1), _policy_refusal.role_name, _policy_refusal.key_id, t.name, left(options->>'approval_reason', 500),
      odin._consent_preview(t, _policy_refusal.role_name, _policy_refusal.key_id, args), odin._redact(args, t.secret_arguments), fingerprint)
    ON CONFLICT (role_name, tool, arguments_hash) WHERE state IN ('pending', 'approved') DO UPDATE SET role_name = excluded.role_name
    RETURNING * INTO c;
  END IF;
  RETURN odin._error('approval_required', format('a person has to approve %s first (request %s)', t.name, c.id),
    format('Approve in SQL: SELECT odin.approve_call(%s); then repeat the same call.', c.id), jsonb_strip_nulls(jsonb_build_object('consent_id', c.id, 'expires_at', c.expires_at, 'why', c.why, 'would_execute', c.preview->'would_execute', 'would_fail', c.preview#>'{error,detail}')));
END $f$;

-- Limits by the minute, of the key and of the tool, each counted by itself in the trail. retry_after is when the oldest call
-- that counts leaves the minute.
CREATE OR REPLACE FUNCTION odin._rate_check(key_id bigint, key_rate int, t odin.tools) RETURNS jsonb
LANGUAGE plpgsql STABLE AS $f$
DECLARE
  since timestamptz := clock_timestamp() - interval '1 minute';
  n bigint;
  oldest timestamptz;
  said text;
BEGIN
  IF key_id IS NULL THEN RETURN NULL; END IF;
  IF key_rate IS NOT NULL THEN
    SELECT count(*), min(x.called_at) INTO n, oldest FROM (SELECT c.called_at FROM odin.audit_calls c
      WHERE c.key_id = _rate_check.key_id AND c.called_at > since AND c.code IS DISTINCT FROM 'rate_limited' ORDER BY c.called_at DESC LIMIT key_rate) x;
    IF n >= key_rate THEN said := format('this key may call %s times a minute', key_rate); END IF;
  END IF;
  IF said IS NULL AND t.rate_per_minute IS NOT NULL THEN
    SELECT count(*), min(x.called_at) INTO n, oldest FROM (SELECT c.called_at FROM odin.audit_calls c
      WHERE c.key_id = _rate_check.key_id AND c.called_at > since AND c.tool = t.name AND c.code IS DISTINCT FROM 'rate_limited' ORDER BY c.called_at DESC LIMIT t.rate_per_minute) x;
    IF n >= t.rate_per_minute THEN said := format('%s may be called %s times a minute', t.name, t.rate_per_minute); END IF;
  END IF;
  IF said IS NULL THEN RETURN NULL; END IF;
  RETURN odin._error('rate_limited', said, NULL, jsonb_build_object('retry_after', greatest(1, ceil(extract(epoch FROM oldest + interval '1 minute' - clock_timestamp())))));
END $f$;

-- One of so many places at once, kept until the transaction ends: whatever sidecar a call came through, they are counted together.
CREATE OR REPLACE FUNCTION odin._take_place(what text, id bigint, most int) RETURNS boolean
LANGUAGE plpgsql AS $f$
BEGIN
  FOR place IN 1..most LOOP
    IF pg_try_advisory_xact_lock(hashtextextended(format('odin place %s %s', what, place), id)) THEN RETURN true; END IF;
  END LOOP;
  RETURN false;
END $f$;

CREATE OR REPLACE FUNCTION odin._no_place(said text) RETURNS jsonb
LANGUAGE sql AS $f$
  SELECT odin._error('rate_limited', said, NULL, '{"retry_after": 1}');
$f$;

-- Arguments as the trail keeps them: secrets masked wherever they stand, huge values cut.
CREATE OR REPLACE FUNCTION odin._redact(args jsonb, secret_arguments text[]) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $f$
DECLARE
  masked jsonb := args;
BEGIN
  IF args = '{}' THEN RETURN args; END IF;
  IF cardinality(secret_arguments) > 0 OR args::text ~* '"[^"]*(password|secret|token|api_?key|access_code|credential)[^"]*"\s*:' THEN
    masked := odin._masked(args, secret_arguments);
  END IF;
  RETURN CASE WHEN octet_length(masked::text) <= 8192 THEN masked
              ELSE jsonb_build_object('_cut', left(masked::text, 2000), '_bytes', octet_length(masked::text), '_sha256', encode(sha256(convert_to(masked::text, 'UTF8')), 'hex')) END;
END $f$;

CREATE OR REPLACE FUNCTION odin._masked(value jsonb, secret_arguments text[]) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE jsonb_typeof(value)
    WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(key, CASE WHEN (key = ANY (secret_arguments) OR key ~* '(password|secret|token|api_?key|access_code|credential)') AND e.value <> 'null'
                          THEN '"***"' ELSE odin._masked(e.value, secret_arguments) END), '{}') FROM jsonb_each(value) e)
    WHEN 'array' THEN (SELECT coalesce(jsonb_agg(odin._masked(e, secret_arguments) ORDER BY n), '[]') FROM jsonb_array_elements(value) WITH ORDINALITY a(e, n))
    ELSE value END;
$f$;
