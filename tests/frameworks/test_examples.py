"""examples/ and the code in docs/how-to/frameworks.md run."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
from animals import ANIMALS, QUERY
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from late_interaction.errors import MissingDependency
from query import Client

ROOT = Path(__file__).resolve().parents[2]


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_chain_streams_its_answer(client):
    asked = []

    class Model(GenericFakeChatModel):
        def _generate(self, messages, *args, **kwargs):
            asked.extend(messages)
            return super()._generate(messages, *args, **kwargs)

    model = Model(messages=iter([AIMessage("a cat did")]))
    pieces = [piece for piece in example("langchain_chain").answer(client, QUERY, model) if piece]
    assert pieces == ["a", " ", "cat", " ", "did"]
    assert f"[cat#0] {ANIMALS[0].text}" in asked[0].content


async def test_a_chain_tells_what_it_does(client):
    model = GenericFakeChatModel(messages=iter([AIMessage("a cat did")]))
    chain = example("langchain_chain").chain_over(client, model)
    seen = [event async for event in chain.astream_events(QUERY, version="v2")]
    kinds = [event["event"] for event in seen]
    assert kinds.index("on_retriever_end") < kinds.index("on_chat_model_stream")
    (found,) = [event["data"]["output"] for event in seen if event["event"] == "on_retriever_end"]
    assert found[0].id == "cat"


def test_an_agent_searches_and_answers(client):
    agent = example("langchain_agent")
    said, read = agent.ask(client, QUERY, agent.script(QUERY))
    assert said == "That is what the index says."
    assert read[0] == "cat" and len(read) == 3


def test_documents_are_ingested_and_found(tmp_path, minilm_bundle):
    from llama_index.core import Document

    ingestion, index = example("llamaindex_ingestion"), str(tmp_path / "index")
    documents = [Document(id_=d.id, text=d.text) for d in ANIMALS]
    assert ingestion.ingest(documents, str(minilm_bundle.path), index) == 4
    assert ingestion.ingest(documents[:1], str(minilm_bundle.path), index) == 1
    with Client(index) as client:
        assert len(client.select()) == 4
        assert ingestion.hybrid(client, QUERY, 2)[0].node.ref_doc_id == "cat"


def test_the_code_of_the_documentation_runs(animals, minilm_bundle, tmp_path, monkeypatch):
    (tmp_path / "animals").symlink_to(animals)
    (tmp_path / "bundle").symlink_to(minilm_bundle.path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "how-to" / "frameworks.md").read_text("utf-8"), re.S)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(block, names)
    assert [d.id for d in names["best"]] == ["cat"]
    assert names["reranked"][0].metadata["relevance_score"] > 0
    assert [n.node.ref_doc_id for n in names["nodes"]] == ["tea"]
    assert names["answer"]["ranker"]["documents"][0].id == "cat#0"
    names["client"].close()
    for name in ("retriever", "ranker"):
        names["pipeline"].get_component(name).close()


@pytest.mark.parametrize(
    ("module", "package", "extra"),
    [
        ("colbert_vespa.langchain", "langchain_core", "langchain"),
        ("colbert_vespa.llamaindex", "llama_index.core", "llamaindex"),
        ("colbert_vespa.haystack", "haystack", "haystack"),
        ("colbert_vespa.mcp_server", "mcp.server", "serve"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(module, package, extra, monkeypatch):
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"pip install 'colbert-vespa\[{extra}\]'"):
        importlib.import_module(module)


def test_page_images_are_found_with_their_patches(tmp_path, capsys):
    found = example("page_images").main(tmp_path)
    assert [int(id_.removeprefix("page-")) % 3 for id_ in found] == [2, 2, 2]  # those with a stamp
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "30 pages of 1024 rows"
    assert sum(line.count("#") for line in lines) == 48  # patches of the stamp
