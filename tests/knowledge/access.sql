-- 50 orgs with a passage each and a role that belongs to two of them; know_leaks() asks in every way for what is not its own.
DO $$ BEGIN IF to_regrole('know_clerk') IS NULL THEN CREATE ROLE know_clerk; END IF; END $$;
GRANT odin_viewer TO know_clerk;
INSERT INTO odin.orgs(name) SELECT 'Know ' || k FROM generate_series(1, 50) k;
SELECT odin.add_member('know_clerk', id) FROM odin.orgs WHERE name IN ('Know 7', 'Know 31');
SELECT odin._put_passages(o.id, odin._make_collection(o.id, 'notes', 'documents', NULL), NULL, 'model', 1000000 + o.id, ARRAY['Note'], ARRAY[format('The walrus of %s sleeps.', o.name)]) FROM odin.orgs o WHERE o.name LIKE 'Know %';
CREATE TABLE know_owner AS SELECT id, org_id FROM odin.chunks;
CREATE TABLE know_orgs AS SELECT id, name FROM odin.orgs;
GRANT SELECT ON know_owner, know_orgs TO know_clerk;
CREATE FUNCTION know_seen() RETURNS TABLE(how text, org text) LANGUAGE sql AS $$
  WITH ways AS (
    SELECT 'table' AS how, c.id FROM odin.chunks c
    UNION ALL SELECT 'found', chunk_id FROM odin._found_passages(NULL, NULL, 'walrus', NULL, NULL, 500)
    UNION ALL SELECT 'ranked with every org', chunk_id FROM odin._rank_passages(ARRAY(SELECT generate_series(1::bigint, 200)), NULL, NULL, 'walrus', NULL, NULL, 500)
    UNION ALL SELECT 'misspelt', chunk_id FROM odin._found_passages(NULL, NULL, 'wallrus', NULL, NULL, 500)
    UNION ALL SELECT 'vectors', e.chunk_id FROM odin.embeddings e)
  SELECT w.how, o.name FROM ways w LEFT JOIN know_owner c ON c.id = w.id LEFT JOIN know_orgs o ON o.id = c.org_id;
$$;
-- A guard on top: of its two orgs one is closed. Only the way that asks under its own policies is left then.
CREATE FUNCTION know_leaks() RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  r record;
BEGIN
  SET LOCAL ROLE know_clerk;
  FOR r IN SELECT DISTINCT how, org FROM know_seen() LOOP
    IF r.org IS NULL OR r.org NOT IN ('Know 7', 'Know 31') THEN RETURN NEXT format('%s: %s', r.how, r.org); END IF;
  END LOOP;
  IF (SELECT count(DISTINCT how) FROM know_seen() WHERE how <> 'vectors') <> 4 THEN RETURN NEXT 'a way found nothing'; END IF;
  RESET ROLE;
  INSERT INTO odin.access_rules(name, table_name, role_name, kind, operations, filter) VALUES ('closed', 'odin.chunks', 'odin_viewer', 'guard', 'r', format('org_id <> %s', (SELECT id FROM odin.orgs WHERE name = 'Know 31')));
  PERFORM odin.apply_access();
  SET LOCAL ROLE know_clerk;
  FOR r IN SELECT DISTINCT how, org FROM know_seen() WHERE how <> 'vectors' LOOP
    IF r.org IS DISTINCT FROM 'Know 7' THEN RETURN NEXT format('guarded, %s: %s', r.how, r.org); END IF;
  END LOOP;
  BEGIN
    PERFORM odin._rank_by_org(NULL, NULL, 'walrus', NULL, NULL, 10);
    RETURN NEXT 'guarded, whole orgs may be searched';
  EXCEPTION WHEN OTHERS THEN NULL;
  END;
  RESET ROLE;
  DELETE FROM odin.access_rules WHERE name = 'closed';
  PERFORM odin.apply_access();
END $$;
