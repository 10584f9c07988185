"""Newer Prusa printers, which the server for older ones cannot show: /usb, drives that are not in, places that can only be read, and pages that are gone."""

import http.server
import json
import re
import threading

from farm import wait
from servers import gcode


class Newer:
    """The pages of a newer printer's PrusaLink that a start asks for; it writes down what is put where."""

    def __init__(self):
        newer, self.storages, self.puts, self.starts, self.job = self, [], [], [], None
        self.gone, self.missed = set(), set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self, status, body=None):
                text = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def missing(self):
                newer.missed.add(self.path)
                text = b"<html><body>Not Found</body></html>"
                self.send_response(404)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                if self.path in newer.gone:
                    return self.missing()
                file = re.fullmatch(r"/api/v1/files/(\w+)/(.+)", self.path)
                if file:
                    return self.answer(200 if file.groups() in newer.puts else 404, {"name": file[2], "type": "PRINT_FILE"})
                pages = {
                    "/api/version": {"api": "2.0.0", "server": "2.1.2", "text": "PrusaLink", "original": "PrusaLink XL"},
                    "/api/v1/info": {"serial": "1", "nozzle_diameter": 0.4},
                    "/api/v1/storage": {"storage_list": newer.storages},
                    "/api/v1/status": {"printer": {"state": "PRINTING" if newer.job else "IDLE"}, **({"job": {"id": 7}} if newer.job else {})},
                    "/api/v1/files/usb": {"type": "FOLDER", "name": "usb", "children": [{"type": "PRINT_FILE", "name": name, "size": 5} for _, name in newer.puts]},
                }
                if self.path == "/api/v1/job":
                    return self.answer(200, {"id": 7, "state": "PRINTING", "progress": 1.0, "file": {"name": newer.job[1], "path": f"/{newer.job[0]}"}}) if newer.job else self.answer(204)
                self.answer(200 if self.path in pages else 404, pages.get(self.path, {"title": "Not found"}))

            def do_PUT(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                newer.puts.append(re.fullmatch(r"/api/v1/files/(\w+)/(.+)", self.path).groups())
                self.answer(201, {})

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                file = re.fullmatch(r"/api/v1/files/(\w+)/(.+)", self.path)
                if not file:
                    return self.missing()
                newer.job = file.groups()
                newer.starts.append(newer.job)
                self.answer(204)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def place(path, read_only=False, available=True):
    return {"path": path, "name": path.strip("/"), "type": path.strip("/").upper(), "read_only": read_only, "available": available}


def with_printer(farm, *storages, gone=()):
    newer = Newer()
    newer.gone = set(gone)
    newer.storages = list(storages)
    sidecar = farm.sidecar()
    printer = farm.printer("xl", "prusalink", f"127.0.0.1:{newer.port}")
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": "KEYKEYKEY"}, role="admin")
    farm.wait_state(printer, "idle")
    return newer, sidecar, printer


def the_one_that_can_be_written(farm):
    """A read-only place and a drive that is not in come first; the file goes to the drive that is, and is printed from there."""
    newer, sidecar, printer = with_printer(farm, place("/local", read_only=True), place("/sdcard", available=False), place("/usb"))
    job = farm.job(sha256=farm.store(gcode(5)), printer=printer)
    assert sidecar.ok("start_job", {"job_id": job})["confirmed"] is True
    name = farm.run_of(job)["remote_file"]
    assert newer.puts == newer.starts == [("usb", name)], (newer.puts, newer.starts)
    wait("the list of files", lambda: any(f["path"] == name for f in farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}") or []), 90)


def none_that_can_be_written(farm):
    """Nothing is put anywhere; the words say of each place what is wrong with it, and test_printer says it before anybody needs it."""
    newer, sidecar, printer = with_printer(farm, place("/local", read_only=True), place("/usb", available=False))
    said = sidecar.ok("test_printer", {"printer_id": printer})
    assert said["works"] is True and "local can only be read" in said["detail"] and "usb is not in the printer" in said["detail"], said
    job = farm.job(sha256=farm.store(gcode(5)), printer=printer)
    error = sidecar.refused("start_job", {"job_id": job})
    assert error["code"] == "printer_refused" and "local can only be read" in error["detail"], error
    newer.storages = []
    assert "none at all" in sidecar.refused("start_job", {"job_id": job})["detail"]
    assert newer.puts == newer.starts == [] and farm.job_row(job)["status"] == "pending"


def pages_that_are_gone(farm):
    """Without the pages of the older API the driver goes on with what is there; nobody calls such a printer wrong."""
    newer, sidecar, printer = with_printer(farm, place("/usb"), gone=("/api/version", "/api/v1/info"))
    said = sidecar.ok("test_printer", {"printer_id": printer})
    assert said["works"] is True and said["detail"].startswith("PrusaLink answers and takes the login"), said
    facts = wait("the facts", lambda: farm.sql(f"SELECT facts FROM odin.printer_facts WHERE printer_id = {printer}"))
    assert facts["server"]["version"] is None and newer.missed >= newer.gone, (facts, newer.missed)
    for tool, arguments, page in (("set_temperature", {"heater": "bed", "target": 50}, "bed"), ("set_temperature", {"heater": "tool", "target": 200}, "tool"), ("home_printer", {}, "printhead"), ("move_printer", {"x": 5}, "printhead")):
        error = sidecar.refused(tool, {"printer_id": printer, "confirm": True, **arguments})
        assert error["code"] == "not_supported" and "printer's screen" in error["detail"] and f"/api/printer/{page}" in newer.missed, error
    job = farm.job(sha256=farm.store(gcode(5)), printer=printer)
    assert sidecar.ok("start_job", {"job_id": job})["confirmed"] is True and newer.starts == [("usb", farm.run_of(job)["remote_file"])]
    farm.wait_state(printer, "printing")
    # Where nothing of PrusaLink is there, it is none.
    newer.gone.add("/api/v1/status")
    said = wait("the diagnosis", lambda: (lambda s: None if s["works"] else s)(sidecar.ok("test_printer", {"printer_id": printer})))
    assert "not PrusaLink" in said["detail"], said


TESTS = [the_one_that_can_be_written, none_that_can_be_written, pages_that_are_gone]
