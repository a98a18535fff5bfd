"""A real web server in a process of its own, which misbehaves on request: run by ``serving``.

python http_server.py DIRECTORY PORT: prints its port, then serves the directory. PUT / sets how it answers
for a file ({"file", "action", "times", "seconds"}); GET /-/requests lists what was asked for.
"""

from __future__ import annotations

import collections
import functools
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


class Server:
    """The test's side of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.start(port=0)

    def start(self, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.directory), str(port)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.root = f"http://127.0.0.1:{self.port}"
        self.url = f"{self.root}/train"

    def tell(self, file: str, action: str, times: int = 10**6, seconds: float = 60.0) -> None:
        """Answer the next requests for ``file`` badly."""
        order = {"file": file, "action": action, "times": times, "seconds": seconds}
        body = json.dumps(order).encode()
        request = urllib.request.Request(f"{self.root}/", data=body, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def forget(self) -> None:
        """All orders, and what was asked for."""
        self.tell("", "forget")

    def requests(self) -> collections.Counter[str]:
        """How often each file was asked for."""
        with urllib.request.urlopen(f"{self.root}/-/requests", timeout=10) as answer:
            return collections.Counter(Path(urlsplit(target).path).name for target in json.load(answer))

    def targets(self) -> list[str]:
        with urllib.request.urlopen(f"{self.root}/-/requests", timeout=10) as answer:
            return list(json.load(answer))

    def die(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def revive(self) -> None:
        """At the same place as before."""
        self.start(self.port)


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """Serves ``directory``, which holds the split ``train``."""
    server = Server(directory)
    try:
        yield server
    finally:
        server.die()


class Handler(BaseHTTPRequestHandler):
    orders: dict[str, dict[str, object]]
    asked: list[str]

    def __init__(self, *args: object, directory: Path) -> None:
        self.directory = directory
        super().__init__(*args)  # type: ignore[arg-type]

    def do_PUT(self) -> None:
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if order["action"] == "forget":
            self.orders.clear()
            self.asked.clear()
        self.orders[order["file"]] = order
        self.answer(200, b"")

    def do_GET(self) -> None:
        if self.path == "/-/requests":
            self.answer(200, json.dumps(self.asked).encode())
            return
        self.asked.append(self.path)
        path = self.directory / urlsplit(self.path).path.lstrip("/")
        order = self.orders.get(path.name, {"times": 0})
        action = "none"
        if int(str(order["times"])) > 0:
            order["times"] = int(str(order["times"])) - 1
            action = str(order["action"])
        if action.isdigit():
            self.answer(int(action), b"no")
        elif not path.is_file():
            self.answer(404, b"no")
        else:
            self.misbehave(action, path.read_bytes(), float(str(order.get("seconds", 0))))

    def misbehave(self, action: str, body: bytes, seconds: float) -> None:
        half = len(body) // 2
        if action == "truncate":
            self.answer(200, body[:half], length=len(body))
        elif action == "stall":
            self.answer(200, body[:half], length=len(body))
            time.sleep(seconds)
        elif action == "slow":
            time.sleep(seconds)
            self.answer(200, body)
        elif action == "trickle":
            self.answer(200, b"", length=len(body))
            for byte in body:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.02)
        elif action == "corrupt":
            self.answer(200, body[:half] + bytes([body[half] ^ 1]) + body[half + 1 :])
        elif action.startswith("to "):
            self.send_response(302)
            self.send_header("Location", action[3:])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif action == "longer":
            self.answer(200, body + b"x")
        elif action == "page":
            self.answer(200, b"<html>please log in</html>")
        elif action != "hang up":
            self.answer(200, body)

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    Handler.orders, Handler.asked = {}, []
    handler = functools.partial(Handler, directory=Path(sys.argv[1]))
    ThreadingHTTPServer.request_queue_size = 64  # more connections come at once than the usual 5
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that gave up
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
