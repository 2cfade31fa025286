"""A served index and a real browser that looks at its page."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import uvicorn

from colbert_vespa.server.app import create_app
from colbert_vespa.server.engine import Engine
from colbert_vespa.server.settings import ServerSettings, served_address

WAIT_MS = 60_000  # a loaded machine is slow; nothing here waits as long when all is well
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (e) => window.violations.push(`${e.violatedDirective} ${e.blockedURI}`));
"""


class PageServer:
    """uvicorn on the loopback address, in a thread. Stopped and started again it has the same port."""

    def __init__(self, *addresses: str, door=None, **settings) -> None:
        self.addresses, self.door, self.settings = addresses, door, settings
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        engine = Engine([served_address(one) for one in self.addresses], settings=ServerSettings(**self.settings))
        app = create_app(engine, self.door) if self.door else create_app(engine)
        listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = listener.getsockname()[1]
        config = uvicorn.Config(app, log_config=None, access_log=False, ws="none", lifespan="on", timeout_graceful_shutdown=2)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([listener],), daemon=True)
        self.thread.start()
        until = time.monotonic() + 120
        while not self._ready():
            assert time.monotonic() < until and self.thread.is_alive(), "the server did not become ready"
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}ready", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()

    def ask(self, path: str, body: object = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def search(self, query: str, **options):
        return self.ask("v1/search", {"query": query, **options})["results"][0]["hits"]

    def address(self, **state: object) -> str:
        """Of the page in that state."""
        return f"{self.url}?{urlencode({name: json.dumps(v) if isinstance(v, dict) else v for name, v in state.items()})}"


@contextlib.contextmanager
def chromium() -> Iterator[object]:
    """Debian's browser by playwright; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no chromium on this machine (apt-get install chromium): the page is not looked at")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--disable-gpu", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser, *, refused: bool = False, **context) -> Iterator[object]:
    """A page of its own context. It must not say anything on the console, and break no policy; refused: answers of the server
    that are errors are expected, which a browser always tells."""
    context = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce", **context}
    with contextlib.closing(browser.new_context(**context)) as own:
        own.set_default_timeout(WAIT_MS)
        own.add_init_script(WATCH)
        page, said = own.new_page(), []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
        yield page
        page.unroute_all(behavior="ignoreErrors")
        assert page.evaluate("window.violations") == []
        if refused:
            said = [line for line in said if "Failed to load resource" not in line]
        assert said == []


def titles(page) -> list[str]:
    return page.locator(".result .title").all_inner_texts()


def settled(page) -> None:
    """Nothing is under way any more."""
    page.locator("main[aria-busy=false]").wait_for()


def shows(page, results: int) -> None:
    """Waits until that many results are shown."""
    from playwright.sync_api import expect

    expect(page.locator(".result")).to_have_count(results, timeout=WAIT_MS)
