-- The last step of an install or update: guards, policies, grants, seeds; and the farm's clock.
-- Runs again at every update, so everything here is idempotent.

-- The clock. The sidecar calls it every few seconds; one at a time, and harmless at any rate.
CREATE OR REPLACE FUNCTION odin.tick() RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  sealed int;
  pruned bigint;
BEGIN
  PERFORM odin._audit_ahead();
  sealed := odin.seal_audit();
  DELETE FROM odin.idempotency i WHERE i.ctid = ANY (ARRAY(SELECT x.ctid FROM odin.idempotency x WHERE x.expires_at < now() LIMIT 5000));
  GET DIAGNOSTICS pruned = ROW_COUNT;
  DELETE FROM odin.login_failures WHERE minute < now() - interval '30 days';
  UPDATE odin.consents SET state = 'expired' WHERE state IN ('pending', 'approved') AND expires_at < now();
  PERFORM odin._expire_tasks();
  PERFORM odin._expire_bridge();
  DELETE FROM odin_private.sign_ins WHERE expires_at < now() - interval '1 hour';
  PERFORM odin._collect_files();
  PERFORM odin._move_objects();
  PERFORM odin.telemetry_partitions();
  PERFORM odin._farm_clock();
  RETURN jsonb_build_object('sealed', sealed, 'pruned', pruned, 'seal', (SELECT jsonb_build_object('n', n, 'rows', row_count, 'digest', encode(digest, 'hex')) FROM odin.audit_seals ORDER BY n DESC LIMIT 1));
END $f$;
COMMENT ON FUNCTION odin.tick() IS 'The farm''s clock: seals the audit, prepares partitions, drops what has expired. The sidecar calls it; calling it more often does no harm.';

CREATE OR REPLACE FUNCTION odin._finish_install() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t text;
  s text;
