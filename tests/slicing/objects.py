"""Files in a bucket of a real S3-speaking server that checks signatures: moved out, read, sliced, brought back, removed; and what happens when the bucket is away,
the key is wrong, or a sidecar is killed in the middle. Between the sidecars and the server stands a door that can be held shut."""
import atexit, hashlib, http.client, json, os, pathlib, signal, socket, subprocess, threading

from farm import VIEWER, box, call, code, http as ask, run_all, serving_stopped, sql, test, wait_for, wavy

ADMIN, ACCESS, SECRET = os.environ["ADMIN"], "farm-access-7c1e", "farm-secret-b8d2e4"
HERE = int(os.environ["DOOR_PORT"])
ROOT = pathlib.Path(os.environ["OUT"]) / "buckets"
(ROOT / "farm").mkdir(parents=True)
MB = 1 << 20


class S3:
    """The server itself; the bucket is a folder."""

    def __init__(self):
        self.port, self.process = int(os.environ["S3_PORT"]), None

    def start(self):
        log = open(os.environ["OUT"] + "/s3.log", "a")
        self.process = subprocess.Popen([os.environ["S3_SERVER"], "--host", "127.0.0.1", "--port", str(self.port), "--access-key", ACCESS, "--secret-key", SECRET, str(ROOT)],
                                        stdout=log, stderr=log, env={**os.environ, "RUST_LOG": "warn"})
        wait_for("the S3 server", lambda: reachable(self.port))

    def stop(self):
        self.process.kill()
        self.process.wait()


def reachable(port):
    try:
        socket.create_connection(("127.0.0.1", port), 10).close()
        return True
    except OSError:
        return False


class Door:
    """Hands bytes on, until so many have gone to the server; then it holds them back until it is opened."""

    def __init__(self):
        self.room, self.open, self.held, self.counting = None, threading.Event(), threading.Event(), threading.Lock()
        self.open.set()
        listener = socket.create_server(("127.0.0.1", HERE), backlog=64)
        threading.Thread(target=self.serve, args=(listener,), daemon=True).start()

    def serve(self, listener):
        while True:
            client, _ = listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", S3_SERVER.port), 60)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self.pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, False), daemon=True).start()

    def pump(self, source, target, inward):
        try:
            while data := source.recv(65536):
                if inward and self.is_full(len(data)):
                    self.held.set()
                    self.open.wait()
                target.sendall(data)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def is_full(self, more):
        with self.counting:
            if self.room is not None:
                self.room -= more
            return self.room is not None and self.room < 0

    def hold_after(self, count):
        self.open.clear()
        self.held.clear()
        with self.counting:
            self.room = count

    def release(self):
        with self.counting:
            self.room = None
        self.open.set()


S3_SERVER = S3()
S3_SERVER.start()
atexit.register(S3_SERVER.stop)
signal.signal(signal.SIGTERM, lambda *_: exit(1))
DOOR = Door()


def objects():
    return sorted(p for p in (ROOT / "farm").rglob("*") if p.is_file() and len(p.name) == 97)


def store(**wanted):
    answer = call("set_object_store", key=ADMIN, **wanted)
    assert "error" not in answer, answer
    return answer


def upload(name, data):
    status, _, body = ask("PUT", "/files/" + name, data)
    assert status in (200, 201), body
    return json.loads(body)["sha256"]


def where(sha):
    """(state of its object, chunks in PostgreSQL)"""
    return tuple(sql(f"SELECT coalesce(o.state, '-'), (SELECT count(*) FROM odin_private.file_chunks c WHERE c.blob_id = f.blob_id) FROM odin.files f LEFT JOIN odin_private.objects o ON o.blob_id = f.blob_id WHERE f.sha256 = '{sha}'").split("|"))


def outside(sha):
    # A bucket in trouble is tried again after five minutes at the latest.
    wait_for("the file to be moved out", lambda: where(sha) == ("kept", "0"), 600)


def task_of(sha):
    return sql(f"SELECT t.state FROM odin.tasks t JOIN odin_private.objects o ON o.task_id = t.id WHERE o.sha256 = '{sha}' ORDER BY o.id DESC LIMIT 1")


