"""kill -9 of a sidecar at each step of a command: nothing is sent twice, nothing is lost. And two sidecars share and take over."""

import time

from farm import wait


def ready_job(farm, seconds=3600):
    """A printer that has been seen idle, a job for it, and no sidecar left."""
    printer = farm.printer("v1", address="speed=1")
    first = farm.sidecar()
    farm.wait_state(printer, "idle")
    first.stop()
    return printer, farm.job(seconds=seconds, printer=printer)


def crashed_start(farm, step):
    printer, job = ready_job(farm)
    doomed = farm.sidecar(ODIN_CRASH_AT=f"{step}:start")
    answer = farm.call("start_job", {"job_id": job})
    doomed.died()
    left = farm.command(answer["command_id"])["state"]
    acts = farm.acts(printer).get("start", 0)
    farm.sidecar()
    wait("the run to print", lambda: farm.run_of(job)["status"] == "printing", 40)
    assert farm.acts(printer)["start"] == 1, farm.acts(printer)
    assert farm.command(answer["command_id"])["state"] == "done"
    assert farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.runs WHERE job_id = {job}") == 1
    return left, acts


def dead_before_the_claim(farm):
    printer, job = ready_job(farm)
    answer = farm.call("start_job", {"job_id": job})
    assert farm.command(answer["command_id"])["state"] == "queued"
    farm.sidecar()
    wait("the run to print", lambda: farm.run_of(job)["status"] == "printing", 20)
    assert farm.acts(printer)["start"] == 1


def dead_after_the_claim(farm):
    assert crashed_start(farm, "claimed") == ("claimed", 0)


def dead_before_it_left(farm):
    """Written as sent, but the machine never heard it: the machine shows that, so it may be sent now."""
    assert crashed_start(farm, "sending") == ("sent", 0)


def dead_after_it_left(farm):
    """The machine prints; nobody was told. It is found printing, and not started again."""
    assert crashed_start(farm, "sent") == ("sent", 1)


def dead_before_the_report(farm):
    assert crashed_start(farm, "confirmed") == ("sent", 1)


def crashed_pause(farm, step, already):
    printer, job = ready_job(farm, seconds=600)
    starter = farm.sidecar()
    starter.ok("start_job", {"job_id": job})
    farm.wait_state(printer, "printing")
    starter.stop()
    doomed = farm.sidecar(ODIN_CRASH_AT=f"{step}:pause")
    answer = farm.call("pause_printer", {"printer_id": printer})
    doomed.died()
    assert farm.acts(printer).get("pause", 0) == already
    farm.sidecar()
    wait("the run to be paused", lambda: farm.run_of(job)["status"] == "paused", 40)
    assert farm.acts(printer)["pause"] == 1, farm.acts(printer)
    wait("the command to be done", lambda: farm.command(answer["command_id"])["state"] == "done")


def pause_dead_before_it_left(farm):
    crashed_pause(farm, "sending", 0)


def pause_dead_after_it_left(farm):
    crashed_pause(farm, "sent", 1)


def stop_dead_after_it_left(farm):
    """The machine stopped and nobody was told: the job is cancelled all the same, once."""
    printer, job = ready_job(farm)
    starter = farm.sidecar()
    starter.ok("start_job", {"job_id": job})
    starter.stop()
    doomed = farm.sidecar(ODIN_CRASH_AT="sent:stop")
    farm.call("cancel_job", {"job_id": job})
    doomed.died()
    farm.sidecar()
    wait("the job to be cancelled", lambda: farm.job_row(job)["status"] == "cancelled", 40)
    assert farm.acts(printer)["stop"] == 1


def a_move_is_never_repeated(farm):
    """A move leaves no sign. Sent and not heard back: it is reported as in doubt, and stays so."""
    printer, _ = ready_job(farm)
    doomed = farm.sidecar(ODIN_CRASH_AT="sent:move")
    answer = farm.call("move_printer", {"x": 10, "printer_id": printer, "confirm": True})
    doomed.died()
    farm.sidecar()
    row = wait("the command to end", lambda: (lambda c: c if c["finished_at"] else None)(farm.command(answer["command_id"])), 40)
    assert row["state"] == "failed" and row["error"]["code"] == "command_in_doubt", row
    assert farm.acts(printer)["move"] == 1


