"""Finding printers in the network, pictures from cameras, answers as a table."""

import hashlib
import http.server
import socket
import subprocess
import threading
from pathlib import Path

from farm import reserved, wait
from recorder import Recorder
from servers import installed

PIXEL = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000000020001e221bc330000000049454e44ae426082")
NOTIFY = """NOTIFY * HTTP/1.1\r
HOST: 239.255.255.250:1990\r
Location: 127.0.0.1\r
NT: urn:bambulab-com:device:3dprinter:1\r
USN: {serial}\r
DevModel.bambu.com: C12\r
DevName.bambu.com: Shelf 3\r
DevConnect.bambu.com: lan\r
\r
"""


def serve(pages):
    """A server with fixed answers: path -> (status, type, bytes)."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, kind, body = pages.get(self.path, (404, "text/plain", b""))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def printers_announce_themselves(farm):
    """Bambu's broadcast and mDNS: found once each, told apart by asking, and nothing is added. PrusaLink says OctoPrint too."""
    # One program at a time hears what is sent to Bambu's port.
    wait("the port to be nobody else's", lambda: reserved("udp-2021"))
    sidecar = farm.sidecar()
    known = farm.printer("known", "bambu", "127.0.0.1", serial="01P00A222222222")
    pages = {
        "_octoprint": {"/api/version": (403, "application/json", b'{"error":"You don\'t have the permission"}')},
        "_prusalink": {"/api/version": (200, "application/json", b'{"api":"2.0.0","server":"2.1.2","text":"PrusaLink"}')},
        "_moonraker": {"/access/info": (200, "application/json", b'{"result":{"default_source":"moonraker","login_required":false}}')},
    }
    ports = {service: serve(answers) for service, answers in pages.items()}
    # A stranger under a printer's name.
    ports["_octoprint "] = serve({"/api/version": (200, "application/json", b'{"text":"Something else"}')})
    announcer = subprocess.Popen([installed("pyftpdlib") / "python", Path(__file__).with_name("announce.py"), *[f"{service.strip()}={port}" for service, port in ports.items()]],
                                 stdout=subprocess.PIPE, text=True)
    stop = threading.Event()

    def shout():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            while not stop.wait(0.5):
                for serial in ("01P00A111111111", "01P00A222222222"):
                    s.sendto(NOTIFY.format(serial=serial).encode(), ("127.0.0.1", 2021))
                s.sendto(b"\xff\xfe garbage: \r\n", ("127.0.0.1", 2021))

    shouting = threading.Thread(target=shout)
    shouting.start()
    try:
        assert announcer.stdout.readline() == "announced\n"
        answer = sidecar.ok("discover_printers", {"seconds": 15})
    finally:
        stop.set()
        shouting.join()
        announcer.terminate()
    assert answer["command_state"] == "done" and answer["problems"] == [], answer
    bambu = {f["serial"]: f for f in answer["found"] if f["protocol"] == "bambu"}
    assert set(bambu) == {"01P00A111111111", "01P00A222222222"}, answer
    assert bambu["01P00A222222222"]["known_printer_id"] == known and bambu["01P00A111111111"]["known_printer_id"] is None
    others = {f["address"].rsplit(":", 1)[1]: f["protocol"] for f in answer["found"] if f["protocol"] != "bambu"}
    for service, protocol in (("_octoprint", "octoprint"), ("_prusalink", "prusalink"), ("_moonraker", "moonraker")):
        assert others.get(str(ports[service])) == protocol, (service, answer)
    assert str(ports["_octoprint "]) not in others, answer
    assert farm.sql("SELECT to_jsonb(count(*)) FROM odin.printers") == 1


def a_picture(farm):
    """Fetched once, stored as a file; a page that is no picture, and a stream, are told so."""
    port = serve({"/snapshot?x=1": (200, "image/png", PIXEL), "/page": (200, "image/png", b"<html>")})
    sidecar = farm.sidecar()
    printer = farm.printer("v1", camera_url=f"http://127.0.0.1:{port}/snapshot?x=1")
    farm.wait_state(printer, "idle")
    answer = sidecar.ok("printer_snapshot", {"printer_id": printer})
    assert answer["ok"] is True and answer["picture"]["sha256"] == hashlib.sha256(PIXEL).hexdigest(), answer
    stored = sidecar.ok("get_file", {"file": answer["picture"]["sha256"]}, role="viewer")
    assert stored["kind"] == "image" and stored["name"].endswith(".png"), stored
    for path, word in (("/page", "no JPEG"), ("/gone", "404")):
        farm.psql(farm.name, f"UPDATE odin.printers SET camera_url = 'http://127.0.0.1:{port}{path}' WHERE id = {printer}")
        wait("the new settings", lambda: word in sidecar.tool("printer_snapshot", {"printer_id": printer})[1]["detail"], 20, 1.0)
    farm.psql(farm.name, f"UPDATE odin.printers SET camera_url = NULL WHERE id = {printer}")
    assert sidecar.refused("printer_snapshot", {"printer_id": printer})["code"] == "not_supported"


