"""`index`: maintenance of a local index."""

from __future__ import annotations

import datetime
import functools
import itertools
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.copy_commands import add_copy_commands
from colbert_vespa.cli.option_types import COUNT, Json, folder_to_write, path, real
from late_interaction.errors import CollectionError, UsageError
from late_interaction.text import clean_text

if TYPE_CHECKING:
    from late_interaction.documents import Passage
    from late_interaction.plaid import PlaidIndex

__all__ = ["index_app", "question_lines"]

index_app = typer.Typer(
    no_args_is_help=True, help="Versions, maintenance and tuning of a local index; copies and backups of any index."
)
add_copy_commands(index_app)
Index = Annotated[Path, typer.Argument(help="Local index folder.", parser=path)]
SEED = 7
TUNING_S = 600.0  # that a shard has for a query: exact ones take long, and nobody waits for them
WORDS = 12  # of a passage's beginning, as a question about it
ROWS = 16  # of its vectors, where the bundle has no model


@index_app.command()
def info(index: Index, json_output: Json = False) -> None:
    """Show the content of an index, how it is stored, and how far its vectors have drifted from its codebook."""
    from colbert_vespa.index_info import index_info
    from late_interaction.plaid import open_index

    out = Output(json_output=json_output)
    result = index_info(open_index(index))
    shown = {
        name.replace("_", " "): str(value)
        for name, value in result.items()
        if name not in ("shard_sizes", "dense", "one_vector")
    }
    for name, dense in result.get("dense", {}).items():
        shown[f"dense model {name}"] = f"{dense['dim']} dimensions, {dense['bytes']:,} bytes{_graph(dense)}"
    if one := result.get("one_vector"):
        shown["one vector per passage"] = f"encoding {one['encoding']}, {one['bytes']:,} bytes{_graph(one)}"
    out.table(shown)
    for shard in result.get("shard_sizes", ()):
        out.say(f"shard-{shard['shard']}: {shard['error'] or str(shard['passages']) + ' passages'}")
    out.result(result)


def _graph(dense: Mapping[str, Any]) -> str:
    """Describe how many vectors of a dense model are in a graph, if the index is large enough for one."""
    linked = f", {dense['linked']:,} vectors in an HNSW graph" if dense["linked"] else ""
    if not dense["unlinked"]:
        return linked
    return f"{linked}, {dense['unlinked']:,} compared one by one; pip install 'colbert-vespa[hnsw]', then `index compact`"


@index_app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(help="Folder of an index of colbert-ai, RAGatouille, PyLate or fast-plaid.", parser=path)
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Local index to create.", parser=folder_to_write)],
    bundle: Annotated[
        Path, typer.Option("--bundle", help="Bundle of the checkpoint that the index was built with.", parser=path)
    ],
    collection: Annotated[
        Path | None,
        typer.Option(
            "--collection", help="Its documents, one per line and in its order: .jsonl or ColBERT's .tsv.", parser=path
        ),
    ] = None,
    json_output: Json = False,
) -> None:
    """Convert another engine's index: nothing is encoded again, and no code in its files is run."""
    from feeder.sources import open_sources
    from late_interaction.bundle import Bundle
    from late_interaction.plaid.imports import TsvCollection, import_index

    out = Output(json_output=json_output)
    documents = None
    if collection is not None:
        documents = TsvCollection(collection) if collection.suffix == ".tsv" else open_sources([str(collection)])[0]
    with out.steps() as bars:
        progress = functools.partial(bars, "passages")
        index = import_index(source, output, bundle=Bundle.open(bundle), documents=documents, progress=progress)
    result = {"index": str(output), "documents": index.documents, "passages": index.passages}
    result |= {"token_vectors": index.token_vectors, "dim": index.dim, "bits": index.bits}
    out.say(f"imported {index.passages} passages, {index.token_vectors} token vectors of {index.dim} x {index.bits} bits")
    out.result(result)


@index_app.command()
def versions(index: Index, json_output: Json = False) -> None:
    """List the stored versions; with shards, those that all shards have."""
    from late_interaction.plaid import open_index

    out = Output(json_output=json_output)
    opened = open_index(index)
    found = []
    for version in opened.versions():
        moment = datetime.datetime.fromtimestamp(version.created, datetime.timezone.utc)
        row = {"version": version.number, "name": version.name, "passages": version.passages}
        row |= {"created": moment.isoformat(), "current": version.number == opened.version}
        found.append(row)
        mark = "*" if row["current"] else " "
        out.say(f"{mark} {version.number:>6}  {moment:%Y-%m-%d %H:%M:%S}  {version.passages:>9} passages  {version.name}")
    for shard, why in opened.missing.items():
        out.say(f"without shard-{shard}: {why}")
    out.result({"versions": found})


@index_app.command()
def name(
    index: Index,
    name: Annotated[str, typer.Argument(help="Name that keeps this version from being pruned.")],
    json_output: Json = False,
) -> None:
    """Name the current version, so that it is kept."""
    from late_interaction.plaid import open_index

    out = Output(json_output=json_output)
    if not name:
        raise UsageError("a version's name cannot be empty")
    with open_index(index).writer() as writer:
        summary = writer.commit(name)
    out.say(f"version {summary.version} is named {name}")
    out.result({"version": summary.version, "name": name})


