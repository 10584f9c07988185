"""The driver for OctoPrint against a real OctoPrint with its virtual printer: the life of a print and every pitfall we know."""

import hashlib
import json

from farm import wait
from servers import OctoPrint, ask, gcode

server = None


def begin():
    global server
    server = OctoPrint()


def end():
    server.close()


def settled():
    """The server at rest and connected, whatever the test before did to it."""
    state = server.state()
    if state.startswith(("Printing", "Paused", "Starting", "Pausing", "Resuming")):
        server.post("/api/job", {"command": "cancel"})
    if not server.operational() or server.state() != "Operational":
        def back():
            if server.state() == "Operational":
                return True
            server.post("/api/connection", {"command": "connect", "port": "VIRTUAL", "baudrate": 250000})
            return False
        wait("OctoPrint to be at rest", back, 40, 1.0)


def with_printer(farm, key=None, **columns):
    settled()
    sidecar = farm.sidecar()
    printer = farm.printer("op", "octoprint", f"http://127.0.0.1:{server.port}", **columns)
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": key or server.KEY}, role="admin")
    return sidecar, printer


def started(farm, sidecar, printer, text, seconds=30):
    job = farm.job(seconds=seconds, sha256=farm.store(text), printer=printer)
    answer = sidecar.ok("start_job", {"job_id": job})
    assert answer["confirmed"], answer
    # Confirmed is also a print that still prepares; a cancel or a fault of the tests shall find it printing.
    wait("OctoPrint to print", lambda: server.state() == "Printing")
    return job


def life_of_a_print(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(140, 0.3))
    run = farm.run_of(job)
    assert run["status"] == "printing" and run["remote_file"].startswith(f"odin_{run['id']}_"), run
    assert server.get("/api/job")[1]["job"]["file"]["path"] == run["remote_file"]
    farm.wait_state(printer, "printing")
    paused = sidecar.ok("pause_printer", {"printer_id": printer})
    assert paused["state"] == "paused" and server.state() == "Paused", paused
    resumed = sidecar.ok("resume_printer", {"printer_id": printer})
    assert resumed["state"] == "printing", resumed
    wait("the run to end", lambda: farm.run_of(job)["status"] == "completed", 90)
    farm.wait_state(printer, "finished")
    stored = server.get(f"/api/files/local/{run['remote_file']}")[1]
    assert stored["prints"]["success"] == 1, stored["prints"]
    files = farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}")
    assert any(f["path"] == run["remote_file"] for f in files), files
    facts = farm.sql(f"SELECT facts FROM odin.printer_facts WHERE printer_id = {printer}")
    assert facts["server"]["version"] == "1.11.8" and facts["connection"]["port"] == "VIRTUAL", facts


def cancel_is_confirmed(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(600, 0.3))
    answer = sidecar.ok("cancel_job", {"job_id": job})
    assert answer["command_state"] == "done" and answer["status"] == "cancelled", answer
    assert server.state() == "Operational"
    assert farm.run_of(job)["status"] == "cancelled"


def cancel_while_heating_answers_with_a_handle(farm):
    """OctoPrint stays in Cancelling until the heating is over; nobody is told that it has stopped before it has."""
    settled()
    sidecar = farm.sidecar(ODIN_COMMAND_WAIT="2")
    printer = farm.printer("op", "octoprint", f"127.0.0.1:{server.port}")
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": server.KEY}, role="admin")
    farm.wait_state(printer, "idle")
    job = farm.job(sha256=farm.store(gcode(50, 0.3, heat=200)), printer=printer)
    sidecar.ok("start_job", {"job_id": job})
    wait("printing", lambda: farm.run_of(job)["status"] == "printing")
    wait("the heating to begin", lambda: server.get("/api/printer")[1].get("temperature", {}).get("tool0", {}).get("target") == 200)
    answer = sidecar.ok("cancel_job", {"job_id": job})
    # A slow machine may not have come to it within two seconds, or the heating may be over.
    assert answer["command_state"] in ("queued", "claimed", "sent", "done"), answer
    if answer["command_state"] != "done":
        assert answer["confirmed"] is False and answer["status"] != "cancelled", answer
    wait("the stop to be confirmed", lambda: farm.job_row(job)["status"] == "cancelled", 60)
    assert server.state() == "Operational"


def wrong_key_says_so(farm):
    """403 when asking and 400 CSRF when ordering are both a wrong key; the key is in no message and no log."""
    sidecar, printer = with_printer(farm, key="WRONGKEYWRONGKEYWRONGKEYWRONGKEY1")
    state = farm.wait_state(printer, "offline")
    wait("the reason", lambda: farm.state(printer)["error_code"] == "printer_auth", 20)
    assert "WRONGKEY" not in json.dumps(farm.state(printer)) and state["reported_at"] is None
    trail = farm.sql("SELECT jsonb_agg(to_jsonb(c)) FROM odin.audit_calls c")
    assert "WRONGKEY" not in json.dumps(trail) and "WRONGKEY" not in sidecar.said()
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": server.KEY}, role="admin")
    farm.wait_state(printer, "idle")


