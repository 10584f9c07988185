-- The gateway's functions: all that the sidecar's login may run. Each begins with the credential and ends as its owner.
-- A stolen gateway login can become nobody: it needs a key's hash, and the table holds only the hash of that.

-- Whoever has one IPv6 network has 2^64 addresses: counted by network, or one stranger could fill the table.
CREATE OR REPLACE FUNCTION odin._counted_ip(ip inet) RETURNS inet
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT CASE WHEN ip IS NULL THEN '0.0.0.0' WHEN family(ip) = 6 THEN network(set_masklen(ip, 64))::inet ELSE set_masklen(ip, 32) END;
$f$;

CREATE OR REPLACE FUNCTION odin._count_login_failure(why text, options jsonb) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $f$
  INSERT INTO odin.login_failures AS f (minute, ip, reason) VALUES (date_trunc('minute', clock_timestamp()), odin._counted_ip((options->>'ip')::inet), why)
    ON CONFLICT (minute, ip, reason) DO UPDATE SET attempts = f.attempts + 1;
$f$;

-- Why this key opens nothing now; NULL when it does.
CREATE OR REPLACE FUNCTION odin._key_refusal(k odin_private.keys, options jsonb) RETURNS text
LANGUAGE sql AS $f$
  SELECT CASE WHEN k.id IS NULL THEN 'unknown key'
    WHEN k.revoked_at IS NOT NULL THEN 'the key was revoked'
    WHEN k.expires_at < clock_timestamp() THEN CASE WHEN k.issuer_id IS NULL THEN 'the key has expired' ELSE 'the sign-in has expired' END
    WHEN to_regrole(quote_ident(k.role_name)) IS NULL THEN 'the key''s owner no longer exists'
    WHEN k.allowed_ips IS NOT NULL AND NOT coalesce((options->>'ip')::inet <<= ANY (k.allowed_ips), false) THEN 'the key may not be used from this address' END;
$f$;

-- Who calls: his key, its role, and the version of the registry that he sees; or why not.
CREATE OR REPLACE FUNCTION odin._principal(credential text, options jsonb, OUT k odin_private.keys, OUT who oid, OUT registry bigint, OUT error jsonb)
LANGUAGE plpgsql AS $f$
DECLARE
  i odin.instance;
  s odin_private.sign_ins;
  refused text;
BEGIN
  -- No statement here: every call of every key comes through.
  i := odin._instance_row();
  k := odin._key_row(odin._key_hash(credential));
  who := to_regrole(quote_ident(k.role_name));
  refused := odin._key_refusal(k, options);
  IF refused IS NULL AND i.schema_version = odin._code_version() THEN
    registry := i.registry_version;
    RETURN;
  END IF;
  IF refused = 'unknown key' THEN
    -- A token somebody signed in with: a key whose scopes and end are the token's.
    SELECT * INTO s FROM odin_private.sign_ins x WHERE x.hash = odin._key_hash(credential);
    SELECT * INTO k FROM odin_private.keys x WHERE x.id = s.key_id;
    IF FOUND THEN
      k.scopes := s.scopes;
      who := to_regrole(quote_ident(k.role_name));
      refused := CASE WHEN s.expires_at < clock_timestamp() THEN 'the sign-in has expired' ELSE odin._key_refusal(k, options) END;
    END IF;
  END IF;
  IF i.schema_version <> odin._code_version() THEN
    error := odin._error('schema_outdated', format('the tables are of version %s, the code is %s', i.schema_version, odin._code_version()));
  ELSIF refused IS NULL THEN
    registry := i.registry_version;
    RETURN;
  ELSE
    PERFORM odin._count_login_failure(refused, options);
    error := odin._error('not_authenticated', refused);
  END IF;
  k := NULL; who := NULL;
END $f$;

