# shellcheck shell=bash
# What the benchmarks of the faces share: a farm with a read and a write, a sidecar, and the dispatcher under pgbench. Sourced after tests/sidecar.sh.
# Sets seconds, LOAD, pid, idle, the calls' arguments, ODIN_TEST_KEY and ODIN_TEST_MCP.

seconds=${1:-5}
LOAD=${ODIN_LOAD:-$(target_dir)/release/odin-load}
[ -x "$LOAD" ] || die "$LOAD is not built: cargo build --release -p odin-tests"
bin=$ODIN_TEST_BIN
[ -x "$bin/pgbench" ] || bin=$(dirname "$(find /usr/lib/postgresql -name pgbench | sort -V | tail -n 1)")
fresh_db bench_faces
db bench_faces -c "SELECT odin.demo_org()" -c "CREATE SCHEMA bench" -c "GRANT USAGE ON SCHEMA bench TO odin_viewer, odin_owner" \
    -c "CREATE TABLE bench.parts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, n int NOT NULL)" \
    -c "INSERT INTO bench.parts(name, n) SELECT 'part ' || i, i FROM generate_series(1, 1000) i" \
    -c "GRANT SELECT, INSERT ON bench.parts TO odin_operator" \
    -c "CREATE FUNCTION bench.get_part(id bigint) RETURNS bench.parts LANGUAGE sql STABLE AS 'SELECT * FROM bench.parts p WHERE p.id = get_part.id'" \
    -c "CREATE FUNCTION bench.add_part(name text, n int) RETURNS bench.parts LANGUAGE sql AS 'INSERT INTO bench.parts(name, n) VALUES (name, n) RETURNING *'" \
    -c "COMMENT ON FUNCTION bench.get_part(bigint) IS 'Reads one part.'" -c "COMMENT ON FUNCTION bench.add_part(text, int) IS 'Adds a part.'" \
    -c "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA bench FROM PUBLIC" -c "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA bench TO odin_operator" \
    -c "SELECT odin.register_tool('bench.get_part'), odin.register_tool('bench.add_part', scope => 'write')" >/dev/null
ODIN_TEST_KEY=$(db bench_faces -c "SELECT key FROM odin.mint_key('bench', '{agent:read,agent:write}', NULL, 'demo_operator')")
export ODIN_TEST_KEY
credential=$(printf %s "$ODIN_TEST_KEY" | sha256sum | cut -d' ' -f1)
start_sidecar bench bench_faces ODIN_LOG=warn ODIN_RATE_PER_MINUTE=1000000000 ODIN_CONCURRENCY=1000 ODIN_POOL_SIZE="${POOL:-16}"
pid=${CHILDREN[-1]}
export ODIN_TEST_MCP=http://127.0.0.1:$PORT/mcp
memory() { awk '/^VmRSS/ { printf "%.0f MB", $2 / 1024 }' "/proc/$pid/status"; }
# shellcheck disable=SC2034  # read by the benchmarks
idle=$(memory)

# shellcheck disable=SC2034  # read by name
get_part='{"id": 7}' add_part='{"name": "part", "n": 3}'
pg() { # tool connections: calls a second of the dispatcher alone
    echo "SELECT odin.gateway_call('$credential', '$1', '${!1}', '{\"face\": \"mcp\"}');" >"$OUT/$1.sql"
    "$bin/pgbench" -n -M prepared -c "$2" -j 2 -T "$seconds" -f "$OUT/$1.sql" -h "$ODIN_TEST_HOST" -p "$ODIN_TEST_PORT" -U odin_gateway bench_faces 2>/dev/null |
        awk '/^tps/ { print $3 }'
}
