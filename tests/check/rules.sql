-- What every build of the farm must keep, as (rule, object) for each break. Reads the catalogs only.
-- tests/check/allowed.txt holds the breaks that are meant.
WITH ours AS (
  SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('odin', 'odin_bi', 'odin_call', 'odin_private')
), members AS (
  SELECT classid, objid FROM pg_depend
   WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'odin_farm')
), functions AS (
  SELECT p.*, o.nspname FROM pg_proc p JOIN ours o ON o.oid = p.pronamespace
), relations AS (
  SELECT c.*, o.nspname FROM pg_class c JOIN ours o ON o.oid = c.relnamespace WHERE NOT c.relispartition
), indexed AS (  -- the leading columns of each index that can be used for any value
  SELECT i.indrelid, i.indkey::int2[] AS keys, i.indnkeyatts AS n FROM pg_index i
   WHERE i.indisvalid AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) ~* '^\(?\(?[a-z_]+ IS NOT NULL\)?\)?$')
)
SELECT 'a SECURITY DEFINER function pins no search_path' AS rule, f.oid::regprocedure::text AS object
  FROM functions f WHERE f.prosecdef AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (f.proconfig), false)
UNION ALL
SELECT 'PUBLIC may execute it', f.oid::regprocedure::text
  FROM functions f, aclexplode(coalesce(f.proacl, acldefault('f', f.proowner))) a WHERE a.grantee = 0
UNION ALL
SELECT 'PUBLIC may use it', format('%s (%s)', r.oid::regclass, a.privilege_type)
  FROM relations r, aclexplode(r.relacl) a WHERE a.grantee = 0
UNION ALL
SELECT 'PUBLIC may use a column', format('%s.%I', r.oid::regclass, t.attname)
  FROM relations r JOIN pg_attribute t ON t.attrelid = r.oid, aclexplode(t.attacl) a WHERE a.grantee = 0
UNION ALL
SELECT 'PUBLIC may use the schema', o.nspname FROM ours o JOIN pg_namespace n USING (oid), aclexplode(n.nspacl) a WHERE a.grantee = 0
UNION ALL
SELECT 'it has no comment', f.oid::regprocedure::text
  FROM functions f WHERE f.nspname IN ('odin', 'odin_bi') AND f.proname !~ '^_' AND obj_description(f.oid, 'pg_proc') IS NULL
UNION ALL
SELECT 'it has no comment', r.oid::regclass::text
  FROM relations r WHERE r.nspname IN ('odin', 'odin_bi') AND r.relkind IN ('r', 'p', 'v', 'm') AND r.relname !~ '^_' AND obj_description(r.oid, 'pg_class') IS NULL
UNION ALL
SELECT 'several functions of one name', string_agg(f.oid::regprocedure::text, ', ' ORDER BY f.oid)
  FROM functions f GROUP BY f.pronamespace, f.proname HAVING count(*) > 1
UNION ALL
SELECT 'the extension owns it, so a dump would lose it', pg_describe_object(m.classid, m.objid, 0)
  FROM members m WHERE m.classid <> 'pg_proc'::regclass
UNION ALL
SELECT 'a dump would leave out its grants (pg_init_privs)', pg_describe_object(i.classoid, i.objoid, 0)
  FROM pg_init_privs i WHERE (i.classoid, i.objoid) NOT IN (SELECT classid, objid FROM members)
   AND (i.classoid = 'pg_proc'::regclass AND i.objoid IN (SELECT oid FROM functions) OR i.classoid = 'pg_class'::regclass AND i.objoid IN (SELECT oid FROM relations)
        OR i.classoid = 'pg_namespace'::regclass AND i.objoid IN (SELECT oid FROM ours WHERE nspname <> 'odin'))
UNION ALL
SELECT 'odin_owner does not own it', f.oid::regprocedure::text
  FROM functions f WHERE f.proowner <> 'odin_owner'::regrole AND NOT EXISTS (SELECT 1 FROM members m WHERE m.classid = 'pg_proc'::regclass AND m.objid = f.oid)
UNION ALL
SELECT 'odin_owner does not own it', r.oid::regclass::text
  FROM relations r WHERE r.relkind IN ('r', 'p', 'v', 'm', 'S') AND r.relowner <> 'odin_owner'::regrole
UNION ALL
SELECT 'a view runs with its owner''s rights', r.oid::regclass::text
  FROM relations r WHERE r.relkind = 'v' AND NOT coalesce('security_invoker=true' = ANY (r.reloptions), false)
UNION ALL
SELECT 'a table with org_id has no row-level security', r.oid::regclass::text
  FROM relations r JOIN pg_attribute t ON t.attrelid = r.oid AND t.attname = 'org_id' AND t.attnum > 0
 WHERE r.relkind IN ('r', 'p') AND r.nspname = 'odin' AND NOT r.relrowsecurity
UNION ALL
SELECT 'no index leads with a column its policies use', format('%s.%I', r.oid::regclass, t.attname)
  FROM relations r JOIN pg_attribute t ON t.attrelid = r.oid AND t.attnum > 0
 WHERE r.relkind IN ('r', 'p') AND r.relrowsecurity
   AND EXISTS (SELECT 1 FROM pg_policy p JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                WHERE p.polrelid = r.oid AND d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid AND d.refobjsubid = t.attnum)
   AND NOT EXISTS (SELECT 1 FROM indexed l WHERE l.indrelid = r.oid AND l.keys[0] = t.attnum)
UNION ALL
-- A composite key may be served by an index that leads with its more telling column; reference tables shared by all orgs never lose a row.
SELECT 'a foreign key has no index', format('%s %I', r.oid::regclass, k.conname)
  FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid
 WHERE k.contype = 'f' AND EXISTS (SELECT 1 FROM pg_attribute t WHERE t.attrelid = k.confrelid AND (t.attname = 'org_id' OR k.confrelid = 'odin.orgs'::regclass))
   AND NOT EXISTS (
         SELECT 1 FROM indexed l JOIN pg_attribute t ON t.attrelid = l.indrelid AND t.attnum = l.keys[0]
          WHERE l.indrelid = k.conrelid AND l.keys[0] = ANY (k.conkey) AND (cardinality(k.conkey) = 1 OR t.attname <> 'org_id' OR l.keys[1] = ANY (k.conkey)))
ORDER BY 1, 2;
