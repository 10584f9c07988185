-- Guards for verbs. A policy guards what a person does himself; the farm's verbs run with the farm's own rights, so for them every guard of
-- odin.access_rules is a trigger and a question asked before reading. Both look at who acts, not at whose rights are used.

-- Does a rule speak to this role? The database's own administrator and the farm's service roles are beyond rules, as they are beyond policies.
CREATE OR REPLACE FUNCTION odin._rule_binds(r odin.access_rules, who name) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT NOT x.rolsuper AND CASE WHEN r.role_name IS NOT NULL THEN coalesce(pg_has_role(x.oid, to_regrole(quote_ident(r.role_name)), 'USAGE'), false)
    ELSE pg_has_role(x.oid, 'odin_viewer', 'USAGE') OR pg_has_role(x.oid, 'odin_customer', 'USAGE') OR pg_has_role(x.oid, 'odin_bi', 'USAGE') END
    FROM pg_roles x WHERE x.rolname = who;
$f$;

-- A rule's condition on one table, with the acting role where it says current_user.
CREATE OR REPLACE FUNCTION odin._rule_condition(r odin.access_rules, of_table text, who name) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $f$
  SELECT regexp_replace(replace(replace(r.filter, '{org}', quote_ident(g.org_column)), '{customer}', coalesce(quote_ident(g.customer_column), 'NULL')), '\mcurrent_user\M', quote_literal(who) || '::name', 'gi')
    FROM odin.guarded_tables g WHERE g.table_name = of_table;
$f$;

CREATE OR REPLACE FUNCTION odin._guard() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  who name := odin.actor();
  r odin.access_rules;
  fine boolean := true;
  asked text;
BEGIN
  SELECT * INTO r FROM odin.access_rules a WHERE a.name = TG_ARGV[0];
  IF r.id IS NULL OR strpos(r.operations, CASE TG_OP WHEN 'INSERT' THEN 'c' WHEN 'UPDATE' THEN 'u' ELSE 'd' END) = 0 OR odin._rule_binds(r, who) IS NOT TRUE THEN RETURN NULL; END IF;
  asked := format('SELECT coalesce((%s), false) FROM (SELECT ($1::%s).*) AS %I', odin._rule_condition(r, TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, who), TG_RELID::regclass, TG_TABLE_NAME);
  IF TG_OP <> 'INSERT' THEN EXECUTE asked INTO fine USING OLD; END IF;
  IF fine AND TG_OP <> 'DELETE' THEN EXECUTE asked INTO fine USING NEW; END IF;
  IF NOT fine THEN
    PERFORM odin.fail('permission_denied', format('the rule %s keeps %s from this %s of %s', r.name, who, lower(TG_OP), TG_TABLE_NAME), r.comment, jsonb_build_object('rule', r.name));
  END IF;
  RETURN NULL;
END $f$;

-- Triggers for the guards of one table, none for guards that are gone; odin.apply_access() calls it.
CREATE OR REPLACE FUNCTION odin._apply_guards(of_table text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  wanted text[] := ARRAY(SELECT 'odin_guard_' || a.name FROM odin.access_rules a WHERE a.kind = 'guard' AND a.operations ~ '[cud]' AND a.table_name IN ('*', of_table)
    AND EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = of_table::regclass AND p.polname ~ ('^odin_' || a.name || '_(all|insert|update|delete)$')));
  t name;
BEGIN
  FOR t IN SELECT g.tgname FROM pg_trigger g WHERE g.tgrelid = of_table::regclass AND g.tgname LIKE 'odin\_guard\_%' AND g.tgname <> ALL (wanted) LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', t, of_table);
  END LOOP;
  FOREACH t IN ARRAY wanted LOOP
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION odin._guard(%L)', t, of_table, substr(t, 12));
  END LOOP;
END $f$;

-- Guards on reading that bind the acting role, as one condition on a table; NULL when there are none, as nearly always.
CREATE OR REPLACE FUNCTION odin._read_guards(of_table text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  who name := odin.actor();
  r odin.access_rules;
  all_of text[] := '{}';
BEGIN
  FOR r IN SELECT * FROM odin.access_rules a WHERE a.kind = 'guard' AND strpos(a.operations, 'r') > 0 AND a.table_name IN ('*', of_table) LOOP
    CONTINUE WHEN odin._rule_binds(r, who) IS NOT TRUE
      OR NOT EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = of_table::regclass AND p.polname ~ ('^odin_' || r.name || '_(all|select)$'));
    all_of := all_of || format('coalesce((%s), false)', odin._rule_condition(r, of_table, who));
  END LOOP;
  RETURN nullif(array_to_string(all_of, ' AND '), '');
END $f$;

-- Is a row hidden from the acting role by a guard?
CREATE OR REPLACE FUNCTION odin._is_hidden(of_table text, row_id bigint) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  condition text := odin._read_guards(of_table);
  seen boolean;
BEGIN
  IF condition IS NULL THEN RETURN false; END IF;
  EXECUTE format('SELECT EXISTS (SELECT 1 FROM %s WHERE id = $1 AND %s)', of_table::regclass, condition) INTO seen USING row_id;
  RETURN NOT seen;
END $f$;

-- Printers of an org that a guard hides from the acting role; NULL when no guard does.
CREATE OR REPLACE FUNCTION odin._hidden_printers(org bigint) RETURNS bigint[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
DECLARE
  condition text := odin._read_guards('odin.printers');
  ids bigint[];
BEGIN
  IF condition IS NULL THEN RETURN NULL; END IF;
  EXECUTE format('SELECT array_agg(id) FROM odin.printers WHERE org_id = $1 AND NOT (%s)', condition) INTO ids USING org;
  RETURN ids;
END $f$;
