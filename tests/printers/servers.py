"""The real servers of the tests, installed once outside the checkout and started on loopback ports."""

import fcntl
import hashlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

from farm import free_port, wait

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "odin_farm"
PACKAGES = {
    "octoprint": ["OctoPrint==1.11.8"],
    "moonraker": ["moonraker==0.11.0"],
    "prusalink": ["prusalink==0.8.1"],
    "bambulabs": ["bambulabs_api==2.6.6", "paho-mqtt==2.1.0", "pillow==12.1.0"],
    "pyftpdlib": ["pyftpdlib==2.0.1", "pyOpenSSL==24.2.1", "paho-mqtt==2.1.0", "zeroconf==0.132.2"],
}


INSTALLING = threading.Lock()


def installed(name):
    """The programs of a virtual environment, made on first use."""
    wanted = " ".join([*PACKAGES[name], sys.version])
    place = CACHE / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
    done = place / ".complete"
    CACHE.mkdir(parents=True, exist_ok=True)
    # Neither by another thread nor by another run that shares the cache.
    with INSTALLING, (CACHE / "installing.lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if done.exists():
            return place / "bin"
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([place / "bin/pip", "-q", "--disable-pip-version-check", "install", *PACKAGES[name]], check=True)
        done.touch()
    return place / "bin"


def ask(port, method, path, body=None, headers=None, timeout=60):
    """(status, parsed JSON or text) of a plain request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = dict(headers or {})
    if isinstance(body, (dict, list)):
        body, headers["Content-Type"] = json.dumps(body), "application/json"
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read().decode(errors="replace")
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text


class Server:
    """A process with a directory and a log of its own."""

    every = []

    def __init__(self, kind):
        self.every.append(self)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"odin-{kind}-"))
        self.port = free_port()
        self.process = None

    def spawn(self, command, **env):
        with (self.dir / "log").open("a") as log:
            self.process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log, env={**os.environ, **env}, start_new_session=True)

    def alive(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {(self.dir / 'log').read_text()[-2000:]}")

    def kill(self):
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def close_all():
    for server in Server.every:
        server.close()


class OctoPrint(Server):
    KEY = "FARMKEY00000000000000000000000001"

    def __init__(self):
        super().__init__("octoprint")
        (self.dir / "config.yaml").write_text("""
server:
  firstRun: false
  onlineCheck: {enabled: false}
  pluginBlacklist: {enabled: false}
serial: {port: VIRTUAL, baudrate: 250000, autoconnect: true}
plugins:
  virtual_printer: {enabled: true, simulated_errors: [], throttle: 0.001}
  _disabled: [announcements, softwareupdate, pluginmanager, tracking, discovery, achievements, errortracking, health_check]
""")
        (self.dir / "users.yaml").write_text(f"""
_version: 2
farm:
  active: true
  apikey: {self.KEY}
  groups: [admins]
  password: ''
  permissions: []
  roles: [user, admin]
  settings: {{}}
""")
        self.start()

    def start(self):
        self.spawn([installed("octoprint") / "octoprint", "--basedir", self.dir, "serve", "--host", "127.0.0.1", "--port", self.port, "--iknowwhatimdoing"])
        wait("OctoPrint to be operational", self.operational, 60, 0.3)

    def operational(self):
        self.alive()
        try:
            status, said = self.get("/api/printer")
        except (OSError, http.client.HTTPException):
            return False
        return status == 200 and said["state"]["flags"]["operational"]

    def get(self, path):
        return ask(self.port, "GET", path, headers={"X-Api-Key": self.KEY})

    def post(self, path, body):
        return ask(self.port, "POST", path, body, {"X-Api-Key": self.KEY})

    def inject(self, what):
        """Fault injection of the virtual printer."""
        assert self.post("/api/printer/command", {"command": f"!!DEBUG:{what}"})[0] == 204

    def upload(self, name, text):
        boundary = "xxTESTxx"
        body = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n{text}\r\n--{boundary}--\r\n'
        status, said = ask(self.port, "POST", "/api/files/local", body, {"X-Api-Key": self.KEY, "Content-Type": f"multipart/form-data; boundary={boundary}"})
        assert status == 201, said

    def state(self):
        return self.get("/api/job")[1]["state"]


def gcode(lines=40, dwell=0.0, heat=None):
    """A print of so many moves, about a quarter of a second each, or with a dwell each."""
    out = ["; a print of the tests", "G28"]
    if heat:
        out.append(f"M109 S{heat}")
    for n in range(lines):
        out.append(f"G1 X{n % 50} Y{n % 40} F3000")
        if dwell:
            out.append(f"G4 P{int(dwell * 1000)}")
    return "\n".join(out + ["M84", ""])
