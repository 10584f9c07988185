"""A farm of the tests' own: a database, sidecars, keys, jobs. Everything made here is gone afterwards."""

import base64
import hashlib
import http.client
import itertools
import json
import os
import pathlib
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SECRET = secrets.token_hex(32)


# Limits say what an idle machine needs. A busy one takes several times as long, and waiting longer costs nothing where it is quick.
PATIENCE = 4
LEAST = 90


def wait(what, check, limit=30.0, every=0.1):
    """The first truthy answer of check(), or a failure that says what was waited for and what was seen last."""
    limit = max(LEAST, limit * PATIENCE)
    until = time.monotonic() + limit
    while True:
        seen = check()
        if seen:
            return seen
        if time.monotonic() > until:
            raise AssertionError(f"waited {limit:g} s for {what}; last seen: {seen!r}")
        time.sleep(every)


# Below the ports that the system gives to whoever asks and away from those of the other kinds, so that nobody else takes one between here and its use.
PORTS = itertools.count(random.randrange(5000, 9500))
PORT_LOCK = threading.Lock()
KEPT = {}
SETUP_LOCK = threading.Lock()


def reserved(name):
    """True when no other run on this machine has it; kept until this process ends. A name of the kernel's, so nothing is left behind."""
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0odin-tests-{name}")
    except OSError:
        held.close()
        return False
    KEPT[name] = held
    return True


def free_port():
    with PORT_LOCK:
        for port in PORTS:
            with socket.socket() as s:
                try:
                    s.bind(("127.0.0.1", port))
                except OSError:
                    continue
                if reserved(f"port-{port}"):
                    return port


