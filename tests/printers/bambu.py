"""The brain of a Bambu Lab printer for the tests, behind a real MQTT broker and beside real FTPS servers.

    bambu.py SERIAL MQTT_PORT CONTROL_PORT CARD_FOLDER

The tests speak to it over HTTP: POST / merges JSON into its habits or its state, GET / shows habits, state and every order it has heard.
"""

import http.server
import json
import os
import sys
import threading
import time

import paho.mqtt.client as mqtt

SERIAL, MQTT_PORT, CONTROL_PORT, CARD = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
CANCELLED, NO_FILE, NOT_SIGNED = 50348044, 83918867, 84033543
TRAY = {"tray_type": "PLA", "tray_color": "FF0000FF", "remain": 80, "tray_info_idx": "GFA00", "tray_sub_brands": "PLA Basic", "nozzle_temp_min": "190", "nozzle_temp_max": "230"}
REST = {
    "gcode_state": "IDLE", "mc_percent": 0, "mc_remaining_time": 0, "layer_num": 0, "total_layer_num": 0, "nozzle_temper": 25.0, "nozzle_target_temper": 0.0, "bed_temper": 24.0,
    "bed_target_temper": 0.0, "stg_cur": -1, "print_error": 0, "hms": [], "gcode_file": "", "subtask_name": "", "sdcard": True, "spd_lvl": 2, "spd_mag": 100, "cooling_fan_speed": "0",
    "fun": "3EC18FFF9CFF", "lights_report": [{"node": "chamber_light", "mode": "on"}], "vt_tray": {"id": "254", "tray_type": "PETG", "tray_color": "000000FF"},
    "ams": {"ams": [{"id": "0", "humidity": "4", "tray": [{"id": "0", **TRAY}, {"id": "1"}]}], "tray_now": "0"},
    # Real reports have far more in them, and are larger than an MQTT client's usual limit.
    "ipcam": {"filler": "x" * 12000},
}


