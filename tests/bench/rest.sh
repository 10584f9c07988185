#!/usr/bin/env bash
# One call over REST and over MCP against pgbench calling the same dispatcher with the same arguments: what each face costs.
#   tests/bench/rest.sh [SECONDS]     on the cluster of scripts/test-cluster (ODIN_TEST_*); fsync should be on
# Prints a table; nothing is judged here except that every call succeeds.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/sidecar.sh
. "$ROOT/tests/sidecar.sh"
# shellcheck source=tests/bench/faces.sh
. "$ROOT/tests/bench/faces.sh"

# shellcheck source=tests/bench/lib.sh
. "$ROOT/tests/bench/lib.sh"

printf '| call | connections | pgbench/s | REST/s | of pgbench | p50 ms | p99 ms | MCP/s | REST of MCP |\n|---|---|---|---|---|---|---|---|---|\n'
for tool in get_part add_part; do
    for connections in 1 8 64; do
        base=$(pg "$tool" "$connections")
        read -r _ rate p50 p99 failures < <("$LOAD" "$connections" "$seconds" "$tool" "${!tool}" rest)
        read -r _ mcp _ _ failed < <("$LOAD" "$connections" "$seconds" "$tool" "${!tool}")
        [ "$failures" -eq 0 ] && [ "$failed" -eq 0 ] || die "$tool at $connections: $failures and $failed calls failed"
        awk -v t="$tool" -v c="$connections" -v b="$base" -v r="$rate" -v p="$p50" -v q="$p99" -v m="$mcp" \
            'BEGIN { printf "| %s | %d | %.0f | %.0f | %.2f | %s | %s | %.0f | %.2f |\n", t, c, b, r, r / b, p, q, m, r / m }'
        figure "rest.$tool.$connections" "$(awk -v r="$rate" -v b="$base" 'BEGIN { printf "%.3f", r / b }')" x - "REST $tool against pgbench on the same dispatcher, $connections connections ($rate calls/s, p99 $p99 ms; MCP $mcp/s)"
    done
done
