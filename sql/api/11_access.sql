-- Row-level access: rows in members and access_rules become policies and trail triggers.
-- A policy must never call a function per row: memberships are read once a query. Their plan is the generic one: the server
-- would think a plan for just these roles cheaper, and make it anew for every table of every query.

CREATE OR REPLACE FUNCTION odin._memberships(caller name) RETURNS SETOF odin.members
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 5 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $f$
DECLARE
  roles text[] := odin._roles_of(caller);
BEGIN
  RETURN QUERY SELECT m.* FROM odin.members m WHERE m.role_name = ANY (roles) ORDER BY m.id;
END $f$;

-- Memberships of a role as far as the acting role may know of them: its own, and of others what both share. A person asks for himself (and so do
-- policies, whose current_user he is); a superuser and the farm's service roles ask for anybody.
CREATE OR REPLACE FUNCTION odin._known_memberships(caller name) RETURNS SETOF odin.members
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 5 SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  me name := odin.actor();
BEGIN
  IF caller = me OR (SELECT r.rolsuper OR NOT (pg_has_role(r.oid, 'odin_viewer', 'USAGE') OR pg_has_role(r.oid, 'odin_customer', 'USAGE') OR pg_has_role(r.oid, 'odin_bi', 'USAGE')) FROM pg_roles r WHERE r.rolname = me) THEN
    RETURN QUERY SELECT m.* FROM odin._memberships(caller) m;
  ELSE
    RETURN QUERY SELECT m.* FROM odin._memberships(caller) m WHERE m.org_id IN (SELECT o.org_id FROM odin._memberships(me) o WHERE o.customer_id IS NULL);
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.orgs_of(caller name) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 5 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $f$
DECLARE
  roles text[];
BEGIN
  -- A policy asks about the caller himself, once for each table of a query.
  IF caller = odin.actor() THEN
    roles := odin._roles_of(caller);
    RETURN QUERY SELECT DISTINCT m.org_id FROM odin.members m WHERE m.role_name = ANY (roles) AND m.customer_id IS NULL;
  ELSE
    RETURN QUERY SELECT DISTINCT m.org_id FROM odin._known_memberships(caller) m WHERE m.customer_id IS NULL;
  END IF;
END $f$;
COMMENT ON FUNCTION odin.orgs_of(name) IS 'Orgs a role belongs to as staff, inherited memberships included; of somebody else''s, those you share. For policies: pass current_user.';

