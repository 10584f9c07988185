"""Files and slicing, end to end: uploads, downloads, facts, profiles, slices, cancel, a killed worker."""
import base64, hashlib, json, os, struct, subprocess

from farm import KEY, VIEWER, box, call, code, http, mcp, run_all, serving_stopped, sql, stl, test, wait_for, wavy


def slicers_running():
    """Slices of this test only: not a worker asking an engine for its version, not another test's slice."""
    found, scratch = [], os.environ["SCRATCH"].encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"CuraEngine") and words[1:2] == [b"slice"] and any(scratch in word for word in words):
            found.append(int(pid))
    return found


def no_upload_is_left_open():
    # A picture may be being stored at this moment: what is open then is closed soon, what was lost would stay open for a day.
    wait_for("no upload to be left open", lambda: sql("SELECT count(*) FROM odin_private.blobs WHERE state = 'open'") == "0")


@test
def an_upload_is_stored_once():
    cube = box(20, 20, 20)
    sha = hashlib.sha256(cube).hexdigest()
    status, _, body = http("PUT", "/files/parts/cube.stl", cube)
    assert status == 201, body
    answer = json.loads(body)
    assert (answer["sha256"], answer["bytes"], answer["duplicate"]) == (sha, len(cube), False)
    status, _, body = http("PUT", "/files/other/name.stl", cube)
    assert status == 200 and json.loads(body)["duplicate"] is True
    assert sql(f"SELECT count(*) FROM odin.files WHERE sha256 = '{sha}'") == "1"
    no_upload_is_left_open()
    same = call("upload_file", name="third.stl", content_base64=base64.b64encode(cube).decode())
    assert same["duplicate"] is True and same["id"] == answer["id"], same


@test
def large_files_stream_in_and_out():
    block = os.urandom(1 << 20)
    data = block * 9 + b"the end"
    status, _, body = http("PUT", "/files/large.bin", data, headers={"X-Content-SHA256": hashlib.sha256(data).hexdigest()})
    assert status == 201, body
    sha = json.loads(body)["sha256"]
    assert sql(f"SELECT count(*) FROM odin_private.file_chunks c JOIN odin.files f USING (blob_id) WHERE f.sha256 = '{sha}'") == "10"
    status, headers, body = http("GET", "/files/" + sha, key=VIEWER)
    assert status == 200 and body == data and headers["X-Content-Type-Options"] == "nosniff"
    status, headers, body = http("GET", "/files/" + sha, headers={"Range": "bytes=1048570-1048585"})
    assert status == 206 and body == data[1048570:1048586], (status, len(body))
    got = sql(f"SELECT encode(odin.worker_read_file('{sha}', 9437180, 100), 'escape')")
    assert got.endswith("the end"), got


@test
def who_may_not_gets_nothing():
    assert http("PUT", "/files/x.stl", b"x", key=None)[0] == 401
    assert http("PUT", "/files/x.stl", b"x", key=VIEWER)[0] == 403
    assert http("PUT", "/files/a%2F..%2F..%2Fetc", b"x")[0] == 422
    status, _, body = http("PUT", "/files/x.stl", b"x", headers={"X-Content-SHA256": "0" * 64})
    assert status == 422 and code(json.loads(body)) == "file_corrupt"
    assert http("GET", "/files/" + "0" * 64)[0] == 404
    assert http("GET", "/files/" + "0" * 64, key=None)[0] == 401
    sql("UPDATE odin.orgs SET settings = settings || '{\"max_file_mb\": 1}' WHERE name = 'Demo Farm'")
    status, _, body = http("PUT", "/files/x.bin", b"x" * 1048577)
    assert status == 413 and code(json.loads(body)) == "file_too_large", body
    sql("UPDATE odin.orgs SET settings = settings - 'max_file_mb' WHERE name = 'Demo Farm'")
    no_upload_is_left_open()


