"""The driver for Bambu Lab printers against a real MQTT broker and two real FTPS servers, with a stand-in for the printer's brain."""

import getpass
import grp
import io
import json
import os
import pwd
import select
import socket
import subprocess
import zipfile
from pathlib import Path

from farm import free_port, wait
from servers import Server, ask, installed

SERIAL, CODE = "01P00A123456789", "12345678"
server = None


def run(*command, text=None):
    subprocess.run([str(c) for c in command], check=True, input=text, capture_output=True, text=True)


def listens(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1):
            return True
    except OSError:
        return False


class Bambu(Server):
    """Broker, brain and two file servers over one card: a strict one, which wants TLS sessions resumed, and a tolerant one."""

    def __init__(self):
        super().__init__("bambu")
        self.dir.chmod(0o755)
        self.card = self.dir / "card"
        self.card.mkdir()
        self.certify("server", SERIAL)
        self.certify("other", "01P00A999999999")
        self.broker = Server("mosquitto")
        self.parts = [self.broker]
        self.mqtt, self.inside, self.control = free_port(), free_port(), free_port()
        self.start_broker("server")
        brain = self.part("brain")
        brain.spawn([installed("pyftpdlib") / "python", Path(__file__).with_name("bambu.py"), SERIAL, self.inside, self.control, self.card])
        self.strict, self.tolerant = free_port(), free_port()
        self.proftpd()
        tolerant = self.part("ftps")
        tolerant.spawn([installed("pyftpdlib") / "python", Path(__file__).with_name("ftps.py"), self.tolerant, self.dir / "server.pem", self.card, CODE])
        for port in (self.mqtt, self.inside, self.control, self.strict, self.tolerant):
            wait(f"port {port}", lambda: listens(port), 20)

    def part(self, name):
        part = Server(name)
        self.parts.append(part)
        return part

    def certify(self, name, common_name):
        """As the printers have them: signed by a CA of their own, the serial number as common name, no host in it."""
        at = lambda end: self.dir / f"{name}.{end}"
        ca_key, ca = self.dir / "ca.key", self.dir / "ca.crt"
        if not ca.exists():
            run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", ca_key, "-out", ca, "-days", "30", "-subj", "/CN=Test CA")
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", at("key"), "-out", at("csr"), "-subj", f"/CN={common_name}")
        at("ext").write_text("basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\n")
        run("openssl", "x509", "-req", "-in", at("csr"), "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-out", at("crt"), "-days", "30", "-extfile", at("ext"))
        at("pem").write_text(at("key").read_text() + at("crt").read_text())

    def start_broker(self, certificate):
        home = self.broker.dir
        run("mosquitto_passwd", "-b", "-c", home / "passwords", "bblp", CODE)
        (home / "acl").write_text(f"user bblp\ntopic read device/{SERIAL}/report\ntopic write device/{SERIAL}/request\n")
        root = "user root\n" if os.getuid() == 0 else ""
        (home / "mosquitto.conf").write_text(f"""{root}per_listener_settings true
persistence false
listener {self.mqtt} 127.0.0.1
allow_anonymous false
password_file {home}/passwords
acl_file {home}/acl
cafile {self.dir}/ca.crt
certfile {self.dir}/{certificate}.crt
keyfile {self.dir}/{certificate}.key
tls_version tlsv1.2
listener {self.inside} 127.0.0.1
allow_anonymous true
""")
        program = next(p for p in ("/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto") if Path(p).exists())
        self.broker.spawn([program, "-c", home / "mosquitto.conf"])
        wait("the broker", lambda: listens(self.mqtt) and listens(self.inside), 10)

    def proftpd(self):
        strict = self.part("proftpd")
        home, user = strict.dir, pwd.getpwuid(os.getuid())
        hashed = subprocess.run(["openssl", "passwd", "-6", CODE], check=True, capture_output=True, text=True).stdout.strip()
        (home / "users").write_text(f"bblp:{hashed}:{user.pw_uid}:{user.pw_gid}::{self.card}:/bin/sh\n")
        (home / "users").chmod(0o600)
        (home / "proftpd.conf").write_text(f"""
ServerName test
ServerType standalone
DefaultServer on
Port {self.strict}
DefaultAddress 127.0.0.1
SocketBindTight on
UseIPv6 off
User {getpass.getuser()}
Group {grp.getgrgid(user.pw_gid).gr_name}
RootLogin on
RequireValidShell off
PidFile {home}/pid
ScoreboardFile {home}/score
SystemLog {home}/system.log
WtmpLog off
TransferLog none
AuthOrder mod_auth_file.c
AuthUserFile {home}/users
DefaultRoot ~
AllowOverwrite on
LoadModule mod_tls.c
<IfModule mod_tls.c>
TLSEngine on
TLSLog {home}/tls.log
TLSProtocol TLSv1.2
TLSRSACertificateFile {self.dir}/server.crt
TLSRSACertificateKeyFile {self.dir}/server.key
TLSCACertificateFile {self.dir}/ca.crt
TLSOptions UseImplicitSSL
TLSRequired on
TLSVerifyClient off
</IfModule>
""")
        strict.spawn(["/usr/sbin/proftpd", "-n", "-c", home / "proftpd.conf"])

    def tell(self, **said):
        return ask(self.control, "POST", "/", said)[1]

    def seen(self):
        return ask(self.control, "GET", "/")[1]

    def orders(self, command):
        return [b for o in self.seen()["orders"] for b in o.values() if b["command"] == command]

    def close(self):
        for part in self.parts:
            part.close()
        super().close()


