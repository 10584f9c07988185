#!/usr/bin/env bash
# What MCP itself costs, seen on the plainest read and write there can be, and beside a peer: the Python MCP SDK with asyncpg on the same SQL.
#   tests/bench/mcp.sh [SECONDS]     on the cluster of scripts/test-cluster (ODIN_TEST_*); fsync should be on
# Both servers call the same dispatcher with the same statement. Calls a second say what a client gets; CPU a call says what the server alone costs.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/sidecar.sh
. "$ROOT/tests/sidecar.sh"
# shellcheck source=tests/bench/lib.sh
. "$ROOT/tests/bench/lib.sh"
# shellcheck source=tests/bench/faces.sh
. "$ROOT/tests/bench/faces.sh"

start_peer
for tool in get_part add_part list_queue get_job queue_job; do
    base=$(pg_dispatcher "$tool" 64)
    warm "$BASE" "$tool"
    warm "$PEER" "$tool"
    # Turn about, so that a table that grows or a busy minute falls on both.
    load "$BASE" mcp "$tool" 64
    first=$rate ours=$cpu
    load "$PEER" mcp "$tool" 64
    peer=$rate theirs=$cpu
    load "$BASE" mcp "$tool" 64
    rate=$(awk -v a="$first" -v b="$rate" 'BEGIN { printf "%.1f", (a + b) / 2 }') ours=$(awk -v a="$ours" -v b="$cpu" 'BEGIN { printf "%.3f", (a + b) / 2 }')
    figure "mcp.$tool" "$(ratio "$rate" "$base")" x '>=0.6' "MCP $tool against pgbench on the dispatcher, 64 connections ($rate calls/s, p50 $p50 ms, p99 $p99 ms)"
    limit=+
    if [[ $tool == *_part ]]; then limit='>=6'; fi
    figure "mcp.$tool.peer" "$(ratio "$rate" "$peer")" x "$limit" "MCP $tool against the Python SDK with asyncpg, 64 connections ($peer calls/s)"
    figure "mcp.$tool.peer_cpu" "$(ratio "$theirs" "$ours")" x + "CPU a call of the Python server ($theirs ms) against the sidecar's ($ours ms), PostgreSQL apart"
done
figure mcp.memory_idle "$idle" MB '<=60' 'resident memory of an idle sidecar'
figure mcp.memory_64 "$(memory)" MB '<=150' 'the same after 64 callers'
list() { # header...
    curl -fsS "$BASE/mcp" -H "Authorization: Bearer $KEY" "$@" -d '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' | wc -c
}
figure mcp.tools_list "$(list)" bytes '<=40000' 'tools/list by default'
figure mcp.tools_list_lean "$(list -H 'X-MCP-Toolsets: lean')" bytes '<=12000' 'tools/list with X-MCP-Toolsets: lean'
