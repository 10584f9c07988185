"""What the drivers share: the sidecar over HTTP, the database, models to slice, and a runner that prints one line a test. Standard library only."""
import contextlib, json, math, os, signal, struct, subprocess, time, traceback, urllib.error, urllib.request

BASE, KEY, VIEWER = os.environ["BASE"], os.environ["KEY"], os.environ["VIEWER"]


def http(method, path, body=None, key=KEY, headers=None):
    request = urllib.request.Request(BASE + path, data=body, method=method, headers=dict(headers or {}))
    if key:
        request.add_header("Authorization", "Bearer " + key)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read()


def call(tool, key=KEY, **arguments):
    _, _, body = http("POST", "/api/v1/tools/" + tool, json.dumps(arguments).encode(), key, {"Content-Type": "application/json"})
    return json.loads(body)


def mcp(method, key=KEY, tasks=True, **params):
    """One request of the stateless protocol, by a client that can poll tasks."""
    about = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientInfo": {"name": "slicing", "version": "1"},
             "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}} if tasks else {}}
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method}
    name = params.get("name") or params.get("taskId")
    if name:
        headers["Mcp-Name"] = name
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": about}}).encode()
    _, _, answer = http("POST", "/mcp", body, key, headers)
    return json.loads(answer)


def code(answer):
    return answer.get("error", {}).get("code")


def sql(text):
    done = subprocess.run([os.environ["PSQL"], "-XAtq", "-v", "ON_ERROR_STOP=1", os.environ["DATABASE"], "-c", text], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def wait_for(what, condition, seconds=180):
    until = time.time() + seconds
    while time.time() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain for " + what)


def states(pid):
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/stat") as f:
            yield f.read().rsplit(")", 1)[1].split()[0]


@contextlib.contextmanager
def serving_stopped():
    """The sidecar that serves stands still meanwhile, and what it had asked of the database has ended: nothing new becomes its own."""
    pid = int(os.environ["SIDECAR_PID"])
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for("the sidecar to stand still", lambda: set(states(pid)) == {"T"})
        wait_for("its statements to end", lambda: sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename IN ('odin_gateway', 'odin_worker') AND state <> 'idle'") == "0")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def box(x, y, z):
    v = [(i * x, j * y, k * z) for k in (0, 1) for j in (0, 1) for i in (0, 1)]
    faces = [(0, 2, 3), (0, 3, 1), (4, 5, 7), (4, 7, 6), (0, 1, 5), (0, 5, 4), (2, 6, 7), (2, 7, 3), (0, 4, 6), (0, 6, 2), (1, 3, 7), (1, 7, 5)]
    return stl([[v[n] for n in face] for face in faces])


def stl(triangles):
    parts = [b"\0" * 80, struct.pack("<I", len(triangles))]
    for t in triangles:
        parts.append(struct.pack("<12f", 0, 0, 0, *t[0], *t[1], *t[2]) + b"\0\0")
    return b"".join(parts)


def wavy(size, n, rough=3):
    """A block with a rough top: many triangles, so that slicing takes a while. With rough 0 it is a large file that is sliced quickly."""
    h = lambda i, j: 20 + rough * math.sin(i * 0.9) * math.cos(j * 0.7)
    p = lambda i, j, z: (i * size / n, j * size / n, z)
    out = []
    for i in range(n):
        for j in range(n):
            a, b, c, d = p(i, j, h(i, j)), p(i + 1, j, h(i + 1, j)), p(i + 1, j + 1, h(i + 1, j + 1)), p(i, j + 1, h(i, j + 1))
            out += [[a, b, c], [a, c, d]]
            a, b, c, d = p(i, j, 0), p(i + 1, j, 0), p(i + 1, j + 1, 0), p(i, j + 1, 0)
            out += [[a, c, b], [a, d, c]]
    for i in range(n):
        for f in (lambda k, z: p(k, 0, z if z == 0 else h(k, 0)), lambda k, z: p(n - k, n, z if z == 0 else h(n - k, n)),
                  lambda k, z: p(0, n - k, z if z == 0 else h(0, n - k)), lambda k, z: p(n, k, z if z == 0 else h(n, k))):
            a, b, c, d = f(i, 0), f(i + 1, 0), f(i + 1, 1), f(i, 1)
            out += [[a, b, c], [a, c, d]]
    return stl(out)


TESTS = []


def test(f):
    TESTS.append(f)
    return f


def run_all():
    failed = 0
    for run in TESTS:
        name = run.__name__.replace("_", " ")
        try:
            run()
            print("ok", name, flush=True)
        except Exception as e:
            failed += 1
            print("NOT OK", name, flush=True)
            where = traceback.extract_tb(e.__traceback__)
            print(f"{type(e).__name__} in line {[f.lineno for f in where][1]}: {e}"[:1500], flush=True)
    return failed