def begin():
    global server
    server = Bambu()


def end():
    server.close()


def sliced(pad=0, plates=(1,)):
    """A sliced file as Bambu's slicer exports one."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for plate in plates:
            z.writestr(f"Metadata/plate_{plate}.gcode", f"; plate {plate}\nG28\nG1 X10 E1\nM84\n")
        z.writestr("Metadata/filler", os.urandom(pad))
    return out.getvalue()


def with_printer(farm, code=CODE, ftp=None, serial=SERIAL, more="", slots=4, **habits):
    server.tell(reset=True, habits=habits)
    sidecar = farm.sidecar()
    printer = farm.printer("p1s", "bambu", f"127.0.0.1 mqtt={server.mqtt} ftp={ftp or server.strict}{more}", serial=serial, slot_count=slots)
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "access_code": code}, role="admin")
    return sidecar, printer


def started(farm, sidecar, printer, content=None):
    sha256 = farm.store_bytes(content or sliced(), "plate.gcode.3mf")
    job = farm.job(seconds=30, sha256=sha256, printer=printer)
    answer = sidecar.ok("start_job", {"job_id": job})
    assert answer["confirmed"], answer
    return job


def life(farm, ftp, url="file:///sdcard/", **habits):
    sidecar, printer = with_printer(farm, ftp=ftp, **habits)
    farm.wait_state(printer, "idle")
    content = sliced(pad=700_000)
    job = started(farm, sidecar, printer, content)
    run_row = farm.run_of(job)
    assert run_row["remote_file"].endswith(".gcode.3mf"), run_row
    assert (server.card / run_row["remote_file"]).read_bytes() == content
    order = server.orders("project_file")[0]
    assert order["param"] == "Metadata/plate_1.gcode", order
    assert order["url"] == url + run_row["remote_file"] and order["subtask_name"] == run_row["remote_file"], order
    farm.wait_state(printer, "printing")
    paused = sidecar.ok("pause_printer", {"printer_id": printer})
    assert paused["state"] == "paused" and server.seen()["state"]["gcode_state"] == "PAUSE", paused
    resumed = sidecar.ok("resume_printer", {"printer_id": printer})
    assert resumed["state"] == "printing", resumed
    server.tell(habits={"seconds": 2.0})
    wait("the run to end", lambda: farm.run_of(job)["status"] == "completed", 40)
    farm.wait_state(printer, "finished")
    assert len(server.orders("project_file")) == len(server.orders("pause")) == 1
    files = wait("the list of files", lambda: farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}"), 70)
    assert any(f["path"] == run_row["remote_file"] and f["size_bytes"] == len(content) for f in files), files


def life_with_a_strict_file_server(farm):
    """proftpd refuses data connections that do not resume the TLS session; only what changed is reported, as P1 and A1 do."""
    life(farm, server.strict)


def life_with_a_tolerant_file_server(farm):
    """Full reports, numbers as text, orders that are never answered, and files addressed as newer models want them."""
    life(farm, server.tolerant, url="ftp:///", more=" print_from=ftp", parts=False, text=True, answers=False)


def cancel_is_no_failure(farm):
    """A cancel shows as FAILED with a number that is gone after two seconds."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer)
    answer = sidecar.ok("cancel_job", {"job_id": job})
    assert answer["command_state"] == "done" and answer["status"] == "cancelled", answer
    assert farm.run_of(job)["status"] == "cancelled"
    sidecar.ok("clear_bed", {"printer_id": printer})
    job = started(farm, sidecar, printer)
    server.tell(state={"gcode_state": "FAILED", "print_error": 50348044})
    wait("the run to be cancelled", lambda: farm.run_of(job)["status"] == "cancelled", 30)


