#!/usr/bin/env bash
# What looking after printers costs: see printers.py.
#   tests/bench/printers.sh [SECONDS]     two minutes whatever SECONDS says: history is written once a minute
set -euo pipefail
exec "$(dirname "$0")/printers.py" --seconds 120
