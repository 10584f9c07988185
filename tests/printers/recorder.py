"""Something that answers like OctoPrint, behaves as little of it as the tests need, and writes down every request that could move a machine.

It has a push socket only where a test says what each login on it is answered with.
"""

import base64
import hashlib
import http.server
import json
import re
import struct
import threading

FLAGS = {"operational": True, "printing": False, "paused": False, "pausing": False, "cancelling": False, "finishing": False, "error": False, "closedOrError": False, "ready": True}


class Recorder:
    def __init__(self):
        recorder, self.orders, self.dead = self, [], False
        # pushes(n): the frame that answers login n, or None for silence. logins: (socket, name:session) as they came.
        self.pushes, self.logins, self.sessions, self.sockets = None, [], 0, 0
        # It does what it is told and hangs up instead of answering.
        self.hangs_up = False
        # Files are taken while it is set; coming counts those that wait.
        self.gate, self.coming = threading.Event(), 0
        self.gate.set()
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
                if recorder.pushes and self.path == "/sockjs/websocket":
                    return self.converse()
                self.answer(*recorder.page(self.path.split("?")[0]))

            def converse(self):
                """As little of a web socket as it takes: short text both ways."""
                self.close_connection = True
                accept = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
                self.wfile.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {base64.b64encode(accept).decode()}\r\n\r\n".encode())
                recorder.sockets += 1
                own = recorder.sockets
                self.tell({"connected": {}})
                while len(head := self.rfile.read(2)) == 2 and head[0] & 15 == 1:
                    size = head[1] & 127
                    size = struct.unpack(">H", self.rfile.read(2))[0] if size == 126 else size
                    mask, text = self.rfile.read(4), self.rfile.read(size)
                    said = json.loads(bytes(b ^ mask[n % 4] for n, b in enumerate(text)))
                    if "auth" in said:
                        recorder.logins.append((own, said["auth"]))
                        frame = recorder.pushes(len(recorder.logins))
                        if frame:
                            self.tell(frame)

            def tell(self, frame):
                text = json.dumps(frame).encode()
                self.wfile.write(struct.pack(">BB", 0x81, len(text)) + text)

            def do_POST(self):
                if self.path == "/api/files/local":
                    recorder.coming += 1
                    recorder.gate.wait()
                    recorder.coming -= 1
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if self.path == "/api/login":
                    recorder.sessions += 1
                    return self.answer(200, {"name": "farm", "session": f"s{recorder.sessions}"}) if recorder.pushes else self.answer(403, {"error": "no"})
                if self.path == "/api/files/local":
                    name = re.search(rb'filename="([^"]+)"', body)[1].decode()
                    recorder.orders.append((self.path, name))
                    return self.answer(201, {"done": True, "files": {"local": {"name": name, "path": name}}})
                said = json.loads(body)
                recorder.orders.append((self.path, said))
                recorder.obey(self.path, said)
                if recorder.hangs_up:
                    self.close_connection = True
                    return
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
