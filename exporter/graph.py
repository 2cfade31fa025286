"""Torch modules to one ONNX graph: encoder, projections or pooling, L2 normalisation."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.loading import Checkpoint
from exporter.quiet import quiet
from late_interaction.bundle import ATTENTION_MASK, INPUT_IDS, OUTPUT
from late_interaction.errors import CheckpointError

__all__ = ["OPSET", "export_graph", "load_graph", "pooled_graph", "save_graph", "save_tokenizer", "torch_graph"]

OPSET = 17  # what every onnxruntime that Vespa ships reads
IR_VERSION = 10
EXTERNAL_ABOVE = 2_000_000_000  # bytes of weights; protobuf ends at 2 GiB


def torch_graph(checkpoint: Checkpoint, dim: int) -> Any:
    """A torch module: input_ids, attention_mask `[batch, tokens]` int64 -> unit rows `[batch, tokens, dim]` float32, the first
    `dim` dimensions of the checkpoint's.

    Raises: CheckpointError where the checkpoint has a module that has no place in such a graph.
    """
    import torch

    modules = list(checkpoint.model)
    projections = []
    for module in modules[1:]:
        kind = type(module).__name__
        if kind == "Dense":
            if module.module_input_name != "token_embeddings":
                raise CheckpointError(
                    f"{checkpoint.folder.shown}: a Dense module reads {module.module_input_name}, not token rows"
                )
            projections.append(module)
        elif kind not in ("MultiVectorMask", "Normalize"):
            raise CheckpointError(f"{checkpoint.folder.shown}: module {kind} cannot be exported")
    backbone = modules[0].model

    class TokenGraph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.projections = torch.nn.ModuleList(projections)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            rows = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            for projection in self.projections:
                rows = projection({"token_embeddings": rows})[projection.module_output_name]
            return torch.nn.functional.normalize(rows[..., :dim], p=2.0, dim=-1)

    return TokenGraph().eval()


def pooled_graph(model: Any, dim: int, *, normalized: bool) -> Any:
    """A torch module: input_ids, attention_mask `[batch, tokens]` int64 -> `[batch, dim]` float32: the first `dim` dimensions
    of what the SentenceTransformer makes of each text, then of length one where `normalized`."""
    import torch

    modules = list(model)

    class PooledGraph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = modules[0].model
            self.further = torch.nn.ModuleList(modules[1:])

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            rows = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            features = {"token_embeddings": rows, "attention_mask": attention_mask}
            for module in self.further:
                features = module(features)
            vectors = features["sentence_embedding"][:, :dim]
            return torch.nn.functional.normalize(vectors, p=2.0, dim=-1) if normalized else vectors

    return PooledGraph().eval()


def export_graph(graph: Any, path: Path, output: str = OUTPUT, inputs: Sequence[str] = (INPUT_IDS, ATTENTION_MASK)) -> None:
    """inputs, output: their names; each input is whole numbers `[batch, tokens]`. Weights past 2 GB go into a second file,
    `path` with ".data" at its end.

    Raises: CheckpointError where torch or onnx refuse.
    """
    import torch

    # lengths that differ from each other and from the batch, so that no axis is taken for a constant
    ids = torch.ones((2, 7), dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    shape = axes if output == OUTPUT else {0: "batch"}
    try:
        with (
            quiet(), torch.no_grad(), _plain_attention(graph.backbone),
            tempfile.TemporaryDirectory(prefix="colbert-vespa-") as scratch,
        ):  # fmt: skip
            written = Path(scratch) / "model.onnx"
            torch.onnx.export(
                graph, tuple(torch.ones_like(ids) for _ in inputs), str(written), input_names=list(inputs),
                output_names=[output], dynamic_axes={**dict.fromkeys(inputs, axes), output: shape},
                opset_version=OPSET, dynamo=False,
            )  # fmt: skip
            model = load_graph(written)
        save_graph(model, path)
    except Exception as error:  # noqa: BLE001  the exporter runs the model's own code
        raise CheckpointError(f"torch cannot export this model to ONNX: {str(error).splitlines()[0]}") from None


@contextmanager
def _plain_attention(backbone: Any) -> Iterator[None]:
    """Fused attention is exported with guards against rows that attend to nothing, a quarter of the graph's time on a CPU."""
    before = getattr(backbone.config, "_attn_implementation", None)
    try:
        backbone.set_attn_implementation("eager")
    except (AttributeError, ValueError, KeyError):
        before = None  # a model with code of its own has the attention it has
    try:
        yield
    finally:
        if before is not None:
            backbone.set_attn_implementation(before)


def save_tokenizer(tokenizer: Any, path: Path) -> None:
    """Writes a `tokenizers.Tokenizer` without truncation and padding of its own: Vespa would honour what is stored."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(path))


def load_graph(path: Path) -> Any:
    """An ONNX model with all its weights in memory."""
    import onnx

    return onnx.load(str(path))


def save_graph(model: Any, path: Path) -> None:
    """Writes and checks it, in a version that Vespa's onnxruntime reads; its weights in a second file where they are more than
    protobuf can hold."""
    import onnx

    model.ir_version = min(model.ir_version, IR_VERSION)
    if sum(len(item.raw_data) for item in model.graph.initializer) > EXTERNAL_ABOVE:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    else:
        onnx.save(model, str(path))
    onnx.checker.check_model(str(path))
