"""What is read from outside has an end, links do not leave a package, and passwords are in no message."""

from __future__ import annotations

import asyncio
import gzip
import time

import httpx
import pytest

from exporter.checkpoint_folder import read_json
from exporter.hub import find_checkpoint
from feeder.feeding.settings import read_feed_settings
from late_interaction.errors import CheckpointError, SettingsError, UsageError, VespaError, VespaRefused, VespaTimeout
from query.exchange import AsyncExchange, Exchange
from query.options import ClientSettings
from query.plans import VespaQuery
from vespa_app.package.zips import visible_files
from vespa_app.running.http import answer_json, connect
from vespa_app.settings import AppSettings

URL = "http://vespa.example:8080"
SETTINGS = ClientSettings(retries=0)
GOOD = b'{"root": {"fields": {"totalCount": 0}, "children": []}}'
DEEP = b"[" * 200_000


class Blocks(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, *blocks: bytes, tick=lambda: None) -> None:
        self._blocks, self._tick = blocks, tick

    def __iter__(self):
        for block in self._blocks:
            self._tick()
            yield block

    async def __aiter__(self):
        for block in self:
            yield block


def served(*blocks: bytes, tick=lambda: None, **headers: str) -> httpx.MockTransport:
    return httpx.MockTransport(lambda request: httpx.Response(200, headers=headers, stream=Blocks(*blocks, tick=tick)))


def ask(transport, asynchronous: bool, clock=time.monotonic):
    question = VespaQuery(URL, {"yql": "select"}, clock() + 5)
    if not asynchronous:
        exchange = Exchange(SETTINGS, transport=transport, clock=clock)
        try:
            return exchange.ask([question])[0].body
        finally:
            exchange.close()

    async def run():
        exchange = AsyncExchange(SETTINGS, transport=transport, clock=clock)
        try:
            return (await exchange.ask([question]))[0].body
        finally:
            await exchange.close()

    return asyncio.run(run())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_query_reads_no_further_than_a_limit(asynchronous, monkeypatch):
    assert ask(served(GOOD[:9], GOOD[9:]), asynchronous)["root"]["children"] == []
    packed = gzip.compress(GOOD)
    assert ask(served(packed, **{"Content-Encoding": "gzip"}), asynchronous)["root"]["children"] == []
    monkeypatch.setattr("vespa_app.running.http.MOST_BYTES", 1 << 20)
    with pytest.raises(VespaRefused, match="returned more than 1 MiB"):
        ask(served(*[b" " * 65536] * 100), asynchronous)
    with pytest.raises(VespaRefused, match="returned more than 1 MiB"):
        ask(served(gzip.compress(bytes(1 << 22)), **{"Content-Encoding": "gzip"}), asynchronous)
    with pytest.raises(VespaError, match="search result"):
        ask(served(DEEP), asynchronous)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_query_that_is_answered_byte_by_byte_ends_with_its_time(asynchronous):
    now = [0.0]

    def tick() -> None:
        now[0] += 1

    with pytest.raises(VespaTimeout, match="did not answer in time"):
        ask(served(*[b" "] * 1000, tick=tick), asynchronous, clock=lambda: now[0])
    assert now[0] < 20


def test_other_requests_read_no_further_than_a_limit(monkeypatch):
    monkeypatch.setattr("vespa_app.running.http.MOST_BYTES", 1 << 20)
    with connect(URL, transport=served(b'{"a": ', b"1}")) as client:
        assert answer_json(client.get("/x")) == {"a": 1}
        assert client.get("/x").text == '{"a": 1}'
    for blocks, headers in (([b" " * 65536] * 100, {}), ([gzip.compress(bytes(1 << 22))], {"Content-Encoding": "gzip"})):
        with connect(URL, transport=served(*blocks, **headers)) as client, pytest.raises(VespaRefused, match="more than 1 MiB"):
            client.get("/x")


def test_json_and_toml_that_are_nested_too_deeply(tmp_path):
    with connect(URL, transport=served(DEEP)) as client, pytest.raises(VespaRefused, match="did not return"):
        answer_json(client.get("/x"))
    (tmp_path / "x.toml").write_text("x = " + "[" * 50_000)
    for read in (AppSettings.from_toml, read_feed_settings):
        with pytest.raises(SettingsError, match=r"x\.toml"):
            read(tmp_path / "x.toml")
    (tmp_path / "config.json").write_bytes(DEEP)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        read_json(tmp_path / "config.json")


def test_links_do_not_leave_a_package(tmp_path):
    (tmp_path / "secret").write_text("secret")
    package = tmp_path / "package"
    (package / "schemas").mkdir(parents=True)
    (package / "schemas/a.sd").write_text("a")
    (package / "schemas/b.sd").symlink_to("a.sd")
    assert sorted(visible_files(package)) == ["schemas/a.sd", "schemas/b.sd"]
    (package / "schemas/c.sd").symlink_to("../../secret")
    with pytest.raises(SettingsError, match=r"schemas/c.sd is a link to a file outside the package"):
        visible_files(package)


@pytest.mark.parametrize("proxy", ["foo://user:word@host", "socks9://user:word@host", "http://user:word@host:port"])
def test_a_proxy_that_cannot_be_used(proxy, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(UsageError, match="the proxy that .* cannot be used.*add vespa.example to NO_PROXY") as caught:
        connect(URL)
    assert "word" not in str(caught.value)
    monkeypatch.setenv("NO_PROXY", "*")
    connect(URL).close()


def test_a_hubs_password_is_in_no_message(monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_args, **_options):
        url = "https://user:word@hub.example/x?X-Amz-Signature=abcdef"
        raise errors.HfHubHTTPError(
            f"403 Forbidden for url: {url}", response=httpx.Response(403, request=httpx.Request("GET", url))
        )

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("owner/name", revision=None, local_files_only=False)
    assert "hub.example" in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("user", "word", "abcdef"))
