"""Mail servers that are dead, slow, refuse or lie: the mail arrives when the server is well again, or is counted as refused where that is final."""

import re
import socketserver
import threading
import time

from place import Lost, Place, wait_for

# Where in the dialogue something happens, and what: a reply, or an act.
STEPS = ["banner", "EHLO", "MAIL", "RCPT", "DATA", "dot"]
FINAL = "final"
LATER = "later"


def scenarios():
    """Name, step, behaviour, and whether the mail must be given up at once (FINAL) or sent later."""
    for step in STEPS:
        yield f"closes at {step}", step, "close", LATER
        yield f"says 421 at {step}", step, "421 4.3.2 going down", LATER
        yield f"says nothing at {step}", step, "silence", LATER
        yield f"says no SMTP at {step}", step, "HTTP/1.1 200 OK", LATER
        yield f"never ends its line at {step}", step, "flood", LATER
        yield f"never ends its reply at {step}", step, "lines", LATER
    yield "554 greeting", "banner", "554 no service here", LATER
    yield "502 EHLO", "EHLO", "502 5.5.1 not known", LATER
    yield "550 sender", "MAIL", "550 5.7.1 sender not allowed", LATER
    yield "451 sender", "MAIL", "451 4.7.1 later", LATER
    yield "relaying denied", "RCPT", "554 5.7.1 relaying denied", LATER
    yield "greylisted", "RCPT", "450 4.2.0 greylisted", LATER
    yield "no such mailbox", "RCPT", "550 5.1.1 no such mailbox", FINAL
    yield "451 after the mail", "dot", "451 4.3.0 try again", LATER
    yield "content refused", "dot", "554 5.6.0 content not accepted", FINAL
    yield "taken, but the line breaks", "dot", "take and close", LATER
    yield "one byte a second", "banner", "drip", LATER


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, step, behaviour):
        self.step, self.behaviour = step, behaviour
        self.taken, self.bad, self.tries = [], True, 0
        super().__init__(("127.0.0.1", 0), Session)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Session(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            self.talk()
        except OSError:
            pass

    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def at(self, step):
        """Misbehave here? True where the dialogue goes on."""
        server = self.server
        if not server.bad or server.step != step:
            return True
        server.tries += 1
        act = server.behaviour
        if act in ("close", "take and close"):
            return False
        if act == "silence":
            while server.bad:
                time.sleep(0.05)
            return False
        if act in ("flood", "lines", "drip"):
            piece = {"flood": b"2" * 65536, "lines": b"250-x\r\n" * 8192, "drip": b"2"}[act]
            sent = 0
            while server.bad and sent < 2 << 30:
                self.wfile.write(piece)
                sent += len(piece)
                if act == "drip":
                    time.sleep(1)
            return False
        self.say(act)
        return step not in ("banner", "EHLO")

    def talk(self):
        if not self.at("banner"):
            return
        self.say("220 soak ESMTP")
        data = b""
        while line := self.rfile.readline(65536):
            verb = line[:4].upper()
            if verb == b"QUIT":
                self.say("221 bye")
                return
            name = {b"EHLO": "EHLO", b"HELO": "EHLO", b"MAIL": "MAIL", b"RCPT": "RCPT", b"DATA": "DATA"}.get(verb)
            if name is None:
                self.say("250 ok")
                continue
            before = self.server.tries
            if not self.at(name):
                return
            if self.server.tries > before:
                continue
            if name != "DATA":
                self.say("250 ok")
                continue
            self.say("354 go on")
            data = b""
            while (line := self.rfile.readline(1 << 20)) and line != b".\r\n":
                data += line
            lies = self.server.bad and self.server.step == "dot" and self.server.behaviour == "take and close"
            if lies:
                self.server.taken.append(data)
            before = self.server.tries
            if not self.at("dot"):
                return
            if self.server.tries > before:
                continue
            self.server.taken.append(data)
            self.say("250 ok")


def message_ids(server):
    return [re.search(rb"^Message-ID: (\S+)", mail, re.M | re.I).group(1) for mail in server.taken]


def one(name, step, behaviour, end):
    server = Server(step, behaviour)
    place = Place(
        f"mail: {{host: 127.0.0.1, port: {server.server_address[1]}, tls: none, from: guard@example.org, to: [oncall@example.org], "
        "timeout: 1s, retry_after: 50ms}\n"
    )
    try:
        place.start()
        place.drop("wrong.png", "label=cat\nverdict=undecided\n")
        wait_for("end of the case", lambda: place.metric('delta_guard_cases_ended_total{end="undecided"}') == 1)
        wait_for(f"a try ({name})", lambda: server.tries >= 1)
        if end == FINAL:
            wait_for(f"a refusal ({name})", lambda: place.metric("delta_guard_mail_refused_total") == 1)
        else:
            wait_for(f"another try ({name})", lambda: sum_retried(place) >= 1)
            if place.metric("delta_guard_mail_refused_total"):
                raise Lost(f"{name}: the mail was given up")
        if place.get("/readyz")[0] != 200:
            raise Lost(f"{name}: not ready")
        memory = place.resident()
        if memory > 100 << 20:
            raise Lost(f"{name}: the daemon needed {memory >> 20} MiB")
        server.bad = False
        if end == LATER:
            wait_for(f"the mail ({name})", lambda: place.metric("delta_guard_mail_sent_total") == 1)
            if len(set(message_ids(server))) != 1:
                raise Lost(f"{name}: {message_ids(server)}")
        if place.stop() != 0:
            raise Lost(f"{name}: the daemon did not stop with 0")
        return memory
    finally:
        server.bad = False
        if place.daemon and place.daemon.poll() is None:
            place.kill()
        server.shutdown()
        server.server_close()
        place.remove()


def sum_retried(place):
    return sum(float(line.rsplit(" ", 1)[1]) for line in place.get("/metrics")[1].splitlines() if line.startswith("delta_guard_mail_retried_total{"))


def run():
    most, count = 0, 0
    for scenario in scenarios():
        most = max(most, one(*scenario))
        count += 1
    return f"{count} misbehaving mail servers: no mail lost, none twice under two Message-IDs, at most {most >> 20} MiB"
