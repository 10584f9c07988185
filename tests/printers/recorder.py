"""Something that answers like OctoPrint, behaves as little of it as the tests need, and writes down every request that could move a machine."""

import http.server
import json
import re
import threading

FLAGS = {"operational": True, "printing": False, "paused": False, "pausing": False, "cancelling": False, "finishing": False, "error": False, "closedOrError": False, "ready": True}


class Recorder:
    def __init__(self):
        recorder, self.orders, self.dead = self, [], False
        self.rest()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body):
                text = b"" if body is None else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self):
                if recorder.dead:
                    self.close_connection = True
                    return
                self.answer(*recorder.page(self.path.split("?")[0]))

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/api/login":
                    return self.answer(403, {"error": "no"})
                if self.path == "/api/files/local":
                    name = re.search(rb'filename="([^"]+)"', body)[1].decode()
                    recorder.orders.append((self.path, name))
                    return self.answer(201, {"done": True, "files": {"local": {"name": name, "path": name}}})
                said = json.loads(body)
                recorder.orders.append((self.path, said))
                recorder.obey(self.path, said)
                self.answer(204, None)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Clients that are killed in the middle of an answer are what these tests are about.
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def rest(self):
        """Connected, cold, nothing selected."""
        self.connected, self.file, self.busy, self.paused, self.bed, self.tool = True, None, False, False, 0.0, 0.0

    def printing(self, file):
        self.file, self.busy, self.paused = file, True, False

    def obey(self, path, said):
        if path.startswith("/api/files/local/"):
            self.file, self.busy = path.removeprefix("/api/files/local/"), said.get("print", False)
        elif path == "/api/job":
            self.paused = said.get("action") == "pause"
            self.busy = self.busy and said["command"] != "cancel"
        elif path == "/api/connection":
            self.connected = said["command"] == "connect"
        elif path == "/api/printer/bed":
            self.bed = said["target"]
        elif path == "/api/printer/tool":
            self.tool = said["targets"]["tool0"]

    def page(self, path):
        state = "Offline" if not self.connected else "Operational" if not self.busy else "Paused" if self.paused else "Printing"
        if path == "/api/printer":
            if not self.connected:
                return 409, {"error": "Printer is not operational"}
            flags = {**FLAGS, "printing": state == "Printing", "paused": state == "Paused", "ready": not self.busy}
            return 200, {"state": {"flags": flags}, "temperature": {"tool0": {"actual": 21.0, "target": self.tool}, "bed": {"actual": 21.0, "target": self.bed}}}
        pages = {
            "/api/version": {"api": "0.1", "server": "1.11.8", "text": "OctoPrint 1.11.8"},
            "/api/connection": {"current": {"state": state, "port": "VIRTUAL", "baudrate": 250000}},
            "/api/job": {"state": state, "job": {"file": {"path": self.file}}, "progress": {"completion": 5.0 if self.busy else None}},
            "/api/files/local": {"files": [{"type": "machinecode", "path": "there.gcode", "size": 10, "date": 5, "gcodeAnalysis": {"estimatedPrintTime": 90.0}}]},
        }
        return (200, pages[path]) if path in pages else (404, {"error": "Not found"})
