# shellcheck shell=bash
# What the runners in tests/*/run share. Sourced; expects the cluster of scripts/test-cluster in ODIN_TEST_*.

# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
# shellcheck source=scripts/pg.sh
. "$ROOT/scripts/pg.sh"
[ -n "${ODIN_TEST_DIR:-}" ] || die "run this as make test-KIND, or start a cluster first: eval \"\$(scripts/test-cluster start)\""
pg_pick
OUT=${ODIN_TEST_OUT:-$ODIN_TEST_DIR/out}
mkdir -p "$OUT"

PASSED=0 FAILED=0
ok() { PASSED=$((PASSED + 1)) && say "ok      $1"; }
not_ok() { FAILED=$((FAILED + 1)) && say "NOT OK  $1"; }
check() { # name, command...: one test; what the command printed is shown if it fails
    local name=$1
    shift
    if "$@" >"$OUT/check.log" 2>&1; then
        ok "$name"
    else
        not_ok "$name"
        sed 's/^/        /' "$OUT/check.log" | tail -n 40
    fi
}
result() { # name: the runner's last line; its exit status says the same
    say "odin-result: $1 passed=$PASSED failed=$FAILED"
    [ "$FAILED" -eq 0 ] && [ "$PASSED" -gt 0 ]
}

url_of() { printf '%s\n' "${ODIN_TEST_URL/postgres\?/$1?}"; } # a database of the cluster, as superuser
db() { # database, psql arguments...
    local database=$1
    shift
    PGOPTIONS='-c client_min_messages=warning' "$PG_BIN/psql" -XAtq -v ON_ERROR_STOP=1 "$(url_of "$database")" "$@"
}
fresh_db() { # name [template]: made anew
    db postgres -c "DROP DATABASE IF EXISTS $1 WITH (FORCE)" -c "CREATE DATABASE $1 TEMPLATE ${2:-$ODIN_TEST_TEMPLATE}"
}

# PostgreSQL's own runners, one database per file so that no file depends on another. ACCEPT=1 takes what they print as expected from now on.
regress_each() { # program folder suffix label
    local program=$1 inputs=$2 suffix=$3 label=$4 file name
    program=$(dirname "$("$PG_CONFIG" --pgxs)")/../test/$program
    [ -x "$program" ] || die "$program is missing: install the server's development package"
    for file in "$inputs"/*."$suffix"; do
        [ -e "$file" ] || continue
        name=$(basename "$file" ".$suffix")
        fresh_db "t_$name"
        check "$label $name" regress_one "$program" "$(dirname "$inputs")" "$name"
        db postgres -c "DROP DATABASE t_$name WITH (FORCE)"
    done
}
regress_one() {
    rm -f "$OUT/regression.diffs"
    "$1" --use-existing --inputdir="$2" --outputdir="$OUT" --bindir="$PG_BIN" --host="$ODIN_TEST_HOST" --port="$ODIN_TEST_PORT" \
        --user=postgres --dbname="t_$3" "$3" && return
    if [ "${ACCEPT:-}" = 1 ]; then cp "$OUT/results/$3.out" "$2/expected/$3.out" && return; fi
    cat "$OUT/regression.diffs" 2>/dev/null
    return 1
}

# cargo's tests, by nextest if it is there; adds their count to ours.
cargo_tests() { # cargo arguments...
    local log=$OUT/cargo.log status=0 p f
    cd "$ROOT" || exit
    if have cargo-nextest; then
        NEXTEST_HIDE_PROGRESS_BAR=1 cargo nextest run --locked --no-fail-fast --no-tests=fail --status-level fail "$@" 2>&1 | tee "$log" || status=$?
        p=$(sed -nE 's/^ *Summary .* ([0-9]+) passed.*/\1/p' "$log" | tail -n 1)
        f=$(sed -nE 's/^ *Summary .* ([0-9]+) (failed|timed out).*/\1/p' "$log" | tail -n 1)
    else
        cargo test --locked --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
        p=$(sed -nE 's/^test result: .* ([0-9]+) passed.*/\1/p' "$log" | paste -sd+ - | sed 's/^$/0/')
        f=$(sed -nE 's/^test result: .* ([0-9]+) failed.*/\1/p' "$log" | paste -sd+ - | sed 's/^$/0/')
    fi
    PASSED=$((PASSED + ${p:-0})) FAILED=$((FAILED + ${f:-0}))
    if [ "$status" -ne 0 ] && [ "$((${f:-0}))" -eq 0 ]; then not_ok "cargo (exit $status)"; fi
}
