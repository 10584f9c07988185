# shellcheck shell=bash
# What every benchmark says its figures with. Sourced; report.py reads the lines.

# name value unit limit text: one figure. The limit is <=N or >=N, or - (less is better) or + (more is better) where there is none; the name stays the same from run to run.
figure() { printf 'odin-figure\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" "$5"; }
