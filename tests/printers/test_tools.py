"""PrintMCP's rule and ranges: without confirm nothing leaves, proven at the socket; with it, one request of the right kind."""

import json
import time

from farm import wait
from recorder import Recorder

def recorded(farm, **columns):
    recorder = Recorder()
    sidecar = farm.sidecar()
    printer = farm.printer("op", "octoprint", f"127.0.0.1:{recorder.port}", **columns)
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": "KEYKEYKEY"}, role="admin")
    farm.wait_state(printer, "idle")
    wait("the list of files", lambda: farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}"))
    return recorder, sidecar, printer


GATED = [
    ("octoprint_connect", {"action": "connect"}),
    ("octoprint_start_print", {"path": "there.gcode"}),
    ("octoprint_set_temperature", {"heater": "bed", "target": 60}),
    ("octoprint_home", {}),
    ("octoprint_move", {"x": 10, "speed": 3000}),
    ("start_print", {"path": "there.gcode"}),
    ("set_temperature", {"heater": "tool", "target": 200}),
    ("home_printer", {"axes": ["x"]}),
    ("move_printer", {"z": -1.5}),
    ("connect_printer", {}),
]


def nothing_leaves_without_confirm(farm):
    recorder, sidecar, printer = recorded(farm)
    for tool, arguments in GATED:
        for more in ({}, {"confirm": False}, {"dry_run": True, "confirm": True}):
            answer = sidecar.ok(tool, {**arguments, **more})
            assert answer["dry_run"] is True and "command_id" not in answer, (tool, answer)
            if not more:
                assert answer["ok"] is True and answer["detail"].startswith("Safety check - nothing was sent"), (tool, answer)
    upload = sidecar.ok("octoprint_upload_file", {"gcode_path": farm_file(farm), "print_after_upload": True})
    assert upload["dry_run"] is True and upload["uploaded"] is False, upload
    time.sleep(3)
    assert recorder.orders == [], recorder.orders
    assert farm.sql("SELECT to_jsonb(count(*)) FROM odin.commands") == 0


WHILE_PRINTING = [
    ("skip_objects", {"objects": ["1"]}),
    ("set_fan", {"percent": 40}),
    ("set_speed", {"percent": 80}),
    ("octoprint_control_job", {"action": "pause"}),
    ("octoprint_control_job", {"action": "cancel"}),
]
# ODIN's verbs are not gated by confirm, but preview with dry_run; confirm is no word of theirs.
OF_ODIN = [("pause_printer", {}), ("stop_printer", {})]


def nothing_leaves_in_the_middle_of_a_print(farm):
    """The same at the socket for what is for a running print, and for an administrator's G-code."""
    recorder, sidecar, printer = recorded(farm)
    for more in ({}, {"confirm": False}, {"dry_run": True, "confirm": True}):
        answer = sidecar.ok("printer_gcode", {"lines": ["M115"], **more}, role="admin")
        assert answer["dry_run"] is True and "command_id" not in answer, answer
    recorder.printing("theirs.gcode")
    farm.wait_state(printer, "printing")
    for tool, arguments in WHILE_PRINTING:
        for more in ({}, {"confirm": False}, {"dry_run": True, "confirm": True}):
            answer = sidecar.ok(tool, {**arguments, **more})
            assert answer["dry_run"] is True and "command_id" not in answer, (tool, answer)
    for tool, arguments in OF_ODIN:
        answer = sidecar.ok(tool, {"printer_id": printer, **arguments, "dry_run": True})
        assert answer["dry_run"] is True, (tool, answer)
        assert sidecar.refused(tool, {"printer_id": printer, **arguments, "confirm": False})["code"] == "validation_failed"
    # Confirmed or not: the print would be lost.
    assert sidecar.refused("connect_printer", {"action": "disconnect", "confirm": True})["code"] == "printer_not_ready"
    recorder.paused = True
    farm.wait_state(printer, "paused")
    for tool, arguments in (("resume_printer", {"printer_id": printer, "dry_run": True}), ("octoprint_control_job", {"action": "resume"}), ("octoprint_control_job", {"action": "resume", "confirm": False})):
        assert sidecar.ok(tool, arguments)["dry_run"] is True
    time.sleep(3)
    assert recorder.orders == [], recorder.orders
    assert farm.sql("SELECT to_jsonb(count(*)) FROM odin.commands") == 0


def farm_file(farm):
    farm.store("G28\nM84\n", "small.gcode")
    return "small.gcode"


