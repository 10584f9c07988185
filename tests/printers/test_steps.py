"""kill -9 of a sidecar at each step of every command, counted at the socket: nothing is sent twice that must not be, and nothing is lost.

The steps: before (nobody has claimed it), claimed, sending (written as sent, not a byte has left), sent (the printer has it), confirmed (the
printer showed it; the report is missing). What became of a command is one of:

    sign      the machine shows whether it happened: done, and the machine heard it once
    harmless  an absolute setting: done, and said again where nobody knows
    traceless a move leaves no trace: where it may have left it is never repeated, and a person is told that it is in doubt
"""

from farm import wait
from recorder import Recorder

STEPS = ("before", "claimed", "sending", "sent", "confirmed")
MAY_HAVE_LEFT = ("sending", "sent", "confirmed")
# verb: (tool, arguments, the machine before, how its request looks at the socket, what becomes of it)
VERBS = {
    "pause": ("octoprint_control_job", {"action": "pause"}, "printing", lambda p, b: p == "/api/job" and b.get("action") == "pause", "sign"),
    "resume": ("octoprint_control_job", {"action": "resume"}, "paused", lambda p, b: p == "/api/job" and b.get("action") == "resume", "sign"),
    "stop": ("octoprint_control_job", {"action": "cancel"}, "printing", lambda p, b: p == "/api/job" and b["command"] == "cancel", "sign"),
    "set_temperature": ("set_temperature", {"heater": "bed", "target": 60}, "idle", lambda p, b: p == "/api/printer/bed", "sign"),
    "connect": ("connect_printer", {}, "offline", lambda p, b: p == "/api/connection" and b["command"] == "connect", "sign"),
    "disconnect": ("connect_printer", {"action": "disconnect"}, "idle", lambda p, b: p == "/api/connection" and b["command"] == "disconnect", "sign"),
    "upload": ("octoprint_upload_file", {"gcode_path": "small.gcode", "select": True}, "idle", lambda p, b: p == "/api/files/local/small.gcode", "sign"),
    "set_fan": ("set_fan", {"percent": 40}, "idle", lambda p, b: p == "/api/printer/command", "harmless"),
    "set_speed": ("set_speed", {"percent": 80}, "idle", lambda p, b: p == "/api/printer/printhead", "harmless"),
    "home": ("home_printer", {}, "idle", lambda p, b: p == "/api/printer/printhead", "traceless"),
    "move": ("move_printer", {"x": 10}, "idle", lambda p, b: p == "/api/printer/printhead", "traceless"),
    "gcode": ("printer_gcode", {"lines": ["M115"]}, "idle", lambda p, b: p == "/api/printer/command", "traceless"),
    "skip_objects": ("skip_objects", {"objects": ["1"]}, "printing", lambda p, b: p == "/api/printer/command", "traceless"),
    # A stored file may be printed by anybody: found printing it is done, found at rest nobody can know.
    "print_file": ("start_print", {"path": "there.gcode"}, "idle", lambda p, b: p == "/api/files/local/there.gcode", "print"),
}


def expected(step, kind):
    """(requests of this kind in all, the command's last state)."""
    left = step in ("sent", "confirmed")
    if kind == "harmless":
        return 2 if left else 1, "done"
    if kind == "traceless" and step in MAY_HAVE_LEFT:
        return int(left), "failed"
    if kind == "print" and step == "sending":
        return 0, "failed"
    return 1, "done"


def at_every_step(verb):
    tool, arguments, before, matches, kind = VERBS[verb]

    def test(farm):
        farm.store("G28\nM84\n", "small.gcode")
        recorder = Recorder()
        sidecar = farm.sidecar()
        printer = farm.printer("op", "octoprint", f"127.0.0.1:{recorder.port}")
        sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": "KEYKEYKEY"}, role="admin")
        wait("the list of files", lambda: farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}"))
        for step in STEPS:
            recorder.rest()
            farm.wait_state(printer, "idle", "finished", "failed")
            farm.call("clear_bed", {"printer_id": printer})
            if before == "offline":
                recorder.connected = False
            elif before != "idle":
                recorder.printing("theirs.gcode")
                recorder.paused = before == "paused"
            farm.wait_state(printer, before)
            sidecar.stop()
            recorder.orders.clear()
            doomed = farm.sidecar(ODIN_CRASH_AT=f"{step}:{verb}") if step != "before" else None
            confirm = {} if tool == "octoprint_upload_file" else {"confirm": True}
            command = farm.call(tool, {**arguments, **confirm, "printer_id": printer}, role="admin")["command_id"]
            if doomed:
                doomed.died()
            sidecar = farm.sidecar()
            row = wait(f"the command to end ({step})", lambda: (lambda c: c if c["finished_at"] else None)(farm.command(command)), 40)
            heard = [order for order in recorder.orders if matches(*order)]
            assert (len(heard), row["state"]) == expected(step, kind), (step, recorder.orders, row)
            assert row["state"] == "done" or row["error"]["code"] == "command_in_doubt", (step, row)
            if row["state"] == "failed":
                told = farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'command_in_doubt'")
                assert told >= 1, "somebody is told of what nobody can know"

    test.__name__ = f"{verb}_at_every_step"
    return test


def upload_alone_at_every_step(farm):
    """A file that is only stored: it is there once, whole; storing it again under its own name is the same."""
    farm.store("G28\nM84\n", "small.gcode")
    recorder = Recorder()
    sidecar = farm.sidecar()
    printer = farm.printer("op", "octoprint", f"127.0.0.1:{recorder.port}")
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": "KEYKEYKEY"}, role="admin")
    farm.wait_state(printer, "idle")
    # Nothing follows the file, so there is no step between its sending and the report.
    for step in ("before", "claimed", "sending", "confirmed"):
        sidecar.stop()
        recorder.orders.clear()
        doomed = farm.sidecar(ODIN_CRASH_AT=f"{step}:upload") if step != "before" else None
        command = farm.call("octoprint_upload_file", {"gcode_path": "small.gcode", "printer_id": printer})["command_id"]
        if doomed:
            doomed.died()
        sidecar = farm.sidecar()
        row = wait(f"the command to end ({step})", lambda: (lambda c: c if c["finished_at"] else None)(farm.command(command)), 40)
        assert row["state"] == "done" and recorder.orders == [("/api/files/local", "small.gcode")], (step, row, recorder.orders)


def light_at_every_step(farm):
    """OctoPrint has no light; the virtual machine counts what it hears."""
    printer = farm.printer("v1")
    sidecar = farm.sidecar()
    farm.wait_state(printer, "idle")
    for step in STEPS:
        sidecar.stop()
        heard = farm.acts(printer).get("light", 0)
        doomed = farm.sidecar(ODIN_CRASH_AT=f"{step}:set_light") if step != "before" else None
        command = farm.call("set_light", {"on": True, "printer_id": printer, "confirm": True})["command_id"]
        if doomed:
            doomed.died()
        sidecar = farm.sidecar()
        row = wait(f"the command to end ({step})", lambda: (lambda c: c if c["finished_at"] else None)(farm.command(command)), 40)
        assert (farm.acts(printer)["light"] - heard, row["state"]) == expected(step, "harmless"), (step, row)


TESTS = [*(at_every_step(verb) for verb in VERBS), upload_alone_at_every_step, light_at_every_step]
