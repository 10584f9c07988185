"""An independent client of Bambu Lab printers, bambulabs_api as it is on PyPI, driven line by line: client.py HOST CODE SERIAL MQTT_PORT FTP_PORT.

A line is state, files, start FILE PLATE, pause, resume or stop; each is answered with one line of JSON.
"""

import json
import logging
import sys
import time

from bambulabs_api.ftp_client import PrinterFTPClient
from bambulabs_api.mqtt_client import PrinterMQTTClient

HOST, CODE, SERIAL, MQTT_PORT, FTP_PORT = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
logging.disable()
printer = PrinterMQTTClient(HOST, CODE, SERIAL, port=MQTT_PORT, pushall_timeout=1)
printer.connect()
printer.start()
files = PrinterFTPClient(HOST, CODE, port=FTP_PORT)


def state():
    while not (printer.ready() and printer.dump().get("print", {}).get("gcode_state")):
        time.sleep(0.1)
    return {"state": printer.get_printer_state().name, "print_error": printer.print_error_code(), "light": printer.get_light_state(), "bed_target": printer.get_bed_temperature_target()}


for line in sys.stdin:
    word, *rest = line.split()
    said = {
        "state": state,
        "files": lambda: {"files": files.list_directory()[1]},
        "start": lambda: {"taken": printer.start_print_3mf(rest[0], int(rest[1]))},
        "pause": lambda: {"taken": printer.pause_print()},
        "resume": lambda: {"taken": printer.resume_print()},
        "stop": lambda: {"taken": printer.stop_print()},
    }[word]()
    print(json.dumps(said), flush=True)