@test
def links_need_no_key_and_run_out():
    file = call("get_file", key=VIEWER, file="parts/cube.stl")
    url = file["download_url"]
    status, _, body = http("GET", url, key=None)
    assert status == 200 and hashlib.sha256(body).hexdigest() == file["sha256"]
    assert http("GET", url[:-3] + ("BBB" if url.endswith("AAA") else "AAA"), key=None)[0] == 410
    old = sql("SELECT odin._file_url(f, -1) FROM odin.files f WHERE f.name = 'cube.stl'")
    assert http("GET", old, key=None)[0] == 410
    other = "/files/" + "0" * 64 + "?" + url.split("?")[1]
    assert http("GET", other, key=None)[0] == 410


@test
def another_org_sees_nothing():
    sql("INSERT INTO odin.orgs(name) VALUES ('Other'); CREATE ROLE other_op NOLOGIN; GRANT odin_operator TO other_op; SELECT odin.add_member('other_op', id) FROM odin.orgs WHERE name = 'Other'")
    key = sql("SELECT key FROM odin.mint_key('other', '{agent:read,agent:write}', NULL, 'other_op')").splitlines()[-1]
    assert call("list_files", key=key)["count"] == 0
    assert code(call("get_file", key=key, file="parts/cube.stl")) == "file_not_found"
    sha = call("get_file", file="parts/cube.stl")["sha256"]
    assert http("GET", "/files/" + sha, key=key)[0] == 404
    assert code(call("cura_slice_model", key=key, model_path=sha)) == "file_not_found"


@test
def a_model_is_inspected():
    wait_for("the facts", lambda: call("get_file", file="parts/cube.stl").get("facts_state") == "read")
    answer = call("inspect_model", key=VIEWER, file="parts/cube.stl")
    assert answer["facts"]["size_mm"] == [20, 20, 20] and answer["facts"]["volume_mm3"] == 8000 and answer["facts"]["watertight"] is True
    thin, thick = answer["estimate"]["grams"], call("inspect_model", file="parts/cube.stl", infill_percent=100)["estimate"]["grams"]
    assert 2 < thin < thick and abs(thick - 9.9) < 0.1, (thin, thick)
    picture = call("get_file", file="parts/cube.stl")["thumbnail_sha256"]
    assert http("GET", "/files/" + picture)[2].startswith(b"\x89PNG")


@test
def garbage_is_collected_and_used_files_stay():
    http("PUT", "/files/old.bin", b"nobody needs this")
    cube = call("get_file", file="parts/cube.stl")
    sql(f"INSERT INTO odin.models(org_id, name) SELECT org_id, 'keeps' FROM odin.files WHERE id = {cube['id']}; INSERT INTO odin.model_files(org_id, model_id, kind, sha256, name) SELECT m.org_id, m.id, 'stl', '{cube['sha256']}', 'cube.stl' FROM odin.models m WHERE m.name = 'keeps'")
    # The farm's clock may be the one that removes it.
    sql("UPDATE odin.files SET keep_until = now() - interval '1 day' WHERE name IN ('old.bin', 'cube.stl')")
    assert sql("SELECT odin._collect_files()") in ("0", "1")
    assert sql("SELECT count(*) FROM odin.files WHERE name = 'old.bin'") == "0"
    assert sql("SELECT keep_until > now() FROM odin.files WHERE name = 'cube.stl'") == "t"
    assert code(call("delete_file", file="parts/cube.stl")) == "in_use"


@test
def slicers_are_announced():
    wait_for("the slicers", lambda: sql("SELECT count(*) FROM odin.slicer_presets WHERE slicer = 'cura'").isdigit() and int(sql("SELECT count(*) FROM odin.slicer_presets WHERE slicer = 'cura'")) > 300, 300)
    assert sql("SELECT version FROM odin.slicers WHERE slicer = 'cura'").startswith("4.") or sql("SELECT version FROM odin.slicers WHERE slicer = 'cura'").startswith("5.")


