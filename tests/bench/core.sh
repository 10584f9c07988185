#!/usr/bin/env bash
# What the dispatcher and row-level access cost, as ratios measured in one run on one machine.
#   tests/bench/core.sh [SECONDS]     on the cluster that PGHOST, PGPORT and PGUSER (a superuser) name; fsync should be on
# Prints a table; nothing is judged here except that every statement succeeds.
set -euo pipefail
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
seconds=${1:-10}
: "${PGHOST:?name a cluster: PGHOST, PGPORT, PGUSER}" "${PGUSER:?name a superuser: PGUSER}"
bin=$(pg_config --bindir)
[ -x "$bin/pgbench" ] || bin=$(dirname "$(find /usr/lib/postgresql -name pgbench | sort -V | tail -n 1)")
db=odin_bench_core_$$
work=$(mktemp -d)
trap 'psql -qX -d postgres -c "DROP DATABASE IF EXISTS $db WITH (FORCE)" -c "DROP ROLE IF EXISTS bench_five" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
sql() { psql -qXAt -v ON_ERROR_STOP=1 -d "$db" "$@"; }

psql -qX -d postgres -c "CREATE DATABASE $db TEMPLATE ${ODIN_TEST_TEMPLATE:-odin_template}"
sql <"$(dirname "$0")/core.sql" >/dev/null
key=$(sql -c "SELECT key FROM odin.mint_key('bench', '{agent:read,agent:write}', NULL, 'demo_operator')")
credential=$(printf %s "$key" | sha256sum | cut -d' ' -f1)

echo "SELECT to_jsonb(x.*) FROM bench.get_part(1) x;" >"$work/read_raw.sql"
echo "SELECT bench.add_part('part', 3);" >"$work/write_raw.sql"
echo "SELECT odin.gateway_call('$credential', 'get_part', '{\"id\": 1}', '{\"face\": \"mcp\"}');" >"$work/read_call.sql"
echo "SELECT odin.gateway_call('$credential', 'add_part', '{\"name\": \"part\", \"n\": 3}', '{\"face\": \"mcp\"}');" >"$work/write_call.sql"

run() { # name role clients
    "$bin/pgbench" -n -M prepared -c "$3" -j "$3" -T "$seconds" -f "$work/$1.sql" -U "$2" "$db" 2>"$work/err" |
        awk '/^latency average/ { l = $4 } /^tps/ { t = $3 } END { print l, t }'
    if grep -q ERROR "$work/err"; then cat "$work/err" >&2; exit 1; fi
}
printf '| call | clients | raw ms | dispatcher ms | raw/s | dispatcher/s | ratio |\n|---|---|---|---|---|---|---|\n'
for what in read write; do
    for clients in 1 4; do
        read -r raw raw_tps < <(run ${what}_raw demo_operator "$clients")
        read -r call call_tps < <(run ${what}_call odin_gateway "$clients")
        awk -v w=$what -v c="$clients" -v r="$raw" -v d="$call" -v rt="$raw_tps" -v dt="$call_tps" \
            'BEGIN { printf "| %s | %s | %.3f | %.3f | %.0f | %.0f | %.2f (+%.0f us) |\n", w, c, r, d, rt, dt, rt / dt, (d - r) * 1000 }'
    done
done
# CPU of the backend itself, by the kernel's account: latency on a busy machine says little.
cpu() { # script role: microseconds a call
    {
        echo "SELECT pg_backend_pid() AS pid \\gset"
        echo "\\setenv BACKEND :pid"
        for _ in $(seq 200); do cat "$work/$1.sql"; done
        echo "\\! cut -d' ' -f1 /proc/\$BACKEND/schedstat >$work/cpu.before"
        for _ in $(seq 2000); do cat "$work/$1.sql"; done
        echo "\\! cut -d' ' -f1 /proc/\$BACKEND/schedstat >$work/cpu.after"
    } >"$work/cpu.sql"
    psql -qXAt -U "$2" -d "$db" -f "$work/cpu.sql" >/dev/null
    awk 'NR == 1 { before = $1 } END { print ($1 - before) / 2000000 }' "$work/cpu.before" "$work/cpu.after"
}
# The machine has faster and slower seconds: all four in turn, seven times, and the middle one of each.
for _ in $(seq 7); do
    for what in read write; do
        cpu "${what}_raw" demo_operator >>"$work/${what}_raw.us"
        cpu "${what}_call" odin_gateway >>"$work/${what}_call.us"
    done
done
middle() { sort -n "$work/$1.us" | sed -n 4p; }
read_raw=$(middle read_raw) read_call=$(middle read_call) write_raw=$(middle write_raw) write_call=$(middle write_call)
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }
echo
figure dispatcher.read_added "$(awk -v a="$read_call" -v b="$read_raw" 'BEGIN { printf "%.0f", a - b }')" us '<=150' "CPU that the dispatcher adds to a read ($read_raw us raw)"
figure dispatcher.write_ratio "$(ratio "$write_call" "$write_raw")" x '<=2' "CPU of a dispatched write against the raw one ($write_raw us)"
# Row-level access: 1 M jobs over 50 orgs; a member of five of them against the owner with the filter written by hand.
sql <"$(dirname "$0")/orgs.sql" >/dev/null
orgs=$(sql -c "SELECT string_agg(org_id::text, ',') FROM odin.members WHERE role_name = 'bench_five'")
echo "SELECT count(*) FROM odin.list_queue(100);" >"$work/queue_member.sql"
echo "SELECT count(*) FROM bench.queue_by_hand(ARRAY[$orgs]::bigint[]);" >"$work/queue_owner.sql"
read -r member _ < <(run queue_member bench_five 1)
read -r owner _ < <(run queue_owner "$(sql -c 'SELECT current_user')" 1)
figure access.list_queue "$(ratio "$member" "$owner")" x '<=1.5' "list_queue of 1 M jobs in 50 orgs: member of five ($member ms) against the owner with the filter by hand ($owner ms)"
