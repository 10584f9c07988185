-- Sign-in with tokens of an OIDC issuer. People decide whom to trust and who is who; a token never makes a role or widens one.
-- A sidecar hands a token over once; afterwards its hash stands for it, as with keys.

CREATE OR REPLACE FUNCTION odin.trust_issuer(
  issuer text, audiences text[], jwks_url text DEFAULT NULL, subject_claim text DEFAULT 'sub', scope_claim text DEFAULT 'scope', scope_map jsonb DEFAULT '{}',
  default_scopes text[] DEFAULT NULL, algorithms text[] DEFAULT '{RS256,PS256,ES256,EdDSA}') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  made bigint;
  wrong text;
BEGIN
  PERFORM odin._humans_only('trusting an issuer');
  PERFORM odin._administers(NULL);
  SELECT s INTO wrong FROM (SELECT unnest(default_scopes) UNION ALL
    SELECT jsonb_array_elements_text(CASE jsonb_typeof(v) WHEN 'array' THEN v ELSE jsonb_build_array(k) END) FROM jsonb_each(coalesce(scope_map, '{}')) e(k, v)) x(s) WHERE NOT odin._is_scope(s) LIMIT 1;
  IF wrong IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', format('scope_map, default_scopes: %s is no scope of the farm', wrong), 'For example scope_map => ''{"farm.write": ["agent:read", "agent:write"]}''.', '{"field": "scope_map"}');
  END IF;
  INSERT INTO odin.issuers AS i (issuer, audiences, jwks_url, subject_claim, scope_claim, scope_map, default_scopes, algorithms, trusted_by)
  VALUES (trust_issuer.issuer, trust_issuer.audiences, trust_issuer.jwks_url, trust_issuer.subject_claim, trust_issuer.scope_claim, coalesce(trust_issuer.scope_map, '{}'), trust_issuer.default_scopes,
    trust_issuer.algorithms, odin.actor())
  ON CONFLICT ON CONSTRAINT issuers_issuer_key DO UPDATE SET audiences = excluded.audiences, jwks_url = excluded.jwks_url, subject_claim = excluded.subject_claim, scope_claim = excluded.scope_claim,
    scope_map = excluded.scope_map, default_scopes = excluded.default_scopes, algorithms = excluded.algorithms, active = true, trusted_by = excluded.trusted_by, trusted_at = now()
  RETURNING i.id INTO made;
  -- Under the new rules every token is looked at again, with keys fetched anew.
  PERFORM odin._forget_sign_ins(made);
  INSERT INTO odin.issuer_keys AS k (issuer_id, wanted_at) VALUES (made, clock_timestamp())
    ON CONFLICT (issuer_id) DO UPDATE SET keys = NULL, wanted_at = clock_timestamp(), tried_at = NULL, ended_at = NULL, problem = NULL;
  NOTIFY odin_sign_in;
  NOTIFY odin_registry;
  RETURN made;
EXCEPTION WHEN check_violation OR not_null_violation THEN
  PERFORM odin.fail('validation_failed', 'issuer, jwks_url: must be https addresses (http on this machine only); audiences: at least one; algorithms: RS256 to RS512, PS256 to PS512, ES256, ES384 or EdDSA');
END $f$;
COMMENT ON FUNCTION odin.trust_issuer IS 'Trusts an OIDC issuer: its tokens for one of these audiences sign in whoever odin.allow_sign_in() names. Again with other values changes them. Superusers only.';