def held():
    """The door holds bytes of an upload back."""
    assert DOOR.held.wait(300), "nothing came to the door"


def check(**variables):
    # A machine without a way to a name server waits for one: not for long.
    done = subprocess.run([os.environ["SIDECAR"], "check", "--json"], capture_output=True, text=True, env={**os.environ, "RES_OPTIONS": "timeout:1 attempts:1", **variables})
    return next(l for l in json.loads(done.stdout)["levels"] if l["level"] == "objects")


BIG = os.urandom(MB) * 18 + os.urandom(12345)
MODEL = wavy(60, 105, rough=0)
assert len(MODEL) > 2 * MB


@test
def without_a_bucket_everything_is_inside():
    assert code(call("get_object_store", key=ADMIN)) == "object_store_missing"
    assert code(call("get_object_store")) == "scope_denied" and code(call("set_object_store", endpoint="https://x.example")) == "scope_denied"
    assert check()["state"] == "missing"
    sha = upload("early.bin", BIG)
    assert where(sha) == ("-", "19")


@test
def what_is_wrong_is_named():
    wrong = [(dict(bucket="farm"), "endpoint"), (dict(endpoint=f"http://127.0.0.1:{HERE}"), "bucket"), (dict(endpoint="https://x.example/path", bucket="farm", access_key="a", secret_key="b"), "endpoint"),
             (dict(endpoint="https://x.example", bucket="F", access_key="a", secret_key="b"), "bucket"), (dict(endpoint="https://x.example", bucket="farm"), "access_key"),
             (dict(endpoint="https://x.example", bucket="farm", prefix="../x/", access_key="a", secret_key="b"), "prefix"), (dict(endpoint="https://x.example", bucket="farm", min_file_mb=1, access_key="a", secret_key="b"), "min_file_mb")]
    for arguments, field in wrong:
        answer = call("set_object_store", key=ADMIN, **arguments)
        assert code(answer) == "validation_failed" and field in answer["error"]["detail"], (arguments, answer)
    assert code(call("get_object_store", key=ADMIN)) == "object_store_missing"
    inside = sql("SET ROLE demo_admin; SELECT odin.call('set_object_store', '{\"endpoint\": \"https://x.example\", \"bucket\": \"farm\", \"access_key\": \"a\", \"secret_key\": \"b\"}')")
    assert "in clear" in inside, inside


@test
def what_is_there_goes_out_and_stays_readable():
    sha = hashlib.sha256(BIG).hexdigest()
    answer = store(endpoint=f"http://127.0.0.1:{HERE}", bucket="farm", prefix="a/b/", min_file_mb=2, keep_removed_days=0, access_key=ACCESS, secret_key=SECRET)
    assert answer["has_key"] and answer["files_waiting"] == 1 and SECRET not in json.dumps(answer), answer
    outside(sha)
    # Sent in parts, and exactly once.
    [there] = objects()
    assert hashlib.sha256(there.read_bytes()).hexdigest() == sha and str(there.relative_to(ROOT / "farm")).startswith("a/b/"), there
    status, headers, body = ask("GET", "/files/" + sha, key=VIEWER)
    assert status == 200 and body == BIG and headers["Content-Length"] == str(len(BIG))
    for spec, fro, to in (("0-9", 0, 10), ("1048570-5242890", 1048570, 5242891), (f"{len(BIG) - 7}-", len(BIG) - 7, len(BIG)), ("-100", len(BIG) - 100, len(BIG))):
        status, headers, body = ask("GET", "/files/" + sha, headers={"Range": "bytes=" + spec})
        assert status == 206 and body == BIG[fro:to], (spec, status, len(body))
    file = call("get_file", file=sha)
    assert file["stored_in"] == "object_store"
    assert ask("GET", file["download_url"], key=None)[2] == BIG
    status = call("get_object_store", key=ADMIN)
    assert (status["files_outside"], status["bytes_outside"], status["files_waiting"], status["problem"]) == (1, len(BIG), 0, None), status


