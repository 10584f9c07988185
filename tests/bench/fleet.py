#!/usr/bin/env python3
"""A fleet's reports through the worker plane: the statement the sidecars send once a second, for printers that change all the time.

    FLEET_DSN=... fleet.py PRINTERS SECONDS

Sidecars of 1,000 printers each report in, take their leases, and send what their printers say; half of those print. A sidecar that is still waiting for the
database when its next second comes leaves that second out, as the real one does. Says "ready" once every printer has been heard, then measures and prints
one line of JSON. Ends with 1 when a statement fails or the database does not know a printer that spoke.
"""

import asyncio
import json
import os
import statistics
import sys
import time

import asyncpg

EACH = 1000


class Sidecar:
    def __init__(self, name, database):
        self.name, self.database, self.held, self.tick = name, database, [], 0
        self.took, self.heard = [], 0

    async def lease(self, most):
        answer = json.loads(await self.database.fetchval("SELECT odin.worker_lease_printers($1, 120, $2)", self.name, most))
        self.held = [(printer, fence) for printer, fence, _ in answer["held"]]

    def reports(self):
        self.tick += 1
        warmth = self.tick % 10 / 10
        for n, (printer, fence) in enumerate(self.held):
            report = {"p": printer, "f": fence, "tool_c": 24 + warmth, "bed_c": 23 + warmth, "fan_pct": 0}
            if n % 2:
                report |= {"state": "idle", "raw": "Operational", "tool_target_c": 0, "bed_target_c": 0}
            else:
                report |= {"state": "printing", "raw": "Printing", "tool_c": 214 + warmth, "tool_target_c": 215, "bed_c": 59 + warmth, "bed_target_c": 60, "file": "long.gcode",
                           "progress_pct": 10 + self.tick / 100, "remaining_seconds": 7200 - self.tick, "layer": self.tick // 20, "total_layers": 400}
            yield report

    async def send(self):
        said = json.dumps(list(self.reports()))
        started = time.monotonic()
        answer = json.loads(await self.database.fetchval("SELECT odin.worker_printer_reports($1, $2::text::jsonb)", self.name, said))
        self.took.append(time.monotonic() - started)
        self.heard += len(answer["heard"])
        if len(answer["heard"]) != len(self.held):
            raise RuntimeError(f"{self.name}: {len(self.held)} printers spoke, {len(answer['heard'])} were heard")

    async def run(self, start, seconds):
        self.took, self.heard, missed = [], 0, 0
        second = 0
        while second < seconds:
            await asyncio.sleep(max(0, start + second - time.monotonic()))
            await self.send()
            due = int(time.monotonic() - start) + 1
            missed += min(due, seconds) - second - 1 if due > second + 1 else 0
            second = max(second + 1, due)
        return missed


async def main(printers, seconds):
    sidecars = [Sidecar(f"fleet-{n}", await asyncpg.connect(os.environ["FLEET_DSN"])) for n in range(-(-printers // EACH))]
    for sidecar in sidecars:
        await sidecar.lease(EACH)
    if sum(len(s.held) for s in sidecars) != printers:
        raise RuntimeError(f"{sum(len(s.held) for s in sidecars)} of {printers} printers were leased")
    for _ in range(3):
        for sidecar in sidecars:
            await sidecar.send()
    print("ready", flush=True)
    started = time.monotonic()
    # Each in its own part of the second, as sidecars that were started one by one.
    missed = await asyncio.gather(*(s.run(started + n / len(sidecars), seconds) for n, s in enumerate(sidecars)))
    took = sorted(t for s in sidecars for t in s.took)
    print(json.dumps({"seconds": time.monotonic() - started, "reports": sum(s.heard for s in sidecars), "missed": sum(missed), "due": seconds * len(sidecars),
                      "p50_ms": round(statistics.median(took) * 1000), "p99_ms": round(took[int((len(took) - 1) * 0.99)] * 1000)}))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