def print_at_the_machine(farm):
    """A print that the farm did not start is recorded, occupies the bed, and keeps jobs away."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    server.upload("theirs.gcode", gcode(140, 0.3))
    server.post("/api/files/local/theirs.gcode", {"command": "select", "print": True})
    farm.wait_state(printer, "printing")
    wait("the event", lambda: farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'foreign_print_started'") == 1)
    job = farm.job(sha256=farm.store(gcode(5)), printer=printer)
    assert sidecar.refused("start_job", {"job_id": job})["code"] in ("printer_busy", "bed_not_clear")
    farm.wait_state(printer, "finished", limit=60)
    assert farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'foreign_print_ended'") == 1
    assert farm.sql(f"SELECT to_jsonb(occupied) FROM odin.beds WHERE printer_id = {printer}") is True


def cancelled_at_the_screen(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(600, 0.3))
    server.post("/api/job", {"command": "cancel"})
    wait("the run to be cancelled", lambda: farm.run_of(job)["status"] == "cancelled", 30)
    again = farm.sql(f"SELECT to_jsonb(j) FROM odin.jobs j WHERE requeued_from_run_id = {farm.run_of(job)['id']}")
    assert again["hold"] is True, again
    assert farm.sql(f"SELECT to_jsonb(occupied) FROM odin.beds WHERE printer_id = {printer}") is True


def paused_by_the_firmware(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(600, 0.3))
    server.inject("action_pause")
    wait("the run to be paused", lambda: farm.run_of(job)["status"] == "paused", 30)
    assert farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'paused_at_printer'") == 1


def firmware_halt(farm):
    """kill() in the firmware: the run fails with the firmware's words, the printer is in error, an alert is written."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(600, 0.3))
    server.inject("trigger_fatal_error_marlin")
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 30)
    state = farm.wait_state(printer, "error")
    assert state["error_message"], state
    assert farm.sql("SELECT to_jsonb(count(*)) FROM odin.alerts WHERE type = 'printer_error'") >= 1
    other = farm.job(sha256=farm.store(gcode(5)), printer=printer)
    assert sidecar.refused("start_job", {"job_id": other})["code"] in ("not_ready", "bed_not_clear")


def connection_drops(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(600, 0.3))
    server.inject("drop_connection")
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 60)


def silent_printer_is_noticed(farm):
    """go_awol: OctoPrint says Printing for ever; only the stall detector notices."""
    farm.psql(farm.name, "UPDATE odin.orgs SET settings = settings || '{\"printer_stall_seconds\": 6}' WHERE name = 'Demo Farm'")
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    started(farm, sidecar, printer, gcode(600, 0.3))
    server.inject("go_awol")
    wait("the stall", lambda: farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'stalled'") == 1, 60)
    assert farm.sql("SELECT to_jsonb(count(*)) FROM odin.alerts WHERE type = 'printer_error'") >= 1
    server.kill()
    server.start()


def server_restarts_while_printing(farm):
    """After a restart the server has forgotten the print, and the machine has stopped: the run fails, nothing is guessed."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(600, 0.3))
    server.kill()
    farm.wait_state(printer, "offline")
    assert farm.run_of(job)["status"] == "printing", "an outage ends no run"
    server.start()
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 60)


def ended_while_nobody_looked(farm):
    """The sidecar is away while the print ends; the next one reads the end from the server."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(120, 0.3))
    sidecar.kill()
    wait("OctoPrint to finish", lambda: server.state() == "Operational", 60)
    assert farm.run_of(job)["status"] == "printing"
    farm.sidecar()
    wait("the run to be completed", lambda: farm.run_of(job)["status"] == "completed", 40)


def upload_is_whole(farm):
    """A megabyte and a half streams over unchanged, under a name of the run's own."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    text = gcode(400, 0.3) + ";" + "x" * 1_400_000 + "\n"
    job = started(farm, sidecar, printer, text)
    stored = server.get(f"/api/files/local/{farm.run_of(job)['remote_file']}")[1]
    assert stored["size"] == len(text) and stored["hash"] == hashlib.sha1(text.encode()).hexdigest(), stored
    # Nor is it replaced while it is printed.
    name = farm.run_of(job)["remote_file"]
    farm.store("G28\n", name)
    error = sidecar.refused("octoprint_upload_file", {"gcode_path": name, "printer_id": printer})
    assert error["code"] == "printer_refused" and "currently being printed" in error["detail"], error
    server.post("/api/job", {"command": "cancel"})


def a_login_is_wanted_anew(farm):
    """Somebody changes the rights of the key's user: OctoPrint wants a new login on the open socket, gets one, and goes on telling."""
    before = len((server.dir / "log").read_text())
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")

    def logins():
        return (server.dir / "log").read_text()[before:].count("User farm logged in on the socket")
    first = wait("the first login", logins)
    rights = {"active": True, "groups": ["admins"], "permissions": ["STATUS", "PRINT"]}
    assert ask(server.port, "PUT", "/api/access/users/farm", rights, {"X-Api-Key": server.KEY})[0] == 200
    wait("another login", lambda: logins() > first)
    server.upload("later.gcode", gcode(600, 0.3))
    server.post("/api/files/local/later.gcode", {"command": "select", "print": True})
    farm.wait_state(printer, "printing")
    server.post("/api/job", {"command": "cancel"})
    farm.wait_state(printer, "finished", "failed")


TESTS = [life_of_a_print, cancel_is_confirmed, cancel_while_heating_answers_with_a_handle, wrong_key_says_so, print_at_the_machine, cancelled_at_the_screen, paused_by_the_firmware, firmware_halt,
         connection_drops, silent_printer_is_noticed, server_restarts_while_printing, ended_while_nobody_looked, upload_is_whole, a_login_is_wanted_anew]
