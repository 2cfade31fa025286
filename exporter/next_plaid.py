"""Convert next-plaid's ONNX folders to bundles, without torch.

`pylate-onnx-export` writes onnx_config.json, model.onnx and tokenizer.json. The rules are those of next-plaid-onnx 1.x:
trim, lower-case, tokenize in full, keep the first `length` - 2 ids and the last one, insert the marker at position 1, pad.
Its attention mask is 1 on expansion rows whatever attend_to_expansion_tokens says, and the bundle records that, because its
users search that way. Unknown skip words are ignored. Text is trimmed by Python's definition of whitespace, which has the
separators U+001C to U+001F in addition to Rust's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.checkpoint_folder import CheckpointFolder
from exporter.graph import load_graph, save_graph, save_tokenizer
from exporter.options import ExportOptions
from exporter.quantization import quantize_all
from exporter.rules import chosen_dim, with_options
from exporter.verification import ExportReport, compare_graphs, verification_texts
from late_interaction.bundle import (
    ATTENTION_MASK,
    INPUT_IDS,
    OUTPUT,
    Bundle,
    Expansion,
    Manifest,
    SideRules,
    write_manifest,
)
from late_interaction.cores import cores
from late_interaction.devices import Device, Graph, open_graph
from late_interaction.errors import CheckpointError
from late_interaction.tokenizing import Tokenizing, TokenRows

__all__ = ["write_next_plaid"]

CONFIG, MODEL, TOKENIZER = "onnx_config.json", "model.onnx", "tokenizer.json"
TOKEN_TYPES, THEIR_OUTPUT = "token_type_ids", "output"


@dataclass(frozen=True)
class _Settings:
    """onnx_config.json with next-plaid's own defaults, and ids found in its way."""

    lengths: dict[str, int]
    markers: dict[str, int]
    expand: bool
    mask_id: int
    pad_id: int
    skip_ids: tuple[int, ...]
    lower_case: bool


def write_next_plaid(
    folder: CheckpointFolder, output: Path, source: str, options: ExportOptions, progress: Callable[[str], None]
) -> tuple[Bundle, ExportReport]:
    """Write the bundle into the existing folder `output`, and compare it with the original graph run by next-plaid's rules.

    Raises:
        CheckpointError: if files are missing or damaged, or the graph has another form.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    for name in (MODEL, TOKENIZER):
        if name not in folder.files:
            raise CheckpointError(f"{folder.shown} has {CONFIG} but no {name}")
    try:
        tokenizer = Tokenizer.from_file(str(folder.path / TOKENIZER))
    except Exception as error:  # noqa: BLE001  tokenizers raises bare Exception
        raise CheckpointError(f"{folder.shown / TOKENIZER} cannot be read: {error}") from None
    settings = _settings(folder, tokenizer)
    graph = _opened(folder.path / MODEL)
    width = int(_run(graph, [settings.markers["query"]] * 2, [1, 1]).shape[1])
    if (stated := folder.read(CONFIG).get("embedding_dim", width)) != width:
        raise CheckpointError(f"{folder.shown}: {CONFIG} says {stated} dimensions, but the graph returns {width}")
    dim = chosen_dim(options, width, "graph")
    _write_graph(folder.path / MODEL, output / MODEL, dim)
    models = quantize_all(options.quantize, output / MODEL, progress)
    save_tokenizer(tokenizer, output / TOKENIZER)
    trained = _manifest(settings, source, dim, models)
    chosen = with_options(trained, options, PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    bundle = write_manifest(output, chosen)
    progress("verifying against the graph as it was")
    return bundle, _verify(graph, tokenizer, bundle, trained, settings, options)


def _settings(folder: CheckpointFolder, tokenizer: Any) -> _Settings:
    config = folder.read(CONFIG)

    def special(key: str, default: int, *names: str) -> int:
        """Return a special token's id; the default value means that the tokenizer is looked up."""
        given = int(config.get(key, default))
        ids = [id_ for name in names if (id_ := tokenizer.token_to_id(name)) is not None]
        return ids[0] if given == default and ids else given

    markers = {}
    for side, default in (("query", "[Q] "), ("document", "[D] ")):
        prefix = config.get(f"{side}_prefix", default)
        id_ = config.get(f"{side}_prefix_id")
        id_ = tokenizer.token_to_id(prefix) if id_ is None else id_
        if id_ is None:
            raise CheckpointError(
                f"{folder.shown}: marker token {prefix!r} is not in its vocabulary, so next-plaid cannot load it either"
            )
        markers[side] = int(id_)
    lengths = {"query": int(config.get("query_length", 48)), "document": int(config.get("document_length", 300))}
    stored = tokenizer.truncation
    if stored is not None and stored["max_length"] < max(lengths.values()) - 1:
        raise CheckpointError(
            f"{folder.shown / TOKENIZER} truncates to {stored['max_length']} tokens, fewer than {CONFIG} says, and "
            f"next-plaid would cut documents there; save the tokenizer without truncation"
        )
    ends = tokenizer.encode("a").special_tokens_mask
    if not (ends[0] and ends[-1]):
        raise CheckpointError(
            f"{folder.shown}: next-plaid takes a long text's last token for the separator, but this tokenizer adds none"
        )
    ids = {tokenizer.token_to_id(word) for word in config.get("skiplist_words", ())} - {None}
    return _Settings(
        lengths=lengths,
        markers=markers,
        expand=bool(config.get("do_query_expansion", True)),
        mask_id=special("mask_token_id", 103, "[MASK]", "<mask>"),
        pad_id=special("pad_token_id", 0, "[PAD]", "<pad>"),
        skip_ids=tuple(sorted(ids)),
        lower_case=bool(config.get("do_lower_case", False)),
    )