CREATE OR REPLACE FUNCTION odin.distrust_issuer(issuer text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  ended bigint;
BEGIN
  PERFORM odin._humans_only('distrusting an issuer');
  PERFORM odin._administers(NULL);
  UPDATE odin.issuers i SET active = false WHERE i.issuer = distrust_issuer.issuer AND i.active RETURNING i.id INTO ended;
  PERFORM odin._forget_sign_ins(ended);
  NOTIFY odin_registry;
  RETURN ended IS NOT NULL;
END $f$;
COMMENT ON FUNCTION odin.distrust_issuer(text) IS 'Takes no token of this issuer any more, those in force included. True if it was trusted. Superusers only.';

CREATE OR REPLACE FUNCTION odin._forget_sign_ins(issuer_id bigint) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $f$
  DELETE FROM odin_private.sign_ins s USING odin_private.keys k WHERE k.id = s.key_id AND k.issuer_id = _forget_sign_ins.issuer_id;
$f$;

CREATE OR REPLACE FUNCTION odin.allow_sign_in(issuer text, subject text, role_name text, scopes text[] DEFAULT '{agent:read}', expires interval DEFAULT NULL, toolsets text[] DEFAULT NULL,
  allowed_ips inet[] DEFAULT NULL, rate_per_minute int DEFAULT NULL, concurrency int DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  trusted bigint := (SELECT i.id FROM odin.issuers i WHERE i.issuer = allow_sign_in.issuer AND i.active);
  org bigint;
  made bigint;
BEGIN
  PERFORM odin._humans_only('allowing a sign-in');
  PERFORM odin._check_scopes(scopes, odin._owner_role(role_name), role_name);
  -- Not even for oneself without being an administrator: whoever claims another's subject would have him act as himself.
  FOR org IN SELECT DISTINCT m.org_id FROM odin._memberships(role_name::name) m LOOP PERFORM odin._administers(org); END LOOP;
  IF org IS NULL THEN PERFORM odin._administers(NULL); END IF;
  IF trusted IS NULL THEN
    PERFORM odin.fail('not_found', format('issuer: %s is not trusted here', issuer), 'A superuser trusts it first: SELECT odin.trust_issuer(issuer, audiences).', '{"field": "issuer"}');
  ELSIF coalesce(length(subject), 0) NOT BETWEEN 1 AND 255 THEN
    PERFORM odin.fail('validation_failed', 'subject: must be 1 to 255 characters, as the issuer''s tokens say it', NULL, '{"field": "subject"}');
  ELSIF EXISTS (SELECT 1 FROM odin_private.keys k WHERE k.issuer_id = trusted AND k.subject = allow_sign_in.subject AND k.revoked_at IS NULL) THEN
    PERFORM odin.fail('validation_failed', format('subject: %s may sign in already', subject), 'SELECT id, name FROM odin.keys shows it; odin.revoke_key(id) ends it.', '{"field": "subject"}');
  END IF;
  -- No secret belongs to it: the hash is of nothing anybody knows.
  INSERT INTO odin_private.keys(name, role_name, prefix, hash, scopes, toolsets, allowed_ips, rate_per_minute, concurrency, created_by, expires_at, issuer_id, subject)
  VALUES (left('sign-in of ' || subject, 100), allow_sign_in.role_name, 'sign-in', decode(odin._random_hex(32), 'hex'), allow_sign_in.scopes, allow_sign_in.toolsets, allow_sign_in.allowed_ips,
    allow_sign_in.rate_per_minute, allow_sign_in.concurrency, odin.actor(), clock_timestamp() + expires, trusted, allow_sign_in.subject)
  RETURNING id INTO made;
  RETURN made;
END $f$;
COMMENT ON FUNCTION odin.allow_sign_in IS 'Whoever an issuer''s token names as this subject acts as this role, with the token''s scopes as far as these reach. Ended with odin.revoke_key(). Administrators of the role''s orgs only.';

-- A claim by its name, or by a path of names with dots between them.
CREATE OR REPLACE FUNCTION odin._claim_of(claims jsonb, name text) RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce(claims->name, claims #> string_to_array(name, '.'));
$f$;

-- Is everything that this scope opens open to the holder of those?
CREATE OR REPLACE FUNCTION odin._scope_within(wanted text, held text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._scope_covers(held, CASE WHEN wanted = 'admin' THEN 'admin' WHEN wanted ~ '(^|:)write' THEN 'write' ELSE 'read' END,
    CASE WHEN wanted LIKE 'agent:%' THEN '' ELSE split_part(wanted, ':', 2) END);
$f$;

-- What a token grants: its scopes in the farm's words, no wider than the person's own. NULL: nothing.
CREATE OR REPLACE FUNCTION odin._token_scopes(claims jsonb, i odin.issuers, own text[]) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  said jsonb := odin._claim_of(claims, i.scope_claim);
  words text[] := CASE jsonb_typeof(said) WHEN 'string' THEN string_to_array(said#>>'{}', ' ') WHEN 'array' THEN odin._texts(said) END;
  granted text[];
BEGIN
  granted := ARRAY(SELECT DISTINCT g FROM unnest(words) w, LATERAL jsonb_array_elements_text(coalesce(i.scope_map->w, CASE WHEN odin._is_scope(w) THEN jsonb_build_array(w) ELSE '[]' END)) g);
  IF cardinality(granted) = 0 THEN granted := i.default_scopes; END IF;
  RETURN nullif(ARRAY(SELECT g FROM unnest(granted) g WHERE odin._scope_within(g, own) UNION SELECT o FROM unnest(own) o WHERE odin._scope_within(o, coalesce(granted, '{}')) ORDER BY 1), '{}');
END $f$;

-- The key set is missing a key: have it fetched, unless that was tried just now. True: it is worth waiting.
CREATE OR REPLACE FUNCTION odin._want_issuer_keys(issuer_id bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  k odin.issuer_keys;
BEGIN
  SELECT * INTO k FROM odin.issuer_keys x WHERE x.issuer_id = _want_issuer_keys.issuer_id FOR UPDATE;
  IF k.tried_at > coalesce(k.ended_at, '-infinity') AND k.tried_at > clock_timestamp() - interval '15 seconds' THEN RETURN true; END IF;
  IF k.tried_at > clock_timestamp() - interval '30 seconds' AND coalesce(k.wanted_at, '-infinity') <= k.tried_at THEN RETURN false; END IF;
  IF coalesce(k.wanted_at, '-infinity') <= coalesce(k.tried_at, '-infinity') THEN
    UPDATE odin.issuer_keys x SET wanted_at = clock_timestamp() WHERE x.issuer_id = k.issuer_id;
  END IF;
  NOTIFY odin_sign_in;
  RETURN true;
END $f$;

CREATE OR REPLACE FUNCTION odin._issuer_says(token text, i odin.issuers) RETURNS jsonb
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._token_claims(token, coalesce((SELECT k.keys FROM odin.issuer_keys k WHERE k.issuer_id = i.id), '{}'), i.issuer, i.audiences, i.algorithms);
$f$;

CREATE OR REPLACE FUNCTION odin.gateway_sign_in(token text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  i odin.issuers;
  k odin_private.keys;
  said jsonb;
  granted text[];
  who text;
BEGIN
  SELECT * INTO i FROM odin.issuers x WHERE x.issuer = odin._token_issuer(token) AND x.active;
  IF NOT FOUND THEN RETURN odin._not_signed_in('the token is of no issuer this farm trusts', options); END IF;
  said := odin._issuer_says(token, i);
  IF said ? 'unknown_key' THEN
    IF odin._want_issuer_keys(i.id) THEN
      RETURN jsonb_build_object('ok', false, 'wait', true, 'error', odin._error('upstream_unavailable', 'the issuer''s keys could not be fetched yet', 'A sidecar with the worker''s login fetches them; SELECT * FROM odin.issuer_keys.'));
    END IF;
    -- They may have come between the look and the question.
    said := odin._issuer_says(token, i);
  END IF;
  IF said ? 'unknown_key' THEN
    RETURN odin._not_signed_in('the token is signed with a key that its issuer does not publish', options);
  ELSIF said ? 'refused' THEN
    RETURN odin._not_signed_in(said->>'refused', options);
  END IF;
  said := said->'claims';
  who := odin._claim_of(said, i.subject_claim)#>>'{}';
  SELECT * INTO k FROM odin_private.keys x WHERE x.issuer_id = i.id AND x.subject = who AND x.revoked_at IS NULL;
  IF NOT FOUND THEN
    PERFORM odin._count_login_failure('nobody signs in as the token''s subject', options);
    RETURN jsonb_build_object('ok', false, 'error', odin._error('permission_denied', format('%s may not sign in here', left(coalesce(who, 'nobody'), 100)), 'An administrator allows it: SELECT odin.allow_sign_in(issuer, subject, role_name, scopes).'));
  END IF;
  granted := odin._token_scopes(said, i, k.scopes);
  IF granted IS NULL THEN
    RETURN jsonb_build_object('ok', false, 'error', odin._error('scope_denied', format('the token''s %s claim grants nothing here', i.scope_claim), NULL, jsonb_build_object('allowed_scopes', to_jsonb(k.scopes))));
  END IF;
  INSERT INTO odin_private.sign_ins AS s (hash, key_id, scopes, expires_at)
  VALUES (sha256(sha256(convert_to(token, 'UTF8'))), k.id, granted, least(to_timestamp((said->>'exp')::numeric), clock_timestamp() + interval '1 day'))
  ON CONFLICT (hash) DO UPDATE SET key_id = excluded.key_id, scopes = excluded.scopes, expires_at = excluded.expires_at;
  RETURN odin.gateway_authenticate(encode(sha256(convert_to(token, 'UTF8')), 'hex'), options);
END $f$;
COMMENT ON FUNCTION odin.gateway_sign_in(text, jsonb) IS 'Verifies an issuer''s token and says whose it is, as gateway_authenticate does; its SHA-256 is a credential from then on. {"wait": true}: the issuer''s keys are being fetched.';

CREATE OR REPLACE FUNCTION odin._not_signed_in(why text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._count_login_failure(why, options);
  RETURN jsonb_build_object('ok', false, 'error', odin._error('not_authenticated', why));
END $f$;

CREATE OR REPLACE FUNCTION odin.gateway_issuers() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('issuers', coalesce(jsonb_agg(i.issuer ORDER BY i.id), '[]'), 'scopes', (SELECT to_jsonb(ARRAY(SELECT DISTINCT w FROM odin.issuers x,
    unnest(ARRAY(SELECT jsonb_object_keys(x.scope_map)) || CASE WHEN x.scope_map = '{}' AND x.default_scopes IS NULL THEN ARRAY['agent:read', 'agent:write'] ELSE '{}' END) w WHERE x.active ORDER BY 1))))
    FROM odin.issuers i WHERE i.active;
$f$;
COMMENT ON FUNCTION odin.gateway_issuers() IS 'For the protected-resource metadata: trusted issuers, and the scopes to ask them for.';

CREATE OR REPLACE FUNCTION odin.worker_issuers() RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  WITH due AS (UPDATE odin.issuer_keys k SET tried_at = clock_timestamp() FROM odin.issuers i
                WHERE i.id = k.issuer_id AND i.active AND (k.wanted_at > coalesce(k.tried_at, '-infinity') OR coalesce(k.tried_at, '-infinity') < clock_timestamp() - interval '1 hour')
                RETURNING i.id, i.issuer, i.jwks_url)
  SELECT coalesce(jsonb_agg(to_jsonb(due)), '[]') FROM due;
$f$;
COMMENT ON FUNCTION odin.worker_issuers() IS 'Issuers whose public keys this worker is to fetch now; each is given out once.';

CREATE OR REPLACE FUNCTION odin.worker_issuer_keys(issuer_id bigint, keys jsonb, problem text) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF keys IS NOT NULL AND (jsonb_typeof(keys->'keys') IS DISTINCT FROM 'array' OR jsonb_array_length(keys->'keys') > 100) THEN
    problem := 'what the issuer publishes is no JSON Web Key Set'; keys := NULL;
  END IF;
  -- What was fetched before stays good while the issuer cannot be reached.
  UPDATE odin.issuer_keys k SET keys = coalesce(worker_issuer_keys.keys, k.keys), fetched_at = CASE WHEN worker_issuer_keys.keys IS NULL THEN k.fetched_at ELSE clock_timestamp() END,
         ended_at = clock_timestamp(), problem = left(worker_issuer_keys.problem, 500)
   WHERE k.issuer_id = worker_issuer_keys.issuer_id;
  RETURN jsonb_build_object('ok', FOUND);
END $f$;
COMMENT ON FUNCTION odin.worker_issuer_keys(bigint, jsonb, text) IS 'The public keys a worker fetched from an issuer, or why it could not.';

GRANT EXECUTE ON FUNCTION odin.gateway_sign_in(text, jsonb), odin.gateway_issuers() TO odin_gateway;
GRANT EXECUTE ON FUNCTION odin.worker_issuers(), odin.worker_issuer_keys(bigint, jsonb, text) TO odin_worker;
GRANT EXECUTE ON FUNCTION odin.allow_sign_in, odin.trust_issuer, odin.distrust_issuer(text) TO odin_admin;