-- May whoever acts know of this org? The farm's own services and superusers may of all; for functions that look past row security.
CREATE OR REPLACE FUNCTION odin._sees(org bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  me name := odin.actor();
BEGIN
  RETURN org IN (SELECT odin.orgs_of(me)) OR (SELECT r.rolsuper OR NOT (pg_has_role(r.oid, 'odin_viewer', 'USAGE') OR pg_has_role(r.oid, 'odin_bi', 'USAGE')) FROM pg_roles r WHERE r.rolname = me);
END $f$;

CREATE OR REPLACE FUNCTION odin.customers_of(caller name) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 5 SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS $f$
DECLARE
  roles text[];
BEGIN
  -- A policy asks about the caller himself, once for each table of a query.
  IF caller = odin.actor() THEN
    roles := odin._roles_of(caller);
    RETURN QUERY SELECT DISTINCT m.customer_id FROM odin.members m WHERE m.role_name = ANY (roles) AND m.customer_id IS NOT NULL;
  ELSE
    RETURN QUERY SELECT DISTINCT m.customer_id FROM odin._known_memberships(caller) m WHERE m.customer_id IS NOT NULL;
  END IF;
END $f$;
COMMENT ON FUNCTION odin.customers_of(name) IS 'Customers whose own login a role is. For policies: pass current_user.';

CREATE OR REPLACE FUNCTION odin.colleagues_of(caller name) RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 20 SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  RETURN QUERY SELECT DISTINCT m.role_name FROM odin.members m WHERE m.org_id IN (SELECT odin.orgs_of(caller));
END $f$;
COMMENT ON FUNCTION odin.colleagues_of(name) IS 'Roles that share an org with a role; asked about somebody else, only in the orgs you share. For policies: pass current_user.';

CREATE OR REPLACE FUNCTION odin.my_org() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  -- Inside SECURITY DEFINER current_user is the definer; the actor is right everywhere.
  mine bigint := (SELECT m.org_id FROM odin._memberships(odin.actor()::name) m ORDER BY (m.customer_id IS NOT NULL), m.id LIMIT 1);
BEGIN
  IF mine IS NULL AND (SELECT rolsuper FROM pg_roles WHERE rolname = odin.actor()) THEN
    mine := (SELECT min(id) FROM odin.orgs);
  END IF;
  IF mine IS NULL THEN
    PERFORM odin.fail('permission_denied', format('%s belongs to no org', odin.actor()), 'An administrator adds the role: SELECT odin.add_member(role, org).');
  END IF;
  RETURN mine;
END $f$;
COMMENT ON FUNCTION odin.my_org() IS 'The acting role''s own org: its first membership.';

-- Acts that only a person in the database may do. A key never can, whatever its scope.
CREATE OR REPLACE FUNCTION odin._humans_only(what text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  IF odin.current_call() IS NOT NULL OR session_user = 'odin_gateway' OR session_user = 'odin_worker' THEN
    PERFORM odin.fail('human_only', format('%s is for people in the database; no key can do it', what));
  END IF;
END $f$;

-- The same as a rule on the table: no way around it through a right to write.
CREATE OR REPLACE FUNCTION odin._humans_only_trigger() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  -- What a remote server lists is brought by a sidecar, by that one function. No caller can write these tables himself.
  IF session_user = 'odin_worker' AND current_user = 'odin_owner' AND TG_TABLE_NAME IN ('tools', 'tool_aliases') AND current_setting('odin.remote_sync', true) = 'on' THEN RETURN NULL; END IF;
  PERFORM odin._humans_only(format('changing %s', TG_TABLE_NAME));
  RETURN NULL;
END $f$;

-- One org's administrator decides about that org only; a superuser about all.
CREATE OR REPLACE FUNCTION odin._administers(org bigint) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  who text := odin.actor();
BEGIN
  IF (SELECT rolsuper FROM pg_roles WHERE rolname = who) THEN RETURN; END IF;
  IF org IS NULL OR NOT pg_has_role(who, 'odin_admin', 'USAGE') OR org NOT IN (SELECT odin.orgs_of(who::name)) THEN
    PERFORM odin.fail('permission_denied', format('%s is not an administrator of org %s', who, org), 'An administrator of that org, or a superuser, can do it.');
  END IF;
END $f$;

CREATE OR REPLACE FUNCTION odin.add_member(role_name text, org_id bigint, customer_id bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
#variable_conflict use_column
DECLARE
  made bigint;
BEGIN
  PERFORM odin._humans_only('adding a member');
  PERFORM odin._administers(add_member.org_id);
  PERFORM odin._owner_role(add_member.role_name);
  IF NOT EXISTS (SELECT 1 FROM odin.orgs o WHERE o.id = add_member.org_id) THEN
    PERFORM odin.fail('not_found', format('org_id: there is no org %s', add_member.org_id));
  ELSIF add_member.customer_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM odin.customers c WHERE c.id = add_member.customer_id AND c.org_id = add_member.org_id) THEN
    PERFORM odin.fail('not_found', format('customer_id: org %s has no customer %s', add_member.org_id, add_member.customer_id), NULL, '{"field": "customer_id"}');
  END IF;
  INSERT INTO odin.members(role_name, org_id, customer_id, added_by)
  VALUES (add_member.role_name, add_member.org_id, add_member.customer_id, odin.actor())
  ON CONFLICT (role_name, org_id, (coalesce(customer_id, 0))) DO UPDATE SET role_name = excluded.role_name
  RETURNING id INTO made;
  RETURN made;
END $f$;
COMMENT ON FUNCTION odin.add_member(text, bigint, bigint) IS 'Adds a database role to an org, or makes it a customer''s own login. People only.';

CREATE OR REPLACE FUNCTION odin.remove_member(role_name text, org_id bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  gone bigint;
BEGIN
  PERFORM odin._humans_only('removing a member');
  PERFORM odin._administers(org_id);
  DELETE FROM odin.members m WHERE m.role_name = remove_member.role_name AND m.org_id = remove_member.org_id;
  GET DIAGNOSTICS gone = ROW_COUNT;
  RETURN gone;
END $f$;
COMMENT ON FUNCTION odin.remove_member(text, bigint) IS 'Removes a role from an org; effective at its next query. People only.';

-- Whoever may register tools and mint keys for a colleague could borrow that colleague's rights: none of these may be among them.
CREATE OR REPLACE FUNCTION odin._too_mighty() RETURNS name[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT array_agg(rolname) FROM pg_roles WHERE rolname IN ('odin_owner', 'odin_gateway', 'odin_worker', 'pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program');
$f$;

-- A role that calls may run as: a member of one of the groups, and none of the roles that would break the rules.
CREATE OR REPLACE FUNCTION odin._owner_role(role_name text) RETURNS oid
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  r record;
BEGIN
  SELECT oid, rolsuper, rolbypassrls, rolcreaterole INTO r FROM pg_roles WHERE rolname = role_name;
  IF NOT FOUND THEN
    PERFORM odin.fail('user_not_found', format('role_name: there is no role %s', role_name), format('Create it: CREATE ROLE %I; GRANT odin_operator TO %I;', role_name, role_name));
  ELSIF r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR role_name LIKE 'pg\_%' OR EXISTS (SELECT 1 FROM unnest(odin._too_mighty()) mighty WHERE pg_has_role(r.oid, mighty, 'MEMBER')) THEN
    PERFORM odin.fail('validation_failed', format('role_name: %s may not own keys or be a member: superusers, roles that bypass row security, make roles, reach the server''s files or all data, and the farm''s own service roles are excluded', role_name));
  ELSIF NOT pg_has_role(r.oid, 'odin_viewer', 'MEMBER') AND NOT pg_has_role(r.oid, 'odin_customer', 'MEMBER') AND NOT pg_has_role(r.oid, 'odin_bi', 'MEMBER') THEN
    PERFORM odin.fail('validation_failed', format('role_name: %s is in none of the farm''s groups', role_name), format('GRANT odin_viewer (or odin_operator, odin_admin, odin_customer) TO %I;', role_name));
  END IF;
  RETURN r.oid;
END $f$;

CREATE OR REPLACE FUNCTION odin.apply_access() RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  t record;
  made int := 0;
BEGIN
  PERFORM odin._humans_only('changing access rules');
  FOR t IN SELECT * FROM odin.guarded_tables WHERE to_regclass(table_name) IS NOT NULL LOOP
    made := made + odin._apply_rules(t.table_name, t.org_column, t.customer_column);
    IF t.trail THEN PERFORM odin._apply_trail(t.table_name, t.key_columns); END IF;
  END LOOP;
  -- A guard that guards nothing is a mistake nobody would notice.
  FOR t IN SELECT r.name, r.table_name FROM odin.access_rules r WHERE NOT EXISTS (SELECT 1 FROM pg_policy p WHERE p.polname ~ ('^odin_' || r.name || '_(all|insert|select|update|delete)$')) LOOP
    PERFORM odin.fail('validation_failed', format('access rule %s fits no guarded table', t.name), 'Check its table_name and the columns its filter names.');
  END LOOP;
  RETURN made;
END $f$;
COMMENT ON FUNCTION odin.apply_access() IS 'Makes the policies of all guarded tables from odin.access_rules, and their trail triggers. Run it after changing rules; the answer is the number of policies. People only.';

CREATE OR REPLACE FUNCTION odin._apply_rules(table_name text, org_column text, customer_column text) RETURNS int
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  r record;
  wanted text[] := '{}';
  old name;
  p text;
  cmd text;
  condition text;
BEGIN
  FOR r IN SELECT * FROM odin.access_rules a WHERE a.table_name IN ('*', _apply_rules.table_name) ORDER BY a.name LOOP
    CONTINUE WHEN r.table_name = '*' AND r.filter LIKE '%{customer}%' AND customer_column IS NULL;
    IF NOT odin._is_expression(replace(replace(r.filter, '{org}', 'o'), '{customer}', 'c')) THEN
      PERFORM odin.fail('validation_failed', format('filter: rule %s is not one SQL condition', r.name));
    END IF;
    condition := replace(replace(r.filter, '{org}', quote_ident(org_column)), '{customer}', coalesce(quote_ident(customer_column), 'NULL'));
    -- A rule for * is meant for the tables that have the columns it names.
    CONTINUE WHEN r.table_name = '*' AND NOT odin._has_columns(table_name, condition);
    FOREACH cmd IN ARRAY CASE r.operations WHEN 'crud' THEN ARRAY['ALL'] ELSE odin._commands(r.operations) END LOOP
      p := format('odin_%s_%s', r.name, lower(cmd));
      wanted := wanted || p;
      IF EXISTS (SELECT 1 FROM pg_policy WHERE polrelid = table_name::regclass AND polname = p) THEN EXECUTE format('DROP POLICY %I ON %s', p, table_name); END IF;
      EXECUTE format('CREATE POLICY %I ON %s AS %s FOR %s TO %s %s %s', p, table_name,
        CASE r.kind WHEN 'guard' THEN 'RESTRICTIVE' ELSE 'PERMISSIVE' END, cmd,
        coalesce(quote_ident(r.role_name), 'odin_viewer, odin_customer, odin_bi'),
        CASE WHEN cmd <> 'INSERT' THEN format(E'USING (%s\n)', condition) END,
        CASE WHEN cmd IN ('ALL', 'INSERT', 'UPDATE') THEN format(E'WITH CHECK (%s\n)', condition) END);
    END LOOP;
  END LOOP;
  PERFORM odin._apply_guards(table_name);
  -- Only our own: a policy that somebody wrote by hand stays.
  FOR old IN SELECT polname FROM pg_policy WHERE polrelid = table_name::regclass AND polname LIKE 'odin\_%' AND polname <> ALL (wanted) LOOP
    EXECUTE format('DROP POLICY %I ON %s', old, table_name);
  END LOOP;
  RETURN cardinality(wanted);
END $f$;

-- Does a condition fit a table? Only parsed, never run: LIMIT 0 under an EXPLAIN would still plan it.
CREATE OR REPLACE FUNCTION odin._has_columns(table_name text, condition text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  EXECUTE format(E'CREATE POLICY odin_probe ON %s FOR SELECT USING (%s\n)', table_name, condition);
  EXECUTE format('DROP POLICY odin_probe ON %s', table_name);
  RETURN true;
EXCEPTION WHEN undefined_column THEN
  RETURN false;
END $f$;

CREATE OR REPLACE FUNCTION odin._commands(operations text) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT array_agg(CASE letter WHEN 'c' THEN 'INSERT' WHEN 'r' THEN 'SELECT' WHEN 'u' THEN 'UPDATE' ELSE 'DELETE' END)
    FROM regexp_split_to_table(operations, '') letter;
$f$;

CREATE OR REPLACE FUNCTION odin._apply_trail(table_name text, key_columns text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  op text;
BEGIN
  FOREACH op IN ARRAY ARRAY['insert', 'update', 'delete'] LOOP
    CONTINUE WHEN EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = table_name::regclass AND tgname = 'odin_trail_' || op);
    EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION odin._trail(%s)',
      'odin_trail_' || op, upper(op), table_name,
      CASE op WHEN 'insert' THEN 'REFERENCING NEW TABLE AS new_rows' WHEN 'update' THEN 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
              ELSE 'REFERENCING OLD TABLE AS old_rows' END,
      (SELECT string_agg(quote_literal(k), ', ') FROM unnest(key_columns) k));
  END LOOP;
END $f$;