def confirmed_is_one_request(farm):
    """Exact bodies, and answers in the shape that PrintMCP's users know."""
    recorder, sidecar, printer = recorded(farm)
    for tool, arguments, path, body, keys in (
        ("octoprint_set_temperature", {"heater": "tool", "target": 200}, "/api/printer/tool", {"command": "target", "targets": {"tool0": 200.0}}, {"heater": "tool0", "target": 200}),
        ("octoprint_set_temperature", {"heater": "bed", "target": 60}, "/api/printer/bed", {"command": "target", "target": 60.0}, {"heater": "bed", "target": 60}),
        ("octoprint_home", {"axes": ["X", "y", "x"]}, "/api/printer/printhead", {"command": "home", "axes": ["x", "y"]}, {"homed": ["x", "y"]}),
        ("octoprint_move", {"x": 10, "y": -2.5, "speed": 3000}, "/api/printer/printhead", {"command": "jog", "x": 10.0, "y": -2.5, "speed": 3000.0}, {"moved": {"x": 10, "y": -2.5}}),
        ("octoprint_connect", {"port": "VIRTUAL", "baudrate": 250000}, "/api/connection", {"command": "connect", "port": "VIRTUAL", "baudrate": 250000}, {"action": "connect"}),
    ):
        recorder.orders.clear()
        answer = sidecar.ok(tool, {**arguments, "confirm": True})
        assert recorder.orders == [(path, body)], recorder.orders
        assert answer["ok"] is True and answer["dry_run"] is False and answer["command_state"] == "done", answer
        for key, value in keys.items():
            assert answer[key] == value, (tool, key, answer)
    again = [sidecar.ok("octoprint_home", {"confirm": True, "idempotency_key": "once"}) for _ in range(2)]
    assert len([o for o in recorder.orders if o[1].get("command") == "home"]) == 1, recorder.orders
    assert again[1]["_idempotent_replay"] is True and again[1]["ok"] is True


def reads(farm):
    recorder, sidecar, printer = recorded(farm)
    status = sidecar.ok("octoprint_get_status", role="viewer")
    assert status["server"] == {"version": "1.11.8", "api": "0.1"} and status["ready"] is True, status
    assert status["connection"] == {"state": "Operational", "port": "VIRTUAL", "baudrate": 250000}, status
    assert status["temperatures"]["bed"] == {"actual": 21, "target": 0}, status
    files = sidecar.ok("octoprint_list_files", {"limit": 5}, role="viewer")
    assert files["count"] == 1 and files["files"] == [{"path": "there.gcode", "size_bytes": 10, "date": 5, "estimated_print_time_s": 90}], files
    job = sidecar.ok("octoprint_get_job", role="viewer")
    assert job["state"] == "Operational" and job["file"] is None and job["completion_percent"] is None, job
    assert recorder.orders == []