def answers_as_a_table(farm):
    """Confirmed tools take response_format, as PrintMCP's do."""
    sidecar = farm.sidecar()
    printer = farm.printer("v1")
    farm.wait_state(printer, "idle")
    answer = sidecar.ok("octoprint_home", {"printer_id": printer, "response_format": "markdown"})
    assert answer["dry_run"] is True, answer
    answer = sidecar.ok("octoprint_home", {"printer_id": printer, "response_format": "markdown", "confirm": True})
    assert answer["ok"] is True, answer
    assert sidecar.refused("octoprint_home", {"printer_id": printer, "response_format": "xml"})["code"] == "validation_failed"


def light_and_fan_without_a_sign(farm):
    """A machine that does not report a setting: accepted is all that is said, and a crash repeats it harmlessly."""
    printer = farm.printer("v1")
    sidecar = farm.sidecar()
    farm.wait_state(printer, "idle")
    sidecar.stop()
    doomed = farm.sidecar(ODIN_CRASH_AT="sent:set_fan")
    answer = farm.call("set_fan", {"percent": 40, "printer_id": printer, "confirm": True})
    doomed.died()
    farm.sidecar()
    wait("the command to be done", lambda: farm.command(answer["command_id"])["state"] == "done", 40)
    assert farm.acts(printer)["fan"] == 2, "an absolute setting may be said twice"


def uploads_run_side_by_side(farm):
    """Files go to several printers at once and to each one after the other, and nothing of the database is held meanwhile."""
    recorders = [Recorder() for _ in range(3)]
    farm.store("G28\n;" + "x" * 1_400_000 + "\n", "large.gcode")
    farm.store("G28\n", "small.gcode")
    sidecar = farm.sidecar()
    commands = []
    for n, recorder in enumerate(recorders):
        recorder.gate.clear()
        printer = farm.printer(f"op {n}", "octoprint", f"127.0.0.1:{recorder.port}")
        sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": "KEYKEYKEY"}, role="admin")
        farm.wait_state(printer, "idle")
        commands += [farm.call("octoprint_upload_file", {"gcode_path": name, "printer_id": printer})["command_id"] for name in ("large.gcode", "small.gcode")]
    wait("a file on its way to each", lambda: [r.coming for r in recorders] == [1, 1, 1])
    assert [farm.command(c)["state"] for c in commands] == ["claimed", "queued"] * 3
    held = "SELECT to_jsonb(count(*)) FROM pg_stat_activity WHERE datname = current_database() AND usename IN ('odin_worker', 'odin_gateway') AND clock_timestamp() - xact_start > interval '1 second'"
    wait("no transaction to be open", lambda: farm.sql(held) == 0)
    assert [r.coming for r in recorders] == [1, 1, 1]
    for recorder in recorders:
        recorder.gate.set()
    for command in commands:
        wait("the upload", lambda: farm.command(command)["state"] == "done", 60)
    assert all(r.orders == [("/api/files/local", "large.gcode"), ("/api/files/local", "small.gcode")] for r in recorders), [r.orders for r in recorders]


STALE = {"reauthRequired": {"reason": "stale"}}
CURRENT = {"current": {"state": {"text": "Operational"}, "job": {"file": {"path": None}}, "progress": {"completion": None}}}


def pushing(farm, pushes):
    recorder = Recorder()
    recorder.pushes = pushes
    sidecar = farm.sidecar()
    printer = farm.printer("op", "octoprint", f"127.0.0.1:{recorder.port}")
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": "KEYKEYKEY"}, role="admin")
    farm.wait_state(printer, "idle")
    return recorder, printer


def a_stale_session_is_renewed_on_its_socket(farm):
    """reauthRequired is answered with a new session on the same socket; one that then falls silent is not waited for: state is seen, and the socket made anew."""
    recorder, printer = pushing(farm, lambda n: {1: STALE, 2: CURRENT}.get(n))
    wait("the second login", lambda: len(recorder.logins) >= 2)
    assert recorder.logins[:2] == [(1, "farm:s1"), (1, "farm:s2")], recorder.logins
    recorder.printing("theirs.gcode")
    farm.wait_state(printer, "printing")
    wait("another socket", lambda: len(recorder.logins) >= 3)
    assert recorder.logins[2] == (2, "farm:s3"), recorder.logins
    recorder.rest()
    farm.wait_state(printer, "finished", "failed")


def sessions_that_never_hold(farm):
    """Every session is stale at once: a few are tried, then the socket is left alone for a while, and the state comes by asking."""
    recorder, printer = pushing(farm, lambda _: STALE)
    wait("another socket", lambda: recorder.sockets >= 2)
    assert [socket for socket, _ in recorder.logins if socket == 1] == [1, 1, 1], recorder.logins
    recorder.printing("theirs.gcode")
    farm.wait_state(printer, "printing")


TESTS = [printers_announce_themselves, a_picture, answers_as_a_table, light_and_fan_without_a_sign, uploads_run_side_by_side, a_stale_session_is_renewed_on_its_socket, sessions_that_never_hold]
