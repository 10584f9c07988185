-- 1 M jobs over 50 orgs, 2 of 100 still waiting, written past triggers: what is measured is reading, not queueing.
SET session_replication_role = replica;
INSERT INTO odin.orgs(name) SELECT 'bench ' || n FROM generate_series(1, 50) n;
INSERT INTO odin.models(org_id, name) SELECT id, 'part' FROM odin.orgs WHERE name LIKE 'bench %';
INSERT INTO odin.model_revisions(org_id, model_id, revision, seconds) SELECT org_id, id, 1, 3600 FROM odin.models;
INSERT INTO odin.orders(org_id, order_number, is_stock, status) SELECT id, 'STOCK', true, 'in_progress' FROM odin.orgs WHERE name LIKE 'bench %';
INSERT INTO odin.order_lines(org_id, order_id, model_id, is_stock, description, quantity) SELECT o.org_id, o.id, m.id, true, 'part', 20000 FROM odin.orders o JOIN odin.models m USING (org_id);
INSERT INTO odin.order_parts(org_id, order_line_id, model_id, is_stock, ordered) SELECT org_id, id, model_id, true, 20000 FROM odin.order_lines;
INSERT INTO odin.jobs(org_id, order_line_id, part_id, model_id, revision_id, name, status, start_by, finished_at)
SELECT p.org_id, p.order_line_id, p.id, p.model_id, r.id, 'job ' || n, CASE WHEN n % 50 = 0 THEN 'pending' ELSE 'completed' END, now() + make_interval(mins => (n * 7919) % 100000),
       CASE WHEN n % 50 <> 0 THEN now() END
  FROM generate_series(1, 20000) n, odin.order_parts p JOIN odin.model_revisions r USING (model_id);
RESET session_replication_role;
ANALYZE;
CREATE ROLE bench_five LOGIN;
GRANT odin_viewer TO bench_five;
SELECT odin.add_member('bench_five', id) FROM (SELECT id FROM odin.orgs WHERE name LIKE 'bench %' ORDER BY id OFFSET 10 LIMIT 5) o;
-- The same list as somebody would write it who passes by row security: the orgs by hand.
CREATE FUNCTION bench.queue_by_hand(orgs bigint[]) RETURNS SETOF odin.job_view LANGUAGE plpgsql STABLE AS $f$
DECLARE
  ids bigint[];
BEGIN
  ids := ARRAY(SELECT x.id FROM unnest(orgs) o,
    LATERAL (SELECT j.id, j.queue_position, j.start_by, j.priority FROM odin.jobs j WHERE j.org_id = o AND j.status IN ('pending', 'scheduled')
              ORDER BY j.org_id, coalesce(j.queue_position, 'infinity'::numeric), j.start_by, j.priority, j.id LIMIT 100) x
    ORDER BY coalesce(x.queue_position, 'infinity'::numeric), x.start_by, x.priority, x.id LIMIT 100);
  RETURN QUERY SELECT v.* FROM odin.job_view v WHERE v.id = ANY (ids) ORDER BY coalesce(v.queue_position, 'infinity'::numeric), v.start_by, v.priority, v.id;
END $f$;
