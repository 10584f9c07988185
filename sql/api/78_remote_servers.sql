-- Tools of remote MCP servers in the registry: synced by a sidecar, called through the same dispatcher, carried out as tasks.
-- People add servers; a sidecar only brings what a server lists. What it brings never gets more rights than its server's row says.

CREATE OR REPLACE FUNCTION odin.add_remote_server(name text, url text, callers text DEFAULT 'odin_operator', confirm text DEFAULT 'none', sync_every interval DEFAULT '15 minutes') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  made bigint;
BEGIN
  PERFORM odin._humans_only('adding a remote server');
  -- Another place may not get what was meant for the old one.
  DELETE FROM odin_private.remote_secrets x USING odin.remote_servers s WHERE s.name = add_remote_server.name AND x.server_id = s.id AND s.url <> add_remote_server.url;
  INSERT INTO odin.remote_servers AS s (name, url, callers, confirm, sync_every, added_by)
  VALUES (add_remote_server.name, add_remote_server.url, add_remote_server.callers, add_remote_server.confirm, add_remote_server.sync_every, odin.actor())
  ON CONFLICT (name) DO UPDATE SET url = excluded.url, callers = excluded.callers, confirm = excluded.confirm, sync_every = excluded.sync_every, is_active = true, sync_due = now(), failures = 0, problem = NULL
  RETURNING id INTO made;
  NOTIFY odin_work;
  RETURN made;
END $f$;
COMMENT ON FUNCTION odin.add_remote_server(text, text, text, text, interval) IS 'Makes the tools of a remote MCP server tools of the farm, as NAME_tool, for the group callers and with a confirm policy. The sidecars must be allowed to reach it (ODIN_EGRESS_ALLOW). Again with the same name changes it. People only.';

