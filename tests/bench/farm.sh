#!/usr/bin/env bash
# The farm at work on 10,000 and 1,000,000 jobs: what must stay flat, planning, completions, reports. Each figure stands beside its limit.
#   tests/bench/farm.sh [SECONDS] [JOBS]    JOBS: the largest history, 1000000 by default; 10000000 takes 20 minutes to make, half an hour in all, and 20 GB
# On the cluster that PGHOST, PGPORT and PGUSER (a superuser) name; make bench shows the figures beside their limits.
#
# The queue is 10,000 jobs on 1,000 printers throughout; what grows is the past. Times are the backend's own CPU, without parallel workers, because a busy
# machine stretches latency.
set -euo pipefail
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
most=${2:-1000000} # how long each figure takes depends on the farm, not on SECONDS
: "${PGHOST:?name a cluster: PGHOST, PGPORT, PGUSER}" "${PGUSER:?name a superuser: PGUSER}"
bin=$(pg_config --bindir)
[ -x "$bin/pgbench" ] || bin=$(dirname "$(find /usr/lib/postgresql -name pgbench | sort -V | tail -n 1)")
here=$(cd "$(dirname "$0")" && pwd)
db=odin_bench_farm_$$
work=$(mktemp -d)
trap 'psql -qX -d postgres -c "DROP DATABASE IF EXISTS $db WITH (FORCE)" -c "DROP ROLE IF EXISTS bench_operator" -c "DROP ROLE IF EXISTS bench_bi" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
sql() { psql -qXAt -v ON_ERROR_STOP=1 -d "$db" "$@"; }

psql -qX -d postgres -c "CREATE DATABASE $db TEMPLATE ${ODIN_TEST_TEMPLATE:-odin_template}"
sql -f "$here/farm.sql" >/dev/null
sql -c 'SELECT bench.grow(10000, false)' >/dev/null

declare -A flat
measure() { # jobs: the flat ones, on a history of so many
    local what
    sql -c 'VACUUM ANALYZE' >/dev/null
    # The least of three: what the past adds is in all of them, a busy neighbour is not.
    for what in list_queue farm_summary why_waiting list_jobs; do
        flat[$what.$1]=$(for _ in 1 2 3; do cpu_a_call "${statement[$what]}" 6 "${calls[$what]}" -U bench_operator -d "$db"; done | sort -n | head -n 1)
    done
}
job=$(sql -c "SELECT id FROM odin.jobs WHERE status = 'pending' ORDER BY id OFFSET 5000 LIMIT 1")
declare -A statement=([list_queue]='SELECT count(*) FROM odin.list_queue(100)' [farm_summary]='SELECT length(odin.farm_summary()::text)'
    [why_waiting]="SELECT length(odin.why_waiting($job)::text)" [list_jobs]='SELECT count(*) FROM odin.list_jobs(NULL, 100)')
declare -A calls=([list_queue]=200 [farm_summary]=150 [why_waiting]=30 [list_jobs]=200)

reports() { # runs: what a dashboard asks, over all runs there are; the limit is one for a million
    local name query
    while IFS='|' read -r name query; do
        figure "farm.bi.${name// /_}" "$(cpu_a_call "$query" 1 2 -U bench_bi -d "$db" | awk '{ printf "%.0f", $1 }')" ms '<=1000' "odin_bi, CPU: $name, $1 runs"
    done <"$here/farm_reports.txt"
}

sizes=(10000)
sql -c 'SELECT bench.grow(10000, true)' >/dev/null
measure 10000
for ((n = 1000000; n <= most; n *= 10)); do
    # A million at a time keeps the tables' order that of the years.
    for ((have = ${sizes[-1]}; have < n; have += step)); do
        step=$((n - have < 1000000 ? n - have : 1000000))
        sql -c "SELECT bench.grow($step, true)" >/dev/null
    done
    sizes+=("$n")
    measure "$n"
    if [ "$n" = 1000000 ]; then reports "$n"; fi