def failure_has_its_code(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer)
    server.tell(state={"gcode_state": "FAILED", "print_error": 0x03008003})
    wait("the run to fail", lambda: farm.run_of(job)["status"] == "failed", 30)
    event = farm.sql(f"SELECT to_jsonb(message) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'print_failed'")
    assert "0300_8003" in event, event


def run_out(farm):
    """The AMS pauses by itself: stage, HMS code and an event that names it."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer)
    server.tell(state={"gcode_state": "PAUSE", "stg_cur": 6, "hms": [{"attr": 0x07002000, "code": 0x00020011}]})
    wait("the run to be paused", lambda: farm.run_of(job)["status"] == "paused", 30)
    event = wait("the event", lambda: farm.sql(f"SELECT to_jsonb(e) FROM odin.printer_events e WHERE printer_id = {printer} AND kind = 'paused_at_printer'"))
    assert event["code"] == "HMS_0700_2000_0002_0011", event
    assert farm.state(printer)["stage"] == "filament ran out"
    assert sidecar.ok("resume_printer", {"printer_id": printer})["state"] == "printing"


def print_at_the_machine(farm):
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    server.tell(state={"gcode_state": "RUNNING", "subtask_name": "theirs", "gcode_file": "theirs.3mf"})
    farm.wait_state(printer, "printing")
    wait("the event", lambda: farm.sql(f"SELECT to_jsonb(count(*)) FROM odin.printer_events WHERE printer_id = {printer} AND kind = 'foreign_print_started'") == 1)
    server.tell(habits={"seconds": 2.0})
    farm.wait_state(printer, "finished", limit=30)


def missing_file(farm):
    """A start of a file that is not there is accepted and fails by state."""
    (server.card / "gone.gcode.3mf").write_bytes(sliced())
    sidecar, printer = with_printer(farm)
    wait("the list of files", lambda: any(f["path"] == "gone.gcode.3mf" for f in farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}") or []), 70)
    farm.wait_state(printer, "idle")
    (server.card / "gone.gcode.3mf").unlink()
    error = sidecar.refused("start_print", {"printer_id": printer, "path": "gone.gcode.3mf", "confirm": True})
    assert error["code"] == "printer_refused" and "0500_8013" in error["detail"], error


def developer_mode(farm):
    """The bit says that orders must be signed: the printer is watched, nothing is sent, and the words say what to switch on."""
    sidecar, printer = with_printer(farm)
    server.tell(state={"fun": "3EC1AFFF9CFF"})
    farm.wait_state(printer, "idle")
    wait("the stage", lambda: "Developer Mode" in (farm.state(printer)["stage"] or ""))
    error = sidecar.refused("home_printer", {"printer_id": printer, "confirm": True})
    assert error["code"] == "printer_refused" and "Developer Mode" in error["detail"], error
    job = farm.job(sha256=farm.store_bytes(sliced(), "plate.gcode.3mf"), printer=printer)
    assert "Developer Mode" in sidecar.refused("start_job", {"job_id": job})["detail"]
    assert server.seen()["orders"] == []
    said = sidecar.ok("test_printer", {"printer_id": printer})
    assert said["works"] is True and "Developer Mode" in said["detail"], said


def an_unsigned_order_is_refused_in_plain_words(farm):
    """Firmware that does not show the bit, yet wants orders signed: its answer is told as what to switch on, and nothing was done."""
    sidecar, printer = with_printer(farm, signed=True)
    farm.wait_state(printer, "idle")
    error = sidecar.refused("set_temperature", {"printer_id": printer, "heater": "bed", "target": 60, "confirm": True})
    assert error["code"] == "printer_refused" and "Developer Mode" in error["detail"], error
    assert len(server.seen()["orders"]) == 1 and server.seen()["state"]["bed_target_temper"] == 0


def wrong_answers_are_told_apart(farm):
    """Code, serial number, certificate, port: each has words of its own, none has the code in it."""
    sidecar, printer = with_printer(farm, code="notright")
    def diagnosed(word):
        return wait(f"the diagnosis {word}", lambda: (lambda s: s if not s["works"] and word in s["detail"] else None)(sidecar.ok("test_printer", {"printer_id": printer})), 40, 1.0)
    assert diagnosed("access code")["problem"] == "printer_auth"
    assert "notright" not in sidecar.said()
    for change, word in (("serial = '01P00A000000000'", "another printer"), ("serial = NULL", "serial number"), (f"serial = '{SERIAL}', address = '127.0.0.1 mqtt=1 ftp=1'", "refused"),
                         ("address = 'no-such-printer.invalid'", "resolved"), (f"address = '127.0.0.1 mqtt={server.inside}'", "TLS"), ("address = 'http://127.0.0.1'", "address must be")):
        farm.psql(farm.name, f"UPDATE odin.printers SET {change} WHERE id = {printer}")
        diagnosed(word)


def another_certificate_is_not_trusted(farm):
    """The certificate that was seen first is the one that is trusted, until somebody sets the credentials anew."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    kept = wait("the certificate", lambda: farm.sql(f"SELECT facts->'certificate' FROM odin.printer_facts WHERE printer_id = {printer}"))
    assert len(kept) == 64
    farm.psql(farm.name, f"UPDATE odin.printer_facts SET facts = jsonb_set(facts, '{{certificate}}', '\"{'0' * 64}\"') WHERE printer_id = {printer}")
    farm.psql(farm.name, f"UPDATE odin.printers SET address = address || ' print_from=card' WHERE id = {printer}")
    said = wait("the diagnosis", lambda: (lambda s: s if "another one than before" in s["detail"] else None)(sidecar.ok("test_printer", {"printer_id": printer})), 30, 1.0)
    assert said["works"] is False, said
    sidecar.ok("set_printer_credentials", {"printer_id": printer, "access_code": CODE}, role="admin")
    wait("trust", lambda: sidecar.ok("test_printer", {"printer_id": printer})["works"], 30, 1.0)


