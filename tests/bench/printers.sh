#!/usr/bin/env bash
# What looking after printers costs: see printers.py.
#   tests/bench/printers.sh [SECONDS]     a minute whatever SECONDS says: shorter ones miss what is written now and then
set -euo pipefail
exec "$(dirname "$0")/printers.py" --seconds 60
