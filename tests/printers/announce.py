"""Announces services by mDNS until it is ended, under names that nobody else has: announce.py _octoprint=5000 _moonraker=7125 ..."""

import secrets
import socket
import sys
import time

from zeroconf import IPVersion, ServiceInfo, Zeroconf

own = secrets.token_hex(6)
zeroconf = Zeroconf(ip_version=IPVersion.V4Only)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    # No packet leaves; the system only says which address it would use.
    s.connect(("192.0.2.1", 9))
    address = s.getsockname()[0]
for n, argument in enumerate(sys.argv[1:]):
    service, port = argument.split("=")
    kind = f"{service}._tcp.local."
    zeroconf.register_service(ServiceInfo(kind, f"printer {own} {n}.{kind}", addresses=[socket.inet_aton(address)], port=int(port), server=f"printer-{own}-{n}.local."))
print("announced", flush=True)
time.sleep(3600)
