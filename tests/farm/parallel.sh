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

# Two sidecars' clocks at the same moment: one starts jobs, the other has nothing to do until it is through.
fresh_db farm_clock
db farm_clock -f "$here/helpers.sql" >/dev/null
db farm_clock -c "SELECT t.as('admin', 'set_settings', '{\"auto_dispatch\":true}')" -c "UPDATE odin.printers SET auto_dispatch = true WHERE id IN (1, 4)" -c "SELECT t.op('queue_job', '{\"model_id\":2,\"quantity\":2}')" >/dev/null
rm -f "$OUT/turn" && mkfifo "$OUT/turn"
db farm_clock <"$OUT/turn" >"$OUT/first" &
exec 7>"$OUT/turn"
printf 'BEGIN;\nSELECT odin.dispatch_ready(1);\n' >&7
for _ in $(seq 600); do # until the first is at it
    [ "$(db farm_clock -c "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = 'farm_clock')")" = 0 ] || break
    sleep 0.1
done
check "while one clock starts jobs, another starts none" test "$(db farm_clock -c 'SELECT odin.dispatch_ready(1)')" = 0
printf 'COMMIT;\n' >&7
exec 7>&-
wait
rm -f "$OUT/turn"
check "the first started one" grep -qx 1 "$OUT/first"
check "and the next turn starts the other" test "$(db farm_clock -c 'SELECT odin.dispatch_ready(1)')" = 1
check "each on its own printer" test "$(db farm_clock -c 'SELECT count(DISTINCT printer_id) FROM odin.runs')" = 2

# W15 of the older system: requests of one key at the same time ran into its database's lock.
key=$(db farm_clock -c "SELECT key FROM odin.mint_key('many', '{agent:write}', '30 days', 'ft_operator')")
credential=$(printf %s "$key" | sha256sum | cut -d' ' -f1)
for n in $(seq 12); do
    for m in $(seq 10); do echo "SELECT odin.gateway_call('$credential', 'consume_spool', '{\"spool_id\":6,\"grams\":1}', '{\"idempotency_key\":\"$n-$m\"}')->>'status';"; done | db farm_clock >>"$OUT/answers.$n" 2>&1 &
done
wait
check "W15 a hundred and twenty calls of one key, twelve at a time: none is refused" test "$(cat "$OUT"/answers.* | grep -cx complete)" = 120
check "W15 and each is done once" test "$(db farm_clock -c 'SELECT balance_mg FROM odin.spool_balances WHERE spool_id = 6')" = 880000
rm -f "$OUT"/answers.* "$OUT/first"
script farm_clock "$here/invariants.sql"
db postgres -c "DROP DATABASE farm_clock WITH (FORCE)"
