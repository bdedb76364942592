"""Receivers of messages on this machine: a web server and a mail server that keep what comes."""

from __future__ import annotations

import base64
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What was posted, and what is answered: the next of `answers`, at last 200."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: list[int] = []
        self.url = ""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A web server that takes JSON at any address."""
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.headers.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
            made.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(made.answers.pop(0) if made.answers else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, _served(server):
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield made


class Mailbox:
    """Mail that came, as it was sent, with who had logged in."""

    def __init__(self) -> None:
        self.mails: list[str] = []
        self.users: list[str] = []
        self.refuse = False
        self.port = 0


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A server that speaks as much SMTP as it takes to hand in a mail (RFC 5321, without encryption)."""
    made = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 here")
            while line := self.rfile.readline():
                word = line.decode().strip()
                if word.upper().startswith("EHLO"):
                    self.say("250-here\r\n250 AUTH PLAIN")
                elif word.upper().startswith("AUTH"):
                    made.users.append(base64.b64decode(word.split()[2]).decode())
                    self.say("235 ok")
                elif word.upper().startswith("RCPT") and made.refuse:
                    self.say(f"550 {word} is nobody here")
                elif word.upper() == "DATA":
                    self.say("354 go on")
                    made.mails.append("".join(iter(lambda: self.rfile.readline().decode(), ".\r\n")))
                    self.say("250 taken")
                elif word.upper() == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server, _served(server):
        made.port = server.server_address[1]
        yield made


@contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
