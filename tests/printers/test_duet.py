"""The driver for Duet boards against a stand-in for their web interface."""

import duet
from farm import wait
from servers import gcode


def with_printer(farm, password=None, **env):
    server = duet.Duet()
    sidecar = farm.sidecar(**env)
    printer = farm.printer("duet", "duet", f"127.0.0.1:{server.port}")
    if password:
        server.machine.password = password
        sidecar.ok("set_printer_credentials", {"printer_id": printer, "password": password}, role="admin")
    farm.wait_state(printer, "idle")
    return server.machine, sidecar, printer


def started(farm, sidecar, printer, text=None):
    job = farm.job(seconds=30, sha256=farm.store(text or gcode(20)), printer=printer)
    answer = sidecar.ok("start_job", {"job_id": job})
    assert answer["confirmed"], answer
    return job


def life_of_a_print(farm):
    machine, sidecar, printer = with_printer(farm, password="s3 c&ret")
    text = gcode(20) + ";" + "x" * 400_000 + "\n"
    job = started(farm, sidecar, printer, text)
    name = farm.run_of(job)["remote_file"]
    assert machine.files[name] == text.encode()
    farm.wait_state(printer, "printing")
    assert sidecar.ok("pause_printer", {"printer_id": printer})["state"] == "paused" and machine.status == "paused"
    assert sidecar.ok("resume_printer", {"printer_id": printer})["state"] == "printing"
    assert sidecar.refused("home_printer", {"printer_id": printer, "confirm": True})["code"] == "printer_not_ready"
    assert sidecar.ok("set_speed", {"printer_id": printer, "percent": 80, "confirm": True})["ok"] is True and machine.speed == 0.8
    assert sidecar.ok("skip_objects", {"printer_id": printer, "objects": ["2"], "confirm": True})["ok"] is True and "M486 P2" in machine.lines
    machine.seconds = 2.0
    wait("the run to end", lambda: farm.run_of(job)["status"] == "completed", 40)
    assert [line.split()[0] for line in machine.lines if line.split()[0] in ("M32", "M25", "M24")] == ["M32", "M25", "M24"]
    assert "s3 c&ret" not in sidecar.said() and "s3%20c" not in sidecar.said()


def cancel_goes_through_a_pause(farm):
    """M0 only works in a pause; one stop of the farm is both."""
    machine, sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer)
    answer = sidecar.ok("cancel_job", {"job_id": job})
    assert answer["command_state"] == "done" and answer["status"] == "cancelled", answer
    assert machine.lines[-2:] == ["M25", "M0"], machine.lines
    wait("the run to be cancelled", lambda: farm.run_of(job)["status"] == "cancelled", 10)


def aborted_is_failed(farm):
    machine, sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer)
    with machine.lock:
        machine.over(lastFileAborted=True)
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 30)


def halted(farm):
    """An emergency stop at the board: error, the run fails, connect resets it."""
    machine, sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer)
    with machine.lock:
        machine.status = "halted"
    farm.wait_state(printer, "error")
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 30)
    assert sidecar.ok("connect_printer", {"printer_id": printer, "confirm": True})["ok"] is True
    assert "M999" in machine.lines


def sessions_end_and_memory_is_short(farm):
    """A session that ended is opened anew, and 503 is a moment's want of memory; neither is an outage or sends anything twice."""
    machine, sidecar, printer = with_printer(farm)
    with machine.lock:
        machine.sessions.clear()
        machine.short = 3
    job = started(farm, sidecar, printer)
    with machine.lock:
        machine.sessions.clear()
        machine.short = 2
    farm.wait_state(printer, "printing")
    assert sidecar.ok("pause_printer", {"printer_id": printer})["state"] == "paused"
    assert farm.run_of(job)["status"] in ("paused", "printing")
    assert machine.lines.count("M25") == 1 and len([line for line in machine.lines if line.startswith("M32")]) == 1, machine.lines


def a_damaged_upload_is_tried_again_but_not_for_ever(farm):
    machine, sidecar, printer = with_printer(farm)
    machine.damage = 2
    job = started(farm, sidecar, printer)
    assert machine.damage == 0
    sidecar.ok("cancel_job", {"job_id": job})
    sidecar.ok("clear_bed", {"printer_id": printer})
    machine.damage = 99
    other = farm.job(seconds=30, sha256=farm.store(gcode(21)), printer=printer)
    error = sidecar.refused("start_job", {"job_id": other})
    assert "did not store" in error["detail"] and machine.damage == 96, (error, machine.damage)
    assert farm.run_of(other)["status"] == "released" and len([line for line in machine.lines if line.startswith("M32")]) == 1


def its_own_words(farm):
    """G-code is accepted first and answered later; an error in the answer is a refusal."""
    machine, sidecar, printer = with_printer(farm)
    error = sidecar.refused("move_printer", {"printer_id": printer, "x": 10, "confirm": True})
    assert error["code"] == "printer_refused" and "insufficient axes homed" in error["detail"], error
    assert sidecar.ok("home_printer", {"printer_id": printer, "confirm": True})["ok"] is True
    assert sidecar.ok("move_printer", {"printer_id": printer, "x": 10, "speed": 3000, "confirm": True})["ok"] is True
    assert machine.lines[-4:] == ["M120", "G91", "G1 X10 F3000", "M121"], machine.lines
    said = sidecar.ok("printer_gcode", {"printer_id": printer, "lines": ["M115"], "confirm": True}, role="admin")
    assert said["lines"] == ["FIRMWARE_NAME: RepRapFirmware"], said
    heated = sidecar.ok("set_temperature", {"printer_id": printer, "heater": "bed", "target": 60, "confirm": True})
    assert heated["ok"] is True and machine.heat["bed"] == 60


def files_come_in_pages(farm):
    machine, sidecar, printer = with_printer(farm)
    with machine.lock:
        machine.files = {f"{n}.gcode": b"G28" for n in range(5)}
    def listed():
        return len(farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}") or []) == 5
    farm.psql(farm.name, f"UPDATE odin.printers SET address = address || '/' WHERE id = {printer}")
    wait("five files", listed, 30)


def wrong_answers_are_told_apart(farm):
    machine, sidecar, printer = with_printer(farm)
    with machine.lock:
        machine.password = "another"
        machine.sessions.clear()
    def diagnosed(word):
        return wait(f"the diagnosis {word}", lambda: (lambda s: s if not s["works"] and word in s["detail"] else None)(sidecar.ok("test_printer", {"printer_id": printer})), 40, 1.0)
    assert diagnosed("password")["problem"] == "printer_auth"
    with machine.lock:
        machine.password, machine.most_sessions = "reprap", 0
    diagnosed("no free session")
    farm.psql(farm.name, f"UPDATE odin.printers SET address = '127.0.0.1:{sidecar.port}' WHERE id = {printer}")
    diagnosed("is it a Duet")


def ended_while_nobody_looked(farm):
    machine, sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer)
    sidecar.kill()
    machine.seconds = 2.0
    wait("the Duet to finish", lambda: machine.status == "idle", 20)
    farm.sidecar()
    wait("the run to be completed", lambda: farm.run_of(job)["status"] == "completed", 40)


TESTS = [life_of_a_print, cancel_goes_through_a_pause, aborted_is_failed, halted, sessions_end_and_memory_is_short, a_damaged_upload_is_tried_again_but_not_for_ever, its_own_words, files_come_in_pages,
         wrong_answers_are_told_apart, ended_while_nobody_looked]
