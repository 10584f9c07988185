#!/usr/bin/env python3
"""What looking after printers costs: one sidecar with many virtual printers, and a start on OctoPrint against calling its API by hand.

    tests/bench/printers.py [--printers N] [--seconds S] [--rounds R]

Takes the cluster of ODIN_TEST_*, or starts one of its own; the sidecar is the release build, or ODIN_TEST_SIDECAR.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/printers"))


def cluster():
    if "ODIN_TEST_HOST" in os.environ:
        return None
    said = subprocess.run([ROOT / "scripts/test-cluster", "start"], check=True, capture_output=True, text=True).stdout
    for line in said.splitlines():
        name, value = line.removeprefix("export ").split("=", 1)
        os.environ[name] = value.strip("'\"")
    return os.environ["ODIN_TEST_DIR"]


def figure(*fields):
    print("odin-figure", *fields, sep="\t", flush=True)


def used(pid):
    """(seconds of CPU, MB resident now, MB resident at most) of a process."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = int(fields[11]) + int(fields[12])
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return ticks / os.sysconf("SC_CLK_TCK"), int(status["VmRSS"].split()[0]) / 1024, int(status["VmHWM"].split()[0]) / 1024


def counters(farm):
    return farm.sql("""SELECT jsonb_build_object('commits', (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()),
        'state', (SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'printer_state'), 'history', (SELECT count(*) FROM odin.printer_telemetry),
        'wal', pg_current_wal_lsn() - '0/0')""")


def load(printers, seconds):
    """Half of them printing, half at rest, all looked at once a second. Who prints gets a row of history each minute, all of them soon after its turn:
    only whole minutes say how many rows a second that is."""
    seconds = max(1, round(seconds / 60)) * 60
    from farm import Farm, wait
    farm = Farm()
    try:
        farm.psql(farm.name, f"INSERT INTO odin.printers(org_id, name, protocol, address) SELECT {farm.org}, 'v' || n, 'virtual', 'speed=1' FROM generate_series(1, {printers}) n")
        farm.psql(farm.name, """SELECT odin.worker_virtual(id, '{"verb": "start", "file": "long.gcode", "seconds": 7200}') FROM odin.printers WHERE id % 2 = 0""")
        sidecar = farm.sidecar(ODIN_MOST_PRINTERS=str(printers))
        started = time.monotonic()
        wait("all printers to be seen", lambda: farm.sql("SELECT to_jsonb(count(*) FILTER (WHERE reported_at IS NULL) = 0) FROM odin.printer_state"), 120)
        seen = time.monotonic() - started
        time.sleep(15)
        before, cpu, at = counters(farm), used(sidecar.process.pid)[0], time.monotonic()
        ages = []
        while time.monotonic() - at < seconds:
            ages.append(farm.sql("SELECT to_jsonb(percentile_cont(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM clock_timestamp() - reported_at))) FROM odin.printer_state"))
            time.sleep(1)
        took = time.monotonic() - at
        after, (cpu_after, resident, most) = counters(farm), used(sidecar.process.pid)
        rate = lambda name: (after[name] - before[name]) / took
        of = f"one sidecar with {printers} virtual printers, half of them printing"
        figure("printers.cpu", f"{100 * (cpu_after - cpu) / took:.1f}", "%", "-", f"CPU of {of}")
        figure("printers.memory", f"{most:.0f}", "MB", "<=150", f"resident memory of {of}, at most")
        figure("printers.seen", f"{seen:.1f}", "s", "-", "from its start until all were seen")
        figure("printers.age_p99", f"{max(a[1] for a in ages):.1f}", "s", "-", f"age of state, 99 of 100 printers, worst of {len(ages)} looks (median {statistics.median(a[0] for a in ages):.1f} s)")
        figure("printers.transactions", f"{rate('commits') - 1:.1f}", "1/s", "-", "transactions of the database")
        figure("printers.rows", f"{rate('state') + rate('history'):.0f}", "rows", "-", f"rows written a second, {rate('history'):.1f} of them history")
        figure("printers.wal", f"{rate('wal') / printers:.0f}", "bytes", "-", "WAL a printer and second")
    finally:
        farm.close()


def start_on_octoprint(rounds):
    from farm import Farm, wait
    from servers import OctoPrint, gcode
    server, farm = OctoPrint(), Farm()
    try:
        server.upload("bench.gcode", gcode(400, 0.3))

        def stop():
            server.post("/api/job", {"command": "cancel"})
            wait("OctoPrint to be at rest", lambda: server.state() == "Operational", 60, 0.1)

        def by_hand():
            server.post("/api/files/local/bench.gcode", {"command": "select", "print": True})
            while not server.state().startswith("Printing"):
                time.sleep(0.02)

        sidecar = farm.sidecar()
        printer = farm.printer("op", "octoprint", f"127.0.0.1:{server.port}")
        sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": server.KEY}, role="admin")
        wait("the list of files", lambda: farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}"))

        def by_farm():
            answer = sidecar.ok("start_print", {"path": "bench.gcode", "printer_id": printer, "confirm": True})
            assert answer["ok"] is True, answer

        times = {by_hand: [], by_farm: []}
        for _ in range(rounds):
            for way, took in times.items():
                farm.wait_state(printer, "idle", "finished", "failed")
                sidecar.ok("clear_bed", {"printer_id": printer})
                farm.wait_state(printer, "idle")
                started = time.monotonic()
                way()
                took.append(time.monotonic() - started)
                farm.wait_state(printer, "printing")
                stop()
        hand, own = (statistics.median(took) for took in times.values())
        figure("printers.start", f"{own / hand:.2f}", "x", "-", f"start_print to confirmed on OctoPrint ({own * 1000:.0f} ms) against its API by hand ({hand * 1000:.0f} ms), medians of {rounds}")
    finally:
        farm.close()
        server.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--printers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    os.environ.setdefault("ODIN_TEST_SIDECAR", str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/odin-farm"))
    own = cluster()
    try:
        load(options.printers, options.seconds)
        start_on_octoprint(options.rounds)
    finally:
        if own:
            subprocess.run([ROOT / "scripts/test-cluster", "stop"], check=False)


if __name__ == "__main__":
    main()