def the_end_is_applied_once(farm):
    """The sidecar dies over and over while a print ends: the run ends once, filament and counters move once."""
    printer = farm.printer("v1", address="speed=20")
    sidecar = farm.sidecar()
    farm.wait_state(printer, "idle")
    job = farm.job(seconds=60, printer=printer)
    sidecar.ok("start_job", {"job_id": job})
    for _ in range(3):
        sidecar.kill()
        sidecar = farm.sidecar()
        time.sleep(1)
    wait("the run to end", lambda: farm.run_of(job)["status"] == "completed", 40)
    assert farm.sql(f"SELECT to_jsonb(runs) FROM odin.printer_totals WHERE printer_id = {printer}") == 1
    assert farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'print_completed'") == 1


def holders(farm):
    return farm.sql("SELECT coalesce(jsonb_object_agg(holder, n), '{}') FROM (SELECT holder, count(*) AS n FROM odin.printer_leases WHERE holder <> '' GROUP BY 1) x")


def two_share_and_take_over(farm):
    farm.psql(farm.name, f"INSERT INTO odin.printers(org_id, name, protocol) SELECT {farm.org}, 'v' || n, 'virtual' FROM generate_series(1, 20) n")
    first = farm.sidecar()
    wait("all at one", lambda: list(holders(farm).values()) == [20])
    second = farm.sidecar()
    wait("ten at each", lambda: sorted(holders(farm).values()) == [10, 10], 20)
    wait("all to be seen", lambda: farm.sql("SELECT to_jsonb(count(*) = 20) FROM odin.printer_state WHERE state = 'idle'"))
    second.kill()
    wait("all at the one that lives", lambda: list(holders(farm).values()) == [20])
    third = farm.sidecar()
    wait("ten at each again", lambda: sorted(holders(farm).values()) == [10, 10], 20)
    third.stop()
    assert len(holders(farm)) == 1, "what is handed back is nobody's at once; it does not have to run out"
    wait("all at the one that is left", lambda: list(holders(farm).values()) == [20])
    assert first.process.poll() is None


def an_old_fence_counts_for_nothing(farm):
    printer = farm.printer("v1")
    sidecar = farm.sidecar()
    farm.wait_state(printer, "idle")
    lease = farm.sql(f"SELECT to_jsonb(l) FROM odin.printer_leases l WHERE printer_id = {printer}")
    sidecar.stop()
    farm.psql(farm.name, f"INSERT INTO odin.commands(org_id, printer_id, verb) VALUES ({farm.org}, {printer}, 'home')")
    said = farm.sql(f"""SELECT odin.worker_lease_printers('other', 30, 10, NULL); SELECT odin.worker_claim_commands('other', 10)""")
    assert len(said) == 1 and said[0]["fence"] > lease["fence"], said
    for holder, fence in (("other", lease["fence"]), (lease["holder"], lease["fence"]), (lease["holder"], said[0]["fence"])):
        assert farm.sql(f"SELECT odin.worker_command_sending({said[0]['id']}, '{holder}', {fence})")["ok"] is False
        assert farm.sql(f"SELECT odin.worker_command_ended({said[0]['id']}, '{holder}', {fence}, '{{\"state\":\"done\"}}')")["ok"] is False
        report = f'[{{"p": {printer}, "f": {fence}, "state": "printing"}}]'
        assert farm.sql(f"SELECT odin.worker_printer_reports('{holder}', '{report}')")["heard"] == []
    assert farm.sql(f"SELECT odin.worker_claim_commands('other', 10)") == [], "claimed once"
    assert farm.sql(f"SELECT odin.worker_command_sending({said[0]['id']}, 'other', {said[0]['fence']})")["ok"] is True
    assert farm.sql(f"SELECT odin.worker_command_sending({said[0]['id']}, 'other', {said[0]['fence']})")["ok"] is False, "sent once"


TESTS = [dead_before_the_claim, dead_after_the_claim, dead_before_it_left, dead_after_it_left, dead_before_the_report, pause_dead_before_it_left, pause_dead_after_it_left, stop_dead_after_it_left,
         a_move_is_never_repeated, the_end_is_applied_once, two_share_and_take_over, an_old_fence_counts_for_nothing]