class Printer:
    def __init__(self):
        self.lock = threading.RLock()
        self.reset()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_message = self.heard
        self.client.on_connect = lambda client, *_: client.subscribe(f"device/{SERIAL}/request")
        self.client.connect("127.0.0.1", MQTT_PORT)
        self.client.loop_start()
        threading.Thread(target=self.live, daemon=True).start()

    def reset(self):
        # parts: only what changed is sent. answers: orders are answered. seconds: how long a print takes; until the tests want its end. text: numbers come as text. signed: orders must be signed, whatever the bit says.
        self.habits = {"parts": True, "answers": True, "seconds": 3600.0, "text": False, "signed": False}
        self.state = json.loads(json.dumps(REST))
        self.sent, self.orders, self.ran, self.clears_at = {}, [], 0.0, None

    def publish(self, topic, body):
        if self.habits["text"]:
            body = {name: str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value for name, value in body.items()}
        self.client.publish(f"device/{SERIAL}/report", json.dumps({topic: body}))

    def push(self, everything=False):
        with self.lock:
            new = {name: value for name, value in self.state.items() if everything or not self.habits["parts"] or self.sent.get(name) != value}
            if new or everything:
                self.publish("print", {"command": "push_status", "msg": 0 if everything else 1, **new})
            self.sent = json.loads(json.dumps(self.state))

    def heard(self, _client, _user, message):
        for topic, body in json.loads(message.payload).items():
            with self.lock:
                self.obey(topic, body)

    def obey(self, topic, body):
        command = body.get("command")
        if topic == "pushing":
            return self.push(everything=True)
        if topic == "info":
            return self.publish("info", {**body, "module": [{"name": "ota", "sw_ver": "01.07.00.00", "sn": SERIAL}], "result": "success"})
        self.orders.append({topic: body})
        if int(self.state["fun"], 16) & 0x20000000 or self.habits["signed"]:
            return self.publish(topic, {**body, "result": "failed", "reason": "mqtt message verify failed", "err_code": NOT_SIGNED})
        handler = getattr(self, "do_" + str(command), None)
        problem = handler(body) if handler else None
        if self.habits["answers"]:
            self.publish(topic, {**body, "result": "failed" if problem else "SUCCESS", "reason": problem or ""})
        self.push()

    def do_project_file(self, body):
        if self.state["gcode_state"] in ("RUNNING", "PAUSE", "PREPARE"):
            return "busy"
        self.state.update(gcode_state="PREPARE", gcode_file=body["param"], subtask_name=body.get("subtask_name", ""), mc_percent=0, print_error=0, total_layer_num=20, stg_cur=2)
        self.ran = 0.0
        name = body["url"].rsplit("/", 1)[1]
        if not os.path.exists(os.path.join(CARD, name)):
            self.state.update(gcode_state="FAILED", print_error=NO_FILE, stg_cur=-1)

    def do_gcode_file(self, body):
        self.state.update(gcode_state="RUNNING", gcode_file=body["param"], subtask_name="", mc_percent=0)
        self.ran = 0.0

    def do_pause(self, _body):
        self.state.update(gcode_state="PAUSE", stg_cur=16)

    def do_resume(self, _body):
        self.state.update(gcode_state="RUNNING", stg_cur=-1, hms=[])

    def do_stop(self, _body):
        self.state.update(gcode_state="FAILED", print_error=CANCELLED, stg_cur=-1)
        self.clears_at = time.monotonic() + 2

    def do_gcode_line(self, body):
        for line in body["param"].splitlines():
            word, *rest = line.split()
            number = next((float(r[1:]) for r in rest if r.startswith("S")), 0.0)
            if word == "M140":
                self.state["bed_target_temper"] = number
            elif word == "M104":
                self.state["nozzle_target_temper"] = number
            elif word == "M106":
                self.state["cooling_fan_speed"] = str(round(number / 255 * 15))

    def do_print_speed(self, body):
        self.state.update(spd_lvl=int(body["param"]), spd_mag={"1": 50, "2": 100, "3": 124, "4": 166}[body["param"]])

    def do_ledctrl(self, body):
        self.state["lights_report"] = [{"node": body["led_node"], "mode": body["led_mode"]}]

    def do_ams_filament_setting(self, body):
        units = {int(unit["id"]): unit["tray"] for unit in self.state["ams"]["ams"]}
        tray = self.state["vt_tray"] if body["ams_id"] == 255 else units[body["ams_id"]][body["tray_id"]]
        tray.update({name: body[name] for name in ("tray_type", "tray_color", "tray_info_idx")})

    def live(self):
        while True:
            time.sleep(0.25)
            with self.lock:
                if self.clears_at and time.monotonic() > self.clears_at:
                    self.state["print_error"], self.clears_at = 0, None
                if self.state["gcode_state"] in ("PREPARE", "RUNNING"):
                    self.ran += 0.25
                    part = min(1.0, self.ran / self.habits["seconds"])
                    self.state.update(mc_percent=int(part * 100), layer_num=int(part * 20), mc_remaining_time=round((1 - part) * self.habits["seconds"] / 60))
                    if self.ran >= 0.75:
                        self.state.update(gcode_state="RUNNING", stg_cur=-1)
                    if part >= 1:
                        self.state.update(gcode_state="FINISH", mc_percent=100)
                self.push()


class Control(http.server.BaseHTTPRequestHandler):
    def answer(self):
        with printer.lock:
            text = json.dumps({"habits": printer.habits, "state": printer.state, "orders": printer.orders}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        self.answer()

    def do_POST(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with printer.lock:
            if said.get("reset"):
                printer.reset()
            printer.habits.update(said.get("habits", {}))
            printer.state.update(said.get("state", {}))
            printer.push(everything=bool(said.get("reset")))
        self.answer()

    def log_message(self, *_):
        pass


printer = Printer()
http.server.ThreadingHTTPServer(("127.0.0.1", CONTROL_PORT), Control).serve_forever()
