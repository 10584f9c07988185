-- What a person does over HTTP with his own database login: keys and waiting calls. Each act is the SQL function he
-- could call himself, under the role he has; nothing here gives a right, and no key and no gateway login gets in.

-- A list of texts out of JSON, or the refusal that names the field.
CREATE OR REPLACE FUNCTION odin._person_texts(arguments jsonb, field text) RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF coalesce(arguments->field, 'null') = 'null' THEN
    RETURN NULL;
  ELSIF jsonb_typeof(arguments->field) <> 'array' OR jsonb_path_exists(arguments->field, '$[*] ? (@.type() != "string")') THEN
    PERFORM odin.fail('validation_failed', format('%s: must be a list of texts', field), NULL, jsonb_build_object('field', field));
  END IF;
  RETURN ARRAY(SELECT jsonb_array_elements_text(arguments->field));
END $f$;

CREATE OR REPLACE FUNCTION odin._person_text(arguments jsonb, field text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF jsonb_typeof(arguments->field) NOT IN ('string', 'null') THEN
    PERFORM odin.fail('validation_failed', format('%s: must be a text', field), NULL, jsonb_build_object('field', field));
  END IF;
  RETURN arguments->>field;
END $f$;

CREATE OR REPLACE FUNCTION odin._person_number(arguments jsonb, field text, fewest bigint, most bigint) RETURNS int
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  n numeric;
BEGIN
  IF coalesce(arguments->field, 'null') = 'null' THEN RETURN NULL; END IF;
  IF (arguments->>field) ~ '^[0-9]{1,9}$' THEN n := (arguments->>field)::numeric; END IF;
  IF n IS NULL OR n NOT BETWEEN fewest AND most THEN
    PERFORM odin.fail('validation_failed', format('%s: must be a whole number from %s to %s', field, fewest, most), NULL, jsonb_build_object('field', field));
  END IF;
  RETURN n;
END $f$;

CREATE OR REPLACE FUNCTION odin._person_known(arguments jsonb, VARIADIC known text[]) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  unknown text := (SELECT k FROM jsonb_object_keys(arguments) k WHERE k <> ALL (known) LIMIT 1);
BEGIN
  IF unknown IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', format('%s: no such argument; known are %s', unknown, array_to_string(known, ', ')), NULL, jsonb_build_object('field', unknown));
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin._person_act(act text, a jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  made record;
BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = session_user) THEN
    PERFORM odin.fail('permission_denied', 'a superuser does not come over HTTP', 'Use psql, or a role that is a member of odin_admin.');
  END IF;
  CASE act
    WHEN 'mint_key' THEN
      PERFORM odin._person_known(a, 'name', 'scopes', 'expires_days', 'role', 'toolsets', 'allowed_ips', 'rate_per_minute', 'concurrency', 'url');
      IF coalesce(length(trim(odin._person_text(a, 'name'))), 0) NOT BETWEEN 1 AND 100 THEN
        PERFORM odin.fail('validation_failed', 'name: is required, 1 to 100 characters', NULL, '{"field": "name"}');
      END IF;
      SELECT * INTO made FROM odin.mint_key(a->>'name', coalesce(odin._person_texts(a, 'scopes'), '{agent:read}'),
        CASE WHEN a->'expires_days' = 'null' THEN NULL ELSE make_interval(days => coalesce(odin._person_number(a, 'expires_days', 1, 36500), 90)) END,
        odin._person_text(a, 'role'), odin._person_texts(a, 'toolsets'), odin._person_texts(a, 'allowed_ips')::inet[], odin._person_number(a, 'rate_per_minute', 1, 1000000),
        odin._person_number(a, 'concurrency', 1, 10000), coalesce(odin._person_text(a, 'url'), 'http://127.0.0.1:8808'));
      RETURN jsonb_build_object('id', made.key_id, 'token', made.key, 'prefix', made.prefix, 'name', a->>'name', 'role', made.owner, 'scopes', to_jsonb(made.granted),
        'expires_at', made.expires_at, 'configurations', made.configurations);
    WHEN 'list_keys' THEN
      PERFORM odin._person_known(a, 'state');
      RETURN jsonb_build_object('tokens', (SELECT coalesce(jsonb_agg(to_jsonb(k) ORDER BY k.id), '[]') FROM odin.list_keys() k WHERE NOT a ? 'state' OR k.state = odin._person_text(a, 'state')));
    WHEN 'revoke_key' THEN
      PERFORM odin._person_known(a, 'id');
      RETURN jsonb_build_object('id', (a->>'id')::bigint, 'revoked', odin.revoke_key((a->>'id')::bigint));
    WHEN 'rotate_key' THEN
      PERFORM odin._person_known(a, 'id', 'overlap_minutes', 'url');
      SELECT * INTO made FROM odin.rotate_key((a->>'id')::bigint, make_interval(mins => coalesce(odin._person_number(a, 'overlap_minutes', 0, 525600), 60)), coalesce(odin._person_text(a, 'url'), 'http://127.0.0.1:8808'));
      RETURN jsonb_build_object('id', made.new_key_id, 'token', made.key, 'prefix', made.prefix, 'replaces', (a->>'id')::bigint, 'old_key_ends', made.old_key_ends, 'configurations', made.configurations);
    WHEN 'list_consents' THEN
      PERFORM odin._person_known(a, 'state');
      RETURN jsonb_build_object('consents', (SELECT coalesce(jsonb_agg(to_jsonb(x) ORDER BY x.id), '[]') FROM (
        SELECT c.id, c.state, c.role_name, c.key_id, c.tool, c.arguments, c.why, c.preview, c.reason, c.asked_at, c.expires_at, c.decided_by, c.decided_via, c.decided_at
          FROM odin.consents c WHERE c.state = coalesce(odin._person_text(a, 'state'), 'pending') ORDER BY c.id DESC LIMIT 500) x));
    WHEN 'approve_call' THEN
      PERFORM odin._person_known(a, 'id', 'minutes');
      PERFORM odin._person_decides((a->>'id')::bigint, 'approved', 'rest', NULL, make_interval(mins => coalesce(odin._person_number(a, 'minutes', 1, 10080), 60)));
      RETURN jsonb_build_object('id', (a->>'id')::bigint, 'state', 'approved');
    WHEN 'deny_call' THEN
      PERFORM odin._person_known(a, 'id', 'reason', 'minutes');
      PERFORM odin._person_decides((a->>'id')::bigint, 'denied', 'rest', left(odin._person_text(a, 'reason'), 500), make_interval(mins => coalesce(odin._person_number(a, 'minutes', 1, 525600), 1440)));
      RETURN jsonb_build_object('id', (a->>'id')::bigint, 'state', 'denied');
  END CASE;
END $f$;

-- The error object; what it reads on the way is no person's business.
CREATE OR REPLACE FUNCTION odin._person_error(caught jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._error_of(caught, session_user);
$f$;

CREATE OR REPLACE FUNCTION odin.person_call(act text, arguments jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  state text; said text; detail text; hint text; broken text; relation text; col text;
BEGIN
  RETURN jsonb_build_object('ok', true, 'result', odin._person_act(act, coalesce(arguments, '{}')));
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT,
    broken = CONSTRAINT_NAME, relation = TABLE_NAME, col = COLUMN_NAME;
  RETURN jsonb_build_object('ok', false, 'error', odin._person_error(jsonb_build_object('sqlstate', state, 'message', said, 'detail', detail, 'hint', hint,
    'constraint', broken, 'table', relation, 'column', col)));
END $f$;
COMMENT ON FUNCTION odin.person_call(text, jsonb) IS 'For the REST face, on a person''s own login: mint_key, list_keys, rotate_key, revoke_key, list_consents, approve_call, deny_call; the answer is {ok, result} or {ok, error}.';

GRANT EXECUTE ON FUNCTION odin.person_call(text, jsonb), odin._person_act(text, jsonb), odin._person_text(jsonb, text), odin._person_texts(jsonb, text), odin._person_number(jsonb, text, bigint, bigint), odin._person_known(jsonb, text[]),
  odin._person_error(jsonb) TO odin_viewer, odin_customer;
