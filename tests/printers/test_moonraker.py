"""The driver for Moonraker against a real Moonraker, with a stand-in for Klipper behind it that keeps Klipper's habits."""

import json
import sys
from pathlib import Path

from farm import wait
from servers import Server, ask, gcode, installed

server = None


class Moonraker(Server):
    def __init__(self):
        super().__init__("moonraker")
        for name in ("config", "logs", "comms", "gcodes", "database"):
            (self.dir / name).mkdir()
        self.socket = self.dir / "comms/klippy.sock"
        (self.dir / "config/moonraker.conf").write_text(f"""
[server]
host: 127.0.0.1
port: {self.port}
klippy_uds_address: {self.socket}
max_upload_size: 1
[authorization]
force_logins: False
[history]
""")
        self.klippy = None
        self.start_klippy()
        self.start()
        self.key = self.fetch_key()

    def start(self):
        self.spawn([installed("moonraker") / "moonraker", "-d", self.dir, "-n"])
        wait("Moonraker to answer", self.answers, 40)

    def start_klippy(self):
        self.klippy = Server("klippy")
        self.klippy.spawn([sys.executable, Path(__file__).with_name("klippy.py"), self.socket, self.dir / "gcodes"])

    def answers(self):
        self.alive()
        try:
            return ask(self.port, "GET", "/access/info")[0] == 200
        except OSError:
            return False

    def fetch_key(self):
        """The API key, over the socket that only this machine's user can open."""
        import socket
        path = str(self.dir / "comms/moonraker.sock")
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(path)
            s.sendall(json.dumps({"jsonrpc": "2.0", "method": "access.get_api_key", "params": {}, "id": 1}).encode() + b"\x03")
            said = b""
            while True:
                said += s.recv(65536)
                for part in said.split(b"\x03"):
                    try:
                        answer = json.loads(part)
                    except ValueError:
                        continue
                    if answer.get("id") == 1:
                        return answer["result"]

    def get(self, path):
        return ask(self.port, "GET", path, headers={"X-Api-Key": self.key})

    def post(self, path, body=None):
        return ask(self.port, "POST", path, body or {}, {"X-Api-Key": self.key}, timeout=60)

    def stats(self):
        status, said = self.get("/printer/objects/query?print_stats&webhooks")
        return said["result"]["status"] if status == 200 else None

    def time(self, **habits):
        """cold: no heater warms; fast: a print is over soon."""
        for name, on in habits.items():
            (self.dir / name).touch() if on else (self.dir / name).unlink(missing_ok=True)

    def close(self):
        self.klippy.close()
        super().close()


def begin():
    global server
    server = Moonraker()


def end():
    server.close()


def settled():
    """Klipper at rest with nothing selected, and connected again."""
    server.time(cold=False, fast=False)
    server.post("/printer/firmware_restart")

    def rest():
        seen = server.stats() or {}
        return seen.get("print_stats", {}).get("state") == "standby" and seen["webhooks"]["state"] == "ready"
    wait("Klipper to be ready", rest, 30, 0.3)


def with_printer(farm, key=None, **env):
    settled()
    sidecar = farm.sidecar(**env)
    printer = farm.printer("mr", "moonraker", f"127.0.0.1:{server.port}")
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": key or server.key}, role="admin")
    if not key:
        farm.wait_state(printer, "idle")
    return sidecar, printer


def started(farm, sidecar, printer, text):
    job = farm.job(seconds=30, sha256=farm.store(text), printer=printer)
    answer = sidecar.ok("start_job", {"job_id": job})
    assert answer["confirmed"], answer
    return job


