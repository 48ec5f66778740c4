"""A proxy on loopback before an S3 server, which does harm to chosen calls."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = ("500", "503", "lost answer", "reset before", "reset after", "truncated", "slow", "wrong bytes")
"""500: refused; 503: SlowDown; lost answer: done, but answered with 500; reset before and after it is done; truncated:
half of the answer; slow: the answer comes too late; wrong bytes: one of the answer, or of the body sent if that is all.
"""

NO_CHECKSUMS = "no checksums: "
"""With S3's code behind it: what carries a checksum is refused by it, as by stores that are older than boto3's own."""

_REFUSALS = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "lost answer": (500, "InternalError"),
    "wrong bytes": (400, "BadDigest"),
}
_HOP = {"connection", "expect", "transfer-encoding", "content-length", "host", "date", "server"}


class FaultyServer(ThreadingHTTPServer):
    """Counts the calls; `fault` happens to those whose number is in `at` (None: to all). `injected`: how many did."""

    daemon_threads = True

    def __init__(self, target: str, late_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.late_s = urlsplit(target).netloc, late_s
        self._lock = threading.Lock()
        self.reset("", ())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reset(self, fault: str, at: Collection[int] | None) -> None:
        self.fault, self.at, self.calls, self.injected = fault, at, 0, 0

    def next_fault(self) -> str:
        with self._lock:
            number, self.calls = self.calls, self.calls + 1
            if not self.fault or (self.at is not None and number not in self.at):
                return ""
            self.injected += 1
            return self.fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not wait for a slow answer is not an error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def handle_call(self) -> None:
        fault = self.server.next_fault()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True
        if fault.startswith(NO_CHECKSUMS):
            sent = [name for name in self.headers if name.lower().startswith(("x-amz-checksum", "x-amz-sdk-checksum"))]
            if sent and self.command in ("PUT", "POST"):
                return self._refuse(fault)
            fault = ""
        if fault in ("500", "503") or (fault == "wrong bytes" and "partNumber=" in self.path):
            return self._refuse(fault)  # S3 compares a part with the checksum sent with it; moto does not
        if fault == "reset before":
            return self._reset()
        status, headers, answer = self._forward(body)
        if fault == "wrong bytes" and not answer and body:
            status, headers, answer = self._forward(_flipped(body))
        elif fault == "wrong bytes":
            answer = _flipped(answer)
        if fault == "lost answer":
            return self._refuse(fault)
        if fault == "reset after":
            return self._reset()
        if fault == "slow":
            time.sleep(self.server.late_s)
        size = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(answer))
        text = f"HTTP/1.1 {status} .\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items() if name.lower() not in _HOP
        )
        message = f"{text}Content-Length: {size}\r\nConnection: close\r\n\r\n".encode() + answer
        self.wfile.write(message[: -max(len(answer) // 2, 20)] if fault == "truncated" else message)
        return None

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_call  # noqa: N815

    def _forward(self, body: bytes) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(self.server.target, timeout=30)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        kept["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body, kept | {"Host": self.server.target})
        answer = connection.getresponse()
        try:
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def _refuse(self, fault: str) -> None:
        status, code = _REFUSALS.get(fault, (400, fault.removeprefix(NO_CHECKSUMS)))
        body = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *args: Any) -> None:
        pass


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else data


@contextmanager
def faulty(target: str, late_s: float) -> Iterator[FaultyServer]:
    """A proxy before the server at the URL. late_s: how late a slow answer is."""
    server = FaultyServer(target, late_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