@test
def from_a_model_to_reserved_grams():
    sliced = call("cura_slice_model", model_path="parts/cube.stl", printer="creality_ender3pro", layer_height=0.3, output_path="out/cube.gcode")
    stats = sliced["stats"]
    assert stats["print_time_s"] > 300 and 1 < stats["grams"] < 10 and sliced["gcode_size_bytes"] > 1000, sliced
    status, _, gcode = http("GET", sliced["download_url"], key=None)
    head = gcode[:600].decode()
    assert status == 200 and f";TIME:{int(stats['print_time_s'])}" in head and ";TIME:6666" not in head and ";Filament used: 0m" not in head, head
    assert hashlib.sha256(gcode).hexdigest() == sliced["gcode_sha256"]
    made = call("create_model_from_file", file=sliced["gcode_sha256"], name="Cube", material="PLA")
    assert made["grams"] == stats["grams"] and made["materials"][0]["material"] == "PLA" and made["print_seconds"] == stats["print_time_s"], made
    job = call("queue_job", model_id=made["model_id"], quantity=1)
    assert "error" not in job, job
    job_id = job.get("id") or job.get("job_id")
    need = round(stats["grams"] * 1000)
    assert sql(f"SELECT estimated_mg FROM odin.jobs WHERE id = {job_id}") == str(need)
    # A printer with a spool takes the job: its grams are reserved on that spool.
    sql(f"""INSERT INTO odin.printers(org_id, name, model) SELECT org_id, 'Bench', 'Ender 3' FROM odin.jobs WHERE id = {job_id};
        INSERT INTO odin.filaments(org_id, name, material) SELECT org_id, 'White', 'PLA' FROM odin.jobs WHERE id = {job_id};
        INSERT INTO odin.spools(org_id, filament_id, initial_mg) SELECT org_id, max(id), 1000000 FROM odin.filaments WHERE name = 'White' GROUP BY org_id""")
    printer, spool = sql("SELECT max(id) FROM odin.printers"), sql("SELECT max(id) FROM odin.spools")
    sql(f"""INSERT INTO odin.printer_slots(printer_id, slot_number, org_id) SELECT id, 1, org_id FROM odin.printers WHERE id = {printer} ON CONFLICT DO NOTHING;
        UPDATE odin.printer_slots SET spool_id = {spool}, confirmed = true WHERE printer_id = {printer} AND slot_number = 1""")
    sql(f"SELECT odin._claim_run({job_id}, {printer}, true)")
    assert sql(f"SELECT reserved_mg FROM odin.spool_balances WHERE spool_id = {spool}") == str(need)


@test
def every_argument_changes_the_slice():
    base = dict(model_path="parts/cube.stl", layer_height=0.3)
    plain = call("cura_slice_model", **base)
    changed = {
        "layer_height": dict(base, layer_height=0.2), "infill_density": dict(base, infill_density=60), "adhesion_type": dict(base, adhesion_type="brim"),
        "material_print_temperature": dict(base, material_print_temperature=225), "material_bed_temperature": dict(base, material_bed_temperature=70),
        "printer": dict(base, printer="prusa_i3_mk3"), "overrides": dict(base, overrides={"wall_line_count": 4}),
    }
    for name, arguments in changed.items():
        other = call("cura_slice_model", **arguments)
        assert other.get("gcode_sha256") and other["gcode_sha256"] != plain["gcode_sha256"], (name, other)
    overhang = stl([[tuple(c + o for c, o in zip(p, (0, 0, 10))) for p in t] for t in triangles_of(box(30, 30, 5))] + triangles_of(box(8, 8, 10)))
    http("PUT", "/files/overhang.stl", overhang)
    without, with_supports = (call("cura_slice_model", model_path="overhang.stl", layer_height=0.3, supports=s) for s in (False, True))
    assert with_supports["stats"]["filament_mm3"] > without["stats"]["filament_mm3"] * 1.05, (without, with_supports)
    assert call("cura_slice_model", **dict(base, infill_density=0))["stats"]["grams"] < plain["stats"]["grams"]


def triangles_of(data):
    count = struct.unpack_from("<I", data, 80)[0]
    return [[struct.unpack_from("<3f", data, 84 + n * 50 + 12 + c * 12) for c in range(3)] for n in range(count)]


