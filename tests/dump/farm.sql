-- A small farm at work, with what its owner added himself. The keys are printed: role|key.
\set QUIET on
SELECT * FROM odin.demo_org();
SELECT id AS org FROM odin.orgs WHERE name = 'Demo Farm' \gset
INSERT INTO odin.customers(org_id, name, email) VALUES (:org, 'Anna''s \ "Workshop"', 'anna@example.org'), (:org, E'Tab\there\nand a line', NULL);
INSERT INTO odin.printers(org_id, name, model, tags) VALUES (:org, 'Mill', 'MK4', '{fast,"two words"}'), (:org, 'Wren', 'X1C', '{}');
INSERT INTO odin.filaments(org_id, name, material, color_hex) VALUES (:org, 'Galaxy Black', 'PLA', '#101010');
INSERT INTO odin.spools(org_id, filament_id, code) SELECT :org, id, 'SPL-' || id FROM odin.filaments;
INSERT INTO odin.models(org_id, name) VALUES (:org, 'Bracket') RETURNING id AS model \gset
INSERT INTO odin.model_revisions(org_id, model_id, revision, seconds) VALUES (:org, :model, 1, 3600) RETURNING id AS revision \gset
UPDATE odin.models SET current_revision_id = :revision WHERE id = :model;

-- What an owner adds: a column, an index, a policy, a trigger with a table of its own, a view, a tool's table in another schema.
ALTER TABLE odin.jobs ADD COLUMN shelf text DEFAULT 'A';
CREATE INDEX jobs_shelf ON odin.jobs (shelf);
CREATE POLICY only_shelf_a ON odin.jobs AS RESTRICTIVE FOR SELECT TO odin_bi USING (shelf = 'A');
CREATE SCHEMA shop;
CREATE TABLE shop.arrivals (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, job_id bigint REFERENCES odin.jobs, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE FUNCTION shop.arrived() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$
BEGIN
  INSERT INTO shop.arrivals(job_id) VALUES (new.id);
  RETURN NULL;
END $f$;
CREATE TRIGGER arrived AFTER INSERT ON odin.jobs FOR EACH ROW EXECUTE FUNCTION shop.arrived();
CREATE VIEW shop.waiting WITH (security_invoker = true) AS SELECT id, status, shelf FROM odin.jobs WHERE status = 'pending';
COMMENT ON COLUMN odin.jobs.shelf IS 'Where the finished plate goes.';

-- Work through the front door: answers stored, calls and changes in the trail, one of them refused, and a seal over it.
SET ROLE demo_operator;
SELECT odin.call('queue_job', jsonb_build_object('model_id', :model, 'quantity', q), jsonb_build_object('idempotency_key', 'dump-' || q)) ->> 'error' IS NULL AS queued FROM generate_series(1, 5) q;
SELECT odin.call('cancel_job', '{"id": 999999999}') -> 'error' ->> 'code';
SELECT odin.call('list_jobs') IS NOT NULL;
RESET ROLE;
SELECT odin.tick() IS NOT NULL;
SELECT odin.tick() IS NOT NULL;
