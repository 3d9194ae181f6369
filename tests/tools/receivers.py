"""Receivers that nobody here wrote: a web server of the standard library, a mail server of aiosmtpd."""

import http.server
import json
import threading

from aiosmtpd.controller import Controller


class Webhook:
    """Collects what is posted; answers with the statuses it is given, then with 200."""

    def __init__(self, statuses=(), headers=()):
        self.received = []
        self.statuses = list(statuses)
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                status = outer.statuses.pop(0) if outer.statuses else 200
                outer.received.append((status, dict(self.headers), body))
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://user:swordfish-7731@127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def alarms(self):
        """The alarms' own messages, of those that were taken."""
        taken = [json.loads(body) for status, _, body in list(self.received) if status == 200]
        return [json.loads(envelope["Message"]) for envelope in taken]

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class Mailbox:
    """A mail server and what it was given."""

    def __init__(self, port=0):
        self.received = []

        class Handler:
            async def handle_DATA(handler, server, session, envelope):
                self.received.append((envelope.mail_from, envelope.rcpt_tos, envelope.content.decode()))
                return "250 taken"

        self.controller = Controller(Handler(), hostname="127.0.0.1", port=port)
        self.controller.start()

    def end(self):
        self.controller.stop()
