#!/usr/bin/env bash
# What reading files costs: a G-code file of 200 MB with figures in its header, and one without, whose moves have to be counted.
#   tests/bench/meta.sh [SECONDS] [MEGABYTES]
set -euo pipefail
megabytes=${2:-200} # the first argument is the seconds that other benchmarks take
cd "$(dirname "$0")/../.."
cargo build -q --release -p odin-meta --example read
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 - "$megabytes" "$work" <<'PY'
import random, sys
megabytes, work = int(sys.argv[1]), sys.argv[2]
dice = random.Random(7)
moves = "".join(f"G1 X{dice.uniform(10, 200):.3f} Y{dice.uniform(10, 200):.3f} E{dice.uniform(0.01, 0.2):.5f}\n" for _ in range(4000))
for name, head in (("told", ";FLAVOR:Marlin\n;TIME:36000\n;Filament used: 31.5m\n;Layer height: 0.2\n"), ("counted", "")):
    with open(f"{work}/{name}.gcode", "w") as out:
        out.write(head + "M83\nM104 S210\n")
        layer = 0
        while out.tell() < megabytes * 1_000_000:
            out.write(f";LAYER:{layer}\nG1 Z{0.2 * (layer + 1):.2f} F600\n" + moves)
            layer += 1
PY
# shellcheck source=tests/bench/lib.sh
. tests/bench/lib.sh
for name in told counted; do
    said=$("${CARGO_TARGET_DIR:-target}/release/examples/read" gcode "$work/$name.gcode")
    figure "meta.$name" "$(sed -nE 's/.*: ([0-9]+) MB\/s.*/\1/p' <<<"$said")" MB/s - "reading a G-code file whose figures are $name: $said"
    figure "meta.${name}_memory" "$(sed -nE 's/.*peak memory ([0-9]+) kB.*/\1/p' <<<"$said" | awk '{ printf "%.1f", $1 / 1024 }')" MB '<=16' 'peak memory of that'
done
