"""Chromium as the tests of the book drive it, and the server that it asks."""

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Request

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/favicon.ico":
            super().do_GET()
            return
        # Chromium asks for it, now and then, where a page names no icon: Jupyter Book's index.html.
        self.send_response(http.HTTPStatus.NO_CONTENT)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder on a free port of this machine; gives its address."""
    handler = functools.partial(QuietHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def leaves(address: str, host: str) -> bool:
    return not address.startswith((f"http://{host}/", "data:", "blob:", "file:"))


def fails(request: Request) -> bool:
    """Leaving a page aborts what it still asks for, and a download ends the visit that it began as."""
    return request.failure != "net::ERR_ABORTED"