def ceilings(farm):
    """The outer bounds of PrintMCP, and the narrower ones of a printer; all before anything leaves."""
    recorder, sidecar, printer = recorded(farm, max_bed_c=100, max_tool_c=260, max_move_mm=200, max_feed_mm_min=6000)
    for tool, arguments, code in (
        ("octoprint_set_temperature", {"heater": "tool", "target": 301}, "validation_failed"),
        ("octoprint_set_temperature", {"heater": "tool", "target": 261}, "printer_limit"),
        ("octoprint_set_temperature", {"heater": "bed", "target": 141}, "printer_limit"),
        ("octoprint_set_temperature", {"heater": "bed", "target": 101}, "printer_limit"),
        ("octoprint_set_temperature", {"heater": "bed", "target": -1}, "validation_failed"),
        ("octoprint_set_temperature", {"heater": "chamber", "target": 40}, "validation_failed"),
        ("octoprint_set_temperature", {"heater": "tool", "target": 200, "tool_index": 10}, "validation_failed"),
        ("octoprint_move", {"x": 501}, "validation_failed"), ("octoprint_move", {"x": 201}, "printer_limit"), ("octoprint_move", {}, "validation_failed"),
        ("octoprint_move", {"x": 1, "speed": 12001}, "validation_failed"), ("octoprint_move", {"x": 1, "speed": 6001}, "printer_limit"), ("octoprint_move", {"x": 1, "speed": 0}, "validation_failed"),
        ("octoprint_home", {"axes": ["e"]}, "validation_failed"), ("octoprint_control_job", {"action": "restart"}, "validation_failed"),
        ("octoprint_connect", {"baudrate": 1199}, "validation_failed"), ("octoprint_list_files", {"limit": 201}, "validation_failed"),
        ("octoprint_start_print", {"path": "ther.gcode"}, "file_not_on_printer"), ("octoprint_move", {"x": 1, "sped": 5}, "validation_failed"),
    ):
        error = sidecar.refused(tool, {**arguments, **({"confirm": True} if "list" not in tool else {})})
        assert error["code"] == code, (tool, arguments, error)
    assert "there.gcode" in sidecar.refused("start_print", {"path": "ther.gcode"})["hint"]
    filament = "INSERT INTO odin.filaments(org_id, name, material, nozzle_max_c, bed_max_c) VALUES ({}, '{}', '{}', {}, {}) RETURNING to_jsonb(id)"
    spool = farm.call("add_spool", {"filament_id": farm.sql(filament.format(farm.org, "Grey", "PLA", 230, 65))})["spool_id"]
    farm.call("assign_spool", {"spool_id": spool, "printer_id": printer, "slot_number": 1})
    for heater, most in (("tool", 230), ("bed", 65)):
        error = sidecar.refused("set_temperature", {"heater": heater, "target": most + 1, "confirm": True})
        assert error["code"] == "printer_limit" and "PLA" in error["detail"] and error["maximum"] == most, error
        assert sidecar.ok("set_temperature", {"heater": heater, "target": most})["dry_run"] is True
    farm.psql(farm.name, "UPDATE odin.filaments SET bed_max_c = NULL WHERE name = 'Grey'")
    assert sidecar.ok("set_temperature", {"heater": "bed", "target": 100})["dry_run"] is True
    assert "PLA" not in sidecar.refused("set_temperature", {"heater": "bed", "target": 101})["detail"]
    time.sleep(1.5)
    assert recorder.orders == [], recorder.orders


def previews_look_at_the_world(farm):
    """Bed, hold, run and state are checked in a preview as they are when it counts."""
    recorder, sidecar, printer = recorded(farm)
    start = ("octoprint_start_print", {"path": "there.gcode"})
    farm.psql(farm.name, f"UPDATE odin.beds SET occupied = true WHERE printer_id = {printer}")
    assert sidecar.refused(*start)["code"] == "bed_not_clear"
    sidecar.ok("clear_bed", {"printer_id": printer})
    farm.psql(farm.name, f"UPDATE odin.printers SET is_held = true, hold_reason = 'belt' WHERE id = {printer}")
    assert "belt" in sidecar.refused(*start)["detail"]
    farm.psql(farm.name, f"UPDATE odin.printers SET is_held = false WHERE id = {printer}")
    sidecar.ok(*start)
    assert sidecar.refused("octoprint_control_job", {"action": "pause"})["code"] == "printer_not_ready"
    recorder.dead = True
    farm.wait_state(printer, "offline")
    assert sidecar.refused(*start)["code"] == "printer_unreachable"
    assert sidecar.refused("octoprint_home", {})["code"] == "printer_unreachable"


def which_printer(farm):
    recorder, sidecar, printer = recorded(farm)
    farm.printer("second")
    error = sidecar.refused("octoprint_home", {})
    assert error["code"] == "validation_failed" and error["field"] == "printer_id", error
    assert sidecar.ok("octoprint_home", {"printer_id": printer})["dry_run"] is True
    assert sidecar.refused("octoprint_home", {"printer_id": 999})["code"] == "printer_not_found"


def rights(farm):
    recorder, sidecar, printer = recorded(farm)
    assert sidecar.refused("octoprint_home", {"confirm": True}, role="viewer")["code"] in ("scope_denied", "permission_denied")
    assert sidecar.refused("printer_gcode", {"lines": ["M115"], "confirm": True})["code"] in ("scope_denied", "permission_denied")
    assert sidecar.ok("printer_gcode", {"lines": ["M115", " G90 "], "confirm": True}, role="admin")["ok"] is True
    assert recorder.orders == [("/api/printer/command", {"commands": ["M115", "G90"]})], recorder.orders


