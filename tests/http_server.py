"""A real HTTP server of a folder for tests: it answers ranges, counts what it sends, and fails as it is told."""

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Fault = Callable[["Handler", bytes], bool]  # answers in the place of the server; False: the server answers


class Handler(SimpleHTTPRequestHandler):
    """Answers GET and HEAD, of a part of a file too, with an etag."""

    protocol_version = "HTTP/1.1"
    server: "RangeServer"

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = Path(self.translate_path(self.path))
        self.server.requests["PUT", path.name] += 1
        if any(fault(self, content) for fault in list(self.server.faults)):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def answer(self, *, body: bool) -> None:
        path = Path(self.translate_path(self.path))
        self.server.requests[self.command, path.name] += 1
        if path.is_dir() and not self.server.lists:
            return self.send_error(404)
        if path.is_dir():
            return super().do_GET() if body else super().do_HEAD()
        if not path.is_file():
            return self.send_error(404)
        whole = path.read_bytes()
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = whole[int(found[1]) : int(found[2]) + 1] if found else whole
        if any(fault(self, part) for fault in list(self.server.faults)):
            return None
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {found[1]}-{found[2]}/{len(whole)}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{hashlib.md5(whole).hexdigest()}"')
        self.end_headers()
        if body:
            self.server.sent += len(part)
            self.wfile.write(part)
        return None

    def log_message(self, *_: object) -> None:
        pass


class RangeServer(ThreadingHTTPServer):
    """Serves a folder on a free port."""

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(folder)))  # type: ignore[arg-type]
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.lists = True  # whether folders are answered with their files
        self.faults: list[Fault] = []
        self.requests: Counter[tuple[str, str]] = Counter()  # (command, file name)
        self.sent = 0  # bytes of files

    def handle_error(self, *_: object) -> None:
        pass  # a client that hangs up


def fail(count: int, *, status: int = 503, of: str = "") -> Fault:
    """Answers the next `count` requests for files whose name holds `of` with a status."""
    left = [count]

    def fault(handler: Handler, _: bytes) -> bool:
        if left[0] <= 0 or of not in handler.path:
            return False
        left[0] -= 1
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return fault


def break_off(count: int) -> Fault:
    """Sends half of what is asked for and hangs up, `count` times."""
    left = [count]

    def fault(handler: Handler, part: bytes) -> bool:
        if left[0] <= 0 or handler.command != "GET":
            return False
        left[0] -= 1
        handler.send_response(206)
        handler.send_header("Content-Length", str(len(part)))
        handler.end_headers()
        handler.wfile.write(part[: len(part) // 2])
        handler.close_connection = True
        return True

    return fault


def stall(release: threading.Event) -> Fault:
    """Says nothing until it is released."""

    def fault(handler: Handler, _: bytes) -> bool:
        release.wait(20)
        handler.close_connection = True
        return True

    return fault


def without_ranges(handler: Handler, _: bytes) -> bool:
    """Sends the whole file, whatever part is asked for."""
    if handler.command != "GET":
        return False
    whole = Path(handler.translate_path(handler.path)).read_bytes()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(whole)))
    handler.end_headers()
    handler.wfile.write(whole)
    return True


@contextmanager
def serve(folder: Path) -> Iterator[RangeServer]:
    """Serves a folder within the block."""
    server = RangeServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
