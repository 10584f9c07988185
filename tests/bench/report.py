#!/usr/bin/env python3
"""Reads the figures that benchmarks printed and shows them as one Markdown table, beside their limits and the run before.

    report.py NEW.json OLD.json LOG...

NEW.json is written (it may be the same file as OLD.json: the old one is read first). Ends with 1 when a limit is missed or a benchmark failed.
"""

import json
import os
import platform
import sys
import time

# Two runs on one idle machine differ by less; what is worse by more is named.
NOISE = 0.15


def figures(paths):
    """Every figure of the logs, in their order; a benchmark that failed is a figure without a value."""
    found = {}
    for path in paths:
        with open(path, encoding="utf-8", errors="replace") as log:
            for line in log:
                fields = line.rstrip("\n").split("\t")
                if fields[0] == "odin-failed":
                    found[fields[1]] = {"value": None, "unit": "", "limit": "-", "text": "could not run to its end"}
                if fields[0] == "odin-figure" and len(fields) == 6:
                    name, value, unit, limit, text = fields[1:]
                    found[name] = {"value": float(value), "unit": unit, "limit": limit, "text": text}
    return found


def holds(figure):
    """Does the figure keep its limit? None where there is none."""
    if figure["value"] is None:
        return False
    bound, number = figure["limit"][:2], figure["limit"][2:]
    if bound == "<=":
        return figure["value"] <= float(number)
    if bound == ">=":
        return figure["value"] >= float(number)
    return None


def change(figure, before):
    """How the figure differs from the run before, in words; worse is by its limit's direction, or by its unit."""
    if not before or not before["value"] or figure["value"] is None:
        return "", False
    ratio = figure["value"] / before["value"]
    more_is_better = figure["limit"][:1] in (">", "+") or figure["unit"].endswith("/s")
    worse = ratio < 1 - NOISE if more_is_better else ratio > 1 + NOISE
    return f"{(ratio - 1) * 100:+.0f} %" + (" **worse**" if worse else ""), worse


def shown(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8") if line.startswith("model name")), platform.machine())
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release()}


def main():
    new, old, *logs = sys.argv[1:]
    before = {}
    if os.path.exists(old):
        with open(old, encoding="utf-8") as file:
            before = {name: figure for name, figure in json.load(file)["figures"].items() if figure["value"] is not None}
    found = figures(logs)
    missed, slower = [], []
    print("| figure | what | measured | limit | since last run |\n|---|---|---|---|---|")
    for name, figure in found.items():
        kept = holds(figure)
        said, worse = change(figure, before.get(name))
        if kept is False:
            missed.append(name)
        if worse:
            slower.append(name)
        limit = "" if figure["limit"] in ("-", "+") else figure["limit"] + (" **missed**" if kept is False else "")
        print(f"| {name} | {figure['text']} | {shown(figure['value'])} {figure['unit']} | {limit} | {said} |")
    # A run of some parts keeps the figures of the others.
    merged = before | {name: {**figure, "kept": holds(figure)} for name, figure in found.items()}
    with open(new, "w", encoding="utf-8") as file:
        json.dump({"measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine(), "figures": merged}, file, indent=1)
    if slower:
        print(f"\nWorse than the last run by more than {NOISE:.0%}: {', '.join(slower)}")
    if missed:
        print(f"\nLimits missed: {', '.join(missed)}")
    return 1 if missed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
