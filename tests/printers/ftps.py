"""A tolerant FTP server inside TLS from the first byte, as Bambu Lab printers have: ftps.py PORT CERTIFICATE FOLDER CODE."""

import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import TLS_FTPHandler
from pyftpdlib.servers import FTPServer

PORT, CERTIFICATE, FOLDER, CODE = int(sys.argv[1]), *sys.argv[2:5]


class Implicit(TLS_FTPHandler):
    def handle(self):
        self.secure_connection(self.ssl_context)

    def handle_ssl_established(self):
        TLS_FTPHandler.handle(self)


users = DummyAuthorizer()
users.add_user("bblp", CODE, FOLDER, perm="elradfmwMT")
Implicit.authorizer = users
Implicit.certfile = CERTIFICATE
Implicit.tls_control_required = Implicit.tls_data_required = True
FTPServer(("127.0.0.1", PORT), Implicit).serve_forever()
