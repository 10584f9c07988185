"""The driver for PrusaLink against a real PrusaLink, with a stand-in for the printer on its serial line."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from farm import wait
from servers import Server, ask, gcode, installed

server = None


class PrusaLink(Server):
    KEY = "FARMKEYFARMKEY01"
    PASSWORD = "Secret123"

    def __init__(self):
        super().__init__("prusalink")
        # It takes nothing below /tmp for a storage.
        shutil.rmtree(self.dir)
        self.dir = Path(tempfile.mkdtemp(prefix="odin-prusalink-", dir="/var/tmp"))
        # It syncs a small file to the disk before the first line of a print leaves. With a disk that is busy (somebody compiles, or installs)
        # that takes half a minute, in which PrusaLink holds back everything for the printer, pauses too; so that file is kept in memory.
        self.memory = Path(tempfile.mkdtemp(prefix="odin-prusalink-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else self.dir))
        (self.dir / "prusalink.ini").write_text(f"""
[daemon]
data_dir={self.dir}
pid_file=./pl.pid
power_panic_file={self.memory}/power_panic
[http]
address=127.0.0.1
port={self.port}
[printer]
port={self.dir}/tty
settings=./prusa_printer_settings.ini
directory=./gcodes
[cameras]
auto_detect=False
""")
        digest = hashlib.md5(f"maker:Administrator:{self.PASSWORD}".encode()).hexdigest()
        (self.dir / "prusa_printer_settings.ini").write_text(f"""