@test
def what_cannot_be_is_refused_before_slicing():
    before = sql("SELECT count(*) FROM odin.tasks WHERE kind = 'slice'")
    for arguments, wanted in [
        (dict(model_path="nowhere.stl"), "file_not_found"), (dict(model_path="large.bin"), "not_sliceable"), (dict(model_path="parts/cube.stl", layer_height=0.01), "validation_failed"),
        (dict(model_path="parts/cube.stl", infill_density=101), "validation_failed"), (dict(model_path="parts/cube.stl", printer="../../etc/passwd"), "profile_not_found"),
        (dict(model_path="parts/cube.stl", overrides={"layer_hight": 1}), "validation_failed"), (dict(model_path="parts/cube.stl", overrides={"wall_line_count": -1}), "validation_failed"),
        (dict(model_path="parts/cube.stl", material_print_temperature=301), "validation_failed"), (dict(model_path="/etc/passwd"), "file_not_found"),
        (dict(model_path="parts/cube.stl", output_path="../x"), "validation_failed"),
    ]:
        answer = call("cura_slice_model", **arguments)
        assert code(answer) == wanted, (arguments, answer)
    preview = call("cura_slice_model", model_path="parts/cube.stl", dry_run=True)
    assert preview["dry_run"] is True and preview["would_execute"]["action"] == "cura_slice_model", preview
    assert sql("SELECT count(*) FROM odin.tasks WHERE kind = 'slice'") == before


@test
def what_does_not_fit_is_no_file():
    http("PUT", "/files/plank.stl", box(400, 20, 5))
    answer = call("cura_slice_model", model_path="plank.stl", output_path="plank.gcode")
    assert code(answer) == "does_not_fit" and "x" in answer["error"]["detail"], answer
    printer = sql("INSERT INTO odin.printers(org_id, name, bed_x_mm, bed_y_mm, bed_z_mm, max_tool_c) SELECT id, 'Tiny', 15, 15, 15, 190 FROM odin.orgs WHERE name = 'Demo Farm' RETURNING id")
    answer = call("cura_slice_model", model_path="parts/cube.stl", for_printer_id=int(printer))
    assert code(answer) == "does_not_fit", answer
    assert sql("SELECT count(*) FROM odin.file_names WHERE path = 'plank.gcode'") == "0"
    http("PUT", "/files/broken.stl", b"solid nothing\nendsolid\n")
    answer = call("cura_slice_model", model_path="broken.stl")
    assert code(answer) == "slicing_failed", answer
    dead = call("list_tasks", dead_only=True)["tasks"]
    assert any(t["error_code"] == "slicing_failed" for t in dead), dead
    no_upload_is_left_open()


@test
def profiles_are_versions_and_count():
    saved = call("save_slicer_profile", slicer="cura", tier="process", name="Fine", settings={"layer_height": 0.1})
    again = call("save_slicer_profile", slicer="cura", tier="process", name="fine", settings={"layer_height": 0.15})
    assert (saved["version"], again["version"]) == (1, 2), (saved, again)
    assert code(call("save_slicer_profile", slicer="cura", tier="process", name="x", settings={"layer_hight": 0.1})) == "validation_failed"
    call("save_slicer_profile", slicer="cura", tier="material", name="Acme PETG", settings={"material_print_temperature": 235}, material="PETG", density=1.27)
    call("save_slicer_profile", slicer="cura", tier="printer", name="Our Ender", base="creality_ender3pro", settings={"machine_width": 230})
    sliced = call("cura_slice_model", model_path="parts/cube.stl", printer="Our Ender", process="Fine", material="Acme PETG")
    assert sliced["settings"]["layer_height"] == 0.15 and sliced["settings"]["material_print_temperature"] == 235, sliced
    facts = call("get_file", file=sliced["gcode_sha256"])["facts"]
    assert facts["tools"][0]["material"] == "PETG" and facts["max_tool_c"] == 235 and facts["layer_height_mm"] == 0.15, facts
    beaten = call("cura_slice_model", model_path="parts/cube.stl", process="Fine", layer_height=0.3)
    assert beaten["settings"]["layer_height"] == 0.3
    listed = call("list_slicer_profiles", slicer="cura")["profiles"]
    assert {(p["tier"], p["name"], p["version"]) for p in listed} >= {("process", "fine", 2), ("printer", "Our Ender", 1)}