@test
def sql_says_that_the_bytes_are_outside():
    sha = hashlib.sha256(BIG).hexdigest()
    try:
        sql(f"SELECT odin.worker_read_file('{sha}', 0, 10)")
        raise RuntimeError("bytes came")
    except subprocess.CalledProcessError as e:
        assert "object store" in e.stderr, e.stderr


@test
def small_files_and_pictures_stay():
    sha = upload("small.stl", box(10, 10, 10))
    wait_for("its picture", lambda: call("get_file", file=sha).get("thumbnail_sha256"))
    assert where(sha) == ("-", "1") and call("get_file", file=sha)["stored_in"] == "postgresql"


@test
def a_model_in_the_bucket_is_read_and_sliced():
    sha = upload("wavy.stl", MODEL)
    outside(sha)
    wait_for("its facts", lambda: call("get_file", file=sha)["facts_state"] == "read")
    # Once more, now that it is outside.
    sql(f"UPDATE odin.files SET facts_state = 'none', facts = NULL WHERE sha256 = '{sha}'; SELECT odin._read_facts(f, 'demo_operator', NULL) FROM odin.files f WHERE sha256 = '{sha}'")
    wait_for("its facts again", lambda: call("get_file", file=sha)["facts_state"] == "read")
    assert call("get_file", file=sha)["facts"]["size_mm"][0] == 60
    wait_for("the slicers", lambda: int(sql("SELECT count(*) FROM odin.slicers WHERE slicer = 'cura'")) == 1, 300)
    answer = call("cura_slice_model", model_path="wavy.stl", layer_height=0.6, infill_density=0)
    if "task_id" in answer:
        wait_for("the slice", lambda: call("get_task", task_id=answer["task_id"])["state"] == "completed", 300)
        answer = call("get_task", task_id=answer["task_id"])["result"]
    assert answer["stats"]["layers"] > 20, answer


@test
def the_bucket_is_away_and_uploads_go_on():
    S3_SERVER.stop()
    sha = upload("away.bin", os.urandom(3 * MB))
    wait_for("the trouble to be noted", lambda: call("get_object_store", key=ADMIN)["problem"])
    said = call("get_object_store", key=ADMIN)
    assert "127.0.0.1" in said["problem"] and said["files_waiting"] == 1, said
    assert where(sha) == ("waiting", "3") and ask("GET", "/files/" + sha)[0] == 200
    status, _, body = ask("GET", "/files/" + hashlib.sha256(BIG).hexdigest())
    assert status == 503 and code(json.loads(body)) == "upstream_unavailable" and "object store" in json.loads(body)["error"]["detail"], body
    assert check()["state"] == "failed"
    S3_SERVER.start()
    outside(sha)
    wait_for("the trouble to be over", lambda: call("get_object_store", key=ADMIN)["problem"] is None)
    assert check()["state"] == "ready", check()


def dead_letters():
    return [t for t in call("list_tasks", key=ADMIN, kind_filter="object", dead_only=True)["tasks"]]


@test
def a_wrong_key_is_said_and_ends_as_a_dead_letter():
    here = f"http://127.0.0.1:{HERE}"
    store(endpoint=here, access_key=ACCESS, secret_key="wrong-secret-91")
    level = check()
    assert level["state"] == "failed" and "secret key" in level["detail"] and "SignatureDoesNotMatch" in level["detail"], level
    sha = upload("locked.bin", os.urandom(2 * MB))
    wait_for("the refusal", lambda: "SignatureDoesNotMatch" in (call("get_object_store", key=ADMIN)["problem"] or ""))
    assert where(sha) == ("waiting", "2")

    def given_up():
        # A try may be going on at this moment: the next one is the last then.
        sql("UPDATE odin.tasks SET max_attempts = attempts + 1, not_before = clock_timestamp() WHERE kind = 'object' AND state = 'queued'")
        return dead_letters()

    wait_for("the dead letter", given_up)
    assert "SignatureDoesNotMatch" in dead_letters()[0]["error_detail"], dead_letters()
    store(endpoint=here, access_key="nobody", secret_key=SECRET)
    assert "403" in check()["detail"] and check()["state"] == "failed", check()
    store(endpoint=here, access_key=ACCESS, secret_key=SECRET)
    outside(sha)


