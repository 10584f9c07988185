#!/usr/bin/env bash
# 10,000 printers that report once a second for a minute through the worker plane, while 64 callers read and write: what it costs, and what the callers feel.
#   tests/bench/fleet.sh [SECONDS] [PRINTERS]     on the cluster of scripts/test-cluster (ODIN_TEST_*); a minute whatever SECONDS says; fsync should be on
# The callers call about once a second each, so that what is measured is their waiting, not how much the machine can do at most (layers.sh says that).
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/sidecar.sh
. "$ROOT/tests/sidecar.sh"
# shellcheck source=tests/bench/lib.sh
. "$ROOT/tests/bench/lib.sh"
# shellcheck source=tests/bench/faces.sh
. "$ROOT/tests/bench/faces.sh"
printers=${2:-10000} minute=60

python=$(bench_python)
db "$DB" -c "INSERT INTO odin.printers(org_id, name, protocol, address) SELECT id, 'F' || n, 'virtual', 'speed=1' FROM odin.orgs, generate_series(1001, $printers) n WHERE name = 'Bench Farm'" -c 'VACUUM ANALYZE'
mixed() { # seconds: sets p50, p99; of ten calls four read the queue, four a job, two queue one
    local said failed calls tool
    local -a mix=()
    for tool in list_queue:4 get_job:4 queue_job:2; do mix+=("${tool#*:}" "${tool%:*}" "${arguments[${tool%:*}]}" "${words[${tool%:*}]}"); done
    said=$(wrk -t 2 -c 64 -d "$1s" --timeout 30s -s "$ROOT/tests/bench/load.lua" "$BASE" -- mcp 1000 "$KEY" "${mix[@]}" 2>"$OUT/wrk.err" | grep '^load') || die "wrk failed: $(tail -n 3 "$OUT/wrk.err")"
    read -r _ _ p50 p99 failed calls <<<"$said"
    if [ "$failed" -gt 0 ] || [ "$calls" -eq 0 ]; then die "$failed of $calls calls failed: $(head -n 1 "$OUT/wrk.err")"; fi
}
wal() { db "$DB" -c "SELECT pg_current_wal_lsn() - '0/0'"; }
workers() { # CPU ticks of the sessions that write reports
    local sum=0 one
    for one in $(db "$DB" -c "SELECT pid FROM pg_stat_activity WHERE datname = '$DB' AND usename = 'odin_worker'"); do sum=$((sum + $(ticks "$one"))); done
    echo "$sum"
}
mixed 10
quiet=20 before=$(wal)
mixed "$quiet"
alone=$p99 alone_p50=$p50 calls_wal=$((($(wal) - before) / quiet))

FLEET_DSN=$(login_url odin_worker "$DB") "$python" "$ROOT/tests/bench/fleet.py" "$printers" $((minute + 5)) >"$OUT/fleet.out" 2>"$OUT/fleet.err" &
fleet=$!
CHILDREN+=("$fleet")
until grep -q ready "$OUT/fleet.out"; do
    kill -0 "$fleet" 2>/dev/null || die "the fleet does not report: $(tail -n 3 "$OUT/fleet.err")"
    sleep 0.2
done
before=$(wal) cpu=$(workers)
mixed "$minute"
after=$(wal) cpu=$(($(workers) - cpu))
wait "$fleet" || die "the fleet failed: $(tail -n 3 "$OUT/fleet.err")"
value() { sed -nE "s/.*\"$1\": ([0-9.]+).*/\1/p" "$OUT/fleet.out"; }
of="$printers printers reporting once a second for a minute, half of them printing"
figure fleet.reports "$(awk -v n="$(value reports)" -v s="$(value seconds)" 'BEGIN { printf "%.0f", n / s }')" /s - "reports heard of $of (a statement for 1000: median $(value p50_ms) ms, p99 $(value p99_ms) ms; $(value missed) of $(value due) were late by a second)"
figure fleet.calls_p99 "$(ratio "$p99" "$alone")" x - "p99 of 64 callers' reads and writes beside $of ($p99 ms, p50 $p50 ms) against without ($alone ms, p50 $alone_p50 ms)"
figure fleet.wal "$(awk -v w="$((after - before))" -v c="$calls_wal" -v p="$printers" -v s="$minute" 'BEGIN { printf "%.0f", (w / s - c) / p }')" bytes - "WAL a printer and second, the callers' own taken off: $of"
figure fleet.cpu "$(awk -v t="$cpu" -v hz="$(getconf CLK_TCK)" -v p="$printers" -v s="$minute" 'BEGIN { printf "%.1f", t * 1e6 / hz / p / s }')" us - "CPU of the database a printer and second: $of"