@test
def orca_through_its_command():
    presets = call("orca_list_profiles", tier="machine")
    assert [p["name"] for p in presets["presets"]] == ["Acme One 0.4 nozzle"], presets
    names = dict(machine="Acme One 0.4 nozzle", process="0.20mm Standard @Acme", filament="Acme PLA")
    sliced = call("orca_slice_model", model_path="parts/cube.stl", overrides={"layer_height": 0.28, "nozzle_temperature": 222}, **names)
    assert sliced["slicer"] == "orcaslicer" and sliced["overrides_placed"] == {"layer_height": "process", "nozzle_temperature": "filament"}, sliced
    facts = call("get_file", file=sliced["gcode_sha256"])["facts"]
    assert facts["layer_height_mm"] == 0.28 and facts["max_tool_c"] == 222 and facts["print_seconds"] == 750, facts
    answer = call("orca_slice_model", model_path="parts/cube.stl", **dict(names, machine="Acme One"))
    assert code(answer) == "profile_not_found" and "Acme One 0.4 nozzle" in answer["error"]["hint"], answer
    answer = call("orca_slice_model", model_path="parts/cube.stl", overrides={"nozzle_temp": 1}, **names)
    assert code(answer) == "validation_failed", answer
    # In one transaction: a sidecar announces it again now and then.
    answer = json.loads(sql("BEGIN; UPDATE odin.slicers SET seen_at = now() - interval '2 hours' WHERE slicer = 'orca'; SET LOCAL ROLE demo_operator; SELECT odin.call('orca_list_profiles'); ROLLBACK"))
    assert code(answer) == "slicer_missing" and "ODIN_ORCA_COMMAND" in answer["error"]["hint"], answer


def start_slow(name):
    """Queue a slice that takes seconds, as a person in SQL would."""
    return sql(f"SET ROLE demo_operator; SELECT odin.call('cura_slice_model', '{{\"model_path\": \"wavy.stl\", \"layer_height\": 0.2, \"infill_density\": 60, \"output_path\": \"{name}\"}}')->>'task_id'")


@test
def a_cancelled_slice_leaves_nothing():
    http("PUT", "/files/wavy.stl", wavy(40, 45))
    task = start_slow("cancelled.gcode")
    wait_for("the slicer", slicers_running)
    assert call("get_task", task_id=task)["state"] == "working"
    assert call("cancel_task", task_id=task)["cancelled"] is True
    wait_for("its end", lambda: not slicers_running())
    assert call("get_task", task_id=task)["state"] == "cancelled"
    # The sidecar slices one at a time: after another one it has left this one altogether.
    assert call("cura_slice_model", model_path="parts/cube.stl", layer_height=0.3)["gcode_sha256"]
    assert sql("SELECT count(*) FROM odin.file_names WHERE path = 'cancelled.gcode'") == "0"
    assert not [n for n in os.listdir(os.environ["SCRATCH"]) if n.startswith("odin-slice-")]
    assert sql(f"SELECT state, lease_by IS NULL, outcome IS NULL FROM odin.tasks WHERE id = '{task}'") == "cancelled|t|t"


@test
def a_slice_is_a_task_that_is_watched_and_cancelled():
    def task(method, id):
        return mcp(method, taskId=id)["result"]

    short = mcp("tools/call", name="cura_slice_model", arguments={"model_path": "parts/cube.stl", "layer_height": 0.25})["result"]
    assert short["resultType"] == "task" and short["status"] == "working", short
    done = wait_for("the task", lambda: (lambda t: t if t["status"] == "completed" else None)(task("tasks/get", short["taskId"])))
    assert done["result"]["structuredContent"]["gcode_sha256"] and not done["result"].get("isError"), done
    long = mcp("tools/call", name="cura_slice_model", arguments={"model_path": "wavy.stl", "layer_height": 0.1, "infill_density": 100, "output_path": "watched.gcode"})["result"]["taskId"]
    wait_for("progress", lambda: "slicing" in task("tasks/get", long).get("statusMessage", "") and slicers_running())
    mcp("tasks/cancel", taskId=long)
    wait_for("its end", lambda: not slicers_running())
    assert task("tasks/get", long)["status"] == "cancelled"
    assert sql("SELECT count(*) FROM odin.file_names WHERE path = 'watched.gcode'") == "0"
    waited = mcp("tools/call", name="cura_slice_model", tasks=False, arguments={"model_path": "parts/cube.stl", "layer_height": 0.25})["result"]
    assert waited["structuredContent"]["stats"] == done["result"]["structuredContent"]["stats"], (waited, done)


