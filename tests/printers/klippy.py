"""A stand-in for Klipper's host behind a real Moonraker: just enough of its API server, with the habits that bite.

    klippy.py SOCKET GCODE_FOLDER

Habits kept from the real one: a script is answered when it is over, so pause and cancel wait behind heating; starting a file while another is
paused replaces it silently; pause and cancel say ok when idle; an unknown command is ok and only said to be unknown; after a shutdown print_stats keeps its old state; only a firmware restart helps.

Time is the tests': with a file `cold` beside the folder no heater warms, with a file `fast` a print goes fifty times as fast.
"""

import asyncio
import json
import os
import re
import sys
import time

END = b"\x03"
LINES_PER_SECOND = 20
HEAT_PER_SECOND = 25.0
ROOM = 22.0
TICK = 0.1


class Refused(Exception):
    pass


class Machine:
    def __init__(self, folder):
        self.folder = folder
        self.beside = os.path.dirname(folder)
        self.lock = asyncio.Lock()
        self.lines, self.position = [], 0
        self.objects = {
            "webhooks": {"state": "ready", "state_message": "Printer is ready"},
            "print_stats": {"filename": "", "total_duration": 0.0, "print_duration": 0.0, "filament_used": 0.0, "state": "standby", "message": "", "info": {"total_layer": None, "current_layer": None}},
            "virtual_sdcard": {"file_path": None, "progress": 0.0, "is_active": False, "file_position": 0, "file_size": 0},
            "pause_resume": {"is_paused": False},
            "display_status": {"progress": 0.0, "message": None},
            "idle_timeout": {"state": "Idle", "printing_time": 0.0},
            "toolhead": {"homed_axes": "", "position": [0, 0, 0, 0], "max_velocity": 300.0},
            "heaters": {"available_heaters": ["heater_bed", "extruder"], "available_sensors": ["heater_bed", "extruder"], "available_monitors": []},
            "extruder": {"temperature": ROOM, "target": 0.0, "power": 0.0},
            "heater_bed": {"temperature": ROOM, "target": 0.0, "power": 0.0},
            "configfile": {"config": {}, "settings": {"virtual_sdcard": {"path": folder}}, "save_config_pending": False, "warnings": []},
            "gcode_macro PAUSE": {}, "gcode_macro RESUME": {}, "gcode_macro CANCEL_PRINT": {},
        }
        self.listeners = []
        self.moves = 0

    def __getitem__(self, name):
        return self.objects[name]

    def say(self, text):
        for client in self.listeners:
            if client.output is not None:
                client.send({**client.output, "params": {"response": text}})

    def need_ready(self):
        if self["webhooks"]["state"] != "ready":
            raise Refused(self["webhooks"]["state_message"])

    async def warm(self, heater, target):
        self[heater]["target"] = target
        while abs(self[heater]["temperature"] - max(target, ROOM)) > 1:
            self.need_ready()
            await asyncio.sleep(TICK)

    async def line(self, text):
        text = text.split(";")[0].strip()
        if not text:
            return
        if text in ("FIRMWARE_RESTART", "RESTART"):
            self.restart(text == "FIRMWARE_RESTART")
            return
        self.need_ready()
        if found := re.fullmatch(r'SDCARD_PRINT_FILE FILENAME="?([^"]+)"?', text):
            self.begin(found[1])
        elif found := re.fullmatch(r"M10([49]) S([\d.]+)", text):
            await (self.warm("extruder", float(found[2])) if found[1] == "9" else self.set_target("extruder", float(found[2])))
        elif found := re.fullmatch(r"M1([49])0 S([\d.]+)", text):
            await (self.warm("heater_bed", float(found[2])) if found[1] == "9" else self.set_target("heater_bed", float(found[2])))
        elif found := re.fullmatch(r"SET_HEATER_TEMPERATURE HEATER=(\w+) TARGET=([\d.]+)", text):
            await self.set_target(found[1], float(found[2]))
        elif text.startswith("G28"):
            self["toolhead"]["homed_axes"] = "xyz"
        elif text.startswith(("G0", "G1")):
            if not self["toolhead"]["homed_axes"]:
                raise Refused("Must home axis first: 10.000 0.000 0.000 [0.000]")
            self.moves += 1
        elif found := re.fullmatch(r"G4 P(\d+)", text):
            await asyncio.sleep(int(found[1]) / 1000)
        elif text == "PAUSE":
            self.pause()
        elif text == "M115":
            self.say("// FIRMWARE_VERSION:v0-stand-in FIRMWARE_NAME:Klipper")
        elif text.startswith(("SAVE_GCODE_STATE", "RESTORE_GCODE_STATE")):
            pass
        elif not re.match(r"[GM]\d", text):
            self.say(f'// Unknown command:"{text.split()[0]}"')

    async def set_target(self, heater, target):
        if target > 300:
            self.say(f"!! Requested temperature ({target}) out of range (0.0:300.0)")
            raise Refused(f"Requested temperature ({target}) out of range (0.0:300.0)")
        self[heater]["target"] = target

    def begin(self, name):
        if self["virtual_sdcard"]["is_active"]:
            raise Refused("SD busy")
        path = os.path.join(self.folder, name)
        if not os.path.isfile(path):
            self.say("!! Unable to open file")
            raise Refused("Unable to open file")
        with open(path) as file:
            self.lines, self.position = file.read().split("\n"), 0
        self["print_stats"].update(filename=name, state="printing", total_duration=0.0, print_duration=0.0, message="")
        self["virtual_sdcard"].update(is_active=True, progress=0.0, file_path=path, file_size=os.path.getsize(path))

    def pause(self):
        self["pause_resume"]["is_paused"] = True
        if self["virtual_sdcard"]["is_active"]:
            self["virtual_sdcard"]["is_active"] = False
            self["print_stats"]["state"] = "paused"

    def resume(self):
        if not self["pause_resume"]["is_paused"]:
            self.say("// Print is not paused, resume aborted")
            return
        if self["virtual_sdcard"]["is_active"]:
            raise Refused("SD busy")
        self["pause_resume"]["is_paused"] = False
        self["virtual_sdcard"]["is_active"] = True
        self["print_stats"]["state"] = "printing"

    def cancel(self):
        self["pause_resume"]["is_paused"] = False
        for heater in ("extruder", "heater_bed"):
            self[heater]["target"] = 0.0
        if self["print_stats"]["state"] in ("printing", "paused"):
            self["print_stats"]["state"] = "cancelled"
        self["virtual_sdcard"].update(is_active=False, progress=0.0)

    def stop(self):
        self["webhooks"].update(state="shutdown", state_message="Shutdown due to webhooks request")
        self["virtual_sdcard"]["is_active"] = False

    def restart(self, firmware):
        if self["webhooks"]["state"] == "shutdown" and not firmware:
            self["webhooks"].update(state="error", state_message="MCU shutdown; use FIRMWARE_RESTART")
            return
        # Until somebody connects again; the real one is back after a second.
        self["webhooks"].update(state="startup", state_message="Printer is not ready")
        self["print_stats"].update(state="standby", filename="")
        self["virtual_sdcard"].update(is_active=False, progress=0.0, file_path=None)
        self["pause_resume"]["is_paused"] = False
        self["toolhead"]["homed_axes"] = ""
        for heater in ("extruder", "heater_bed"):
            self[heater]["target"] = 0.0
        # The real one drops its socket.
        for client in list(self.listeners):
            asyncio.get_running_loop().call_later(0.1, client.writer.close)

    async def ask(self, method, params):
        """Anything that moves waits for what is under way."""
        if method == "emergency_stop":
            self.stop()
        elif method in ("gcode/firmware_restart", "gcode/restart"):
            self.restart(method == "gcode/firmware_restart")
        elif method == "gcode/script" and params["script"] in ("FIRMWARE_RESTART", "RESTART"):
            self.restart(params["script"] == "FIRMWARE_RESTART")
        elif method == "gcode/script":
            async with self.lock:
                for line in params["script"].split("\n"):
                    await self.line(line)
        elif method.startswith("pause_resume/"):
            async with self.lock:
                self.need_ready()
                {"pause": self.pause, "resume": self.resume, "cancel": self.cancel}[method.partition("/")[2]]()
        elif method == "info":
            return {"state": self["webhooks"]["state"], "state_message": self["webhooks"]["state_message"], "hostname": "stand-in", "klipper_path": "/opt/none/klipper",
                    "python_path": "/opt/none/env/bin/python", "process_id": os.getpid(), "user_id": 0, "group_id": 0, "log_file": "/opt/none/logs/klippy.log",
                    "config_file": "/opt/none/config/printer.cfg", "software_version": "v0-stand-in", "cpu_info": ""}
        elif method == "objects/list":
            return {"objects": list(self.objects)}
        elif method == "query_endstops/status":
            return {"x": "open"}
        elif method not in ("register_remote_method", "gcode/help"):
            raise Refused(f"webhooks: No registered callback for path '{method}'")
        return {}

    def told(self, name):
        return os.path.exists(os.path.join(self.beside, name))

    def pick(self, wanted):
        return {name: dict(self[name]) if fields is None else {f: self[name].get(f) for f in fields} for name, fields in wanted.items() if name in self.objects}

    async def live(self):
        """Time goes by: heaters warm, lines are printed, subscribers hear what changed."""
        last = time.monotonic()
        due = 0.0
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            passed, last = now - last, now
            for heater in () if self.told("cold") else ("extruder", "heater_bed"):
                step = max(self[heater]["target"], ROOM) - self[heater]["temperature"]
                self[heater]["temperature"] = round(self[heater]["temperature"] + max(-HEAT_PER_SECOND * passed, min(HEAT_PER_SECOND * passed, step)), 2)
            for client in list(self.listeners):
                client.tell_changes()
            if self["print_stats"]["state"] in ("printing", "paused"):
                self["print_stats"]["total_duration"] += passed
            if not self["virtual_sdcard"]["is_active"] or self.lock.locked():
                continue
            self["print_stats"]["print_duration"] += passed
            due += passed * LINES_PER_SECOND * (50 if self.told("fast") else 1)
            asyncio.get_running_loop().create_task(self.print_lines(int(due)))
            due -= int(due)

    async def print_lines(self, count):
        async with self.lock:
            for _ in range(count):
                if not self["virtual_sdcard"]["is_active"]:
                    return
                try:
                    await self.line(self.lines[self.position])
                except Refused as e:
                    self["print_stats"].update(state="error", message=str(e))
                    self["virtual_sdcard"]["is_active"] = False
                    return
                self.position += 1
                self["virtual_sdcard"]["progress"] = self["display_status"]["progress"] = min(1.0, self.position / max(1, len(self.lines)))
                if self.position >= len(self.lines):
                    self["virtual_sdcard"]["is_active"] = False
                    self["print_stats"]["state"] = "complete"
                    return