def nothing_is_sent_late(farm):
    """The broker goes away in the middle: what was asked for meanwhile fails, and is not sent when it comes back."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    job = started(farm, sidecar, printer)
    server.broker.kill()
    farm.wait_state(printer, "offline", limit=40)
    assert farm.run_of(job)["status"] == "printing", "an outage ends no run"
    server.start_broker("server")
    farm.wait_state(printer, "printing", limit=60)
    assert len(server.orders("project_file")) == 1 and server.orders("pause") == []
    sidecar.ok("cancel_job", {"job_id": job})


def comforts(farm):
    """Light, fan, speed, heat, leaving objects out: confirmed by what the printer then reports."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    sent = 0
    for tool, arguments, seen in (
        ("set_light", {"on": False}, lambda s: s["lights_report"][0]["mode"] == "off"),
        ("set_fan", {"percent": 100}, lambda s: s["cooling_fan_speed"] == "15"),
        ("set_speed", {"percent": 120}, lambda s: s["spd_lvl"] == 3),
        ("set_temperature", {"heater": "bed", "target": 60}, lambda s: s["bed_target_temper"] == 60),
    ):
        preview = sidecar.ok(tool, {"printer_id": printer, **arguments})
        assert preview["dry_run"] is True and not seen(server.seen()["state"]), (tool, preview)
        sidecar.ok(tool, {"printer_id": printer, "confirm": False, **arguments})
        assert len(server.seen()["orders"]) == sent, "nothing reaches the broker without confirm"
        sent += 1
        answer = sidecar.ok(tool, {"printer_id": printer, "confirm": True, **arguments})
        assert answer["ok"] is True and len(server.seen()["orders"]) == sent and seen(server.seen()["state"]), (tool, answer)
    assert sidecar.refused("skip_objects", {"printer_id": printer, "objects": ["3"]})["code"] == "printer_not_ready"
    started(farm, sidecar, printer)
    farm.wait_state(printer, "printing")
    assert sidecar.ok("skip_objects", {"printer_id": printer, "objects": ["3", "17"], "confirm": True})["ok"] is True
    assert server.orders("skip_objects")[0]["obj_list"] == [3, 17] or server.orders("skip_objects")[0]["obj_list"] == [17, 3]


