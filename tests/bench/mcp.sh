#!/usr/bin/env bash
# tools/call over MCP against pgbench calling the same dispatcher with the same arguments: what HTTP, JSON-RPC and the sidecar cost.
#   tests/bench/mcp.sh [SECONDS]     on the cluster of scripts/test-cluster (ODIN_TEST_*); fsync should be on
# Prints a table, the sidecar's memory and the size of tools/list; nothing is judged here except that every call succeeds.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/sidecar.sh
. "$ROOT/tests/sidecar.sh"
seconds=${1:-5}
LOAD=${ODIN_LOAD:-$(target_dir)/release/odin-load}
[ -x "$LOAD" ] || die "$LOAD is not built: cargo build --release -p odin-tests"
bin=$ODIN_TEST_BIN
[ -x "$bin/pgbench" ] || bin=$(dirname "$(find /usr/lib/postgresql -name pgbench | sort -V | tail -n 1)")
fresh_db bench_mcp
db bench_mcp -c "SELECT odin.demo_org()" -c "CREATE SCHEMA bench" -c "GRANT USAGE ON SCHEMA bench TO odin_viewer, odin_owner" \
    -c "CREATE TABLE bench.parts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, n int NOT NULL)" \
    -c "INSERT INTO bench.parts(name, n) SELECT 'part ' || i, i FROM generate_series(1, 1000) i" \
    -c "GRANT SELECT, INSERT ON bench.parts TO odin_operator" \
    -c "CREATE FUNCTION bench.get_part(id bigint) RETURNS bench.parts LANGUAGE sql STABLE AS 'SELECT * FROM bench.parts p WHERE p.id = get_part.id'" \
    -c "CREATE FUNCTION bench.add_part(name text, n int) RETURNS bench.parts LANGUAGE sql AS 'INSERT INTO bench.parts(name, n) VALUES (name, n) RETURNING *'" \
    -c "COMMENT ON FUNCTION bench.get_part(bigint) IS 'Reads one part.'" -c "COMMENT ON FUNCTION bench.add_part(text, int) IS 'Adds a part.'" \
    -c "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA bench FROM PUBLIC" -c "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bench TO odin_operator" \
    -c "SELECT odin.register_tool('bench.get_part'), odin.register_tool('bench.add_part', scope => 'write')" >/dev/null
ODIN_TEST_KEY=$(db bench_mcp -c "SELECT key FROM odin.mint_key('bench', '{agent:read,agent:write}', NULL, 'demo_operator')")
export ODIN_TEST_KEY
credential=$(printf %s "$ODIN_TEST_KEY" | sha256sum | cut -d' ' -f1)
start_sidecar bench bench_mcp ODIN_LOG=warn ODIN_RATE_PER_MINUTE=1000000000 ODIN_CONCURRENCY=1000 ODIN_POOL_SIZE="${POOL:-16}"
pid=${CHILDREN[-1]}
export ODIN_TEST_MCP=http://127.0.0.1:$PORT/mcp
memory() { awk '/^VmRSS/ { printf "%.0f MB", $2 / 1024 }' "/proc/$pid/status"; }
idle=$(memory)

# shellcheck disable=SC2034  # read by name
get_part='{"id": 7}' add_part='{"name": "part", "n": 3}'
pg() { # tool connections: calls a second of the dispatcher alone
    echo "SELECT odin.gateway_call('$credential', '$1', '${!1}', '{\"face\": \"mcp\"}');" >"$OUT/$1.sql"
    "$bin/pgbench" -n -M prepared -c "$2" -j 2 -T "$seconds" -f "$OUT/$1.sql" -h "$ODIN_TEST_HOST" -p "$ODIN_TEST_PORT" -U odin_gateway bench_mcp 2>/dev/null |
        awk '/^tps/ { print $3 }'
}
printf '| call | connections | pgbench/s | MCP/s | ratio | p50 ms | p99 ms | stateless MCP/s |\n|---|---|---|---|---|---|---|---|\n'
for tool in get_part add_part; do
    for connections in 1 8 64; do
        base=$(pg "$tool" "$connections")
        read -r _ rate p50 p99 failures < <("$LOAD" "$connections" "$seconds" "$tool" "${!tool}")
        read -r _ newer _ _ failed < <("$LOAD" "$connections" "$seconds" "$tool" "${!tool}" stateless)
        [ "$failures" -eq 0 ] && [ "$failed" -eq 0 ] || die "$tool at $connections: $failures and $failed calls failed"
        awk -v t="$tool" -v c="$connections" -v b="$base" -v r="$rate" -v p="$p50" -v q="$p99" -v n="$newer" \
            'BEGIN { printf "| %s | %d | %.0f | %.0f | %.2f | %s | %s | %.0f |\n", t, c, b, r, r / b, p, q, n }'
    done
done
printf '\nsidecar memory: %s idle, %s after 64 callers\n' "$idle" "$(memory)"
list() { # header...
    curl -fsS "$ODIN_TEST_MCP" -H "Authorization: Bearer $ODIN_TEST_KEY" "$@" -d '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' | wc -c
}
printf 'tools/list: %s bytes by default, %s bytes with X-MCP-Toolsets: lean\n' "$(list)" "$(list -H 'X-MCP-Toolsets: lean')"
