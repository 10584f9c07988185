"""Commands, leases and completion with virtual machines: what holds for every protocol."""

from farm import wait


def life_of_a_print(farm):
    """start, pause, resume, completion: each confirmed by the machine, the end applied once."""
    sidecar = farm.sidecar()
    printer = farm.printer("v1", address="speed=20")
    farm.wait_state(printer, "idle")
    job = farm.job(seconds=1200, printer=printer)
    started = sidecar.ok("start_job", {"job_id": job, "printer_id": printer})
    assert started["command_state"] == "done" and started["confirmed"], started
    assert farm.run_of(job)["status"] == "printing", farm.run_of(job)
    farm.wait_state(printer, "printing")
    paused = sidecar.ok("pause_printer", {"printer_id": printer})
    assert paused["state"] == "paused" and paused["success"] is True, paused
    wait("the run to be paused", lambda: farm.run_of(job)["status"] == "paused")
    resumed = sidecar.ok("resume_printer", {"printer_id": printer})
    assert resumed["state"] == "printing", resumed
    wait("the run to end", lambda: farm.run_of(job)["status"] == "completed", 60)
    assert farm.job_row(job)["status"] == "completed"
    assert farm.acts(printer) == {"start": 1, "pause": 1, "resume": 1}, farm.acts(printer)
    farm.wait_state(printer, "finished")
    assert farm.sql(f"SELECT to_jsonb(occupied) FROM odin.beds WHERE printer_id = {printer}") is True
    other = farm.job(printer=printer)
    assert sidecar.refused("start_job", {"job_id": other})["code"] == "bed_not_clear"
    sidecar.ok("clear_bed", {"printer_id": printer})
    assert farm.state(printer)["state"] == "idle"
    ends = farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'print_completed'")
    assert ends == 1, ends
    assert farm.sql(f"SELECT to_jsonb(runs) FROM odin.printer_totals WHERE printer_id = {printer}") == 1


def cancel_confirmed(farm):
    """cancel_job on a printing job: the answer comes when the machine has stopped, and the job is cancelled."""
    sidecar = farm.sidecar()
    printer = farm.printer("v1", address="speed=1")
    farm.wait_state(printer, "idle")
    job = farm.job(seconds=3600, printer=printer)
    sidecar.ok("start_job", {"job_id": job})
    answer = sidecar.ok("cancel_job", {"job_id": job, "reason": "wrong colour"})
    assert answer["command_state"] == "done" and answer["status"] == "cancelled", answer
    assert farm.job_row(job)["status"] == "cancelled"
    assert farm.run_of(job)["status"] == "cancelled"
    assert farm.acts(printer)["stop"] == 1


def preview_queues_nothing(farm):
    sidecar = farm.sidecar()
    printer = farm.printer("v1")
    farm.wait_state(printer, "idle")
    job = farm.job(printer=printer)
    preview = sidecar.ok("start_job", {"job_id": job, "dry_run": True})
    assert preview["dry_run"] is True
    assert farm.sql("SELECT to_jsonb(count(*)) FROM odin.commands") == 0
    assert farm.acts(printer) == {}


def handle_without_a_sidecar(farm):
    """Nobody holds the printer: the caller gets a handle, later the command expires and nothing is sent."""
    sidecar = farm.sidecar(ODIN_COMMAND_WAIT="1", ODIN_MOST_PRINTERS="0")
    printer = farm.printer("v1")
    farm.psql(farm.name, f"UPDATE odin.printer_state SET state = 'printing', reported_at = now() WHERE printer_id = {printer}")
    answer = sidecar.ok("pause_printer", {"printer_id": printer})
    assert answer["command_state"] == "queued" and answer["confirmed"] is False and answer["success"] is False, answer
    farm.psql(farm.name, f"UPDATE odin.commands SET deadline = now() - interval '1 s' WHERE id = {answer['command_id']}")
    working = farm.sidecar()
    row = wait("the command to expire", lambda: (lambda c: c if c["state"] == "failed" else None)(farm.command(answer["command_id"])))
    assert row["error"]["code"] == "command_expired" and row["sent_at"] is None, row
    working.stop()


