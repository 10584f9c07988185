#!/usr/bin/env bash
# What a slice costs beyond the engine itself: upload and checks apart, from the call to the answer with the file stored.
#   tests/bench/slice.sh [SECONDS] [SLICES]     on a test cluster (eval "$(scripts/test-cluster start)"); the sidecar is ODIN_TEST_SIDECAR or the release build
set -euo pipefail
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/../lib.sh"
# shellcheck source=tests/sidecar.sh
. "$ROOT/tests/sidecar.sh"
slices=${2:-15} # the first argument is the seconds that other benchmarks take
"$ROOT/scripts/packages-slicers" >/dev/null
fresh_db slice_bench
export TMPDIR=$OUT
# The engine is started through this, which writes down how long it ran.
cat >"$OUT/engine" <<SH
#!/bin/bash
started=\$(date +%s%N)
$(command -v CuraEngine) "\$@"
status=\$?
echo \$(((\$(date +%s%N) - started) / 1000)) >>"$OUT/engine.us"
exit \$status
SH
chmod 755 "$OUT/engine"
start_sidecar slice_bench slice_bench ODIN_CURA_ENGINE="$OUT/engine" ODIN_CURA_RESOURCES="$(target_dir)/slicers/cura" ODIN_MOST_PRINTERS=0
KEY=$(new_key slice_bench operator) BASE=http://127.0.0.1:$PORT VIEWER='' DATABASE=$(url_of slice_bench) PSQL="$PG_BIN/psql" ENGINE=$OUT/engine.us SLICES=$slices PYTHONPATH=$ROOT/tests/slicing python3 - <<'PY'
import os, statistics, time
from farm import box, call, http, sql, wait_for, wavy
wait_for("the slicers", lambda: int(sql("SELECT count(*) FROM odin.slicers")) > 0, 90)
for name, model in (("cube, 684 bytes", box(20, 20, 20)), ("rough block, 44 kB", wavy(15, 20))):
    path = name.split(",")[0] + ".stl"
    http("PUT", "/files/" + path.replace(" ", "%20"), model)
    calls = []
    skip = len(open(os.environ["ENGINE"]).readlines())
    for n in range(int(os.environ["SLICES"])):
        started = time.perf_counter()
        answer = call("cura_slice_model", model_path=path, layer_height=0.3)
        calls.append((time.perf_counter() - started) * 1000)
        assert answer.get("gcode_sha256"), answer
    engine = [int(line) / 1000 for line in open(os.environ["ENGINE"]).readlines()[skip:]]
    both = statistics.median(calls), statistics.median(engine)
    print("odin-figure", f"slice.{path[:-4].replace(' ', '_')}", f"{both[0] - both[1]:.0f}", "ms", "-", f"a slice of a {name}, beyond the engine's own {both[1]:.0f} ms (medians of {len(calls)})", sep="\t")
PY