def life_of_a_print(farm):
    sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer, gcode(4000))
    run = farm.run_of(job)
    assert run["status"] == "printing" and server.stats()["print_stats"]["filename"] == run["remote_file"], run
    farm.wait_state(printer, "printing")
    paused = sidecar.ok("pause_printer", {"printer_id": printer})
    assert paused["state"] == "paused" and server.stats()["print_stats"]["state"] == "paused", paused
    resumed = sidecar.ok("resume_printer", {"printer_id": printer})
    assert resumed["state"] == "printing", resumed
    server.time(fast=True)
    wait("the run to end", lambda: farm.run_of(job)["status"] == "completed", 60)
    farm.wait_state(printer, "finished")

    def written():
        history = server.get("/server/history/list?limit=5&order=desc")[1]["result"]["jobs"]
        return [j["status"] for j in history if j["filename"] == run["remote_file"]] == ["completed"]
    wait("Moonraker's history", written)
    files = wait("the list of files", lambda: [f for f in farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}") if f["path"] == run["remote_file"]])
    assert files[0]["size_bytes"] == len(gcode(4000))


def cancel_while_heating_answers_with_a_handle(farm):
    """Klipper answers a cancel only when the heating is over; the caller gets a handle, and the job is cancelled later."""
    sidecar, printer = with_printer(farm, ODIN_COMMAND_WAIT="1")
    server.time(cold=True)
    job = farm.job(sha256=farm.store(gcode(4000, heat=150)), printer=printer)
    sidecar.ok("start_job", {"job_id": job})
    wait("the heating to begin", lambda: server.get("/printer/objects/query?extruder=target")[1]["result"]["status"]["extruder"]["target"] == 150)
    answer = sidecar.ok("cancel_job", {"job_id": job})
    # How far it is after a second is the machine's affair; that it has left is seen while the heating is held.
    assert answer["command_state"] in ("queued", "claimed", "sent") and answer["confirmed"] is False and answer["status"] != "cancelled", answer
    wait("the cancel to be sent", lambda: farm.command(answer["command_id"])["state"] == "sent")
    assert farm.job_row(job)["status"] != "cancelled" and server.stats()["print_stats"]["state"] == "printing"
    server.time(cold=False)
    wait("the job to be cancelled", lambda: farm.job_row(job)["status"] == "cancelled", 60)
    assert server.stats()["print_stats"]["state"] == "cancelled"


def a_paused_print_is_not_replaced(farm):
    """Klipper would replace a paused print without a word; the farm refuses before anything is sent."""
    sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer, gcode(4000))
    farm.wait_state(printer, "printing")
    sidecar.ok("pause_printer", {"printer_id": printer})
    name = farm.run_of(job)["remote_file"]
    farm.psql(farm.name, f"""UPDATE odin.printer_state SET state = 'idle' WHERE printer_id = {printer};
        INSERT INTO odin.commands(org_id, printer_id, verb, arguments) VALUES ({farm.org}, {printer}, 'print_file', '{{"path": "other.gcode"}}')""")
    row = wait("the command to end", lambda: farm.sql(f"SELECT to_jsonb(c) FROM odin.commands c WHERE verb = 'print_file' AND finished_at IS NOT NULL"))
    assert row["state"] == "failed" and row["error"]["code"] == "printer_not_ready" and row["sent_at"] is None, row
    assert server.stats()["print_stats"]["filename"] == name and server.stats()["print_stats"]["state"] == "paused"


def motion_waits_for_rest(farm):
    """Klipper would home in the middle of a print."""
    sidecar, printer = with_printer(farm)
    started(farm, sidecar, printer, gcode(4000))
    farm.wait_state(printer, "printing")
    for tool, arguments in (("home_printer", {}), ("move_printer", {"x": 5}), ("set_temperature", {"heater": "bed", "target": 60})):
        error = sidecar.refused(tool, {"printer_id": printer, "confirm": True, **arguments})
        assert error["code"] == "printer_not_ready", error


def klippers_own_words(farm):
    """What Klipper refuses is told in its own words; unknown heat and moves before homing."""
    sidecar, printer = with_printer(farm)
    error = sidecar.refused("move_printer", {"printer_id": printer, "x": 10, "confirm": True})
    assert error["code"] == "printer_refused" and "Must home axis first" in error["detail"], error
    assert sidecar.ok("home_printer", {"printer_id": printer, "confirm": True})["ok"] is True
    assert sidecar.ok("move_printer", {"printer_id": printer, "x": 10, "confirm": True})["ok"] is True
    heated = sidecar.ok("set_temperature", {"printer_id": printer, "heater": "bed", "target": 60, "confirm": True})
    assert heated["ok"] is True and heated["heater"] == "bed", heated
    assert server.get("/printer/objects/query?heater_bed")[1]["result"]["status"]["heater_bed"]["target"] == 60


