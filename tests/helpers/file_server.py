"""A real HTTP server on loopback, with ranges, and with faults on demand."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAGE = b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"


@dataclass
class Fault:
    """What goes wrong with one request; ``value`` is a status, a byte, a size or seconds.

    ``retry_after`` is the header of that name, sent with a status; ``location`` is where "moved"
    leads.
    """

    kind: str
    value: float = 0
    retry_after: str | None = None
    location: str = ""


@dataclass
class FileServer:
    """Files by path, and for each path the faults of its next requests."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: dict[str, Fault] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of every request so far."""
    authorizations: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Authorization header of every request so far."""
    seconds_per_mib: float = 0

    def add(self, name: str, content: bytes) -> str:
        """Serve a file; return its address."""
        self.files[f"/{name}"] = content
        return f"{self.url}/{name}"

    def fail(self, name: str, *faults: Fault) -> None:
        """Let the next requests for a file go wrong, one fault each."""
        self.faults.setdefault(f"/{name}", []).extend(faults)

    def fault_of(self, path: str) -> Fault:
        """Return the fault of the request that is being answered."""
        waiting = self.faults.get(path, [])
        return waiting.pop(0) if waiting else self.always.get(path, Fault("none"))


@contextmanager
def serving() -> Iterator[FileServer]:
    """Run a server for the time of the block."""
    files = FileServer()

    class Handler(_Handler):
        server_files = files

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Stay silent: clients hang up, as they may."""

    server = Server(("127.0.0.1", 0), Handler)
    files.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server_files: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        files, path = self.server_files, self.path.partition("?")[0]
        wanted = self.headers.get("Range")
        files.requests.append((path, wanted))
        files.authorizations.append((path, self.headers.get("Authorization")))
        fault = files.fault_of(path)
        content = files.files.get(path)
        if fault.kind == "redirect":
            self._answer(302, b"", {"Location": "/a-page-of-the-server"})
        elif fault.kind == "moved":
            self._answer(302, b"", {"Location": fault.location})
        elif path == "/a-page-of-the-server" or fault.kind == "page":
            self._answer(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        elif fault.kind == "disguised page":
            self._answer(200, PAGE, {})
        elif fault.kind == "status":
            asked = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            self._answer(int(fault.value), b"an error", asked)
        elif content is None:
            self._answer(404, b"no such file", {})
        else:
            self._send(content, wanted, fault)

    def _send(self, content: bytes, wanted: str | None, fault: Fault) -> None:
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {"Content-Type": "application/octet-stream", "ETag": tag}
        if fault.kind == "no tag":
            headers.pop("ETag")
        if fault.kind == "weak tag":
            headers["ETag"] = f"W/{tag}"
        status, start = 200, 0
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "")
        unchanged = self.headers.get("If-Range") in (None, tag)
        if match and unchanged and "no range" not in fault.kind:
            status, start = 206, int(match[1])
            if start >= len(content):
                self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
                return
            shown = start + int(fault.value) if fault.kind == "shifted range" else start
            headers["Content-Range"] = f"bytes {shown}-{len(content) - 1}/{len(content)}"
        if fault.kind == "no place":
            headers.pop("Content-Range", None)
        body = content[start:]
        length = len(body)
        if fault.kind == "length":
            length = int(fault.value)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault.kind == "no length":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if fault.kind in ("cut", "cut, no range"):
            body = body[: max(int(fault.value) - start, 0)]
        if fault.kind == "cut after":
            body = body[: int(fault.value)]
        self._write(body, fault)
        if fault.kind in ("cut", "cut, no range", "cut after", "length"):
            self.close_connection = True

    def _write(self, body: bytes, fault: Fault) -> None:
        pause = self.server_files.seconds_per_mib / 16
        try:
            for start in range(0, len(body), 2**16):
                self.wfile.write(body[start : start + 2**16])
                time.sleep(pause)
                if fault.kind == "stall":
                    self.wfile.flush()
                    time.sleep(fault.value)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
