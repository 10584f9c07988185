#!/usr/bin/env bash
# The same three calls on every layer: the SQL function as its role, the dispatcher, REST, MCP in the revisions of 2025 and 2026; at 1, 8 and 64 connections.
#   tests/bench/layers.sh [SECONDS]     on the cluster of scripts/test-cluster (ODIN_TEST_*); fsync should be on
# pgbench drives SQL, wrk drives HTTP; every answer is looked at, and one failure ends the benchmark.
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/sidecar.sh
. "$ROOT/tests/sidecar.sh"
# shellcheck source=tests/bench/lib.sh
. "$ROOT/tests/bench/lib.sh"
# shellcheck source=tests/bench/faces.sh
. "$ROOT/tests/bench/faces.sh"

printf '| call | connections | SQL function/s | dispatcher/s | REST/s | MCP 2025/s | MCP 2026/s |\n|---|---|---|---|---|---|---|\n'
for tool in list_queue get_job queue_job; do
    for connections in 1 8 64; do
        below=$(pg_raw "$tool" "$connections")
        base=$(pg_dispatcher "$tool" "$connections")
        warm "$BASE" "$tool"
        of="$tool, $connections connections"
        # The limits are the design's: a write through the dispatcher at most twice the raw one, MCP at 64 connections at least 0.6 of the dispatcher.
        limit=+
        if [ "$tool" = queue_job ]; then limit='>=0.5'; fi
        line="| $tool | $connections | ${below%.*} | ${base%.*}"
        figure "layers.$tool.$connections.dispatcher" "$(ratio "$base" "$below")" x "$limit" "dispatcher against the SQL function as its role: $of ($base against $below calls/s)"
        for face in rest mcp mcp2026; do
            load "$BASE" "$face" "$tool" "$connections"
            limit=+ beside=
            if [ "$face" = rest ]; then rest=$rate; else beside=", $(ratio "$rate" "$rest") of REST"; fi
            if [ "$face" != rest ] && [ "$connections" = 64 ]; then limit='>=0.6'; fi
            line+=" | ${rate%.*}"
            figure "layers.$tool.$connections.$face" "$(ratio "$rate" "$base")" x "$limit" "$face against pgbench on the dispatcher: $of ($rate calls/s$beside, p50 $p50 ms, p99 $p99 ms, sidecar $cpu ms CPU a call)"
        done
        say "$line |"
    done
done