class Farm:
    """One database with an org and its keys. Needs the variables of scripts/test-cluster."""

    def __init__(self):
        self.host = os.environ["ODIN_TEST_HOST"]
        self.port = os.environ["ODIN_TEST_PORT"]
        self.name = f"printers_{secrets.token_hex(4)}"
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="odin-printers-"))
        self.sidecars = []
        template = os.environ.get("ODIN_TEST_TEMPLATE", "odin_template")
        self.psql("postgres", f"CREATE DATABASE {self.name} TEMPLATE {template}")
        # It makes roles, and those are the whole cluster's.
        with SETUP_LOCK:
            rows = self.sql("SELECT jsonb_object_agg(role, key) FROM odin.demo_org()")
        self.keys = {role.removeprefix("demo_"): key for role, key in rows.items()}
        self.org = self.sql("SELECT to_jsonb(id) FROM odin.orgs WHERE name = 'Demo Farm'")

    def close(self):
        for sidecar in self.sidecars:
            sidecar.kill()
        wait("the database to be dropped", self.dropped, every=1.0)
        shutil.rmtree(self.dir, ignore_errors=True)

    def dropped(self):
        """PostgreSQL gives up when a backend takes more than five seconds to go."""
        try:
            self.psql("postgres", f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
        except AssertionError as e:
            if "being accessed" not in str(e):
                raise
            return False
        return True

    def psql(self, database, text):
        done = subprocess.run(
            ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", self.host, "-p", self.port, "-U", "postgres", database],
            input=text, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"SQL failed: {done.stderr.strip()}\n{text}")
        return done.stdout.strip()

    def sql(self, text):
        """The last line of the answer, as JSON."""
        said = self.psql(self.name, text)
        return json.loads(said.splitlines()[-1]) if said else None

    def url(self, role):
        return f"postgresql://{role}@localhost/{self.name}?host={self.host}&port={self.port}"

    def sidecar(self, **env):
        sidecar = Sidecar(self, env)
        self.sidecars.append(sidecar)
        return sidecar

    def printer(self, name, protocol="virtual", address="speed=60", **columns):
        columns = {"name": name, "protocol": protocol, "address": address, **columns}
        keys = ", ".join(columns)
        values = ", ".join("NULL" if v is None else "'" + str(v).replace("'", "''") + "'" for v in columns.values())
        return self.sql(f"INSERT INTO odin.printers(org_id, {keys}) VALUES ({self.org}, {values}) RETURNING to_jsonb(id)")

    def store(self, text, name="test.gcode"):
        """Puts a file into the store, as a person would; returns its SHA-256."""
        return self.store_bytes(text.encode(), name)

    def store_bytes(self, content, name):
        self.call("upload_file", {"name": name, "content_base64": base64.b64encode(content).decode()})
        return hashlib.sha256(content).hexdigest()

    def job(self, name="bracket", seconds=60, sha256=None, printer=None, pieces=1):
        """A model with one revision and a job for it."""
        file = f"'{sha256}'" if sha256 else "NULL"
        model = self.sql(f"""
            WITH m AS (INSERT INTO odin.models(org_id, name) VALUES ({self.org}, '{name} {secrets.token_hex(3)}') RETURNING id),
                 r AS (INSERT INTO odin.model_revisions(org_id, model_id, revision, seconds, pieces_per_plate, file_sha256)
                       SELECT {self.org}, m.id, 1, {seconds}, {pieces}, {file} FROM m RETURNING id, model_id)
            SELECT to_jsonb(r) FROM r""")
        self.psql(self.name, f"UPDATE odin.models SET current_revision_id = {model['id']} WHERE id = {model['model_id']}")
        arguments = {"model_id": model["model_id"], "quantity": pieces}
        if printer:
            arguments["printer_id"] = printer
        return self.call("queue_job", arguments)["job_id"]

    def call(self, tool, arguments=None, role="operator", options=None):
        """As a person in SQL: nobody waits for a printer here."""
        args, opts = json.dumps(arguments or {}).replace("'", "''"), json.dumps(options or {})
        answer = self.sql(f"SET ROLE demo_{role}; SELECT odin.call('{tool}', '{args}', '{opts}')")
        assert "error" not in answer, f"{tool}: {answer['error']}"
        return answer

    def state(self, printer):
        return self.sql(f"SELECT to_jsonb(s) FROM odin.printer_state s WHERE printer_id = {printer}")

    def command(self, command_id):
        return self.sql(f"SELECT to_jsonb(c) FROM odin.commands c WHERE id = {command_id}")

    def run_of(self, job):
        return self.sql(f"SELECT to_jsonb(r) FROM odin.runs r WHERE job_id = {job} ORDER BY id DESC LIMIT 1")

    def job_row(self, job):
        return self.sql(f"SELECT to_jsonb(j) FROM odin.jobs j WHERE id = {job}")

    def acts(self, printer):
        return self.sql(f"SELECT acts FROM odin.virtual_machines WHERE printer_id = {printer}") or {}

    def wait_state(self, printer, *states, limit=30.0):
        def look():
            state = self.state(printer)
            return state if state["state"] in states else None
        try:
            return wait(f"printer {printer} to be {' or '.join(states)}", look, limit)
        except AssertionError as e:
            raise AssertionError(f"{e}; it is {self.state(printer)}") from None


class Sidecar:
    def __init__(self, farm, env):
        self.farm = farm
        self.port = free_port()
        self.log = farm.dir / f"sidecar-{self.port}.log"
        binary = os.environ["ODIN_TEST_SIDECAR"]
        own = {"PATH": os.environ["PATH"], "ODIN_GATEWAY_URL": farm.url("odin_gateway"), "ODIN_WORKER_URL": farm.url("odin_worker"),
               "ODIN_LISTEN": f"127.0.0.1:{self.port}", "ODIN_SECRET_KEY": SECRET, "ODIN_LOG_FORMAT": "text", "ODIN_SHUTDOWN_GRACE": "3",
               # A test that wants the handle instead of the printer's word says so.
               "ODIN_COMMAND_WAIT": "150", **env}
        self.process = subprocess.Popen([binary, "serve"], env=own, stdout=subprocess.DEVNULL, stderr=self.log.open("w"), cwd="/")
        if not env.get("ODIN_CRASH_AT"):
            wait("the sidecar to be ready", self.ready)

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the sidecar ended: {self.log.read_text()[-2000:]}")
        try:
            return self.get("/readyz") == 200
        except OSError:
            return False

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        return connection.getresponse().status

    def tool(self, name, arguments=None, role="operator", timeout=200):
        """A call over MCP: (result object, error object or None)."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments or {}}})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request("POST", "/mcp", body, {
            "Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-06-18",
            "Authorization": f"Bearer {self.farm.keys[role]}"})
        response = connection.getresponse()
        text = response.read().decode()
        if response.headers.get_content_type() == "text/event-stream":
            text = [line[5:] for line in text.splitlines() if line.startswith("data:") and '"id"' in line][-1]
        answer = json.loads(text)
        assert "result" in answer, f"{name}: {answer}"
        result = answer["result"]
        if result.get("isError"):
            return None, json.loads(result["content"][0]["text"])["error"]
        return result.get("structuredContent") or json.loads(result["content"][0]["text"]), None

    def ok(self, name, arguments=None, role="operator", timeout=200):
        result, error = self.tool(name, arguments, role, timeout)
        assert error is None, f"{name} {arguments}: {error}"
        return result

    def refused(self, name, arguments=None, role="operator"):
        result, error = self.tool(name, arguments, role)
        assert error is not None, f"{name} {arguments} should be refused, it answered {result}"
        return error

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(180)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def died(self, limit=40):
        """It was told to die at a step; wait until it has."""
        wait("the sidecar to die", lambda: self.process.poll() is not None, limit)

    def said(self):
        return self.log.read_text()