@test
def what_is_between_is_named():
    here = f"http://127.0.0.1:{HERE}"
    store(mode="off")
    for endpoint, bucket, words in ((here, "nowhere", "no bucket nowhere"), ("http://objects.invalid:9000", "farm", "cannot be resolved"), (f"http://127.0.0.1:{os.environ['NO_PORT']}", "farm", "refused"),
                                    (f"https://127.0.0.1:{HERE}", "farm", "TLS fails"), ("https://elsewhere.example", "farm", "not on the list of hosts")):
        store(endpoint=endpoint, bucket=bucket, access_key=ACCESS, secret_key=SECRET)
        level = check()
        sql("UPDATE odin.object_stores SET is_current = false; UPDATE odin.object_stores SET is_current = true WHERE bucket = 'farm' AND prefix = 'a/b/' AND endpoint = '%s'; DELETE FROM odin.object_stores WHERE NOT is_current" % here)
        assert level["state"] == "failed" and words in level["detail"], (endpoint, level)
    store(mode="on")
    level = check(ODIN_AIR_GAP="true", ODIN_EGRESS_PRIVATE="10.255.255.1")
    assert "air gap" in level["detail"], level


@test
def the_same_content_again_while_it_moves():
    data = os.urandom(5 * MB)
    DOOR.hold_after(3 * MB)
    sha = upload("moving.bin", data)
    held()
    assert where(sha) == ("waiting", "5")
    status, _, body = ask("PUT", "/files/again.bin", data)
    assert status == 200 and json.loads(body)["duplicate"] is True, body
    assert ask("GET", "/files/" + sha)[2] == data
    DOOR.release()
    outside(sha)
    assert ask("GET", "/files/again.bin")[2] == data and len([o for o in objects() if sha in o.name]) == 1


@test
def dropped_while_it_moves_and_sent_again():
    data = os.urandom(5 * MB)
    DOOR.hold_after(3 * MB)
    sha = upload("dropped.bin", data)
    held()
    assert call("delete_file", file=sha)["deleted"] is True
    again = upload("dropped.bin", data)
    assert again == sha
    DOOR.release()
    # What the first move left is removed; what the second brought stays.
    outside(sha)
    wait_for("the first object to be gone", lambda: sql(f"SELECT count(*) FROM odin_private.objects WHERE sha256 = '{sha}'") == "1", 600)
    assert len([o for o in objects() if sha in o.name]) == 1 and ask("GET", "/files/" + sha)[2] == data


@test
def a_sidecar_killed_in_the_middle_loses_nothing():
    def worker():
        log = open(os.environ["OUT"] + "/objects-worker.log", "a")
        return subprocess.Popen([os.environ["SIDECAR"], "worker"], stdout=log, stderr=log)

    data = os.urandom(MB) * 20 + b"end"
    # Nothing moves before the sidecar that serves stands still, so that the worker that will be killed has the task.
    sql("UPDATE odin.object_stores SET mode = 'off'")
    sha = upload("killed.bin", data)
    assert where(sha) == ("-", "21")
    with serving_stopped():
        DOOR.hold_after(9 * MB)
        switched = sql("SET ROLE demo_admin; SELECT odin.call('set_object_store', '{\"mode\": \"on\"}')")
        assert json.loads(switched)["files_waiting"] == 1, switched
        first = worker()
        try:
            held()
            assert task_of(sha) == "working"
        finally:
            first.kill()
            first.wait()
        # As if its time were over; said while nobody else can have taken it.
        sql("UPDATE odin.tasks SET lease_until = clock_timestamp() WHERE kind = 'object' AND state = 'working'")
        assert where(sha) == ("waiting", "21")
        assert sql(f"SELECT upload_id IS NOT NULL FROM odin_private.objects WHERE sha256 = '{sha}'") == "t"
    DOOR.release()
    outside(sha)
    assert len([o for o in objects() if sha in o.name]) == 1 and ask("GET", "/files/" + sha)[2] == data
    assert sql(f"SELECT count(*) FROM odin_private.objects WHERE sha256 = '{sha}' AND upload_id IS NULL") == "1"


