#!/usr/bin/env bash
# The trail at size: sealing and verifying a year of calls, and what a call costs when that many lie behind it.
#   tests/bench/audit.sh [SECONDS] [ROWS]     on the cluster that PGHOST, PGPORT and PGUSER (a superuser) name
set -euo pipefail
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
seconds=${1:-10} rows=${2:-1000000}
: "${PGHOST:?name a cluster: PGHOST, PGPORT, PGUSER}" "${PGUSER:?name a superuser: PGUSER}"
bin=$(pg_config --bindir)
[ -x "$bin/pgbench" ] || bin=$(dirname "$(find /usr/lib/postgresql -name pgbench | sort -V | tail -n 1)")
db=odin_bench_audit_$$
work=$(mktemp -d)
trap 'psql -qX -d postgres -c "DROP DATABASE IF EXISTS $db WITH (FORCE)" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
sql() { psql -qXAt -v ON_ERROR_STOP=1 -d "$db" "$@"; }

psql -qX -d postgres -c "CREATE DATABASE $db TEMPLATE ${ODIN_TEST_TEMPLATE:-odin_template}"
sql <"$(dirname "$0")/core.sql" >/dev/null 2>&1
key=$(sql -c "SELECT key FROM odin.mint_key('bench', '{agent:read,agent:write}', NULL, 'demo_operator')")
credential=$(printf %s "$key" | sha256sum | cut -d' ' -f1)
echo "SELECT odin.gateway_call('$credential', 'add_part', '{\"name\": \"part\", \"n\": 3}', '{\"face\": \"mcp\"}');" >"$work/write.sql"
latency() {
    # What was written before is flushed before, not beside what is measured.
    sql -c CHECKPOINT
    "$bin/pgbench" -n -M prepared -c 1 -T "$seconds" -f "$work/write.sql" -U odin_gateway "$db" 2>"$work/err" | awk '/^latency average/ { print $4 }'
    if grep -q ERROR "$work/err"; then cat "$work/err" >&2; exit 1; fi
}
timed() { # statement: what it says, then the seconds it took
    { printf '\\timing on\n%s;\n' "$1"; } | sql | sed -E 's/^Time: ([0-9.]+) ms.*/\1/' | awk '{ if (NR > 1) printf "%s ", last; last = $0 } END { printf "%.3f\n", last / 1000 }'
}
empty=$(latency)
sql -c 'SELECT odin.seal_audit()' >/dev/null
# A year of months before this one, each its own partition and transaction, as a farm would have left them.
months=12 each=$((rows / 12))
for ((month = months; month > 0; month--)); do
    sql -c "SELECT odin._audit_partition('audit_calls', (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '$month months')::date)" >/dev/null
    sql -c "INSERT INTO odin.audit_calls(called_at, duration_us, role_name, key_id, face, tool, arguments, outcome, origin, xid)
      SELECT (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '$month months') AT TIME ZONE 'UTC' + i * (interval '28 days' / $((each + 1))), 900, 'demo_operator', 1, 'mcp', 'add_part', jsonb_build_object('name', 'part', 'n', i), 'done', odin._origin(), pg_current_xact_id()
        FROM generate_series(1, $((month == 1 ? rows - each * (months - 1) : each))) i"
done
sql -c 'VACUUM ANALYZE odin.audit_calls'
size=$(sql -c "SELECT round(sum(pg_total_relation_size(inhrelid)) / 1e9, 2) FROM pg_inherits WHERE inhparent = 'odin.audit_calls'::regclass")
read -r _ sealed < <(timed 'SELECT odin.seal_audit()')
read -r ok verified < <(timed 'SELECT ok FROM odin.verify_audit()')
[ "$ok" = t ] || { sql -c 'SELECT * FROM odin.verify_audit()' >&2; exit 1; }
full=$(latency)
figure audit.seal "$(awk -v n="$rows" -v s="$sealed" 'BEGIN { printf "%.0f", n / s }')" rows/s - "sealing $rows calls in $months months, $size GB, in one step ($sealed s)"
figure audit.verify "$(awk -v n="$rows" -v s="$verified" 'BEGIN { printf "%.0f", n / s }')" rows/s - "verifying them ($verified s)"
figure audit.call_flat "$(awk -v a="$full" -v b="$empty" 'BEGIN { printf "%.2f", a / b }')" x '<=1.3' "one write after $rows calls ($full ms) against one on an empty trail ($empty ms)"