def secrets_stay_secret(farm):
    """Sealed at rest, readable by no role, masked in trail, answers and logs; a dump holds nothing of use."""
    recorder, sidecar, printer = recorded(farm)
    secret = "S3CRETS3CRETS3CRET"
    preview = sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": secret, "dry_run": True}, role="admin")
    answer = sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": secret}, role="admin")
    for text in (json.dumps(preview), json.dumps(answer), sidecar.said(), json.dumps(farm.sql("SELECT jsonb_agg(to_jsonb(c)) FROM odin.audit_calls c")), json.dumps(farm.sql("SELECT jsonb_agg(to_jsonb(c)) FROM odin.audit_changes c")),
                 json.dumps(farm.sql("SELECT jsonb_agg(to_jsonb(s)) FROM odin_private.printer_secrets s"))):
        assert secret not in text, text[:500]
    for role in ("viewer", "operator", "admin"):
        denied = farm.sql(f"SELECT to_jsonb(has_table_privilege('demo_{role}', 'odin_private.printer_secrets', 'SELECT') OR has_schema_privilege('demo_{role}', 'odin_private', 'USAGE'))")
        assert denied is False
    assert sidecar.refused("set_printer_credentials", {"printer_id": printer, "api_key": secret})["code"] in ("scope_denied", "permission_denied")
    plain = farm.sql(f"SET ROLE demo_admin; SELECT odin.call('set_printer_credentials', '{{\"printer_id\": {printer}, \"api_key\": \"x\"}}')")
    assert plain["error"]["code"] == "validation_failed" and "clear" in plain["error"]["detail"], plain


def precise_diagnoses(farm):
    recorder, sidecar, printer = recorded(farm)
    assert sidecar.ok("test_printer", {"printer_id": printer})["works"] is True
    for address, word in (("127.0.0.1:1", "refused"), ("no-such-printer.invalid", "resolved"), (f"https://127.0.0.1:{recorder.port}", "TLS"), (f"127.0.0.1:{sidecar.port}", "OctoPrint")):
        farm.psql(farm.name, f"UPDATE odin.printers SET address = '{address}' WHERE id = {printer}")
        def tested():
            said = sidecar.ok("test_printer", {"printer_id": printer})
            assert said["works"] is False or said["command_state"] == "done", said
            return said["works"] is False and word in said["detail"] and said
        wait(f"the diagnosis {word}", tested, 30, 1.0)


def an_answer_that_never_comes(farm):
    """The printer does what it is told and hangs up: what it shows is done, what leaves no trace is in doubt, and nothing is said twice."""
    recorder, sidecar, printer = recorded(farm)
    recorder.hangs_up = True
    assert sidecar.ok("set_temperature", {"heater": "bed", "target": 60, "confirm": True})["command_state"] == "done"
    for tool, arguments in (("move_printer", {"x": 10}), ("home_printer", {})):
        error = sidecar.refused(tool, {**arguments, "confirm": True})
        assert error["code"] == "command_in_doubt" and "broke" in error["detail"], error
    assert sidecar.ok("start_print", {"path": "there.gcode", "confirm": True})["command_state"] == "done"
    farm.wait_state(printer, "printing")
    assert sidecar.ok("octoprint_control_job", {"action": "pause", "confirm": True})["command_state"] == "done"
    assert [path for path, _ in recorder.orders] == ["/api/printer/bed", "/api/printer/printhead", "/api/printer/printhead", "/api/files/local/there.gcode", "/api/job"], recorder.orders


def every_protocol_says_what_is_wrong(farm):
    """Nothing listens, no such name, and a server of another kind: told apart in each protocol's own way."""
    recorder, sidecar, printer = recorded(farm)
    for protocol, secret, other in (("moonraker", {"api_key": "f" * 32}, "no Moonraker there"), ("prusalink", {"api_key": "KEYKEYKEY"}, "not PrusaLink"), ("duet", {"password": "reprap"}, "Duet")):
        made = farm.printer(protocol, protocol, "127.0.0.1:1")
        sidecar.ok("set_printer_credentials", {"printer_id": made, **secret}, role="admin")
        for address, word in (("127.0.0.1:1", "refused"), ("no-such-printer.invalid", "resolved"), (f"127.0.0.1:{recorder.port}", other)):
            farm.psql(farm.name, f"UPDATE odin.printers SET address = '{address}' WHERE id = {made}")
            said = wait(f"{protocol}: {word}", lambda: (lambda s: s if s.get("works") is False and word in s["detail"] else None)(sidecar.ok("test_printer", {"printer_id": made})), 30, 1.0)
            assert said["problem"] in ("printer_unreachable", "printer_fault"), said
    assert recorder.orders == []


TESTS = [nothing_leaves_without_confirm, nothing_leaves_in_the_middle_of_a_print, confirmed_is_one_request, reads, ceilings, previews_look_at_the_world, which_printer, rights, secrets_stay_secret, precise_diagnoses, an_answer_that_never_comes, every_protocol_says_what_is_wrong]