@test
def a_file_moves_while_it_is_read():
    data = os.urandom(MB) * 19 + b"moved"
    sql("UPDATE odin.object_stores SET mode = 'off'")
    sha = upload("read.bin", data)
    file = call("get_file", file=sha)
    host, port = os.environ["BASE"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 300) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        s.sendall(f"GET {file['download_url']} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        got = s.recv(1000)
        store(mode="on")
        outside(sha)
        while piece := s.recv(1 << 16):
            got += piece
    assert got.split(b"\r\n\r\n", 1)[1] == data


@test
def a_damaged_object_is_never_handed_out_whole():
    data = os.urandom(3 * MB)
    sha = upload("damaged.bin", data)
    outside(sha)
    [there] = [o for o in objects() if sha in o.name]
    there.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        status, _, body = ask("GET", "/files/" + sha)
        raise RuntimeError(f"{status}: {len(body)} bytes came")
    except (OSError, http.client.HTTPException):
        pass
    there.unlink()
    status, _, body = ask("GET", "/files/" + sha)
    assert status == 503 and "not in the bucket" in json.loads(body)["error"]["detail"], body
    assert call("delete_file", file=sha)["deleted"] is True


@test
def deleted_files_leave_the_bucket_when_their_time_is_over():
    sha = hashlib.sha256(BIG).hexdigest()
    store(keep_removed_days=1)
    assert call("delete_file", file=sha)["deleted"] is True
    assert ask("GET", "/files/" + sha)[0] == 404
    wait_for("the clock", lambda: sql(f"SELECT free_at IS NOT NULL FROM odin_private.objects WHERE sha256 = '{sha}'") == "t", 600)
    assert len([o for o in objects() if sha in o.name]) == 1 and call("get_object_store", key=ADMIN)["objects_to_remove"] >= 1
    store(keep_removed_days=0)
    wait_for("the object to be removed", lambda: not [o for o in objects() if sha in o.name], 600)
    wait_for("its row to go", lambda: sql(f"SELECT count(*) FROM odin_private.objects WHERE sha256 = '{sha}'") == "0")


@test
def another_bucket_takes_over_and_then_all_comes_back():
    (ROOT / "second").mkdir()
    before = {o.name[:64] for o in objects()}
    assert len(before) >= 4
    # The key is for the endpoint, so it goes with it.
    store(bucket="second", prefix="")
    wait_for("the first bucket to be empty", lambda: not objects() and call("get_object_store", key=ADMIN)["files_waiting"] == 0, 600)
    moved = {p.name[:64] for p in (ROOT / "second").rglob("*") if p.is_file() and len(p.name) == 97}
    assert moved == before, (moved, before)
    store(mode="back")
    wait_for("all files to be back", lambda: call("get_object_store", key=ADMIN)["files_outside"] == 0, 600)
    for sha in before:
        status, _, body = ask("GET", "/files/" + sha)
        assert status == 200 and hashlib.sha256(body).hexdigest() == sha and where(sha)[0] == "-"
    wait_for("the second bucket to be empty", lambda: not [p for p in (ROOT / "second").rglob("*") if p.is_file() and len(p.name) == 97], 600)
    assert sql("SELECT count(*) FROM odin_private.objects") == "0"


@test
def the_keys_are_nowhere():
    everywhere = "".join(sql(f"SELECT coalesce(jsonb_agg(to_jsonb(x)), '[]') FROM {table} x") for table in ("odin.audit_calls", "odin.audit_changes", "odin.tasks", "odin.object_stores", "odin_private.object_store_state"))
    logs = "".join(p.read_text(errors="replace") for p in pathlib.Path(os.environ["OUT"]).glob("objects-*.log"))
    assert "sealed:v1:" in everywhere and "set_object_store" in logs
    for secret in (SECRET, "wrong-secret-91", ACCESS, "X-Amz-Signature"):
        assert secret not in everywhere and secret not in logs, secret


raise SystemExit(1 if run_all() else 0)