class Client:
    def __init__(self, machine, reader, writer):
        self.machine, self.reader, self.writer = machine, reader, writer
        self.output = self.wanted = self.template = None
        self.known = {}

    def send(self, message):
        self.writer.write(json.dumps(message).encode() + END)

    def tell_changes(self):
        if self.wanted is None:
            return
        now = self.machine.pick(self.wanted)
        changed = {name: {f: v for f, v in fields.items() if self.known.get(name, {}).get(f) != v} for name, fields in now.items()}
        changed = {name: fields for name, fields in changed.items() if fields}
        self.known = json.loads(json.dumps(now))
        if changed:
            self.send({**self.template, "params": {"eventtime": time.monotonic(), "status": changed}})

    async def answer(self, message):
        method, params = message["method"], message.get("params") or {}
        try:
            if method == "list_endpoints":
                result = {"endpoints": ["list_endpoints", "info", "emergency_stop", "register_remote_method", "gcode/help", "gcode/script", "gcode/restart", "gcode/firmware_restart", "gcode/subscribe_output",
                                        "objects/list", "objects/query", "objects/subscribe", "pause_resume/cancel", "pause_resume/pause", "pause_resume/resume", "query_endstops/status"]}
            elif method == "objects/query":
                result = {"eventtime": time.monotonic(), "status": self.machine.pick(params["objects"])}
            elif method == "objects/subscribe":
                self.wanted, self.template = params["objects"], params["response_template"]
                self.known = json.loads(json.dumps(self.machine.pick(self.wanted)))
                result = {"eventtime": time.monotonic(), "status": self.known}
            elif method == "gcode/subscribe_output":
                self.output, result = params["response_template"], {}
            else:
                result = await self.machine.ask(method, params)
            self.send({"id": message["id"], "result": result})
        except Refused as e:
            self.send({"id": message["id"], "error": {"error": "WebRequestError", "message": str(e)}})

    async def run(self):
        self.machine.listeners.append(self)
        if self.machine["webhooks"]["state"] == "startup":
            self.machine["webhooks"].update(state="ready", state_message="Printer is ready")
        try:
            while True:
                message = json.loads((await self.reader.readuntil(END))[:-1])
                asyncio.get_running_loop().create_task(self.answer(message))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.machine.listeners.remove(self)
            self.writer.close()


async def main(path, folder):
    machine = Machine(folder)
    if os.path.exists(path):
        os.unlink(path)
    server = await asyncio.start_unix_server(lambda r, w: Client(machine, r, w).run(), path, limit=1 << 24)
    await asyncio.gather(server.serve_forever(), machine.live())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
