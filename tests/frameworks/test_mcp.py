"""The MCP server, asked by the SDK's own client: in memory, and as the command line starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import httpx
import pytest
from animals import ANIMALS, QUERY
from mcp import Client as McpClient
from mcp import StdioServerParameters

from colbert_vespa import mcp_server
from colbert_vespa.mcp_server import MAX_QUERY, MAX_RESULTS, build_server
from late_interaction.errors import VespaTimeout
from query.options import SearchOptions


def opened(client, **options):
    """An agent: a context manager, as it must be left by the task that entered it."""
    return McpClient(build_server(client, **options))


async def call(agent, tool, **arguments):
    """Structured output, which the text of the answer repeats."""
    answer = await agent.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    assert json.loads(answer.content[0].text) == answer.structured_content
    return answer.structured_content


async def refused(agent, tool, **arguments):
    answer = await agent.call_tool(tool, arguments)
    assert answer.is_error and answer.structured_content is None
    return answer.content[0].text


async def test_the_tools_say_what_they_take_and_give(client):
    async with opened(client) as agent:
        tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
        assert set(tools) == {"search", "fetch"}
        assert tools["search"].input_schema["required"] == ["query"]
        options = {n: p["default"] for n, p in tools["search"].input_schema["properties"].items() if n != "query"}
        assert options == {"k": SearchOptions.k, "where": SearchOptions.where}
        assert "legs (long)" in tools["search"].input_schema["properties"]["where"]["description"]
        assert tools["fetch"].input_schema["required"] == ["id"]
        result = tools["search"].output_schema
        assert {"id", "title", "text", "url"} <= set(result["$defs"]["FoundDocument"]["required"])
        assert {"id", "title", "text", "url", "metadata"} <= set(tools["fetch"].output_schema["required"])
        assert all(tool.annotations.read_only_hint for tool in tools.values())


async def test_search_gives_documents_and_fetch_gives_one(client):
    async with opened(client, url_field="home") as agent:
        found = (await call(agent, "search", query=QUERY, k=3))["results"]
        hits = client.search(QUERY, 3).hits
        assert [(item["id"], item["score"]) for item in found] == [(hit.id, pytest.approx(hit.score)) for hit in hits]
        assert found[0] | {"score": 0} == {"id": "cat", "title": "Cats", "text": ANIMALS[0].text, "url": "house", "score": 0}
        whole = await call(agent, "fetch", id="fish")
        assert whole == {
            "id": "fish", "title": "fish", "text": ANIMALS[3].text, "url": "", "metadata": ANIMALS[3].metadata,
            "truncated": False,
        }  # fmt: skip


async def test_a_cross_encoder_puts_the_documents_in_order(crossed):
    client, _, reader = crossed
    wanted = [hit.id for hit in client.search(QUERY, 3, group=True, rerank_with=reader).hits]
    async with opened(client, rerank_with=reader) as agent:
        assert [item["id"] for item in (await call(agent, "search", query=QUERY, k=3))["results"]] == wanted


async def test_a_filter_selects(client):
    async with opened(client) as agent:
        found = await call(agent, "search", query=QUERY, where={"legs": {"$lt": 3}})
        assert {item["id"] for item in found["results"]} == {"bird", "fish"}


async def test_what_is_wrong_is_an_error_of_the_tool(client):
    async with opened(client) as agent:
        assert "no document 'horse'" in await refused(agent, "fetch", id="horse")
        assert "'wings' unknown; the fields" in await refused(agent, "search", query=QUERY, where={"wings": 2})
        assert "blank" in await refused(agent, "search", query=" ")
        for arguments in ({"query": ""}, {"query": "x" * (MAX_QUERY + 1)}, {"query": "x", "k": MAX_RESULTS + 1}, {}):
            await refused(agent, "search", **arguments)
        await refused(agent, "fetch", id="")


async def test_a_backend_that_fails_is_named_and_nothing_else(client, monkeypatch):
    async def fail(*args, **kwargs):
        raise VespaTimeout("Vespa at http://vespa:8080 ran out of time: x")

    monkeypatch.setattr(mcp_server.AsyncClient, "search", fail)
    async with opened(client) as agent:
        said = await refused(agent, "search", query="x")
    assert said == "Error executing tool search: Vespa at http://vespa:8080 ran out of time: x"


async def test_long_texts_are_cut_off(client, monkeypatch):
    monkeypatch.setattr(mcp_server, "MAX_PASSAGE", 7)
    monkeypatch.setattr(mcp_server, "MAX_TEXT", 7)
    async with opened(client) as agent:
        assert (await call(agent, "search", query=QUERY, k=1))["results"][0]["text"] == "the cat"
        fetched = await call(agent, "fetch", id="cat")
    assert (fetched["text"], fetched["truncated"]) == ("the cat", True)


async def test_the_command_line_serves_standard_input(animals, tmp_path):
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "colbert_vespa", "serve", animals, "--stdio"], cwd=str(tmp_path),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    async with McpClient(command) as agent:
        assert (await call(agent, "fetch", id="cat"))["title"] == "Cats"


async def test_the_command_line_serves_http_on_this_machine_alone(animals, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "colbert_vespa", "serve", animals, "--mcp", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    url = f"http://127.0.0.1:{port}/mcp"
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as server:
        try:
            with httpx.Client() as http:
                until_it_listens(http, url, server)
                # a page elsewhere whose name has been made to mean this machine
                assert http.post(url, json={}, headers={"Host": f"evil.example:{port}"}).status_code == 421
                assert http.post(url, json={}, headers={"Origin": "http://evil.example"}).status_code == 403
            async with McpClient(url) as agent:
                assert (await call(agent, "fetch", id="cat"))["title"] == "Cats"
        finally:
            server.terminate()
            server.stderr.read()


def until_it_listens(http, url, server):
    deadline = time.monotonic() + 120
    while True:
        try:
            return http.get(url)
        except httpx.ConnectError:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)


def test_what_cannot_be_served_is_told(cli, animals, tmp_path):
    assert "serves one index" in cli("serve", animals, str(tmp_path), "--stdio", code=2).stderr
    assert "from 0 to 65535" in cli("serve", animals, "--port", "70000", code=2).stderr
    cli("serve", str(tmp_path / "nowhere"), "--port", "0", code=1)
    cli("serve", str(tmp_path / "nowhere"), "--stdio", code=1)


@pytest.mark.live
async def test_vespa_is_served(world):
    async with opened(world.vespa) as agent:
        found = (await call(agent, "search", query="parse command line options", k=3))["results"]
        whole = await call(agent, "fetch", id=found[0]["id"])
    assert len(found) == 3
    assert whole["text"] == next(d.text for d in world.documents if d.id == found[0]["id"])