def _manifest(settings: _Settings, source: str, dim: int, models: dict[str, str]) -> Manifest:
    query, document = settings.lengths["query"], settings.lengths["document"]
    expansion = Expansion(query, settings.mask_id, attend=True) if settings.expand else None
    return Manifest(
        source=Path(source).name if Path(source).exists() else source,
        layout="next-plaid",
        dim=dim,
        query=SideRules(length=query, marker_id=settings.markers["query"], expansion=expansion),
        document=SideRules(length=document, marker_id=settings.markers["document"], skip_ids=settings.skip_ids),
        pad_id=settings.pad_id,
        max_tokens=max(query, document),
        strip=True,
        lower_case=settings.lower_case,
        models=models,
    )


def _opened(path: Path) -> Graph:
    """Open the original graph; CheckpointError if onnxruntime refuses it, or it is not one of next-plaid's."""
    try:
        graph = open_graph(path, cores())
    except Exception as error:  # noqa: BLE001  onnxruntime's exceptions have no public base class
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if graph.outputs != {THEIR_OUTPUT} or not {INPUT_IDS, ATTENTION_MASK} <= graph.inputs <= {
        INPUT_IDS,
        ATTENTION_MASK,
        TOKEN_TYPES,
    }:
        raise CheckpointError(
            f"{path} has inputs {sorted(graph.inputs)} and outputs {sorted(graph.outputs)}, not those of a next-plaid graph"
        )
    return graph


def _run(graph: Graph, ids: Sequence[int], attention: Sequence[int]) -> np.ndarray:
    """Return rows `[n, d]` of one text."""
    feed = {INPUT_IDS: np.array([ids], np.int64), ATTENTION_MASK: np.array([attention], np.int64)}
    if TOKEN_TYPES in graph.inputs:
        feed[TOKEN_TYPES] = np.zeros((1, len(ids)), np.int64)
    rows: np.ndarray = graph.run([THEIR_OUTPUT], feed)[0][0]
    return rows


def _write_graph(source: Path, target: Path, dim: int) -> None:
    """Write the same graph with our names, without token types, with the first `dim` dimensions normalised."""
    from onnx import TensorProto, helper

    model = load_graph(source)
    graph = model.graph
    if any(item.name == TOKEN_TYPES for item in graph.input):  # zeros of the ids' shape, made in the graph
        kept = [item for item in graph.input if item.name != TOKEN_TYPES]
        del graph.input[:]
        graph.input.extend(kept)
        graph.node.insert(0, helper.make_node("Sub", [INPUT_IDS, INPUT_IDS], [TOKEN_TYPES], name="no_token_types"))
    for name, value in (("first", 0), ("last", dim), ("axis", 2)):
        graph.initializer.append(helper.make_tensor(f"kept_{name}", TensorProto.INT64, [1], [value]))
    kept_names = ["kept_first", "kept_last", "kept_axis"]
    graph.node.append(helper.make_node("Slice", [THEIR_OUTPUT, *kept_names], ["kept_rows"], name="kept_dimensions"))
    # normalising unit rows again changes nothing, so it does not matter whether the graph does
    graph.node.append(helper.make_node("LpNormalization", ["kept_rows"], [OUTPUT], name="unit_rows", axis=-1, p=2))
    del graph.value_info[:]
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", "tokens", dim]))
    for item in graph.input:
        for axis, name in zip(item.type.tensor_type.shape.dim, ("batch", "tokens"), strict=True):
            axis.ClearField("dim_value")
            axis.dim_param = name
    save_graph(model, target)


def _verify(
    graph: Graph, tokenizer: Any, bundle: Bundle, trained: Manifest, settings: _Settings, options: ExportOptions
) -> ExportReport:
    """Compare rows of every graph of the bundle with the original graph on the bundle's ids.

    Ids under next-plaid's own rules are compared with next-plaid's steps.
    """
    sides = verification_texts(options.sample)

    def reference(items: Sequence[TokenRows]) -> list[np.ndarray]:
        full = [_run(graph, item.ids.tolist(), item.attention.tolist())[item.keep, : trained.dim] for item in items]
        return [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in full]

    differences = _differing(Tokenizing(replace(bundle, manifest=trained)), tokenizer, settings, sides)
    return compare_graphs(bundle, sides, reference, differences, Device.of(options.device))[0]


def _differing(ours: Tokenizing, tokenizer: Any, settings: _Settings, sides: dict[str, list[str]]) -> list[str]:
    differences = []
    for side, texts in sides.items():
        for text, row in zip(texts, (ours.queries if side == "query" else ours.documents)(texts), strict=True):
            ids = _their_ids(tokenizer, settings, side, text)
            keep = [side == "query" or id_ not in settings.skip_ids for id_ in ids]
            if row.ids.tolist() != ids or not row.attention.all() or row.keep.tolist() != keep:
                differences.append(f"{side} {text[:40]!r}: {len(ids)} ids in next-plaid, {len(row.ids)} here")
    return differences


def _their_ids(tokenizer: Any, settings: _Settings, side: str, text: str) -> list[int]:
    """Compute ids as next-plaid-onnx does, step by step; its attention is 1 on all of them."""
    text = text.strip()
    ids = list(tokenizer.encode(text.lower() if settings.lower_case else text).ids)
    length = settings.lengths[side]
    if len(ids) > length - 1:
        ids = [*ids[: length - 2], ids[-1]]
    ids.insert(1, settings.markers[side])
    if side == "query" and settings.expand:
        ids += [settings.mask_id] * (length - len(ids))
    return ids