[printer]
type=MK3S
name=test
[service::local]
enable=1
username=maker
digest={digest}
api_key={self.KEY}
""")
        self.machine = None
        self.connect()
        self.start(first=True)

    def connect(self):
        self.machine = Server("mk3")
        self.machine.spawn([sys.executable, Path(__file__).with_name("mk3.py"), self.dir / "tty"])
        wait("the serial line", (self.dir / "tty").exists, 10)

    def start(self, first=False):
        """Started on a busy machine it sometimes comes up without ever noticing new files; then it is started again.

        Its very first print may break it: it begins to send before it knows which file that is, and dies of that where threads wait for each other. So
        one is printed before any test counts on it; later ones find the name of the one before.
        """
        for _ in range(3):
            self.spawn([installed("prusalink") / "prusalink", "-f", "-i", "-c", self.dir / "prusalink.ini"])
            wait("PrusaLink to be idle", lambda: self.state() == "IDLE", 60, 0.3)
            if self.takes_files() and (not first or self.prints()):
                return
            self.kill()
            (self.memory / "power_panic").unlink(missing_ok=True)
        raise AssertionError("PrusaLink does not notice new files, or does not print")

    def prints(self):
        try:
            self.send("PUT", "/api/v1/files/local/first.gcode", "G28\n", Content_Type="text/x.gcode", Overwrite="?1")
            wait("the first file", lambda: self.send("POST", "/api/v1/files/local/first.gcode")[0] == 204, 10, 0.3)
            wait("the first print", lambda: self.state() == "FINISHED", 10, 0.3)
        except (OSError, AssertionError):
            return False
        return True

    def takes_files(self):
        try:
            self.send("PUT", "/api/v1/files/local/probe.gcode", "G28\n", Content_Type="text/x.gcode", Overwrite="?1")
            wait("the probe", lambda: self.get("/api/v1/files/local/probe.gcode")[0] == 200, 10, 0.3)
        except (OSError, AssertionError):
            return False
        return self.send("DELETE", "/api/v1/files/local/probe.gcode")[0] == 204

    def state(self):
        self.alive()
        try:
            status, said = self.get("/api/v1/status")
        except OSError:
            return None
        return said["printer"]["state"] if status == 200 else None

    def get(self, path):
        return ask(self.port, "GET", path, headers={"X-Api-Key": self.KEY, "Accept": "application/json"})

    def send(self, method, path, body=None, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.port, method, path, body, {"X-Api-Key": self.KEY, "Accept": "application/json", **headers})

    def fast(self, on):
        (self.dir / "fast").touch() if on else (self.dir / "fast").unlink(missing_ok=True)

    def close(self):
        if self.machine:
            self.machine.close()
        shutil.rmtree(self.memory, ignore_errors=True)
        super().close()


def begin():
    global server
    server = PrusaLink()


def end():
    server.close()


def settled():
    """At rest, whatever the test before did to it."""
    server.fast(False)

    def rest():
        state = server.state()
        if state in ("PRINTING", "PAUSED", "ATTENTION"):
            job = server.get("/api/v1/job")[1]
            if isinstance(job, dict) and "id" in job:
                server.send("DELETE", f"/api/v1/job/{job['id']}")
        return state in ("IDLE", "READY")
    wait("PrusaLink to be at rest", rest, 60, 0.5)


def with_printer(farm, credentials=None, **env):
    settled()
    sidecar = farm.sidecar(**env)
    printer = farm.printer("mk3", "prusalink", f"127.0.0.1:{server.port}")
    sidecar.ok("set_printer_credentials", {"printer_id": printer, **(credentials or {"api_key": server.KEY})}, role="admin")
    return sidecar, printer


def started(farm, sidecar, printer, text):
    job = farm.job(seconds=30, sha256=farm.store(text), printer=printer)
    answer = sidecar.ok("start_job", {"job_id": job})
    assert answer["confirmed"], answer
    return job


def life_of_a_print(farm):
    """By user name and password: start, pause, resume, and an end that is seen in the eleven seconds in which it is shown."""
    sidecar, printer = with_printer(farm, {"username": "maker", "password": server.PASSWORD})
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(900, 0.2))
    run = farm.run_of(job)
    assert run["status"] == "printing", run
    shown = server.get("/api/v1/job")[1]
    assert shown["file"]["name"] == run["remote_file"], shown
    farm.wait_state(printer, "printing")
    paused = sidecar.ok("pause_printer", {"printer_id": printer})
    assert paused["state"] == "paused" and server.state() == "PAUSED", paused
    resumed = sidecar.ok("resume_printer", {"printer_id": printer})
    assert resumed["state"] == "printing", resumed
    error = sidecar.refused("home_printer", {"printer_id": printer, "confirm": True})
    assert error["code"] == "printer_not_ready", error
    server.fast(True)
    wait("the run to end", lambda: farm.run_of(job)["status"] == "completed", 90)
    farm.wait_state(printer, "finished")
    facts = farm.sql(f"SELECT facts FROM odin.printer_facts WHERE printer_id = {printer}")
    assert facts["server"]["version"] == "0.8.1" and "PrusaLink" in facts["server"]["text"], facts
    files = wait("the list of files", lambda: [f for f in farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}") if f["path"] == run["remote_file"]], 70)
    assert files[0]["size_bytes"] == len(gcode(900, 0.2)), files


def the_next_print_waits_for_the_server(farm):
    """For some seconds after an end a new print would be refused; the start waits instead of failing."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    first = started(farm, sidecar, printer, gcode(900, 0.2))
    assert sidecar.ok("cancel_job", {"job_id": first})["status"] == "cancelled"
    wait("the run to end", lambda: farm.run_of(first)["status"] == "cancelled", 60)
    # Shown for eleven seconds; a machine that is slower than that finds it at rest.
    assert server.state() in ("STOPPED", "IDLE")
    sidecar.ok("clear_bed", {"printer_id": printer})
    second = started(farm, sidecar, printer, gcode(900, 0.2))
    assert farm.run_of(second)["status"] == "printing"
    assert sidecar.ok("cancel_job", {"job_id": second})["status"] == "cancelled"


def wrong_logins_say_so(farm):
    """403 is a wrong key, 401 a wrong password; neither is ever repeated in a message."""
    sidecar, printer = with_printer(farm, {"api_key": "WRONGWRONGWRONG1"})
    for credentials, words in (({"api_key": "WRONGWRONGWRONG1"}, "(403)"), ({"username": "maker", "password": "WRONGWRONG"}, "(401)")):
        sidecar.ok("set_printer_credentials", {"printer_id": printer, **credentials}, role="admin")
        said = wait("the diagnosis", lambda: (lambda s: s if words in s["detail"] else None)(sidecar.ok("test_printer", {"printer_id": printer})), 30, 0.5)
        assert said["works"] is False and said["problem"] == "printer_auth" and "WRONG" not in json.dumps(said), said
    assert "WRONG" not in sidecar.said()
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": server.KEY}, role="admin")
    farm.wait_state(printer, "idle")
    said = sidecar.ok("test_printer", {"printer_id": printer})
    assert said["works"] is True and "PrusaLink" in said["detail"], said