@index_app.command()
def rollback(
    index: Index,
    to: Annotated[str, typer.Argument(help="Number or name of the version to go back to.")],
    json_output: Json = False,
) -> None:
    """Make a new version with the content of an older one."""
    from late_interaction.plaid import open_index

    out = Output(json_output=json_output)
    with open_index(index).writer() as writer:
        summary = writer.rollback(int(to) if to.isdecimal() and len(to) < 19 else to)
    out.say(f"version {summary.version} has the content of version {to}: {summary.passages} passages")
    out.result({"version": summary.version, "passages": summary.passages})


@index_app.command()
def prune(
    index: Index,
    keep: Annotated[
        int, typer.Option("--keep", help="How many of the newest versions to keep, besides named ones.", parser=COUNT)
    ] = 1,
    json_output: Json = False,
) -> None:
    """Remove old versions without a name, and the files that only they need."""
    from late_interaction.plaid import open_index

    out = Output(json_output=json_output)
    with open_index(index).writer() as writer:
        removed = writer.prune(keep)
    out.say(f"removed {len(removed)} versions" + (f": {', '.join(map(str, removed))}" if removed else ""))
    out.result({"removed": removed})


@index_app.command()
def discard(index: Index, json_output: Json = False) -> None:
    """Discard the data that an interrupted feed keeps for `feed --resume`."""
    from late_interaction.plaid import open_index

    out = Output(json_output=json_output)
    opened = open_index(index)
    with opened.writer() as writer:
        writer.discard()
    out.say(f"version {opened.version} is current; there are no uncommitted changes")
    out.result({"version": opened.version})


@index_app.command()
def compact(index: Index, json_output: Json = False) -> None:
    """Rewrite the index as one segment without deleted passages; train a new codebook if it has doubled or drifted."""
    from late_interaction.plaid import open_index

    out = Output(json_output=json_output)
    opened = open_index(index)
    before = _drift(opened)
    with opened.writer() as writer:
        summary = writer.commit(compact=True)
    result = {"version": summary.version, "passages": summary.passages, "seconds": round(summary.seconds, 2)}
    where = "one segment of every shard" if opened.sharding else "one segment"
    out.say(f"version {summary.version}: {summary.passages} passages in {where}, {summary.seconds:.1f} s")
    for was, now in zip(before, _drift(opened), strict=True):
        if was is not None and now is not None:
            out.say(f"drift {was:.4f}, now {now:.4f}")
    out.result(result)


def _drift(index: PlaidIndex) -> list[float | None]:
    """Return the drift of the index, or of each shard."""
    return [reader.drift for reader in index.readers().values()]


@index_app.command()
def verify(index: Index, json_output: Json = False) -> None:
    """Read every file and compare every checksum."""
    from late_interaction.plaid import open_index

    out = Output(json_output=json_output)
    opened = open_index(index)
    opened.verify()
    if opened.sharding is not None:
        out.say(f"{opened.sharding}: every passage is in its shard")
    out.say(f"version {opened.version}: every file is unchanged")
    out.result({"version": opened.version, "ok": True})


@index_app.command()
def tune(
    index: Index,
    recall: Annotated[
        float,
        typer.Option("--recall", help="Share of the exact top k that searches should find.", parser=real(0, 1, above=True)),
    ] = 0.98,
    k: Annotated[int, typer.Option("-k", help="Hits that are compared.", parser=COUNT)] = 10,
    queries: Annotated[
        Path | None, typer.Option("--queries", help="Queries, one per line; default: beginnings of 100 passages.", parser=path)
    ] = None,
    json_output: Json = False,
) -> None:
    """Find the least effort that reaches a recall on this index, and store it as the default of searches."""
    from late_interaction.encoder import Encoder
    from late_interaction.plaid import open_index
    from late_interaction.plaid.shards import ShardSettings

    out = Output(json_output=json_output)
    opened = open_index(index, ShardSettings(timeout=TUNING_S))
    if queries is None and not opened.bundle.encodes:
        rows = [opened.vectors(passage.id)[:ROWS] for passage in _some(opened)]
    else:
        rows = Encoder(opened.bundle).encode_queries(question_lines(queries) if queries else _beginnings(opened))
    found = opened.tune(rows, recall=recall, k=k)
    reached = {"probes": found.probes, "rerank": found.rerank, "recall": found.recall, "k": k, "queries": found.queries}
    out.say(f"probes {found.probes}, rerank {found.rerank}: recall@{k} {found.recall:.3f} over {found.queries} queries; stored")
    out.result(reached)


def question_lines(file: Path) -> list[str]:
    """Return the lines of a file that have text.

    Raises:
        UsageError: If the file has none.
    """
    from colbert_vespa.evaluation.collection import text_lines

    try:
        texts = [clean_text(line).strip() for line in text_lines(file) if clean_text(line).strip()]
    except CollectionError as error:
        raise UsageError(f"queries {error}") from None
    if not texts:
        raise UsageError(f"queries {file} has no line with a question")
    return texts


def _some(index: Any) -> Iterator[Passage]:
    """Return a seeded sample of a hundred passages."""
    chosen = set(random.Random(SEED).sample(range(index.passages), min(100, index.passages)))
    return (passage for place, passage in enumerate(index.iter_passages()) if place in chosen)


def _beginnings(index: Any) -> list[str]:
    """Return the first words of a sample of passages."""
    texts = [" ".join(itertools.islice((p.text or p.title).split(), WORDS)) for p in _some(index)]
    return [text for text in texts if text]
