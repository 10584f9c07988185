-- What CREATE EXTENSION leaves: code that belongs to the extension, data that does not.
\pset format unaligned
SELECT extversion = odin._code_version() AS version_fits FROM pg_extension WHERE extname = 'odin_farm';
SELECT t.kind, count(*) FROM pg_depend d, pg_identify_object(d.classid, d.objid, 0) AS t(kind, schema, name, identity)
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'odin_farm')
   AND t.kind <> 'function' GROUP BY 1 ORDER BY 1;
SELECT rolname, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname LIKE 'odin%' ORDER BY 1;
SELECT nspname, pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname LIKE 'odin%' ORDER BY 1;
-- A second install changes nothing.
SELECT odin.install();