BEGIN
  INSERT INTO odin_private.secrets VALUES ('seal', decode(odin._random_hex(32), 'hex')) ON CONFLICT DO NOTHING;
  PERFORM odin._guard_audit();
  FOREACH t IN ARRAY ARRAY['odin.members', 'odin.access_rules', 'odin_private.keys', 'odin.issuers', 'odin.guarded_tables', 'odin.tools', 'odin.toolsets', 'odin.tool_aliases'] LOOP
    CONTINUE WHEN EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = t::regclass AND tgname = 'humans_only');
    EXECUTE format('CREATE TRIGGER humans_only BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION odin._humans_only_trigger()', t);
  END LOOP;
  DROP POLICY IF EXISTS odin_members_of_org ON odin.members;
  CREATE POLICY odin_members_of_org ON odin.members FOR SELECT TO odin_admin USING (org_id = ANY (ARRAY(SELECT odin.orgs_of(current_user))));
  PERFORM odin.apply_access();
  -- Functions are born executable by everybody; nothing of ours stays so.
  FOREACH s IN ARRAY ARRAY['odin', 'odin_call', 'odin_private'] LOOP
    EXECUTE (SELECT coalesce(string_agg(format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', p.oid::regprocedure), ';'), 'SELECT 1') FROM pg_proc p
              WHERE p.pronamespace = s::regnamespace AND p.proowner = 'odin_owner'::regrole AND EXISTS (SELECT 1 FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0));
  END LOOP;
  GRANT EXECUTE ON FUNCTION odin.orgs_of(name), odin.customers_of(name), odin.colleagues_of(name), odin.my_org(), odin.fail(text, text, text, jsonb), odin._refuse_argument(text, text, text, text, text), odin.cursor_decode(text), odin.cursor_encode(jsonb), odin._unbase64url(text),
    odin.call(text, jsonb, jsonb), odin._call_changes(), odin.list_keys(), odin.progress(numeric, numeric, text), odin.log(text, jsonb) TO odin_viewer, odin_customer, odin_bi;
  REVOKE EXECUTE ON FUNCTION odin._memberships(name) FROM odin_viewer, odin_customer, odin_bi;
  -- Customers' logins had these once; now they read columns, and views of their own.
  REVOKE SELECT ON odin.order_view FROM odin_customer;
  REVOKE EXECUTE ON FUNCTION odin._setting(bigint, text, text), odin._priority(text), odin._color(text, text), odin._material(text), odin._may(bigint, name), odin._not_null(anyelement, text), odin._currency(bigint),
    odin._mine(text, bigint, text, name), odin._new_in(name), odin._estimate(bigint), odin._threshold(bigint, text) FROM odin_customer;
  REVOKE INSERT, UPDATE, DELETE ON odin.reference_printers, odin.reference_filaments, odin.reference_platforms FROM odin_admin;
  GRANT EXECUTE ON FUNCTION odin.search_tools(text, int), odin.call_tool(text, jsonb) TO odin_viewer, odin_customer;
  GRANT EXECUTE ON FUNCTION odin.verify_audit() TO odin_operator;
  GRANT EXECUTE ON FUNCTION odin.mint_key, odin.revoke_key(bigint), odin.rotate_key(bigint, interval, text), odin.client_configs(text, text, text) TO odin_viewer, odin_customer;
  GRANT SELECT ON odin.keys TO odin_viewer, odin_customer;
  GRANT EXECUTE ON FUNCTION odin.add_member(text, bigint, bigint), odin.remove_member(text, bigint), odin.apply_access(), odin.guard_table(text, boolean, text), odin.approve_call(bigint, interval),
    odin.deny_call(bigint, text, interval), odin.register_tool, odin.register_prompt, odin.register_resource, odin.unregister_tool(text), odin.sync_tools() TO odin_admin;
  GRANT EXECUTE ON FUNCTION odin.gateway_call(text, text, jsonb, jsonb), odin.gateway_authenticate(text, jsonb), odin.gateway_tools(text, jsonb), odin.gateway_prompts(text, jsonb),
    odin.gateway_resources(text, jsonb), odin.gateway_resource_templates(text, jsonb), odin.gateway_prompt_get(text, text, jsonb, jsonb), odin.gateway_resource_read(text, text, jsonb),
    odin.gateway_complete(text, jsonb, jsonb, jsonb), odin.gateway_version(), odin.gateway_decide(text, bigint, boolean, jsonb) TO odin_gateway;
  GRANT EXECUTE ON FUNCTION odin.tick(), odin.gateway_version() TO odin_worker;
END $f$;

-- A farm to try: an org, three people's roles and a key for each. Keys are returned once; roles that exist keep their keys.
CREATE OR REPLACE FUNCTION odin.demo_org() RETURNS TABLE(role text, key text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  org bigint;
  r record;
BEGIN
  PERFORM odin._humans_only('making the demo org');
  INSERT INTO odin.orgs(name) VALUES ('Demo Farm') ON CONFLICT (name) DO NOTHING;
  SELECT id INTO org FROM odin.orgs WHERE name = 'Demo Farm';
  FOR r IN SELECT * FROM (VALUES ('viewer', '{agent:read}'), ('operator', '{agent:read,agent:write}'), ('admin', '{agent:read,agent:write,admin}')) v(level, scopes) LOOP
    role := 'demo_' || r.level;
    IF to_regrole(role) IS NULL THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role);
    END IF;
    IF NOT pg_has_role(role, 'odin_' || r.level, 'MEMBER') THEN EXECUTE format('GRANT %I TO %I', 'odin_' || r.level, role); END IF;
    PERFORM odin.add_member(role, org);
    SELECT m.key INTO key FROM odin.mint_key('demo ' || r.level, r.scopes::text[], NULL, role) m;
    RETURN NEXT;
  END LOOP;
END $f$;
COMMENT ON FUNCTION odin.demo_org() IS 'Makes the org Demo Farm with a viewer, an operator and an administrator, and mints a key for each (returned once). For superusers.';
