"""A server in this process, and what its callers have in common."""

from __future__ import annotations

import contextlib
import threading
import time

import httpx
import uvicorn
from animals import ANIMALS

from colbert_vespa.server.app import create_app
from colbert_vespa.server.engine import Engine
from colbert_vespa.server.settings import ServedAddress, ServerSettings, served_address
from colbert_vespa.store import DocumentStore

URL = "http://127.0.0.1"


def made(folder, bundle, documents=ANIMALS) -> str:
    store = DocumentStore(folder, bundle)
    assert store.put(documents).failed == {}
    store.close()
    return str(folder)


@contextlib.asynccontextmanager
async def serving(*addresses, door=None, clock=None, **settings):
    """A caller of a server of those addresses, as `NAME=ADDRESS` or ADDRESS, with everything loaded."""
    named = [ServedAddress(a.partition("=")[2], a.partition("=")[0]) if "=" in a else ServedAddress(a) for a in addresses]
    engine = Engine(
        named, settings=ServerSettings(**{"timeout": 60.0, **settings}), **({} if clock is None else {"clock": clock})
    )
    app = create_app(engine, door)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL, timeout=60) as http:
        http.app, http.engine = app, engine
        try:
            yield http
        finally:
            await engine.close()


@contextlib.contextmanager
def listening_server(*addresses, door=None, **settings):
    """The URL of a server of those addresses in a thread of this process."""
    engine = Engine(list(map(served_address, addresses)), settings=ServerSettings(**{"timeout": 60.0, **settings}))
    config = uvicorn.Config(create_app(engine, door), port=0, log_config=None, access_log=False, lifespan="on")
    server = uvicorn.Server(config)
    running = threading.Thread(target=server.run)
    running.start()
    try:
        while not server.started and running.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        running.join()


async def refused(call, status):
    """The problem that the server answers."""
    answer = await call
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status and body["request_id"] == answer.headers["x-request-id"]
    return body["detail"]
