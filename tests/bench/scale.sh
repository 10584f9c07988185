#!/usr/bin/env bash
# The farm with years behind it: what must stay flat, on the big data set that is built once and kept, against 10,000 jobs built now.
#   tests/bench/scale.sh SECONDS JOBS     on the cluster that PGHOST, PGPORT and PGUSER (a superuser) name; scripts/bench --scale keeps one for it
# The kept database (odin_scale) is built anew when the tables or what fills them change; newer functions are put into it as an update would.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/../../scripts/lib.sh"
# shellcheck source=tests/bench/lib.sh
. "$ROOT/tests/bench/lib.sh"
most=${2:-10000000} small=10000
: "${PGHOST:?name a cluster: PGHOST, PGPORT, PGUSER}" "${PGUSER:?name a superuser: PGUSER}"
work=$(mktemp -d)
trap 'psql -qX -d postgres -c "DROP DATABASE IF EXISTS odin_scale_small WITH (FORCE)" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
sql() { psql -qXAt -v ON_ERROR_STOP=1 "$@"; }
shopt -s nullglob
tables=$(cat "$ROOT"/sql/schema/*.sql "$ROOT/tests/bench/farm.sql" | sha256sum | cut -c1-16)
version=$(sed -nE "s/^default_version = '(.*)'/\1/p" "$ROOT/extension/odin_farm.control")
full=$ROOT/target/sql/odin_farm--$version.sql

# The same farm as tests/bench/farm.sh measures; a million at a time keeps the tables' order that of the years.
build() { # database jobs
    local have step
    sql -d postgres -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)" -c 'DROP ROLE IF EXISTS bench_operator' -c 'DROP ROLE IF EXISTS bench_bi' -c "CREATE DATABASE $1 TEMPLATE ${ODIN_TEST_TEMPLATE:-odin_template}"
    sql -d "$1" -f "$ROOT/tests/bench/farm.sql" >/dev/null
    sql -d "$1" -c 'SELECT bench.grow(10000, false)' >/dev/null
    for ((have = 0; have < $2; have += step)); do
        step=$(($2 - have < 1000000 ? $2 - have : 1000000))
        sql -d "$1" -c "SELECT bench.grow($step, true)" >/dev/null
        say "$1: $((have + step)) jobs"
    done
    sql -d "$1" -c 'VACUUM ANALYZE' >/dev/null
}
# What the extension's script creates, replaced; then its own way of bringing an older farm up.
refresh() { # database
    # shellcheck disable=SC2016  # $libdir is PostgreSQL's
    sed -E 's/^CREATE FUNCTION/CREATE OR REPLACE FUNCTION/; s|MODULE_PATHNAME|$libdir/odin_farm|; /^\\echo/d' "$full" >"$work/full.sql"
    PGOPTIONS='-c client_min_messages=warning' sql -d "$1" -f "$work/full.sql" >/dev/null
}
# What completing a job costs: printers that print are set up, their jobs completed, and all of it taken back, for the big one is kept.
cpu_completing() { # database warm_ups calls
    {
        echo 'BEGIN;'
        echo "SELECT bench.running($(($2 + $3))) \\g /dev/null"
        watch_backend
        echo 'SET LOCAL ROLE bench_operator;'
        for i in $(seq $(($2 + $3))); do
            if [ "$i" = $(($2 + 1)) ]; then reading; fi
            echo "SELECT 1 / bench.complete($i)::int \\g /dev/null"
        done
        reading
        echo 'ROLLBACK;'
    } >"$work/cpu.sql"
    cpu_script "$work/cpu.sql" "$3" -d "$1"
}

marked=$(sql -d odin_scale -c 'SELECT tables FROM bench.built WHERE jobs = '"$most" 2>/dev/null || true)
if [ "$marked" != "$tables" ] || [ -n "${ODIN_BENCH_FRESH:-}" ]; then
    say "building the big data set: $most jobs"
    started=$SECONDS
    build odin_scale "$most"
    sql -d odin_scale -c 'CREATE TABLE bench.built(jobs bigint, tables text, code text, seconds int)' -c "INSERT INTO bench.built VALUES ($most, '$tables', '$(sha256sum "$full" | cut -c1-16)', $((SECONDS - started)))"
fi
if [ "$(sql -d odin_scale -c 'SELECT code FROM bench.built')" != "$(sha256sum "$full" | cut -c1-16)" ]; then
    say "the big data set gets the functions of today"
    refresh odin_scale
    sql -d odin_scale -c "UPDATE bench.built SET code = '$(sha256sum "$full" | cut -c1-16)'"
fi
# The roles of the big one are the cluster's and stay; the small one has the same.
sql -d postgres -c 'DROP DATABASE IF EXISTS odin_scale_small WITH (FORCE)' -c "CREATE DATABASE odin_scale_small TEMPLATE ${ODIN_TEST_TEMPLATE:-odin_template}"
sed -E 's/^( *)CREATE ROLE (bench_[a-z]+)( LOGIN)?;/\1NULL;/' "$ROOT/tests/bench/farm.sql" | sql -d odin_scale_small >/dev/null
sql -d odin_scale_small -c 'SELECT bench.grow(10000, false)' -c "SELECT bench.grow($small, true)" -c 'VACUUM ANALYZE' >/dev/null

size=$(sql -d odin_scale -c "SELECT round(pg_database_size('odin_scale') / 1e9, 1)")
figure "scale.$most.size" "$size" GB - "the database with $most jobs of history and their runs, costs, moves and alerts; built in $(sql -d odin_scale -c 'SELECT seconds FROM bench.built') s"
for what in list_queue farm_summary why_waiting list_jobs get_job complete_job; do
    declare -A took=()
    # Turn about, and the least of three: what the past adds is in all of them, a busy neighbour is not.
    for database in odin_scale_small odin_scale odin_scale_small odin_scale odin_scale_small odin_scale; do
        waiting=$(sql -d "$database" -c "SELECT id FROM odin.jobs WHERE status = 'pending' ORDER BY id OFFSET 5000 LIMIT 1")
        old=$(sql -d "$database" -c "SELECT id FROM odin.jobs WHERE status = 'completed' ORDER BY id OFFSET $((small / 2)) LIMIT 1")
        case $what in
        list_queue) statement='SELECT count(*) FROM odin.list_queue(100);' ;;
        farm_summary) statement='SELECT length(odin.farm_summary()::text);' ;;
        why_waiting) statement="SELECT length(odin.why_waiting($waiting)::text);" ;;
        list_jobs) statement='SELECT count(*) FROM odin.list_jobs(NULL, 100);' ;;
        get_job) statement="SELECT length(odin.get_job($old)::text);" ;;
        esac
        if [ "$what" = complete_job ]; then
            now=$(cpu_completing "$database" 20 150)
        else
            now=$(cpu_a_call "${statement%;}" 6 "$([ "$what" = why_waiting ] && echo 30 || echo 150)" -U bench_operator -d "$database")
        fi
        took[$database]=$(printf '%s\n' "$now" ${took[$database]:+"${took[$database]}"} | sort -n | head -n 1)
    done
    figure "scale.$most.$what" "$(awk -v a="${took[odin_scale]}" -v b="${took[odin_scale_small]}" 'BEGIN { printf "%.3f", a / b }')" x '<=1.3' "$what with $most jobs of history (${took[odin_scale]} ms CPU) against $small (${took[odin_scale_small]} ms)"
done
