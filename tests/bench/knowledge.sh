#!/usr/bin/env bash
# Retrieval over 100,000 passages, half of them in the caller's own org of ten: words, a misspelt word, words and meaning.
#   tests/bench/knowledge.sh [SECONDS] [PASSAGES]     on the cluster that PGHOST, PGPORT and PGUSER (a superuser) name
set -euo pipefail
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
passages=${2:-100000}
: "${PGHOST:?name a cluster: PGHOST, PGPORT, PGUSER}" "${PGUSER:?name a superuser: PGUSER}"
db=odin_bench_knowledge_$$
trap 'psql -qX -d postgres -c "DROP DATABASE IF EXISTS $db WITH (FORCE)" >/dev/null 2>&1 || true' EXIT
psql -qX -d postgres -c "CREATE DATABASE $db TEMPLATE ${ODIN_TEST_TEMPLATE:-odin_template}"
while IFS='|' read -r name p50 p99 text; do
    figure "knowledge.${name}_p50" "$p50" ms - "$text over $passages passages, median"
    figure "knowledge.${name}_p99" "$p99" ms - "$text over $passages passages, 99 of 100"
done < <(psql -qXAt -v ON_ERROR_STOP=1 -v passages="$passages" -d "$db" -f "$(dirname "$0")/knowledge.sql" | grep '^[a-z_0-9]*|')
