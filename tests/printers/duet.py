"""A stand-in for a Duet with RepRapFirmware 3: its web interface as the firmware's source and its API description have it. No simulator exists.

Sessions by key that end after a silent while, 503 when memory is short, G-code that is accepted and answered later, uploads with a checksum.
"""

import http.server
import json
import re
import threading
import time
import urllib.parse
import zlib

PAGE = 2


class Machine:
    def __init__(self):
        self.lock = threading.RLock()
        self.reset()

    def reset(self):
        self.password, self.session_s, self.most_sessions = "reprap", 8.0, 8
        self.files, self.sessions, self.next_key = {}, {}, 1000
        self.short, self.damage, self.silent = 0, 0, False
        self.status, self.file, self.position, self.size = "idle", None, 0.0, 0
        self.last, self.lines, self.reply, self.seq = {}, [], "", 0
        self.later, self.looked = [], False
        # A print lasts until the tests want its end.
        self.seconds, self.heat, self.speed = 3600.0, {"bed": 0.0, "tool": 0.0}, 1.0
        self.homed = False

    def model(self, key):
        printing = self.file is not None
        heater = lambda name: {"current": 22.0, "active": self.heat[name], "standby": 0.0, "state": "active" if self.heat[name] else "off"}
        return {
            "state": {"status": self.status, "upTime": 5},
            "job": {"file": {"fileName": f"0:/gcodes/{self.file}" if printing else None, "size": self.size, "numLayers": 20}, "filePosition": int(self.position), "layer": 3 if printing else None,
                    "duration": 4 if printing else None, "timesLeft": {"file": 9 if printing else None, "slicer": None, "filament": None}, **self.last},
            "heat": {"bedHeaters": [0, -1], "chamberHeaters": [-1, -1], "heaters": [heater("bed"), heater("tool")]},
            "move": {"speedFactor": self.speed}, "seqs": {"reply": self.seq if key != "seqs" else self.sequence()},
            "boards": [{"name": "Duet 3 Mini 5+", "firmwareName": "RepRapFirmware for Duet 3 Mini 5+", "firmwareVersion": "3.5.1"}],
        }.get(key)

    def obey(self, line):
        self.lines.append(line)
        word, rest = line.split()[0], line
        number = lambda letter: float((re.search(letter + r"(-?[\d.]+)", rest) or [0, 0])[1])
        if word == "M32":
            name = re.search(r'"0:/gcodes/(.*)"', line)[1]
            if name not in self.files:
                return self.say(f'Error: M32: Failed to find file "{name}"')
            self.file, self.size, self.position, self.status, self.last = name, len(self.files[name]), 0.0, "processing", {}
        elif word == "M25" and self.status == "processing":
            self.status = "pausing"
            threading.Timer(0.5, self.paused).start()
        elif word == "M24" and self.status == "paused":
            self.status = "processing"
        elif word == "M0":
            if self.status == "processing":
                return self.say("Error: M0: cannot cancel while printing, pause first")
            self.over(lastFileCancelled=True)
        elif word == "M112":
            self.status = "halted"
        elif word == "M999":
            self.file, self.status, self.last = None, "idle", {}
        elif word == "M140":
            self.heat["bed"] = number("S")
        elif word == "M104":
            self.heat["tool"] = number("S")
        elif word == "M220":
            self.speed = number("S") / 100
        elif word == "G28":
            self.homed = True
        elif word == "G1" and not self.homed:
            return self.say("Error: G0/G1: insufficient axes homed")
        elif word == "M115":
            return self.say("FIRMWARE_NAME: RepRapFirmware")
        return None

    def paused(self):
        with self.lock:
            if self.status == "pausing":
                self.status = "paused"

    def over(self, **how):
        if self.file:
            self.last = {"lastFileName": f"0:/gcodes/{self.file}", "lastDuration": 5, "lastFileAborted": False, "lastFileCancelled": False, "lastFileSimulated": False, **how}
        self.file, self.status = None, "idle"

    def say(self, text):
        """Later: whoever asks finds nothing new at first."""
        self.later.append(text)
        self.looked = False

    def sequence(self):
        if self.looked and self.later:
            self.reply, self.seq, self.later = self.reply + "\n".join([*self.later, ""]), self.seq + 1, []
        self.looked = True
        return self.seq

    def live(self):
        while True:
            time.sleep(0.1)
            with self.lock:
                if self.status == "processing" and self.file:
                    self.position += self.size * 0.1 / self.seconds
                    if self.position >= self.size:
                        self.over()


class Duet:
    def __init__(self):
        machine = self.machine = Machine()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body, kind="application/json"):
                text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def asked(self):
                path, _, query = self.path.partition("?")
                return path, {k: v[0] for k, v in urllib.parse.parse_qs(query, keep_blank_values=True).items()}

            def admitted(self):
                key = int(self.headers.get("X-Session-Key") or 0)
                now = time.monotonic()
                machine.sessions = {k: t for k, t in machine.sessions.items() if now - t < machine.session_s}
                if key not in machine.sessions:
                    self.answer(401, "")
                    return False
                machine.sessions[key] = now
                if machine.short > 0:
                    machine.short -= 1
                    self.answer(503, "")
                    return False
                return True

            def do_GET(self):
                path, args = self.asked()
                with machine.lock:
                    if path == "/rr_connect":
                        now = time.monotonic()
                        machine.sessions = {k: t for k, t in machine.sessions.items() if now - t < machine.session_s}
                        if args.get("password") != machine.password:
                            return self.answer(200, {"err": 1})
                        if len(machine.sessions) >= machine.most_sessions:
                            return self.answer(200, {"err": 2})
                        machine.next_key += 1
                        machine.sessions[machine.next_key] = now
                        return self.answer(200, {"err": 0, "sessionTimeout": 8000, "boardType": "duet3mini", "apiLevel": 2, "sessionKey": machine.next_key})
                    if not self.admitted():
                        return None
                    if path == "/rr_model":
                        return self.answer(200, {"key": args["key"], "flags": args.get("flags", ""), "result": machine.model(args["key"])})
                    if path == "/rr_gcode":
                        for line in filter(None, args["gcode"].split("\n")):
                            machine.obey(line)
                        return self.answer(200, {"buff": 240})
                    if path == "/rr_reply":
                        said, machine.reply = machine.reply, ""
                        return self.answer(200, said, "text/plain")
                    if path == "/rr_filelist":
                        first, names = int(args.get("first", 0)), sorted(machine.files)
                        page = [{"type": "f", "name": n, "size": len(machine.files[n]), "date": "2026-01-31T12:00:00"} for n in names[first:first + PAGE]]
                        return self.answer(200, {"dir": args["dir"], "first": first, "files": page, "next": first + PAGE if first + PAGE < len(names) else 0, "err": 0})
                    if path == "/rr_fileinfo":
                        known = args["name"].removeprefix("0:/gcodes/") in machine.files
                        return self.answer(200, {"err": 0, "size": 5} if known else {"err": 1})
                return self.answer(404, "")

            def do_POST(self):
                path, args = self.asked()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with machine.lock:
                    if not self.admitted():
                        return None
                    if path != "/rr_upload":
                        return self.answer(404, "")
                    if machine.damage > 0:
                        machine.damage -= 1
                        return self.answer(200, {"err": 1})
                    good = zlib.crc32(body) == int(args["crc32"], 16)
                    if good:
                        machine.files[args["name"].removeprefix("0:/gcodes/")] = body
                    return self.answer(200, {"err": 0 if good else 1})

            def log_message(self, *_):
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                """Somebody hung up; that is what tests do."""

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        threading.Thread(target=machine.live, daemon=True).start()
