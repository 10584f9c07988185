-- Who may do what to which table, tried out as each role rather than read from the catalog; and the policies under it.
-- c, r, u, d: create, read, update (any column), delete; T: truncate, which nobody may. Rows are another matter: see the policies.
\pset format unaligned
\pset tuples_only on
CREATE FUNCTION pg_temp.may(who name, t regclass, verb text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  sql text := CASE verb WHEN 'c' THEN format('INSERT INTO %s DEFAULT VALUES', t) WHEN 'r' THEN format('SELECT 1 FROM %s LIMIT 0', t) WHEN 'd' THEN format('DELETE FROM %s WHERE false', t) WHEN 'T' THEN format('TRUNCATE %s', t) END;
  col text;
BEGIN
  EXECUTE format('SET LOCAL ROLE %I', who);
  IF verb = 'u' THEN
    FOR col IN SELECT attname FROM pg_attribute WHERE attrelid = t AND attnum > 0 AND NOT attisdropped AND attgenerated = '' AND attidentity <> 'a' LOOP
      BEGIN
        EXECUTE format('UPDATE %s SET %I = %2$I WHERE false', t, col);
        RETURN 'u';
      EXCEPTION WHEN insufficient_privilege THEN NULL;
      END;
    END LOOP;
    RETURN '-';
  END IF;
  BEGIN
    EXECUTE sql;
    RAISE EXCEPTION 'undo';
  EXCEPTION
    WHEN insufficient_privilege THEN RETURN CASE WHEN SQLERRM LIKE 'permission denied%' THEN '-' ELSE verb END;
    WHEN OTHERS THEN RETURN verb;
  END;
END $$;
SELECT t::regclass || E'\t' || string_agg(replace(who, 'odin_', '') || ' ' || letters, '  ' ORDER BY n)
  FROM (SELECT c.oid AS t, r.who, r.n, (SELECT string_agg(pg_temp.may(r.who, c.oid, v), '' ORDER BY m) FROM unnest(ARRAY['c', 'r', 'u', 'd', 'T']) WITH ORDINALITY u(v, m)) AS letters
          FROM pg_class c, unnest(ARRAY['odin_viewer', 'odin_operator', 'odin_admin', 'odin_customer', 'odin_bi', 'odin_gateway', 'odin_worker']) WITH ORDINALITY r(who, n)
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace::regnamespace::text IN ('odin', 'odin_private')) x
 WHERE letters <> '-----' GROUP BY t ORDER BY t::regclass::text COLLATE "C";
RESET ROLE;
-- Tables that no role reaches at all.
SELECT string_agg(c.oid::regclass::text, ' ' ORDER BY c.oid::regclass::text COLLATE "C") FROM pg_class c
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace::regnamespace::text IN ('odin', 'odin_private')
   AND NOT EXISTS (SELECT 1 FROM unnest(ARRAY['odin_viewer', 'odin_operator', 'odin_admin', 'odin_customer', 'odin_bi', 'odin_gateway', 'odin_worker']) r WHERE has_table_privilege(r, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') OR has_any_column_privilege(r, c.oid, 'SELECT, INSERT, UPDATE'));
-- Nobody but the owner has TRUNCATE, REFERENCES or TRIGGER anywhere, nor any grant option.
SELECT c.oid::regclass, a.grantee::regrole, a.privilege_type, a.is_grantable FROM pg_class c, aclexplode(c.relacl) a
 WHERE c.relnamespace::regnamespace::text LIKE 'odin%' AND a.grantee <> c.relowner AND (a.privilege_type IN ('TRUNCATE', 'REFERENCES', 'TRIGGER') OR a.is_grantable);
-- The policies: what they say, and on how many tables.
SELECT polname, polcmd, polpermissive, (SELECT string_agg(r::regrole::text, ',' ORDER BY r::regrole::text) FROM unnest(polroles) r), pg_get_expr(polqual, polrelid), count(*)
  FROM pg_policy GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 5;
-- Every guarded table has the staff's policy, and the customers' if it has the column.
SELECT g.table_name FROM odin.guarded_tables g WHERE to_regclass(g.table_name) IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = g.table_name::regclass AND p.polname = 'odin_staff_all')
    OR g.customer_column IS NOT NULL AND NOT EXISTS (SELECT 1 FROM pg_policy p WHERE p.polrelid = g.table_name::regclass AND p.polname = 'odin_customer_select') ORDER BY 1;
-- Tables of an org's rows that are not guarded.
SELECT a.attrelid::regclass FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE a.attname = 'org_id' AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'odin'::regnamespace AND NOT EXISTS (SELECT 1 FROM odin.guarded_tables g WHERE g.table_name::regclass = a.attrelid) ORDER BY a.attrelid::regclass::text COLLATE "C";
