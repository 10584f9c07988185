#!/usr/bin/env bash
# search_records against the same query by hand, with the same answer, and the time to compile a domain.
#   tests/bench/records.sh     on the cluster that PGHOST, PGPORT and PGUSER (a superuser) name
set -euo pipefail
# shellcheck source=tests/bench/lib.sh
. "$(dirname "$0")/lib.sh"
: "${PGHOST:?name a cluster: PGHOST, PGPORT, PGUSER}" "${PGUSER:?name a superuser: PGUSER}"
db=odin_bench_records_$$
trap 'psql -qX -d postgres -c "DROP DATABASE IF EXISTS $db WITH (FORCE)" >/dev/null 2>&1 || true' EXIT
psql -qX -d postgres -c "CREATE DATABASE $db TEMPLATE ${ODIN_TEST_TEMPLATE:-odin_template}"
psql -qXAt -v ON_ERROR_STOP=1 -d "$db" -f "$(dirname "$0")/records.sql" | while IFS='|' read -r what hand tool ratio more how; do
    case $what in
    [0-9]*) figure records.compile "$what" us - 'compiling a domain of five conditions' ;;
    ?*) case $how in
        sent) figure "records.${what//[^a-z0-9]/_}" "$ratio" x '<=1.3' "search_records, $what: $tool ms against $hand ms by hand ($more ms more)" ;;
        kept) figure "records.kept_${what//[^a-z0-9]/_}" "$ratio" x - "the same, prepared on both sides: $tool ms against $hand ms" ;;
        esac ;;
    esac
done
