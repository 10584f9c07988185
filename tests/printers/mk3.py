"""A stand-in for an MK3S on a serial line (a pty), as much of it as a real PrusaLink asks for.

    mk3.py LINK

LINK becomes a symbolic link to the terminal. Moves take 20 ms each, dwells as long as they say, and heating is quick. With a file `fast` beside
LINK neither takes any time.
"""

import os
import pty
import re
import select
import sys
import time
import tty

ROOM = 23.0
MOVE = 0.02
EEPROM_JOB = 0x0D05
EEPROM_SHEETS = 0x0D49
ANSWERS = {
    "M862.2 Q": "302", "PRUSA Fir": "3.14.0-8094", "PRUSA SN": "CZPX4720X004XK12345", "M220": "100%", "M221": "100%", "M21": "echo:SD init fail", "M420": "Mesh bed leveling not active.",
    "M601": "// action:paused", "M602": "// action:resumed", "M603": "// action:cancel",
}


class Machine:
    def __init__(self, link):
        self.fast = os.path.join(os.path.dirname(link), "fast")
        self.master, slave = pty.openpty()
        tty.setraw(self.master)
        tty.setraw(slave)
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink(os.ttyname(slave), link)
        self.now = {"tool": ROOM, "bed": ROOM}
        self.target = {"tool": 0.0, "bed": 0.0}
        self.position = [0.0, 0.0, 0.0]
        self.job = 0

    def say(self, text):
        os.write(self.master, (text + "\n").encode())

    def take(self, seconds):
        if not os.path.exists(self.fast):
            time.sleep(seconds)

    def temperatures(self):
        tool, bed = (f"{self.now[h]:.1f} /{self.target[h]:.1f}" for h in ("tool", "bed"))
        return f"T:{tool} B:{bed} T0:{tool} @:0 B@:0 P:25.0 A:30.0"

    def report(self):
        x, y, z = self.position
        self.say(self.temperatures())
        self.say(f"X:{x:.2f} Y:{y:.2f} Z:{z:.2f} E:0.00 Count X: {x:.2f} Y:{y:.2f} Z:{z:.2f} E:0.00")
        self.say("E0:0 RPM PRN1:0 RPM E0@:0 PRN1@:0")

    def memory(self, command):
        address = int(re.search(r"Ax?([0-9A-Fa-f]+)", command)[1], 16)
        written = re.search(r"X([0-9A-Fa-f]+)", command)
        if written:
            if address == EEPROM_JOB:
                self.job = int(written[1], 16)
            return
        count = int(re.search(r"C(\d+)", command)[1])
        data = {EEPROM_JOB: self.job.to_bytes(4, "big"), EEPROM_SHEETS: (b"Smooth1" + b"\x00\x00\x3c\x1e") * 8}.get(address, b"\x00" * count)
        self.say(f"{address:04X}  {' '.join(f'{b:02x}' for b in data)}")

    def obey(self, line):
        numbered = re.match(r"N(-?\d+) (.*?) ?\*\d+$", line.split(";")[0].strip())
        command = numbered[2].strip() if numbered else line.split(";")[0].strip()
        if not command:
            return
        word = command.split()[0]
        number = lambda letter: float((re.search(letter + r"(-?[\d.]+)", command) or [0, 0])[1])
        for known, answer in ANSWERS.items():
            if command == known or word == known:
                self.say(answer)
                break
        else:
            if command.startswith("M862.1"):
                self.say("0.40")
            elif word == "M105":
                return self.say("ok " + self.temperatures())
            elif word == "M27":
                self.say("Not SD printing")
            elif word == "M20":
                self.say("Begin file list")
                self.say("End file list")
            elif word == "M73":
                done, left = (int(number(letter)) if letter in command else -1 for letter in "PR")
                for mode in ("NORMAL", "SILENT"):
                    self.say(f"{mode} MODE: Percent done: {done}; print time remaining in mins: {left}; Change in mins: -1")
            elif word == "D3":
                self.memory(command)
            elif word in ("M104", "M109"):
                self.target["tool"] = number("S")
            elif word in ("M140", "M190"):
                self.target["bed"] = number("S")
            elif word in ("G0", "G1"):
                for i, axis in enumerate("XYZ"):
                    if axis in command:
                        self.position[i] = number(axis)
                self.take(MOVE)
            elif word == "G4":
                self.take(number("P") / 1000)
        if word in ("M109", "M190"):
            heater = "tool" if word == "M109" else "bed"
            self.now[heater] = self.target[heater]
        self.say("ok")

    def live(self):
        waiting, due = b"", time.monotonic()
        while True:
            if select.select([self.master], [], [], 0.2)[0]:
                try:
                    waiting += os.read(self.master, 4096)
                except OSError:
                    time.sleep(0.1)
                    continue
                while b"\n" in waiting:
                    line, waiting = waiting.split(b"\n", 1)
                    self.obey(line.decode(errors="replace").rstrip("\r"))
            if time.monotonic() > due:
                due = time.monotonic() + 2
                for heater, now in self.now.items():
                    way = max(self.target[heater], ROOM) - now
                    self.now[heater] += max(-20, min(20, way))
                self.report()


if __name__ == "__main__":
    Machine(sys.argv[1]).live()
