# shellcheck shell=bash
# What the benchmarks of the faces share: the farm of farm.sql with the plainest read and write beside its own tools, a sidecar, the Python peer, and load on
# every layer. Sourced after tests/sidecar.sh.
# Sets seconds, DB, KEY, pid (the sidecar's), idle, BASE, and for every tool its raw call, arguments and the words that only a success holds.

seconds=${1:-5}
bin=$ODIN_TEST_BIN
[ -x "$bin/pgbench" ] || bin=$(dirname "$(find /usr/lib/postgresql -name pgbench | sort -V | tail -n 1)")
have wrk || die "wrk is missing: run scripts/packages --dev"
DB=bench_faces
stop_faces() {
    stop_children
    db postgres -c "DROP DATABASE IF EXISTS $DB WITH (FORCE)" -c "DROP ROLE IF EXISTS bench_operator" -c "DROP ROLE IF EXISTS bench_bi" >/dev/null 2>&1 || true
}
trap stop_faces EXIT
fresh_db "$DB"
db "$DB" -f "$ROOT/tests/bench/farm.sql" >/dev/null
db "$DB" -c "SELECT bench.grow(10000, true)" -c "SELECT bench.grow(10000, false)" \
    -c "CREATE TABLE bench.parts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, n int NOT NULL)" \
    -c "INSERT INTO bench.parts(name, n) SELECT 'part ' || i, i FROM generate_series(1, 1000) i" \
    -c "GRANT USAGE ON SCHEMA bench TO odin_viewer, odin_owner" -c "GRANT SELECT, INSERT ON bench.parts TO odin_operator" \
    -c "CREATE FUNCTION bench.get_part(id bigint) RETURNS bench.parts LANGUAGE sql STABLE AS 'SELECT * FROM bench.parts p WHERE p.id = get_part.id'" \
    -c "CREATE FUNCTION bench.add_part(name text, n int) RETURNS bench.parts LANGUAGE sql AS 'INSERT INTO bench.parts(name, n) VALUES (name, n) RETURNING *'" \
    -c "COMMENT ON FUNCTION bench.get_part(bigint) IS 'Reads one part.'" -c "COMMENT ON FUNCTION bench.add_part(text, int) IS 'Adds a part.'" \
    -c "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA bench FROM PUBLIC" -c "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bench TO odin_operator" \
    -c "SELECT odin.register_tool('bench.get_part'), odin.register_tool('bench.add_part', scope => 'write')" -c "VACUUM ANALYZE" >/dev/null
KEY=$(db "$DB" -c "SELECT key FROM odin.mint_key('bench', '{agent:read,agent:write}', NULL, 'bench_operator')")
credential=$(printf %s "$KEY" | sha256sum | cut -d' ' -f1)
JOB=$(db "$DB" -c "SELECT max(id) FROM odin.jobs WHERE status = 'completed'") MODEL=$(db "$DB" -c "SELECT min(id) FROM odin.models")
# shellcheck disable=SC2034  # read by name
declare -A raw=([list_queue]='SELECT * FROM odin.list_queue(20)' [get_job]="SELECT odin.get_job($JOB)" [queue_job]="SELECT odin.queue_job($MODEL)" [get_part]='SELECT * FROM bench.get_part(7)' [add_part]="SELECT * FROM bench.add_part('part', 3)") \
    arguments=([list_queue]='{"limit":20}' [get_job]="{\"id\":$JOB}" [queue_job]="{\"model_id\":$MODEL}" [get_part]='{"id":7}' [add_part]='{"name":"part","n":3}') \
    words=([list_queue]='"count":20' [get_job]='"requeued_as"' [queue_job]='"job_ids"' [get_part]='"part 7"' [add_part]='"name":"part"')

# Without a worker's login: what the clock does by itself must not fall into one layer's turn.
start_sidecar bench "$DB" ODIN_WORKER_URL= ODIN_LOG=warn ODIN_RATE_PER_MINUTE=1000000000 ODIN_CONCURRENCY=1000 ODIN_POOL_SIZE="${POOL:-16}"
pid=${CHILDREN[-1]}
# shellcheck disable=SC2034  # read by the benchmarks
BASE=http://127.0.0.1:$PORT
memory() { awk '/^VmRSS/ { printf "%.0f", $2 / 1024 }' "/proc/$pid/status"; }
# shellcheck disable=SC2034  # read by the benchmarks
idle=$(memory)