CREATE OR REPLACE FUNCTION odin.gateway_call(credential text, tool text, arguments jsonb, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  ran jsonb;
  answer jsonb;
  unlocked text;
BEGIN
  -- Most calls are plain ones of a kind that this backend has seen before.
  ran := odin._plain_call('odin._invoke_read(oid,jsonb,boolean,text)'::regprocedure, 'odin._invoke(oid,jsonb,boolean,text)'::regprocedure, credential, tool, arguments, options);
  IF ran ? 'status' THEN RETURN ran; END IF;
  IF ran IS NOT NULL THEN
    -- The tool has run under what the key was before it: what it may have changed of the key counts from the next call on.
    answer := odin._dispatch((ran->>'who')::oid, ran->>'role_name', (ran->>'key_id')::bigint, NULL, NULL, tool, arguments, options, true, (ran->>'registry')::bigint, 'tool', ran);
    IF answer ? 'error' AND ran->'ran' ? 'result' THEN
      -- What the tool did must not stay behind a refusal.
      RAISE EXCEPTION USING ERRCODE = '40001', MESSAGE = answer#>>'{error,detail}';
    END IF;
  ELSE
    p := odin._principal(credential, options);
    IF p.error IS NOT NULL OR (p.k).concurrency IS NOT NULL THEN
      IF p.error IS NULL AND NOT odin._take_place('key', (p.k).id, (p.k).concurrency) THEN
        p.error := odin._no_place(format('this key may make %s calls at once', (p.k).concurrency));
      END IF;
      IF p.error IS NOT NULL THEN RETURN jsonb_build_object('status', 'error', 'error', p.error); END IF;
    END IF;
    answer := odin._dispatch(p.who, (p.k).role_name, (p.k).id, (p.k).scopes, (p.k).rate_per_minute, tool, arguments, options, true, p.registry);
  END IF;
  -- A session lock that a tool took must not outlive its call. (An assignment costs a third of a PERFORM.)
  unlocked := pg_advisory_unlock_all();
  RETURN answer;
END $f$;
COMMENT ON FUNCTION odin.gateway_call(text, text, jsonb, jsonb) IS 'One call of a tool by a key, for the sidecar: one statement, one transaction.';

CREATE OR REPLACE FUNCTION odin.gateway_authenticate(credential text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, options);
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  RETURN jsonb_build_object('ok', true, 'role', (p.k).role_name, 'key_id', (p.k).id, 'key_name', (p.k).name, 'scopes', to_jsonb((p.k).scopes), 'toolsets', to_jsonb((p.k).toolsets),
    'org', (SELECT o.name FROM odin._memberships((p.k).role_name::name) m JOIN odin.orgs o ON o.id = m.org_id ORDER BY m.id LIMIT 1),
    'limits', jsonb_build_object('rate_per_minute', (p.k).rate_per_minute, 'concurrency', (p.k).concurrency));
END $f$;
COMMENT ON FUNCTION odin.gateway_authenticate(text, jsonb) IS 'Who a credential is, for the sidecar; a refusal is counted by address.';

-- A small model's window: what a tool does and takes, nothing else.
CREATE OR REPLACE FUNCTION odin._lean_listing(listing jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE AS $f$
  SELECT (listing - '{outputSchema,title,icons}'::text[]) #- '{inputSchema,properties,fields}' #- '{inputSchema,properties,response_format}' #- '{inputSchema,properties,preview_token}' #- '{inputSchema,properties,idempotency_key}' #- '{inputSchema,additionalProperties}';
$f$;

-- One page of the registry as MCP shows it; kinds: tool, prompt, resource.
CREATE OR REPLACE FUNCTION odin._gateway_listing(credential text, options jsonb, wanted_kind text, list_key text, templates boolean) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  lean boolean;
BEGIN
  p := odin._principal(credential, options);
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  lean := coalesce(odin._texts(options->'toolsets'), (p.k).toolsets) = ARRAY['lean'];
  RETURN jsonb_build_object('ok', true, 'version', (SELECT registry_version FROM odin.instance), list_key,
    (SELECT coalesce(jsonb_agg(CASE WHEN lean THEN odin._lean_listing(v.listing) ELSE v.listing END ORDER BY v.name COLLATE "C"), '[]')
       FROM odin._visible(p.who, (p.k).scopes, ARRAY[wanted_kind], coalesce(odin._texts(options->'toolsets'), (p.k).toolsets), (options->>'readonly')::boolean, coalesce((options->>'all')::boolean, false)) v
      WHERE templates IS NULL OR (v.uri LIKE '%{%') = templates));
END $f$;

CREATE OR REPLACE FUNCTION odin.gateway_tools(credential text, options jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._gateway_listing(credential, options, 'tool', 'tools', NULL);
$f$;
COMMENT ON FUNCTION odin.gateway_tools(text, jsonb) IS 'tools/list of a key: what its role and scopes may call, in a fixed order.';

CREATE OR REPLACE FUNCTION odin.gateway_prompts(credential text, options jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._gateway_listing(credential, options, 'prompt', 'prompts', NULL);
$f$;
COMMENT ON FUNCTION odin.gateway_prompts(text, jsonb) IS 'prompts/list of a key.';

CREATE OR REPLACE FUNCTION odin.gateway_resources(credential text, options jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._gateway_listing(credential, options, 'resource', 'resources', false);
$f$;
COMMENT ON FUNCTION odin.gateway_resources(text, jsonb) IS 'resources/list of a key.';

CREATE OR REPLACE FUNCTION odin.gateway_resource_templates(credential text, options jsonb) RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT odin._gateway_listing(credential, options, 'resource', 'resourceTemplates', true);
$f$;
COMMENT ON FUNCTION odin.gateway_resource_templates(text, jsonb) IS 'resources/templates/list of a key.';

CREATE OR REPLACE FUNCTION odin.gateway_prompt_get(credential text, name text, arguments jsonb, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  answer jsonb;
  said jsonb;
BEGIN
  p := odin._principal(credential, options);
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('status', 'error', 'error', p.error); END IF;
  answer := odin._dispatch(p.who, (p.k).role_name, (p.k).id, (p.k).scopes, (p.k).rate_per_minute, name, arguments, options, true, p.registry, 'prompt');
  PERFORM pg_advisory_unlock_all();
  IF answer->>'status' <> 'complete' THEN RETURN answer; END IF;
  said := answer->'result';
  RETURN jsonb_build_object('status', 'complete', 'description', (odin._find_tool(name, 'prompt')).description, 'messages',
    CASE jsonb_typeof(said) WHEN 'array' THEN said
      ELSE jsonb_build_array(jsonb_build_object('role', 'user', 'content', jsonb_build_object('type', 'text', 'text', said->>'result'))) END);
END $f$;
COMMENT ON FUNCTION odin.gateway_prompt_get(text, text, jsonb, jsonb) IS 'prompts/get: the messages of a prompt, made under the key''s role.';

-- The resource a URI means, and its variables.
CREATE OR REPLACE FUNCTION odin._match_resource(wanted text, OUT name text, OUT arguments jsonb, OUT mime_type text, OUT returns_bytes boolean)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t odin.tools;
  pattern text;
  m text[];
  variables text[];
BEGIN
  FOR t IN SELECT * FROM odin.tools x WHERE x.kind = 'resource' AND x.active ORDER BY (x.uri LIKE '%{%'), length(x.uri) DESC LOOP
    pattern := '^' || regexp_replace(regexp_replace(t.uri, '([.^$*+?()\[\]|\\-])', '\\\1', 'g'), '\{[^}]+\}', '([^/?#]+)', 'g') || '$';
    m := regexp_match(wanted, pattern);
    CONTINUE WHEN m IS NULL;
    variables := ARRAY(SELECT v[1] FROM regexp_matches(t.uri, '\{([^}]+)\}', 'g') v);
    name := t.name; mime_type := t.mime_type;
    returns_bytes := EXISTS (SELECT 1 FROM pg_proc WHERE oid = odin._function_oid(t.function) AND prorettype = 'bytea'::regtype);
    arguments := coalesce((SELECT jsonb_object_agg(variables[i], odin._url_decode(m[i])) FROM generate_subscripts(variables, 1) i), '{}');
    RETURN;
  END LOOP;
END $f$;

CREATE OR REPLACE FUNCTION odin._url_decode(text text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  bytes bytea := '';
  part text[];
BEGIN
  IF text NOT LIKE '%\%%' THEN RETURN text; END IF;
  FOR part IN SELECT regexp_matches(text, '(%[0-9A-Fa-f]{2})|([^%]+|%)', 'g') LOOP
    bytes := bytes || CASE WHEN part[1] IS NOT NULL THEN decode(substr(part[1], 2), 'hex') ELSE convert_to(part[2], 'UTF8') END;
  END LOOP;
  RETURN convert_from(bytes, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
  RETURN text;
END $f$;

CREATE OR REPLACE FUNCTION odin.gateway_resource_read(credential text, uri text, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  r record;
  answer jsonb;
  said jsonb;
BEGIN
  p := odin._principal(credential, options);
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('status', 'error', 'error', p.error); END IF;
  SELECT * INTO r FROM odin._match_resource(uri);
  IF r.name IS NULL THEN
    RETURN jsonb_build_object('status', 'error', 'error', odin._error('not_found', format('there is no resource %s', uri), NULL, jsonb_build_object('uri', uri)));
  END IF;
  answer := odin._dispatch(p.who, (p.k).role_name, (p.k).id, (p.k).scopes, (p.k).rate_per_minute, r.name, r.arguments, options, true, p.registry, 'resource');
  PERFORM pg_advisory_unlock_all();
  IF answer->>'status' <> 'complete' THEN
    RETURN CASE WHEN answer ? 'error' THEN jsonb_set(answer, '{error,uri}', to_jsonb(uri)) ELSE answer END;
  END IF;
  said := answer->'result';
  IF said IS NULL OR said = 'null' OR said = '{"result": null}' THEN
    RETURN jsonb_build_object('status', 'error', 'error', odin._error('not_found', format('there is no resource %s', uri), NULL, jsonb_build_object('uri', uri)));
  ELSIF jsonb_typeof(said->'contents') = 'array' THEN
    RETURN jsonb_build_object('status', 'complete', 'contents', said->'contents');
  END IF;
  RETURN jsonb_build_object('status', 'complete', 'contents', jsonb_build_array(jsonb_build_object('uri', uri, 'mimeType', r.mime_type) || CASE
    WHEN r.returns_bytes THEN jsonb_build_object('blob', replace(encode((said->>'result')::bytea, 'base64'), E'\n', ''))
    WHEN said ? 'result' AND (SELECT count(*) FROM jsonb_object_keys(said)) = 1 AND jsonb_typeof(said->'result') = 'string' THEN jsonb_build_object('text', said->>'result')
    ELSE jsonb_build_object('text', said::text) END));
END $f$;
COMMENT ON FUNCTION odin.gateway_resource_read(text, text, jsonb) IS 'resources/read: the contents under a URI, made under the key''s role.';

-- The function of that name that takes one text; NULL when there is none.
CREATE OR REPLACE FUNCTION odin._completer(function text) RETURNS oid
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE ARRAY[n.nspname::text, p.proname::text] = parse_ident(function) AND p.prokind = 'f' AND p.pronargs = 1 AND p.proargtypes[0] = 'text'::regtype;
$f$;

-- Values for an argument: the enum of its schema, or the function named by its x-complete keyword, run as the caller.
CREATE OR REPLACE FUNCTION odin.gateway_complete(credential text, ref jsonb, argument jsonb, context jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
  t odin.tools;
  schema jsonb;
  found jsonb := '[]';
BEGIN
  p := odin._principal(credential, coalesce(context, '{}'));
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  SELECT * INTO t FROM odin._visible(p.who, (p.k).scopes, ARRAY['prompt', 'resource'], NULL, false, true) v WHERE v.name = ref->>'name' OR v.uri = ref->>'uri' LIMIT 1;
  IF t.id IS NULL THEN
    RETURN jsonb_build_object('ok', false, 'error', odin._error('not_found', format('there is no prompt or resource %s', coalesce(ref->>'name', ref->>'uri'))));
  END IF;
  schema := t.input_schema->'properties'->(argument->>'name');
  IF schema ? 'enum' THEN
    found := (SELECT coalesce(jsonb_agg(e ORDER BY n), '[]') FROM jsonb_array_elements_text(schema->'enum') WITH ORDINALITY x(e, n) WHERE starts_with(lower(e), lower(coalesce(argument->>'value', ''))));
  ELSIF odin._completer(schema->>'x-complete') IS NOT NULL THEN
    found := odin._jail_run(p.who, 'odin._invoke_completion(oid,jsonb,boolean,text)'::regprocedure, odin._completer(schema->>'x-complete'),
      jsonb_build_object('value', coalesce(argument->>'value', '')), false, '', NULL, (p.k).role_name, (p.k).id, NULL, NULL, 5000);
  END IF;
  RETURN jsonb_build_object('ok', true, 'values', (SELECT coalesce(jsonb_agg(e ORDER BY n), '[]') FROM jsonb_array_elements(found) WITH ORDINALITY x(e, n) WHERE n <= 100),
    'total', jsonb_array_length(found), 'hasMore', jsonb_array_length(found) > 100);
END $f$;
COMMENT ON FUNCTION odin.gateway_complete(text, jsonb, jsonb, jsonb) IS 'completion/complete: values for an argument of a prompt or resource, as the caller may see them.';

CREATE OR REPLACE FUNCTION odin.gateway_version() RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT jsonb_build_object('version', odin._code_version(), 'schema_version', schema_version, 'registry_version', registry_version) FROM odin.instance;
$f$;
COMMENT ON FUNCTION odin.gateway_version() IS 'Versions of code, tables and registry; readiness checks call it.';

-- A person at the client answered the question about a waiting call.
CREATE OR REPLACE FUNCTION odin.gateway_decide(credential text, consent_id bigint, approved boolean, options jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  p record;
BEGIN
  p := odin._principal(credential, options);
  IF p.error IS NOT NULL THEN RETURN jsonb_build_object('ok', false, 'error', p.error); END IF;
  UPDATE odin.consents c SET state = CASE WHEN approved THEN 'approved' ELSE 'denied' END, decided_by = (p.k).role_name, decided_via = 'elicitation', decided_at = clock_timestamp(),
         expires_at = clock_timestamp() + CASE WHEN approved THEN interval '10 minutes' ELSE interval '1 day' END
   WHERE c.id = consent_id AND c.role_name = (p.k).role_name AND c.state = 'pending';
  RETURN jsonb_build_object('ok', FOUND);
END $f$;
COMMENT ON FUNCTION odin.gateway_decide(text, bigint, boolean, jsonb) IS 'Records what the person at the client answered when asked about a waiting call of that same key''s owner.';