CREATE OR REPLACE FUNCTION odin.remove_remote_server(name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t record;
BEGIN
  PERFORM odin._humans_only('removing a remote server');
  FOR t IN SELECT r.tool FROM odin.remote_tools r JOIN odin.remote_servers s ON s.id = r.server_id WHERE s.name = remove_remote_server.name LOOP
    PERFORM odin.unregister_tool(t.tool);
    EXECUTE format('DROP FUNCTION IF EXISTS odin_call.%I(jsonb)', 'remote_' || t.tool);
  END LOOP;
  DELETE FROM odin.remote_servers s WHERE s.name = remove_remote_server.name;
  RETURN FOUND;
END $f$;
COMMENT ON FUNCTION odin.remove_remote_server(text) IS 'Takes a remote server and all its tools out of the farm. People only.';

CREATE OR REPLACE FUNCTION odin.set_remote_secret(url text, header text DEFAULT NULL, value text DEFAULT NULL, sealed text DEFAULT NULL, remove boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_variable
DECLARE
  server bigint := (SELECT s.id FROM odin.remote_servers s WHERE s.url = set_remote_secret.url ORDER BY s.id LIMIT 1);
BEGIN
  IF NOT pg_has_role(odin.actor(), 'odin_admin', 'USAGE') THEN
    PERFORM odin.fail('permission_denied', format('%s is no administrator', odin.actor()));
  ELSIF server IS NULL THEN
    PERFORM odin.fail('remote_server_not_found', format('url: there is no remote server at %s', url), NULL, '{"field": "url"}');
  ELSIF coalesce(header, value) IS NOT NULL THEN
    PERFORM odin.fail('validation_failed', 'secrets must not reach the database in clear', 'Call this tool through a sidecar (MCP or REST) that has ODIN_SECRET_KEY; it seals them on the way.');
  ELSIF (sealed IS NULL) = (NOT remove) THEN
    PERFORM odin.fail('validation_failed', 'value: give the header and its value, or remove: true', 'Mostly: header Authorization, value "Bearer ...".', '{"field": "value"}');
  ELSIF sealed !~ '^sealed:v1:[A-Za-z0-9_-]{40,}$' THEN
    PERFORM odin.fail('validation_failed', 'sealed: this is not a secret sealed by a sidecar', NULL, '{"field": "sealed"}');
  END IF;
  IF remove THEN
    DELETE FROM odin_private.remote_secrets s WHERE s.server_id = server;
  ELSE
    INSERT INTO odin_private.remote_secrets AS s (server_id, sealed, set_by) VALUES (server, set_remote_secret.sealed, odin.actor())
    ON CONFLICT ON CONSTRAINT remote_secrets_pkey DO UPDATE SET sealed = excluded.sealed, set_by = excluded.set_by, set_at = clock_timestamp();
  END IF;
  UPDATE odin.remote_servers s SET sync_due = now() WHERE s.id = server;
  PERFORM odin.would(jsonb_build_object('action', 'set_remote_secret', 'url', url, 'remove', remove));
  NOTIFY odin_work;
  RETURN jsonb_build_object('success', true, 'server_id', server, 'has_secret', NOT remove);
END $f$;
COMMENT ON FUNCTION odin.set_remote_secret(text, text, text, text, boolean) IS 'Sets the header the remote MCP server at this url wants to see (header Authorization, value "Bearer ..."). Write-only: nobody can read it back, and it opens for this address only.';

CREATE OR REPLACE FUNCTION odin.list_remote_servers() RETURNS TABLE(id bigint, name text, url text, callers text, confirm text, is_active boolean, has_secret boolean, state text, problem text, synced_at timestamptz, tools bigint, refused jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT s.id, s.name, s.url, s.callers, s.confirm, s.is_active, EXISTS (SELECT 1 FROM odin_private.remote_secrets x WHERE x.server_id = s.id),
         CASE WHEN NOT s.is_active THEN 'off' WHEN s.problem IS NOT NULL THEN 'failing' WHEN s.synced_at IS NULL THEN 'waiting' ELSE 'ok' END, s.problem, s.synced_at,
         (SELECT count(*) FROM odin.remote_tools r JOIN odin.tools t ON t.name = r.tool AND t.active WHERE r.server_id = s.id),
         (SELECT jsonb_object_agg(r.remote_name, r.refused) FROM odin.remote_tools r WHERE r.server_id = s.id AND r.refused IS NOT NULL)
    FROM odin.remote_servers s ORDER BY s.id;
$f$;
COMMENT ON FUNCTION odin.list_remote_servers() IS 'Lists the remote MCP servers whose tools the farm offers, whether they answer, and which of their tools are refused and why.';

-- What every tool of a remote server does: it puts the call on the list. Only the tools' own functions may run it.
CREATE OR REPLACE FUNCTION odin._remote_call(server bigint, remote_name text, arguments jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  s odin.remote_servers;
  task text;
BEGIN
  SELECT * INTO s FROM odin.remote_servers x WHERE x.id = server AND x.is_active;
  IF NOT FOUND THEN PERFORM odin.fail('remote_server_not_found', 'the remote server of this tool was switched off'); END IF;
  PERFORM odin.would(jsonb_build_object('action', 'remote_call', 'server', s.name, 'tool', remote_name, 'arguments', arguments));
  -- Once: nobody knows what a call that broke off did there.
  task := odin.start_task('remote', jsonb_build_object('server_id', s.id, 'tool', remote_name, 'arguments', arguments), format('waiting to call %s', s.name), max_attempts => 1);
  RETURN jsonb_build_object('task_id', task, 'task_state', 'queued', 'hint', format('%s of %s is being called as task %s; call get_task for its end.', remote_name, s.name, task));
END $f$;

-- For sidecars. Servers whose list is due, each given to one sidecar.
CREATE OR REPLACE FUNCTION odin.worker_remote_due() RETURNS jsonb
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  WITH due AS (SELECT s.id FROM odin.remote_servers s WHERE s.is_active AND s.sync_due <= clock_timestamp() ORDER BY s.sync_due LIMIT 4 FOR UPDATE SKIP LOCKED),
  taken AS (UPDATE odin.remote_servers s SET sync_due = clock_timestamp() + interval '2 minutes' FROM due WHERE s.id = due.id RETURNING s.id)
  SELECT coalesce(jsonb_agg(t.id), '[]') FROM taken t;
$f$;
COMMENT ON FUNCTION odin.worker_remote_due() IS 'Remote servers whose tools should be asked for now.';

CREATE OR REPLACE FUNCTION odin.worker_remote_server(server bigint) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
  SELECT coalesce((SELECT jsonb_build_object('id', s.id, 'name', s.name, 'url', s.url, 'sealed', x.sealed) FROM odin.remote_servers s LEFT JOIN odin_private.remote_secrets x ON x.server_id = s.id WHERE s.id = server AND s.is_active), '{}');
$f$;
COMMENT ON FUNCTION odin.worker_remote_server(bigint) IS 'Where a remote server is, and its sealed header.';

-- One tool as its server lists it, registered; the reason when it cannot be.
CREATE OR REPLACE FUNCTION odin._remote_tool(s odin.remote_servers, tool text, listed jsonb) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  fn text := format('odin_call.%I', 'remote_' || tool);
  schema jsonb := CASE WHEN jsonb_typeof(listed->'inputSchema') = 'object' THEN listed->'inputSchema' ELSE '{}' END;
  -- These are the farm's own business, even where the remote tool knows such arguments too: a preview calls nobody.
  own constant jsonb := '{"idempotency_key": {"type": "string", "maxLength": 255}, "dry_run": {"type": "boolean", "description": "Preview only."}, "preview_token": {"type": "string", "maxLength": 2000}}'
    || CASE WHEN s.confirm = 'confirm' THEN '{"confirm": {"type": "boolean", "default": false, "description": "false: preview only."}}'::jsonb WHEN s.confirm = 'human' THEN '{"approval_reason": {"type": "string", "maxLength": 500, "description": "Why, for the person who has to approve."}}' ELSE '{}' END;
BEGIN
  EXECUTE format($q$CREATE OR REPLACE FUNCTION %s(_arguments jsonb) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L$q$, fn,
    format('BEGIN RETURN odin._remote_call(%s, %L, _arguments); END', s.id, listed->>'name'));
  EXECUTE format('REVOKE ALL ON FUNCTION %1$s(jsonb) FROM PUBLIC, odin_viewer, odin_operator, odin_admin; GRANT EXECUTE ON FUNCTION %1$s(jsonb) TO %2$I', fn, s.callers);
  PERFORM odin._register('tool', jsonb_strip_nulls(jsonb_build_object('function', fn || '(jsonb)', 'name', tool, 'title', left(listed->>'title', 200),
    'description', left(format('[%s] %s', s.name, coalesce(nullif(btrim(listed->>'description'), ''), listed->>'name')), 4000), 'scope', 'write', 'area', 'remote', 'toolset', 'remote', 'confirm', s.confirm,
    'hints', jsonb_build_object('open_world', true, 'destructive', coalesce((listed#>>'{annotations,destructiveHint}')::boolean, NOT coalesce((listed#>>'{annotations,readOnlyHint}')::boolean, false)),
      'idempotent', coalesce((listed#>>'{annotations,idempotentHint}')::boolean, (listed#>>'{annotations,readOnlyHint}')::boolean, false)),
    'input', schema || jsonb_build_object('type', 'object', 'properties', coalesce(schema->'properties', '{}') || own), 'control', (SELECT jsonb_agg(k) FROM jsonb_object_keys(own) k))));
  RETURN NULL;
EXCEPTION WHEN SQLSTATE 'OD036' OR data_exception OR program_limit_exceeded THEN
  RETURN left(SQLERRM, 500);
END $f$;

CREATE OR REPLACE FUNCTION odin.worker_remote_tools(server bigint, listed jsonb) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  s odin.remote_servers;
  item jsonb;
  name text;
  reason text;
  gone record;
  kept int := 0;
BEGIN
  SELECT * INTO s FROM odin.remote_servers x WHERE x.id = server FOR UPDATE;
  IF NOT FOUND THEN RETURN '{"ok": false}'; END IF;
  -- The one way for a sidecar to change the registry; humans_only on its tables looks for it.
  PERFORM set_config('odin.remote_sync', 'on', true);
  FOR item IN SELECT * FROM jsonb_array_elements(listed) WITH ORDINALITY e(v, n) WHERE n <= 500 AND length(v->>'name') BETWEEN 1 AND 200 LOOP
    name := left(s.name || '_' || regexp_replace(item->>'name', '[^A-Za-z0-9_-]+', '_', 'g'), 56);
    CONTINUE WHEN EXISTS (SELECT 1 FROM odin.remote_tools r WHERE r.tool = name AND (r.server_id, r.remote_name) IS DISTINCT FROM (s.id, item->>'name'));
    reason := odin._remote_tool(s, name, item);
    INSERT INTO odin.remote_tools AS r (server_id, remote_name, tool, refused) VALUES (s.id, item->>'name', name, reason)
    ON CONFLICT (server_id, remote_name) DO UPDATE SET refused = excluded.refused, tool = excluded.tool;
    IF reason IS NULL THEN kept := kept + 1; END IF;
  END LOOP;
  FOR gone IN SELECT t.* FROM odin.remote_tools r JOIN odin.tools t ON t.name = r.tool AND t.active WHERE r.server_id = s.id
      AND (r.refused IS NOT NULL OR NOT EXISTS (SELECT 1 FROM jsonb_array_elements(listed) e WHERE e->>'name' = r.remote_name)) LOOP
    UPDATE odin.tools t SET active = false, inactive_reason = format('%s does not offer it any more', s.name), version = t.version + 1 WHERE t.id = gone.id;
    PERFORM odin._registry_changed(gone.name, 'deactivated', gone.version + 1, gone.listing, NULL);
  END LOOP;
  PERFORM set_config('odin.remote_sync', 'off', true);
  UPDATE odin.remote_servers x SET synced_at = clock_timestamp(), failures = 0, problem = NULL, sync_due = clock_timestamp() + x.sync_every WHERE x.id = s.id;
  RETURN jsonb_build_object('ok', true, 'tools', kept);
END $f$;
COMMENT ON FUNCTION odin.worker_remote_tools(bigint, jsonb) IS 'What a remote server lists: new and changed tools are registered, vanished ones switched off.';

CREATE OR REPLACE FUNCTION odin.worker_remote_failed(server bigint, said text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  -- Its tools stay: a call to one that is away says so.
  UPDATE odin.remote_servers x SET failures = x.failures + 1, problem = left(said, 500), sync_due = clock_timestamp() + least(x.sync_every, power(2, least(x.failures, 8)) * interval '5 seconds') WHERE x.id = server;
  RETURN FOUND;
END $f$;
COMMENT ON FUNCTION odin.worker_remote_failed(bigint, text) IS 'Why a remote server could not be asked; it is asked again later.';

GRANT EXECUTE ON FUNCTION odin.add_remote_server(text, text, text, text, interval), odin.remove_remote_server(text), odin.set_remote_secret(text, text, text, text, boolean) TO odin_admin;
GRANT EXECUTE ON FUNCTION odin.list_remote_servers() TO odin_operator;
GRANT EXECUTE ON FUNCTION odin.worker_remote_due(), odin.worker_remote_server(bigint), odin.worker_remote_tools(bigint, jsonb), odin.worker_remote_failed(bigint, text) TO odin_worker;
