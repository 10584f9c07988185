#!/usr/bin/env bash
# tools/call over MCP against pgbench calling the same dispatcher with the same arguments: what HTTP, JSON-RPC and the sidecar cost.
#   tests/bench/mcp.sh [SECONDS]     on the cluster of scripts/test-cluster (ODIN_TEST_*); fsync should be on
# Prints a table, the sidecar's memory and the size of tools/list; nothing is judged here except that every call succeeds.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/sidecar.sh
. "$ROOT/tests/sidecar.sh"
# shellcheck source=tests/bench/faces.sh
. "$ROOT/tests/bench/faces.sh"

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