def what_klipper_says_to_gcode(farm):
    """Klipper answers ok to a command that it does not know; its words come on another way, and reach whoever sent it."""
    sidecar, printer = with_printer(farm)
    gcode_of = lambda *lines: {"printer_id": printer, "lines": list(lines), "confirm": True}
    assert server.post("/printer/gcode/script?script=NO_SUCH_THING") == (200, {"result": "ok"})
    error = sidecar.refused("printer_gcode", gcode_of("NO_SUCH_THING X=1"), role="admin")
    assert error["code"] == "printer_refused" and 'Unknown command:"NO_SUCH_THING"' in error["detail"], error
    said = sidecar.ok("printer_gcode", gcode_of("M115"), role="admin")
    assert said["ok"] is True and said["lines"] == ["// FIRMWARE_VERSION:v0-stand-in FIRMWARE_NAME:Klipper"], said
    assert sidecar.ok("printer_gcode", gcode_of("G90"), role="admin")["lines"] == []
    # What stands beside the unknown one is carried out, and the words say so.
    error = sidecar.refused("printer_gcode", gcode_of("ALSO_NOT", "G28", "NOR_THIS"), role="admin")
    assert all(word in error["detail"] for word in ('"ALSO_NOT"', '"NOR_THIS"', "was carried out")), error
    assert server.get("/printer/objects/query?toolhead")[1]["result"]["status"]["toolhead"]["homed_axes"] == "xyz"
    # A Klipper without [exclude_object] must not be said to have left anything out.
    started(farm, sidecar, printer, "G28\n" + "NOT_OURS\n" * 4000)
    farm.wait_state(printer, "printing")
    error = sidecar.refused("skip_objects", {"printer_id": printer, "objects": ["cube"], "confirm": True})
    assert error["code"] == "printer_refused" and "EXCLUDE_OBJECT" in error["detail"] and "NOT_OURS" not in error["detail"], error
    assert sidecar.ok("set_speed", {"printer_id": printer, "percent": 90, "confirm": True})["ok"] is True


def emergency_stop(farm):
    """After a shutdown print_stats keeps its old words; the farm believes webhooks. connect brings Klipper back."""
    sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer, gcode(4000))
    server.post("/printer/emergency_stop")
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 30)
    state = farm.wait_state(printer, "error")
    assert "Shutdown" in state["error_message"], state
    answer = sidecar.ok("connect_printer", {"printer_id": printer, "confirm": True})
    assert answer["ok"] is True, answer
    farm.wait_state(printer, "failed", "finished")


def klipper_goes_away(farm):
    sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer, gcode(4000))
    server.klippy.close()
    state = farm.wait_state(printer, "offline")
    assert state["error_message"], state
    server.start_klippy()
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 40)


def wrong_key_says_so(farm):
    sidecar, printer = with_printer(farm, key="f" * 32)
    wait("the reason", lambda: farm.state(printer)["error_code"] == "printer_auth", 20)
    said = sidecar.ok("test_printer", {"printer_id": printer})
    assert said["works"] is False and said["problem"] == "printer_auth" and "f" * 32 not in json.dumps(said), said
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "api_key": server.key}, role="admin")
    farm.wait_state(printer, "idle")
    said = sidecar.ok("test_printer", {"printer_id": printer})
    assert said["works"] is True and "Moonraker" in said["detail"], said


def file_too_large(farm):
    """Beyond max_upload_size Moonraker answers 400 with nothing in it; the farm says what it means, and nothing was started."""
    sidecar, printer = with_printer(farm)
    job = farm.job(sha256=farm.store(gcode(10) + ";" + "x" * 1_200_000), printer=printer)
    error = sidecar.refused("start_job", {"job_id": job})
    assert error["code"] in ("printer_refused", "printer_unreachable") and server.stats()["print_stats"]["state"] == "standby", error
    assert farm.job_row(job)["status"] == "pending" and farm.run_of(job)["status"] == "released"


def a_file_in_use_is_not_overwritten(farm):
    sidecar, printer = with_printer(farm)
    name = farm.run_of(started(farm, sidecar, printer, gcode(4000)))["remote_file"]
    farm.store("G28\n", name)
    error = sidecar.refused("octoprint_upload_file", {"gcode_path": name, "printer_id": printer})
    assert error["code"] == "printer_refused" and "in use" in error["detail"], error
    assert (server.dir / "gcodes" / name).read_text() == gcode(4000)


def server_restarts_while_printing(farm):
    """Moonraker restarts, Klipper prints on: the run goes on and is completed."""
    sidecar, printer = with_printer(farm)
    job = started(farm, sidecar, printer, gcode(4000))
    server.kill()
    farm.wait_state(printer, "offline")
    server.start()
    farm.wait_state(printer, "printing", limit=60)
    assert farm.run_of(job)["status"] == "printing"
    server.time(fast=True)
    wait("the run to end", lambda: farm.run_of(job)["status"] == "completed", 60)


TESTS = [life_of_a_print, cancel_while_heating_answers_with_a_handle, a_paused_print_is_not_replaced, motion_waits_for_rest, klippers_own_words, what_klipper_says_to_gcode, emergency_stop, klipper_goes_away, wrong_key_says_so,
         file_too_large, a_file_in_use_is_not_overwritten, server_restarts_while_printing]