def other_servers_are_told_apart(farm):
    """PrusaLink announces itself as OctoPrint too; each driver knows its own."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    farm.psql(farm.name, f"UPDATE odin.printers SET protocol = 'octoprint' WHERE id = {printer}")
    said = wait("the diagnosis", lambda: (lambda s: s if "not OctoPrint" in s["detail"] else None)(sidecar.ok("test_printer", {"printer_id": printer})), 30, 0.5)
    assert said["works"] is False, said


def heat_and_motion(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    heated = sidecar.ok("set_temperature", {"printer_id": printer, "heater": "bed", "target": 50, "confirm": True})
    assert heated["ok"] is True, heated
    assert server.get("/api/v1/status")[1]["printer"]["target_bed"] == 50
    assert sidecar.ok("set_temperature", {"printer_id": printer, "heater": "tool", "target": 0, "confirm": True})["ok"] is True
    assert sidecar.ok("home_printer", {"printer_id": printer, "axes": ["x"], "confirm": True})["ok"] is True
    sidecar.ok("set_temperature", {"printer_id": printer, "heater": "bed", "target": 0, "confirm": True})
    for tool, arguments in (("set_light", {"on": True}), ("set_fan", {"percent": 50}), ("set_speed", {"percent": 80}), ("connect_printer", {})):
        assert sidecar.refused(tool, {"printer_id": printer, **arguments})["code"] == "not_supported"


def print_at_the_machine(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    assert server.send("PUT", "/api/v1/files/local/theirs.gcode", gcode(900, 0.2), Content_Type="text/x.gcode", Overwrite="?1")[0] == 201
    # It answers an upload before it knows the file by its name.
    wait("the file to be known", lambda: server.send("POST", "/api/v1/files/local/theirs.gcode")[0] == 204, 10)
    farm.wait_state(printer, "printing")
    wait("the event", lambda: farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'foreign_print_started'") == 1)
    job = farm.job(sha256=farm.store(gcode(5)), printer=printer)
    assert sidecar.refused("start_job", {"job_id": job})["code"] in ("printer_busy", "bed_not_clear")
    server.fast(True)
    farm.wait_state(printer, "finished", limit=60)


def cancelled_at_the_screen(farm):
    """STOPPED is shown for eleven seconds; then the server has forgotten everything."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(900, 0.2))
    wait("PrusaLink to take the cancel", lambda: server.send("DELETE", f"/api/v1/job/{server.get('/api/v1/job')[1]['id']}")[0] == 204, every=1.0)
    wait("the run to be cancelled", lambda: farm.run_of(job)["status"] == "cancelled", 40)


def upload_is_whole_and_never_over_a_print(farm):
    """The server would take bytes for the file it is printing; the driver does not let it."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    text = gcode(900, 0.2) + ";" + "x" * 900_000 + "\n"
    job = started(farm, sidecar, printer, text)
    name = farm.run_of(job)["remote_file"]
    stored = next((server.dir / "gcodes").rglob(name))
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == hashlib.sha256(text.encode()).hexdigest()
    farm.store("G28\n", name)
    error = sidecar.refused("octoprint_upload_file", {"gcode_path": name, "printer_id": printer})
    assert error["code"] == "printer_refused" and "prints a file of this name" in error["detail"], error


def serial_line_breaks(farm):
    """The printer is unplugged: ERROR with the server's own words, the job is gone, the run fails."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(900, 0.2))
    server.machine.close()
    (server.dir / "tty").unlink()
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 60)
    state = farm.wait_state(printer, "error")
    assert state["error_message"], state
    server.connect()
    wait("PrusaLink to be idle again", lambda: server.state() in ("IDLE", "READY"), 90, 0.5)


def server_restarts_while_printing(farm):
    """After a restart nobody knows how the print ended: it is not called a success."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer, gcode(900, 0.2))
    server.kill()
    farm.wait_state(printer, "offline")
    assert farm.run_of(job)["status"] == "printing", "an outage ends no run"
    server.start()
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 60)


TESTS = [life_of_a_print, the_next_print_waits_for_the_server, wrong_logins_say_so, other_servers_are_told_apart, heat_and_motion, print_at_the_machine, cancelled_at_the_screen,
         upload_is_whole_and_never_over_a_print, serial_line_breaks, server_restarts_while_printing]