bench_python() { # the Python of tests/bench/requirements.txt, in a cache outside the checkout
    local folder
    folder=$CACHE/bench-python-$(cat "$ROOT/tests/bench/requirements.txt" <(python3 --version) | sha256sum | cut -c1-16)
    if [ ! -x "$folder/bin/uvicorn" ]; then
        rm -rf "$folder"
        if ! { python3 -m venv "$folder" && "$folder/bin/pip" install -q -r "$ROOT/tests/bench/requirements.txt" >&2; }; then die "the peer cannot be installed"; fi
    fi
    printf '%s\n' "$folder/bin/python"
}

start_peer() { # sets PEER (its URL) and peer_pid
    local python port tries
    python=$(bench_python)
    port=$(free_port $((20000 + RANDOM % 20000)))
    PEER_DSN=$(login_url odin_gateway "$DB") PEER_CREDENTIAL=$credential "$python" "$ROOT/tests/bench/peer.py" "$port" >"$OUT/peer.log" 2>&1 &
    peer_pid=$!
    CHILDREN+=("$peer_pid")
    PEER=http://127.0.0.1:$port
    for tries in $(seq 100); do
        if ! port_is_free "$port"; then return 0; fi
        sleep 0.1
    done
    tail -n 20 "$OUT/peer.log" >&2
    die "the peer did not start (try $tries)"
}

pg() { # statement role connections: calls a second; any failed statement ends the benchmark
    local warm=$((1 + $3 / 10))
    printf '%s;\n' "$1" >"$OUT/statement.sql"
    # New connections have planned nothing yet, and the sidecar's have: only what comes after the first seconds counts.
    "$bin/pgbench" -n -M prepared -P 1 -c "$3" -j 2 -T "$((warm + seconds))" -f "$OUT/statement.sql" -h "$ODIN_TEST_HOST" -p "$ODIN_TEST_PORT" -U "$2" "$DB" >"$OUT/pgbench.log" 2>&1 ||
        { tail -n 5 "$OUT/pgbench.log" >&2; die "pgbench failed: $1"; }
    awk -v warm="$warm" -v enough="$((12 * $3))" '/^progress/ { if ($2 > warm + 0.5 && done >= enough) { sum += $4; n++ } done += $4; last = $4 } END { printf "%.1f", n ? sum / n : last }' "$OUT/pgbench.log"
}
pg_raw() { pg "${raw[$1]}" bench_operator "$2"; } # tool connections
# The answer is looked at here too: an error of the dispatcher is an answer like any other to pgbench.
pg_dispatcher() { pg "SELECT a, 1 / (a->>'status' = 'complete')::int FROM odin.gateway_call('$credential', '$1', '${arguments[$1]}', '{\"face\": \"mcp\"}') a" odin_gateway "$2"; }
warm() { # base tool: the server's own connections make their plans, before they are measured
    local sum=0 round
    for round in $(seq 20); do
        seconds=2 load "$1" mcp "$2" 16
        sum=$((sum + calls))
        if [ "$sum" -ge 400 ]; then return 0; fi
    done
    warn "$2 made $sum calls in $round rounds and is measured cold"
}
load() { # base face tool connections [PAUSE]: sets rate, p50, p99, calls and cpu (milliseconds of the server's own a call); a failed call ends the benchmark
    local server=$pid before failed said
    if [ "$1" = "${PEER:-}" ]; then server=$peer_pid; fi
    before=$(ticks "$server")
    said=$(wrk -t "$(($4 > 1 ? 2 : 1))" -c "$4" -d "${seconds}s" --timeout 30s -s "$ROOT/tests/bench/load.lua" "$1" -- "$2" "${5:-0}" "$KEY" 1 "$3" "${arguments[$3]}" "${words[$3]}" 2>"$OUT/wrk.err" | grep '^load') ||
        die "wrk failed: $(tail -n 3 "$OUT/wrk.err")"
    # shellcheck disable=SC2034  # read by the benchmarks
    read -r _ rate p50 p99 failed calls <<<"$said"
    if [ "$failed" -gt 0 ] || [ "$calls" -eq 0 ]; then die "$3 over $2 at $4 connections: $failed of $calls calls failed: $(head -n 1 "$OUT/wrk.err")"; fi
    # shellcheck disable=SC2034  # read by the benchmarks
    cpu=$(awk -v a="$(ticks "$server")" -v b="$before" -v hz="$(getconf CLK_TCK)" -v n="$calls" 'BEGIN { printf "%.3f", (a - b) * 1000 / hz / n }')
}
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.3f", a / b }'; }