done
if [ "$most" -lt 1000000 ]; then reports 10000; fi
for what in list_queue farm_summary why_waiting list_jobs; do
    for n in "${sizes[@]:1}"; do
        figure "farm.$what.$n" "$(awk -v a="${flat[$what.$n]}" -v b="${flat[$what.10000]}" 'BEGIN { printf "%.3f", a / b }')" x '<=1.3' "$what with $n jobs of history (${flat[$what.$n]} ms CPU) against 10000 (${flat[$what.10000]} ms)"
    done
done

# One plan of 10,000 jobs on 1,000 printers, in a session that has changed single jobs before.
cat >"$work/plan.sql" <<SQL
SELECT pg_backend_pid() AS pid \gset
\setenv BACKEND :pid
SELECT odin.hold_job($job) \g /dev/null
SELECT odin.hold_job($job, false) \g /dev/null
\! awk '{ print "ticks", \$14 + \$15 }' /proc/\$BACKEND/stat
SELECT odin.plan_queue(show => 0) AS plan \gset
\! awk '{ print "ticks", \$14 + \$15 }' /proc/\$BACKEND/stat
SELECT 'placed', :'plan'::jsonb->>'assigned', :'plan'::jsonb->>'late', :'plan'::jsonb->>'changeovers';
SQL
plan=$(psql -qXAt -F ' ' -v ON_ERROR_STOP=1 -U bench_operator -d "$db" -f "$work/plan.sql")
figure farm.plan_queue "$(awk -v hz="$(getconf CLK_TCK)" '$1 == "ticks" { if (k++) printf "%.2f", ($2 - t) / hz; t = $2 }' <<<"$plan")" s '<=2' \
    "CPU of one plan of 10000 jobs on 1000 printers (placed, late, changeovers: $(awk '$1 == "placed" { print $2, $3, $4 }' <<<"$plan"))"

# How good plans are: small farms against the exact optimum, a large one against a person with a list.
python3 "$here/plan.py" problems "$work/problems"
printf '%s\n' 'CREATE TEMP TABLE p (n serial, input jsonb);' "\\copy p(input) FROM '$work/problems' CSV QUOTE e'\\x01' DELIMITER e'\\x02'" 'SELECT odin._plan(input) FROM p ORDER BY n;' | sql >"$work/plans"
while read -r against ratio ours theirs; do
    case $against in
    optimal) figure farm.plan_optimal "$ratio" x '<=1.05' "hours late in 60 plans of 7 jobs on 3 printers ($ours) against the optimum ($theirs)" ;;
    greedy) figure farm.plan_greedy "$ratio" x '<=1' "hours late of 4000 jobs on 400 printers ($ours) against plain greedy by due date ($theirs)" ;;
    esac
done < <(python3 "$here/plan.py" judge "$work/problems" "$work/plans")

# Completions by 64 callers through the dispatcher, each job its own: what a farm of 4,000 printers would report in its busiest second.
sql -c 'SELECT bench.running(3840)' >/dev/null
cat >"$work/complete.sql" <<'SQL'
\set i :i + 1
SELECT bench.complete(:client_id * 60 + :i);
SQL
"$bin/pgbench" -n -M prepared -c 64 -j 2 -t 60 -D i=0 -f "$work/complete.sql" -U bench_operator "$db" >"$work/out" 2>"$work/err" || { cat "$work/err" >&2; exit 1; }
done_once=$(sql -c "SELECT count(*) FROM odin.runs r JOIN bench.running_jobs b ON b.job = r.job_id WHERE r.status = 'completed'")
figure farm.completions "$(awk '/^tps/ { printf "%.0f", $3 }' "$work/out")" /s - "completions by 64 callers, $(awk '/^latency average/ { printf "%.0f", $4 }' "$work/out") ms each"
figure farm.completions_lost "$((3840 - done_once))" runs '<=0' 'completions of those not booked exactly once'

