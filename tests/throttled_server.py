"""An HTTP server of a folder in a process of its own, with a latency and a bandwidth, for measurements."""

import multiprocessing
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

CHUNK = 1 << 16  # bytes


class Throttled(ThreadingHTTPServer):
    """Answers each request after `latency` seconds, and sends `bandwidth` bytes a second to all clients together."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, folder: Path, *, latency: float, bandwidth: float):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.latency = latency
        self.bandwidth = bandwidth
        self.free_at = 0.0  # when what was sent has passed the line
        self.lock = threading.Lock()

    def wait_for_line(self, num_bytes: int) -> None:
        with self.lock:
            self.free_at = max(self.free_at, time.monotonic()) + num_bytes / self.bandwidth
            wait = self.free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)

    def handle_error(self, *_: object) -> None:
        pass  # a client that hangs up


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Throttled

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        time.sleep(self.server.latency)
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size = path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(found[1]), min(int(found[2]), size - 1)) if found else (0, size - 1)
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{size}-{path.stat().st_mtime_ns}"')
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            for offset in range(first, last + 1, CHUNK):
                length = min(CHUNK, last + 1 - offset)
                self.server.wait_for_line(length)
                self.wfile.write(os.pread(file.fileno(), length, offset))

    def log_message(self, *_: object) -> None:
        pass


def run(folder: Path, latency: float, bandwidth: float, said: Connection) -> None:
    server = Throttled(folder, latency=latency, bandwidth=bandwidth)
    said.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def throttled(folder: Path, *, latency: float, bandwidth: float) -> Iterator[str]:
    """The address of the folder within the block: `latency` in seconds, `bandwidth` in bytes a second."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(folder, latency, bandwidth, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()
