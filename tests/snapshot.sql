-- One line per object of the farm, with everything that defines it: two databases that print the same are the same.
-- Column order may differ (a column added by an update comes last), and so may the parentheses of a condition; values are compared by tests/rows.sql.
WITH ours AS (
  SELECT oid, nspname FROM pg_namespace WHERE nspname IN ('odin', 'odin_bi', 'odin_call', 'odin_private')
), relations AS (
  SELECT c.* FROM pg_class c JOIN ours o ON o.oid = c.relnamespace
), functions AS (
  SELECT p.* FROM pg_proc p JOIN ours o ON o.oid = p.pronamespace
), grants AS (
  SELECT 'function ' || oid::regprocedure::text AS object, coalesce(proacl, acldefault('f', proowner)) AS acl FROM functions
  UNION ALL
  SELECT 'relation ' || oid::regclass::text, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner)) FROM relations WHERE relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL
  SELECT format('column %s.%I', r.oid::regclass, t.attname), t.attacl FROM relations r JOIN pg_attribute t ON t.attrelid = r.oid WHERE t.attacl IS NOT NULL
  UNION ALL
  SELECT 'schema ' || nspname, coalesce(n.nspacl, acldefault('n', n.nspowner)) FROM ours JOIN pg_namespace n USING (oid, nspname)
)
SELECT line FROM (
  SELECT format('schema %s owner %s', nspname, nspowner::regrole) FROM ours JOIN pg_namespace n USING (oid, nspname)
  UNION ALL
  SELECT format('relation %s kind %s owner %s rls %s forced %s options %s persistence %s', oid::regclass, relkind, relowner::regrole, relrowsecurity, relforcerowsecurity, reloptions, relpersistence) FROM relations WHERE relkind IN ('r', 'p', 'v', 'm', 'S')
  UNION ALL
  SELECT format('column %s.%I %s null %s identity %s generated %s default %s collation %s', r.oid::regclass, t.attname, format_type(t.atttypid, t.atttypmod), NOT t.attnotnull, t.attidentity, t.attgenerated, pg_get_expr(d.adbin, d.adrelid), t.attcollation::regcollation)
    FROM relations r JOIN pg_attribute t ON t.attrelid = r.oid AND t.attnum > 0 AND NOT t.attisdropped LEFT JOIN pg_attrdef d ON d.adrelid = r.oid AND d.adnum = t.attnum WHERE r.relkind IN ('r', 'p', 'v', 'm')
  UNION ALL
  SELECT format('constraint %s %I %s validated %s', k.conrelid::regclass, k.conname, translate(pg_get_constraintdef(k.oid), '()', ''), k.convalidated) FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid WHERE k.contype <> 'n'
  UNION ALL
  SELECT format('index %s', pg_get_indexdef(oid)) FROM relations WHERE relkind IN ('i', 'I')
  UNION ALL
  SELECT format('trigger %s enabled %s', translate(pg_get_triggerdef(g.oid), '()', ''), g.tgenabled) FROM pg_trigger g JOIN relations r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal
  UNION ALL
  SELECT format('policy %s %I %s permissive %s roles %s using %s check %s', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive,
                (SELECT string_agg(CASE o WHEN 0 THEN 'public' ELSE o::regrole::text END, ',' ORDER BY 1) FROM unnest(p.polroles) o), pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
    FROM pg_policy p JOIN relations r ON r.oid = p.polrelid
  UNION ALL
  SELECT format('view %s %s', oid::regclass, pg_get_viewdef(oid)) FROM relations WHERE relkind IN ('v', 'm')
  UNION ALL
  SELECT format('partition %s of %s %s', r.oid::regclass, i.inhparent::regclass, pg_get_expr(r.relpartbound, r.oid)) FROM relations r JOIN pg_inherits i ON i.inhrelid = r.oid WHERE r.relispartition
  UNION ALL
  SELECT format('function %s owner %s %s', oid::regprocedure, proowner::regrole, pg_get_functiondef(oid)) FROM functions WHERE prokind IN ('f', 'p')
  UNION ALL
  SELECT format('aggregate %s owner %s', oid::regprocedure, proowner::regrole) FROM functions WHERE prokind NOT IN ('f', 'p')
  UNION ALL
  SELECT format('comment %s', regexp_replace(pg_describe_object(c.classoid, c.objoid, c.objsubid), '\s+', ' ', 'g') || ': ' || c.description) FROM pg_description c
   WHERE (c.classoid = 'pg_class'::regclass AND c.objoid IN (SELECT oid FROM relations)) OR (c.classoid = 'pg_proc'::regclass AND c.objoid IN (SELECT oid FROM functions))
      OR (c.classoid = 'pg_namespace'::regclass AND c.objoid IN (SELECT oid FROM ours)) OR (c.classoid = 'pg_constraint'::regclass AND c.objoid IN (SELECT oid FROM pg_constraint WHERE conrelid IN (SELECT oid FROM relations)))
      OR (c.classoid = 'pg_policy'::regclass AND c.objoid IN (SELECT oid FROM pg_policy WHERE polrelid IN (SELECT oid FROM relations)))
  UNION ALL
  SELECT format('grant %s to %s %s by %s%s', g.object, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type, a.grantor::regrole, CASE WHEN a.is_grantable THEN ' grantable' END)
    FROM grants g, aclexplode(g.acl) a
  UNION ALL
  SELECT format('default grant %s %s to %s %s', d.defaclobjtype, n.nspname, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type)
    FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a
  UNION ALL
  SELECT format('type %s owner %s %s', t.oid::regtype, t.typowner::regrole, t.typtype) FROM pg_type t JOIN ours o ON o.oid = t.typnamespace WHERE t.typtype NOT IN ('b', 'c') OR (t.typtype = 'c' AND t.typrelid IN (SELECT oid FROM pg_class WHERE relkind = 'c'))
  UNION ALL
  SELECT format('member %s', pg_describe_object(d.classid, d.objid, 0)) FROM pg_depend d
   WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'odin_farm')
) x(line)
ORDER BY line COLLATE "C";
