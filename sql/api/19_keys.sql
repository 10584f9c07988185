-- Keys: mint, list, revoke, rotate. People only: no key can make, widen or revive a key.
-- The secret is returned once and kept nowhere.

CREATE OR REPLACE FUNCTION odin._is_scope(word text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT word IN ('agent:read', 'agent:write', 'admin', 'read', 'write') OR word ~ '^(read|write):[a-z][a-z0-9_]*$';
$f$;

CREATE OR REPLACE FUNCTION odin._check_scopes(scopes text[], who oid, role_name text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  wrong text;
BEGIN
  SELECT s INTO wrong FROM unnest(scopes) s WHERE NOT odin._is_scope(s);
  IF wrong IS NOT NULL OR coalesce(cardinality(scopes), 0) = 0 THEN
    PERFORM odin.fail('validation_failed', format('scopes: %s is no scope', coalesce(wrong, 'an empty list')),
      'Scopes are agent:read, agent:write, admin, or read:AREA and write:AREA, e.g. {agent:read} or {read:printers,write:jobs}.', '{"field": "scopes"}');
  ELSIF 'admin' = ANY (scopes) AND NOT pg_has_role(who, 'odin_admin', 'USAGE') THEN
    PERFORM odin.fail('permission_denied', format('scopes: admin needs an owner in odin_admin; %s is not', role_name), format('GRANT odin_admin TO %I; or leave the scope out.', role_name));
  ELSIF EXISTS (SELECT 1 FROM unnest(scopes) s WHERE s ~ '(^|:)write' OR s LIKE 'write:%') AND NOT pg_has_role(who, 'odin_operator', 'USAGE') THEN
    PERFORM odin.fail('permission_denied', format('scopes: a write scope needs an owner in odin_operator or above; %s is not', role_name), format('GRANT odin_operator TO %I; or mint with {agent:read}.', role_name));
  END IF;
END $f$;

-- Who may handle keys of a role: the role itself, an administrator of all orgs it belongs to, a superuser.
CREATE OR REPLACE FUNCTION odin._may_key_for(role_name text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  me text := odin.actor();
  org bigint;
BEGIN
  IF me = role_name THEN RETURN; END IF;
  -- Every org it belongs to: the key would see the rows of all of them.
  FOR org IN SELECT DISTINCT m.org_id FROM odin._memberships(role_name::name) m LOOP
    PERFORM odin._administers(org);
  END LOOP;
  IF org IS NULL THEN PERFORM odin._administers(NULL); END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.mint_key(
  name text, scopes text[] DEFAULT '{agent:read}', expires interval DEFAULT '90 days', role_name text DEFAULT NULL, toolsets text[] DEFAULT NULL,
  allowed_ips inet[] DEFAULT NULL, rate_per_minute int DEFAULT NULL, concurrency int DEFAULT NULL, url text DEFAULT 'http://127.0.0.1:8808',
  OUT key text, OUT key_id bigint, OUT prefix text, OUT owner text, OUT granted text[], OUT expires_at timestamptz, OUT configurations jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._humans_only('minting a key');
  owner := coalesce(role_name, odin.actor());
  PERFORM odin._check_scopes(scopes, odin._owner_role(owner), owner);
  PERFORM odin._may_key_for(owner);
  IF expires IS NOT NULL AND expires <= interval '0' THEN
    PERFORM odin.fail('validation_failed', 'expires: must be a time to come, such as interval ''90 days'', or NULL for a key without end', NULL, '{"field": "expires"}');
  END IF;
  SELECT m.key, m.key_id, m.prefix, m.expires_at INTO key, key_id, prefix, expires_at
    FROM odin._new_key(name, owner, scopes, expires, toolsets, allowed_ips, rate_per_minute, concurrency, NULL) m;
  granted := scopes;
  configurations := odin.client_configs(url, key, name);
END $f$;
COMMENT ON FUNCTION odin.mint_key IS 'Makes a key that runs as a role narrowed by scopes, and returns its secret once with ready configurations for clients. Write scopes need an operator, admin an administrator. People only.';

CREATE OR REPLACE FUNCTION odin._new_key(name text, owner text, scopes text[], expires interval, toolsets text[], allowed_ips inet[], rate int, concurrency int, replaces bigint,
  OUT key text, OUT key_id bigint, OUT prefix text, OUT expires_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  key := 'odin_' || odin._random_hex(32);
  prefix := left(key, 12);
  expires_at := clock_timestamp() + expires;
  INSERT INTO odin_private.keys(name, role_name, prefix, hash, scopes, toolsets, allowed_ips, rate_per_minute, concurrency, created_by, expires_at, replaces)
  VALUES (name, owner, _new_key.prefix, sha256(sha256(convert_to(_new_key.key, 'UTF8'))), scopes, toolsets, allowed_ips, rate, concurrency, odin.actor(), _new_key.expires_at, _new_key.replaces)
  RETURNING id INTO key_id;
END $f$;

CREATE OR REPLACE FUNCTION odin.list_keys() RETURNS TABLE(id bigint, name text, role_name text, prefix text, scopes text[], toolsets text[], allowed_ips inet[], rate_per_minute int,
  concurrency int, created_at timestamptz, created_by text, expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz, state text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  me text := odin.actor();
  all_keys boolean := (SELECT rolsuper FROM pg_roles WHERE rolname = me);
  admin boolean := pg_has_role(me, 'odin_admin', 'USAGE');
BEGIN
  RETURN QUERY
    SELECT k.id, k.name, k.role_name, k.prefix, k.scopes, k.toolsets, k.allowed_ips, k.rate_per_minute, k.concurrency, k.created_at, k.created_by, k.expires_at, k.revoked_at,
           (SELECT max(c.called_at) FROM odin.audit_calls c WHERE c.key_id = k.id),
           CASE WHEN k.revoked_at IS NOT NULL THEN 'revoked' WHEN k.expires_at < clock_timestamp() THEN 'expired' WHEN to_regrole(quote_ident(k.role_name)) IS NULL THEN 'ownerless' ELSE 'active' END
      FROM odin_private.keys k
     WHERE all_keys OR k.role_name = me OR (admin AND k.role_name IN (SELECT odin.colleagues_of(me::name)))
     ORDER BY k.id;
END $f$;
COMMENT ON FUNCTION odin.list_keys() IS 'Keys you may see: your own, and as an administrator those of your orgs. Never a secret.';

CREATE OR REPLACE VIEW odin.keys WITH (security_invoker = true) AS SELECT * FROM odin.list_keys();
COMMENT ON VIEW odin.keys IS 'Keys you may see, with when each was last used.';

CREATE OR REPLACE FUNCTION odin._key_for_change(key_id bigint, what text) RETURNS odin_private.keys
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  k odin_private.keys;
BEGIN
  PERFORM odin._humans_only(what);
  SELECT * INTO k FROM odin_private.keys x WHERE x.id = key_id FOR UPDATE;
  IF NOT FOUND THEN PERFORM odin.fail('not_found', format('key_id: there is no key %s', key_id), 'SELECT * FROM odin.keys lists them.'); END IF;
  PERFORM odin._may_key_for(k.role_name);
  RETURN k;
END $f$;

CREATE OR REPLACE FUNCTION odin.revoke_key(key_id bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  k odin_private.keys := odin._key_for_change(key_id, 'revoking a key');
BEGIN
  UPDATE odin_private.keys SET revoked_at = clock_timestamp(), revoked_by = odin.actor() WHERE id = k.id AND revoked_at IS NULL;
  RETURN FOUND;
END $f$;
COMMENT ON FUNCTION odin.revoke_key(bigint) IS 'Ends a key; its next call is refused, replays of stored answers too. True if it was still good. People only.';

CREATE OR REPLACE FUNCTION odin.rotate_key(key_id bigint, overlap interval DEFAULT '1 hour', url text DEFAULT 'http://127.0.0.1:8808',
  OUT key text, OUT new_key_id bigint, OUT prefix text, OUT old_key_ends timestamptz, OUT configurations jsonb)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  k odin_private.keys := odin._key_for_change(key_id, 'rotating a key');
BEGIN
  IF k.revoked_at IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', format('key_id: key %s is revoked; mint a new one', k.id), NULL, '{"field": "key_id"}');
  ELSIF k.issuer_id IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', format('key_id: key %s has no secret; its issuer renews the tokens', k.id), NULL, '{"field": "key_id"}');
  END IF;
  -- Whoever lost a group since must not carry the old scopes into a new key.
  PERFORM odin._check_scopes(k.scopes, odin._owner_role(k.role_name), k.role_name);
  SELECT m.key, m.key_id, m.prefix INTO key, new_key_id, prefix
    FROM odin._new_key(k.name, k.role_name, k.scopes, k.expires_at - k.created_at, k.toolsets, k.allowed_ips, k.rate_per_minute, k.concurrency, k.id) m;
  UPDATE odin_private.keys SET expires_at = least(expires_at, clock_timestamp() + overlap) WHERE id = k.id RETURNING expires_at INTO old_key_ends;
  configurations := odin.client_configs(url, key, k.name);
END $f$;
COMMENT ON FUNCTION odin.rotate_key(bigint, interval, text) IS 'A new secret with the same rights; the old one ends after the overlap. People only.';

-- Ready to paste. The bridge (mcp-remote) is only for clients that cannot speak HTTP themselves.
CREATE OR REPLACE FUNCTION odin.client_configs(url text, key text, name text DEFAULT 'odin-farm') RETURNS jsonb
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  WITH x AS (SELECT rtrim(url, '/') || '/mcp' AS mcp, 'Authorization: Bearer ' || key AS header, trim(BOTH '-' FROM regexp_replace(lower(name), '[^a-z0-9]+', '-', 'g')) AS slug),
       bridge AS (SELECT jsonb_build_object('command', 'npx', 'args', jsonb_build_array('-y', 'mcp-remote', mcp, '--header', 'Authorization:${ODIN_AUTH}', '--transport', 'http-only'),
                                            'env', jsonb_build_object('ODIN_AUTH', 'Bearer ' || key)) AS j FROM x)
  SELECT jsonb_build_object(
    'claude_desktop', jsonb_pretty(jsonb_build_object('mcpServers', jsonb_build_object(slug, bridge.j))),
    'claude_code', format('claude mcp add --transport http %s %s --header "%s"', slug, mcp, header),
    'codex', format(E'[mcp_servers.%s]\nurl = "%s"\nhttp_headers = { "Authorization" = "Bearer %s" }', slug, mcp, key),
    'cursor', jsonb_pretty(jsonb_build_object('mcpServers', jsonb_build_object(slug, jsonb_build_object('url', mcp, 'headers', jsonb_build_object('Authorization', 'Bearer ' || key))))),
    'http', format(E'curl -sS %s -H "%s" -H "Content-Type: application/json" -H "Accept: application/json, text/event-stream" -d ''{"jsonrpc":"2.0","id":1,"method":"tools/list"}''', mcp, header),
    'mcp_remote', format('npx -y mcp-remote %s --header "%s" --transport http-only', mcp, header))
  FROM x, bridge;
$f$;
COMMENT ON FUNCTION odin.client_configs(text, text, text) IS 'Configurations to paste for Claude Desktop, Claude Code, Codex, Cursor, plain HTTP and mcp-remote.';

-- Consents: a person decides about a call that waits.
CREATE OR REPLACE FUNCTION odin._decide(consent_id bigint, decision text, via text, reason text, valid interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  c odin.consents;
BEGIN
  SELECT * INTO c FROM odin.consents k WHERE k.id = consent_id FOR UPDATE;
  IF NOT FOUND THEN PERFORM odin.fail('not_found', format('consent_id: there is no request %s', consent_id)); END IF;
  IF c.state <> 'pending' THEN
    PERFORM odin.fail('invalid_state_transition', format('request %s is already %s', consent_id, c.state));
  END IF;
  UPDATE odin.consents SET state = decision, decided_by = odin.actor(), decided_via = via, decided_at = clock_timestamp(), reason = _decide.reason, expires_at = clock_timestamp() + valid WHERE id = consent_id;
  RETURN true;
END $f$;

-- The same for every way a person comes: psql (sql) or his own login over HTTP (rest).
CREATE OR REPLACE FUNCTION odin._person_decides(consent_id bigint, decision text, via text, reason text, valid interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  PERFORM odin._humans_only(CASE decision WHEN 'approved' THEN 'approving a call' ELSE 'denying a call' END);
  PERFORM odin._administers((SELECT org_id FROM odin.consents WHERE id = consent_id));
  RETURN odin._decide(consent_id, decision, via, reason, valid);
END $f$;

CREATE OR REPLACE FUNCTION odin.approve_call(consent_id bigint, valid interval DEFAULT '1 hour') RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._person_decides(consent_id, 'approved', 'sql', NULL, valid);
$f$;
COMMENT ON FUNCTION odin.approve_call(bigint, interval) IS 'A person lets a waiting call through, once, within the given time. Administrators only; no key can.';

CREATE OR REPLACE FUNCTION odin.deny_call(consent_id bigint, reason text DEFAULT NULL, valid interval DEFAULT '1 day') RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._person_decides(consent_id, 'denied', 'sql', reason, valid);
$f$;
COMMENT ON FUNCTION odin.deny_call(bigint, text, interval) IS 'A person refuses a waiting call; the agent is told not to retry. Administrators only; no key can.';
GRANT EXECUTE ON FUNCTION odin._person_decides(bigint, text, text, text, interval) TO odin_admin;
