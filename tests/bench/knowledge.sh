#!/usr/bin/env bash
# Retrieval over 100,000 passages: p50 and p99 in ms, words only and with vectors, by a role of one org of ten.
# Needs a cluster: eval "$(scripts/test-cluster start)"; tests/bench/knowledge.sh [PASSAGES]
set -euo pipefail
: "${ODIN_TEST_URL:?start a cluster first: eval \"\$(scripts/test-cluster start)\"}"
passages=${1:-100000}
database=bench_knowledge
sql() { "$ODIN_TEST_BIN/psql" -XAtq -v ON_ERROR_STOP=1 "${ODIN_TEST_URL/postgres\?/$database?}" "$@"; }
"$ODIN_TEST_BIN/psql" -Xq "$ODIN_TEST_URL" -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" -c "CREATE DATABASE $database TEMPLATE $ODIN_TEST_TEMPLATE" 2>/dev/null
sql -v passages="$passages" -f "$(dirname "$0")/knowledge.sql"