def stop_overtakes_a_waiting_start(farm):
    """A start that has not left is cancelled by a stop; the machine never hears of it."""
    printer = farm.printer("v1")
    sidecar = farm.sidecar()
    farm.wait_state(printer, "idle")
    sidecar.stop()
    job = farm.job(printer=printer)
    farm.call("start_job", {"job_id": job})
    farm.call("cancel_job", {"job_id": job})
    assert farm.job_row(job)["status"] == "cancelled"
    farm.sidecar()
    wait("no open command", lambda: farm.sql("SELECT to_jsonb(count(*) FILTER (WHERE state IN ('queued','claimed','sent')) = 0) FROM odin.commands"))
    assert "start" not in farm.acts(printer)
    assert farm.run_of(job)["status"] == "released"


def machine_fails(farm):
    """The machine breaks the print off by itself: the run fails, the pieces are queued again, an alert is written."""
    farm.sidecar()
    printer = farm.printer("v1", address="speed=1")
    farm.wait_state(printer, "idle")
    job = farm.job(seconds=3600, printer=printer)
    farm.call("start_job", {"job_id": job})
    wait("printing", lambda: farm.run_of(job)["status"] == "printing")
    farm.psql(farm.name, f"SELECT odin.worker_virtual({printer}, '{{\"verb\":\"break\"}}')")
    # The sidecar's picture of the machine is its own; a restart reads it anew, as after a power cut.
    for old in farm.sidecars:
        old.kill()
    farm.sidecar()
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 30)
    assert farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.jobs WHERE requeued_from_run_id = {farm.run_of(job)['id']}") == 1
    assert farm.sql("SELECT to_jsonb(count(*)) FROM odin.alerts WHERE type = 'print_failed'") == 1


def history_is_thinned(farm):
    """Reports of all printers in one statement; of them a row when the state changes and one for a stretch of time, in the month's own partition."""
    printers = [farm.printer(f"v{n}") for n in range(3)]
    farm.psql(farm.name, "SELECT odin.worker_lease_printers('other', 300, 10, NULL)")

    def say(state, times, aged=0):
        # In one transaction, so that no more than one stretch of time ends meanwhile.
        farm.psql(farm.name, f"""DO $$ DECLARE said jsonb; BEGIN
            UPDATE odin.printer_state SET reported_at = reported_at - interval '{aged} s';
            FOR i IN 1..{times} LOOP
              SELECT odin.worker_printer_reports('other', jsonb_agg(jsonb_build_object('p', l.printer_id, 'f', l.fence, 'state', '{state}', 'tool_c', i))) INTO said FROM odin.printer_leases l;
              ASSERT jsonb_array_length(said->'heard') = 3, said::text;
            END LOOP; END $$""")
        return farm.sql("SELECT jsonb_agg(n ORDER BY printer_id) FROM (SELECT printer_id, count(*) AS n FROM odin.printer_telemetry GROUP BY 1) x")

    rows = [say("idle", 20)]
    assert max(rows[-1]) <= 2 and len(rows[-1]) == len(printers), rows
    for state, aged in (("printing", 0), ("printing", 61), ("idle", 0), ("idle", 601)):
        rows.append(say(state, 20, aged))
        assert all(1 <= now - before <= 2 for before, now in zip(rows[-2], rows[-1])), (state, aged, rows)
    # Nobody answers: that it went away is all there is to keep, however old its last answer becomes.
    rows.append(say("offline", 20))
    rows.append(say("offline", 20, 7200))
    assert rows[-1] == rows[-2] == [n + 1 for n in rows[-3]], rows
    assert farm.sql("SELECT to_jsonb(bool_and(tableoid::regclass::text = to_char(at AT TIME ZONE 'UTC', '\"odin.printer_telemetry_\"YYYY_MM'))) FROM odin.printer_telemetry") is True
    farm.psql(farm.name, """CREATE TABLE odin.printer_telemetry_2020_01 PARTITION OF odin.printer_telemetry FOR VALUES FROM ('2020-01-01 00:00+00') TO ('2020-02-01 00:00+00');
        SELECT odin.telemetry_partitions()""")
    assert farm.sql("SELECT to_jsonb(to_regclass('odin.printer_telemetry_2020_01') IS NULL)") is True


TESTS = [life_of_a_print, cancel_confirmed, preview_queues_nothing, handle_without_a_sidecar, stop_overtakes_a_waiting_start, machine_fails, history_is_thinned]
