#!/usr/bin/env bash
# What reading files costs: a G-code file of 200 MB with figures in its header, and one without, whose moves have to be counted.
#   tests/bench/meta.sh [MEGABYTES]
set -euo pipefail
megabytes=${1:-200}
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
for name in told counted; do
    printf '%-8s' "$name"
    "${CARGO_TARGET_DIR:-target}/release/examples/read" gcode "$work/$name.gcode"
done
