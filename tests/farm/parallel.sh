# Sourced by run: eight sessions do what they like to one small farm; then the invariants.
# shellcheck shell=bash disable=SC2154
db farm_parallel -f "$here/parallel.sql" >/dev/null
for session in 1 2 3 4 5 6 7 8; do
    for n in $(seq 1 "${ODIN_FARM_STEPS:-60}"); do echo "SELECT t.step($((session * 100000 + n)));"; done | db farm_parallel >/dev/null &
done
wait
script farm_parallel "$here/invariants.sql"
cat >"$OUT/parallel_check.sql" <<'SQL'
SELECT t.is((SELECT jsonb_object_agg(op || ' ' || code, n) FROM (SELECT op, code, count(*) AS n FROM t.answers WHERE code IN ('internal_error', 'upstream_unavailable') GROUP BY 1, 2) x), NULL, 'nobody got an error from inside');
SELECT t.ok((SELECT count(DISTINCT op) FROM t.answers WHERE code = 'done') >= 9, 'every kind of act happened: ' || (SELECT string_agg(op || ' ' || n, ', ' ORDER BY op) FROM (SELECT op, count(*) AS n FROM t.answers WHERE code = 'done' GROUP BY 1) x));
-- One job, ten at once say it is done: it is booked once.
SELECT t.op('queue_job', '{"model_id":2,"printer_id":1}')->'id' AS job \gset
UPDATE odin.jobs SET queue_position = -1000 WHERE id = :job;
SELECT t.op('complete_job', jsonb_build_object('job_id', r.job_id)) FROM odin.runs r WHERE r.printer_id = 1 AND r.status = 'printing' \g /dev/null
SELECT t.op('clear_bed', '{"printer_id":1}'), t.op('weigh_spool', '{"spool_id":1,"gross_grams":1250}') \g /dev/null
SELECT t.op('start_job', jsonb_build_object('job_id', :job, 'started_by_hand', true)) \g /dev/null
SELECT t.ok((SELECT status = 'printing' FROM odin.jobs WHERE id = :job), 'a job prints');
SQL
script farm_parallel "$OUT/parallel_check.sql"
job=$(db farm_parallel -c "SELECT max(id) FROM odin.jobs WHERE status = 'printing' AND printer_id = 1")
for n in 1 2 3 4 5 6 7 8 9 10; do
    db farm_parallel -c "SELECT t.op('complete_job', '{\"job_id\":$job}')->'applied'" >>"$OUT/applied" &
done
wait
check "reported done ten times at once, booked once" test "$(grep -c true "$OUT/applied")" = 1
rm -f "$OUT/applied"
script farm_parallel "$here/invariants.sql"