@test
def prusaslicer_slices_too():
    names = ("printer", "process", "material")
    for profile in (dict(tier="printer", name="Bench", settings={"bed_shape": "0x0,200x0,200x200,0x200", "nozzle_diameter": 0.4}), dict(tier="process", name="Coarse", settings={"layer_height": 0.3, "fill_density": "10%"}),
                    dict(tier="material", name="PETG", settings={"temperature": 240, "first_layer_temperature": 240}, material="PETG", density=1.27)):
        saved = call("save_slicer_profile", slicer="prusa", **profile)
        assert saved.get("version") == 1, saved
    sliced = call("prusa_slice_model", model_path="parts/cube.stl", **dict(zip(names, ("Bench", "Coarse", "PETG"))))
    assert sliced.get("stats", {}).get("print_time_s", 0) > 100 and 1 < sliced["stats"]["grams"] < 10, sliced
    facts = call("get_file", file=sliced["gcode_sha256"])["facts"]
    assert facts["tools"][0]["material"] == "PETG" and facts["max_tool_c"] == 240 and facts["layer_height_mm"] == 0.3, facts
    other = call("prusa_slice_model", model_path="parts/cube.stl", layer_height=0.2, infill_density=40, **dict(zip(names, ("Bench", "Coarse", "PETG"))))
    assert other["stats"]["grams"] > sliced["stats"]["grams"] and call("get_file", file=other["gcode_sha256"])["facts"]["layer_height_mm"] == 0.2, other
    assert code(call("prusa_slice_model", model_path="parts/cube.stl", overrides={"layer_hight": 1})) == "validation_failed"
    assert code(call("prusa_slice_model", model_path="parts/cube.stl", overrides={"post_process": "/bin/true"})) == "validation_failed"
    assert code(call("prusa_slice_model", model_path="plank.stl", printer="Bench")) == "does_not_fit"


@test
def a_killed_worker_is_replaced_and_the_work_done_once():
    def worker():
        log = open(os.environ["OUT"] + "/worker.log", "a")
        return subprocess.Popen([os.environ["SIDECAR"], "worker"], stdout=log, stderr=log)

    # The sidecar that serves must not take the task.
    with serving_stopped():
        first = worker()
        try:
            task = start_slow("killed.gcode")
            engine = wait_for("the slicer", slicers_running, 300)
        finally:
            first.kill()
            first.wait()
        wait_for("the orphan's end", lambda: not set(engine) & set(slicers_running()))
        # As if its time were over; said while nobody else can have taken it.
        assert sql(f"UPDATE odin.tasks SET lease_until = clock_timestamp() WHERE id = '{task}' RETURNING state") == "working"
    second = worker()
    try:
        wait_for("the second worker", lambda: sql(f"SELECT state FROM odin.tasks WHERE id = '{task}'") == "completed", 900)
    finally:
        second.terminate()
        second.wait()
    # The serving sidecar may have been the one that took over; nobody did it a second time.
    attempts = sql(f"SELECT attempts FROM odin.tasks WHERE id = '{task}'")
    assert attempts == "2", attempts
    assert sql("SELECT count(*) FROM odin.file_names WHERE path = 'killed.gcode'") == "1"
    sha = sql("SELECT f.sha256 FROM odin.files f JOIN odin.file_names n ON n.file_id = f.id WHERE n.path = 'killed.gcode'")
    assert sql(f"SELECT count(*) FROM odin.files WHERE made_from_sha256 = (SELECT made_from_sha256 FROM odin.files WHERE sha256 = '{sha}')") == "1"


raise SystemExit(1 if run_all() else 0)