def the_plate_is_chosen(farm):
    """A file may hold the third plate only: a job prints the one that its figures are of. Of a stored file it is the one that is asked for."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    content = sliced(plates=(3, 5))
    sha256 = farm.store_bytes(content, "third.gcode.3mf")
    read = wait("the file to be read", lambda: (lambda f: f if f["facts_state"] in ("read", "unreadable") else None)(farm.sql(f"SELECT to_jsonb(f) FROM odin.files f WHERE sha256 = '{sha256}'")))
    facts = read["facts"]
    assert facts, read["facts_problem"]
    assert (facts["plate"], facts["plates"]) == (3, 2), facts
    job = started(farm, sidecar, printer, content)
    assert server.orders("project_file")[-1]["param"] == "Metadata/plate_3.gcode", server.orders("project_file")
    name = farm.run_of(job)["remote_file"]
    sidecar.ok("cancel_job", {"job_id": job})
    sidecar.ok("clear_bed", {"printer_id": printer})
    wait("the list of files", lambda: any(f["path"] == name for f in farm.sql(f"SELECT files FROM odin.printer_facts WHERE printer_id = {printer}") or []), 90)
    farm.wait_state(printer, "idle")
    asked = {"printer_id": printer, "path": name, "confirm": True}
    assert "plate 5" in sidecar.ok("start_print", {**asked, "plate": 5, "confirm": False})["detail"]
    assert sidecar.ok("start_print", {**asked, "plate": 5})["ok"] is True
    assert server.orders("project_file")[-1]["param"] == "Metadata/plate_5.gcode", server.orders("project_file")
    assert sidecar.refused("start_print", {**asked, "plate": 0})["code"] == "validation_failed"
    other = farm.printer("v1")
    farm.wait_state(other, "idle")
    error = sidecar.refused("start_print", {"printer_id": other, "path": "x.gcode", "plate": 2})
    assert error["code"] in ("not_supported", "file_not_on_printer"), error


def an_independent_client_agrees(farm):
    """bambulabs_api as it is on PyPI drives the stand-in and reads it; the farm, watching the same printer, sees the same."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    (server.card / "theirs.gcode.3mf").write_bytes(sliced(plates=(2,)))
    client = subprocess.Popen([installed("bambulabs") / "python", Path(__file__).with_name("client.py"), "127.0.0.1", CODE, SERIAL, str(server.mqtt), str(server.strict)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def asked(*words):
        client.stdin.write(" ".join(words) + "\n")
        client.stdin.flush()
        assert select.select([client.stdout], [], [], 300)[0], f"the client is silent to {words}"
        return json.loads(client.stdout.readline())

    try:
        assert asked("state")["state"] == "IDLE"
        assert "theirs.gcode.3mf" in " ".join(asked("files")["files"])
        for order, theirs, ours in (("start theirs.gcode.3mf 2", "RUNNING", "printing"), ("pause", "PAUSE", "paused"), ("resume", "RUNNING", "printing"), ("stop", "FAILED", None)):
            assert asked(*order.split())["taken"] is True, order
            said = wait(f"{theirs} after {order}", lambda: (lambda s: s if s["state"] == theirs else None)(asked("state")))
            if ours:
                farm.wait_state(printer, ours)
        assert said["print_error"] in (50348044, 0), said
        assert server.orders("project_file")[-1]["param"] == "Metadata/plate_2.gcode"
        farm.wait_state(printer, "failed", "finished", "idle")
        # What the farm's own driver orders is what that client then reads.
        assert sidecar.ok("set_light", {"printer_id": printer, "on": False, "confirm": True})["ok"] is True
        assert sidecar.ok("set_temperature", {"printer_id": printer, "heater": "bed", "target": 55, "confirm": True})["ok"] is True
        wait("the client to see light and heat", lambda: (lambda s: (s["light"], s["bed_target"]) == ("off", 55))(asked("state")))
    finally:
        client.kill()
        client.wait()


def spools_are_told_and_shown(farm):
    """assign_spool tells the AMS and answers with what it shows; a start carries the slot map."""
    sidecar, printer = with_printer(farm)
    farm.wait_state(printer, "idle")
    rows = wait("the reading of the AMS", lambda: farm.sql(f"SELECT jsonb_agg(to_jsonb(s) ORDER BY slot_number) FROM odin.printer_slots s WHERE printer_id = {printer} AND reported_material IS NOT NULL"))
    assert rows[0]["reported_material"] == "PLA" and rows[0]["reported_color"] == "FF0000", rows
    filament = farm.sql(f"INSERT INTO odin.filaments(org_id, name, material, color_hex, nozzle_min_c, nozzle_max_c) VALUES ({farm.org}, 'Blue', 'PETG', '#0000FF', 220, 250) RETURNING to_jsonb(id)")
    spool = farm.call("add_spool", {"filament_id": filament})["spool_id"]
    answer = sidecar.ok("assign_spool", {"spool_id": spool, "printer_id": printer, "ams_slot": 1})
    assert answer["confirmed"] is True and answer["command_state"] == "done" and answer["slot_number"] == 2, answer
    told = server.orders("ams_filament_setting")[0]
    assert (told["ams_id"], told["tray_id"], told["tray_type"], told["tray_color"], told["nozzle_temp_max"]) == (0, 1, "PETG", "0000FFFF", 250), told


def filaments_come_from_their_trays(farm):
    """The slot map of a run as the broker hears it: an entry for each filament of the file, over three AMS and the external spool."""
    sidecar, printer = with_printer(farm, slots=12)
    server.tell(state={"ams": {"ams": [{"id": str(unit), "tray": [{"id": str(tray)} for tray in range(4)]} for unit in range(3)], "tray_now": "255"}})
    farm.wait_state(printer, "idle")
    for slot, material in ((1, "ASA"), (6, "PLA"), (12, "ABS"), (254, "PETG")):
        filament = farm.sql(f"INSERT INTO odin.filaments(org_id, name, material, color_hex) VALUES ({farm.org}, 'Mapped {material}', '{material}', '#112233') RETURNING to_jsonb(id)")
        spool = farm.call("add_spool", {"filament_id": filament})["spool_id"]
        assert sidecar.ok("assign_spool", {"spool_id": spool, "printer_id": printer, "slot_number": slot})["confirmed"] is True, slot
    for needs, use_ams, trays in (({0: "PLA"}, True, [5]), ({0: "PLA", 2: "PETG"}, True, [5, -1, 254]), ({0: "ABS", 1: "PLA", 3: "ASA"}, True, [11, 5, -1, 0]), ({0: "PETG"}, False, [])):
        job = farm.job(seconds=30, sha256=farm.store_bytes(sliced(), "plate.gcode.3mf"), printer=printer)
        rows = ", ".join(f"((SELECT revision_id FROM odin.jobs WHERE id = {job}), {farm.org}, {tool}, '{material}', 1000)" for tool, material in needs.items())
        farm.psql(farm.name, f"INSERT INTO odin.revision_materials(revision_id, org_id, tool, material, mg) VALUES {rows}")
        answer = sidecar.ok("start_job", {"job_id": job})
        assert answer["confirmed"], answer
        order = server.orders("project_file")[-1]
        assert (order["use_ams"], order["ams_mapping"]) == (use_ams, trays), (needs, order)
        sidecar.ok("cancel_job", {"job_id": job})
        sidecar.ok("clear_bed", {"printer_id": printer})
        farm.wait_state(printer, "idle")


TESTS = [life_with_a_strict_file_server, life_with_a_tolerant_file_server, cancel_is_no_failure, failure_has_its_code, run_out, print_at_the_machine, missing_file, developer_mode, an_unsigned_order_is_refused_in_plain_words, wrong_answers_are_told_apart,
         another_certificate_is_not_trusted, nothing_is_sent_late, comforts, the_plate_is_chosen, an_independent_client_agrees, spools_are_told_and_shown, filaments_come_from_their_trays]
