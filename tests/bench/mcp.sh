#!/usr/bin/env bash
# tools/call over MCP against pgbench calling the same dispatcher with the same arguments: what HTTP, JSON-RPC and the sidecar cost.
#   tests/bench/mcp.sh [SECONDS]     on the cluster of scripts/test-cluster (ODIN_TEST_*); fsync should be on
# The peer is the Python MCP SDK with asyncpg, calling the same dispatcher. Every call has to succeed.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/sidecar.sh
. "$ROOT/tests/sidecar.sh"
# shellcheck source=tests/bench/faces.sh
. "$ROOT/tests/bench/faces.sh"

# shellcheck source=tests/bench/lib.sh
. "$ROOT/tests/bench/lib.sh"

start_peer() { # sets PEER, its MCP URL
    local folder port tries
    folder=$CACHE/bench-python-$(cat "$ROOT/tests/bench/requirements.txt" <(python3 --version) | sha256sum | cut -c1-16)
    if [ ! -x "$folder/bin/uvicorn" ]; then
        rm -rf "$folder"
        python3 -m venv "$folder" && "$folder/bin/pip" install -q -r "$ROOT/tests/bench/requirements.txt" || die "the peer cannot be installed"
    fi
    port=$(free_port $((20000 + RANDOM % 20000)))
    PEER_DSN=$(login_url odin_gateway bench_faces) PEER_CREDENTIAL=$credential "$folder/bin/python" "$ROOT/tests/bench/peer.py" "$port" >"$OUT/peer.log" 2>&1 &
    CHILDREN+=($!)
    PEER=http://127.0.0.1:$port/mcp
    for tries in $(seq 100); do
        if ! port_is_free "$port"; then return 0; fi
        sleep 0.1
    done
    tail -n 20 "$OUT/peer.log" >&2
    die "the peer did not start (try $tries)"
}
start_peer
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }

printf '| call | connections | pgbench/s | MCP/s | ratio | p50 ms | p99 ms | stateless MCP/s |\n|---|---|---|---|---|---|---|---|\n'
for tool in get_part add_part; do
    for connections in 1 8 64; do
        base=$(pg "$tool" "$connections")
        read -r _ rate p50 p99 failures < <("$LOAD" "$connections" "$seconds" "$tool" "${!tool}")
        read -r _ newer _ _ failed < <("$LOAD" "$connections" "$seconds" "$tool" "${!tool}" stateless)
        [ "$failures" -eq 0 ] && [ "$failed" -eq 0 ] || die "$tool at $connections: $failures and $failed calls failed"
        awk -v t="$tool" -v c="$connections" -v b="$base" -v r="$rate" -v p="$p50" -v q="$p99" -v n="$newer" \
            'BEGIN { printf "| %s | %d | %.0f | %.0f | %.2f | %s | %s | %.0f |\n", t, c, b, r, r / b, p, q, n }'
        limit=-
        if [ "$connections" = 64 ]; then limit='>=0.6'; fi
        figure "mcp.$tool.$connections" "$(ratio "$rate" "$base")" x "$limit" "MCP $tool against pgbench on the same dispatcher, $connections connections ($rate calls/s, p50 $p50 ms, p99 $p99 ms)"
        figure "mcp.$tool.$connections.2026" "$(ratio "$newer" "$base")" x - "the same in the revision of 2026 ($newer calls/s)"
    done
    read -r _ peer _ _ failed < <(ODIN_TEST_MCP=$PEER "$LOAD" 64 "$seconds" "$tool" "${!tool}")
    [ "$failed" -eq 0 ] || die "$tool: $failed calls of the peer failed"
    figure "mcp.$tool.peer" "$(ratio "$rate" "$peer")" x '>=6' "MCP $tool against the Python SDK with asyncpg, 64 connections ($peer calls/s)"
done
figure mcp.memory_idle "${idle% MB}" MB '<=60' 'resident memory of an idle sidecar'
figure mcp.memory_64 "$(memory | cut -d' ' -f1)" MB '<=150' 'the same after 64 callers'
list() { # header...
    curl -fsS "$ODIN_TEST_MCP" -H "Authorization: Bearer $ODIN_TEST_KEY" "$@" -d '{"jsonrpc":"2.0","id":1,"method":"tools/list"}' | wc -c
}
figure mcp.tools_list "$(list)" bytes '<=40000' 'tools/list by default'
figure mcp.tools_list_lean "$(list -H 'X-MCP-Toolsets: lean')" bytes '<=12000' 'tools/list with X-MCP-Toolsets: lean'
