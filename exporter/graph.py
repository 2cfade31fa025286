"""Export torch modules as one ONNX graph: encoder, projections or pooling, L2 normalisation."""

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

OPSET = 17  # supported by every onnxruntime that Vespa ships
IR_VERSION = 10
EXTERNAL_ABOVE = 2_000_000_000  # bytes of weights; protobuf's limit is 2 GiB


def torch_graph(checkpoint: Checkpoint, dim: int) -> Any:
    """Return a torch module that maps token ids to unit rows.

    Its inputs are input_ids and attention_mask `[batch, tokens]` int64, its output `[batch, tokens, dim]` float32: the
    first `dim` dimensions of the checkpoint's.

    Raises:
        CheckpointError: if the checkpoint has a module that such a graph cannot hold.
    """
    import torch

    modules = list(checkpoint.model)
    projections = []
    for module in modules[1:]:
        kind = type(module).__name__
        if kind == "Dense":
            if module.module_input_name != "token_embeddings":
                raise CheckpointError(
                    f"{checkpoint.folder.shown}: a Dense module reads {module.module_input_name} instead of token rows"
                )
            projections.append(module)
        elif kind not in ("MultiVectorMask", "Normalize"):
            raise CheckpointError(f"{checkpoint.folder.shown}: module {kind} cannot be exported")
    backbone = modules[0].model

    class TokenGraph(torch.nn.Module):
        """Encoder and projections, with unit rows."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.projections = torch.nn.ModuleList(projections)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            """Return unit rows `[batch, tokens, dim]`."""
            rows = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            for projection in self.projections:
                rows = projection({"token_embeddings": rows})[projection.module_output_name]
            return torch.nn.functional.normalize(rows[..., :dim], p=2.0, dim=-1)

    return TokenGraph().eval()


def pooled_graph(model: Any, dim: int, *, normalized: bool) -> Any:
    """Return a torch module that maps token ids to one vector per text.

    Its inputs are input_ids and attention_mask `[batch, tokens]` int64, its output `[batch, dim]` float32: the first `dim`
    dimensions of the SentenceTransformer's, scaled to length one if `normalized`.
    """
    import torch

    modules = list(model)

    class PooledGraph(torch.nn.Module):
        """Encoder, pooling and projections."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone = modules[0].model
            self.further = torch.nn.ModuleList(modules[1:])

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            """Return vectors `[batch, dim]`."""
            rows = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            features = {"token_embeddings": rows, "attention_mask": attention_mask}
            for module in self.further:
                features = module(features)
            vectors = features["sentence_embedding"][:, :dim]
            return torch.nn.functional.normalize(vectors, p=2.0, dim=-1) if normalized else vectors

    return PooledGraph().eval()


def export_graph(graph: Any, path: Path, output: str = OUTPUT, inputs: Sequence[str] = (INPUT_IDS, ATTENTION_MASK)) -> None:
    """Export a torch module to ONNX.

    Weights above 2 GB go into a second file, `path` with ".data" appended.

    Args:
        graph: the module.
        path: the file.
        output: name of the output.
        inputs: names of the inputs, each whole numbers `[batch, tokens]`.

    Raises:
        CheckpointError: if torch or onnx fails.
    """
    import torch

    # lengths that differ from each other and from the batch, so that no axis becomes a constant
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
    """Replace fused attention, whose export guards against rows that attend to nothing: a quarter of a CPU's time."""
    before = getattr(backbone.config, "_attn_implementation", None)
    try:
        backbone.set_attn_implementation("eager")
    except (AttributeError, ValueError, KeyError):
        before = None  # a model with its own code keeps its attention
    try:
        yield
    finally:
        if before is not None:
            backbone.set_attn_implementation(before)


def save_tokenizer(tokenizer: Any, path: Path) -> None:
    """Write a `tokenizers.Tokenizer` without truncation and padding, which Vespa would apply."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(path))


def load_graph(path: Path) -> Any:
    """Load an ONNX model with all its weights in memory."""
    import onnx

    return onnx.load(str(path))


def save_graph(model: Any, path: Path) -> None:
    """Write and check a graph, in a version that Vespa's onnxruntime reads.

    Weights that exceed protobuf's limit go into a second file.
    """
    import onnx

    model.ir_version = min(model.ir_version, IR_VERSION)
    if sum(len(item.raw_data) for item in model.graph.initializer) > EXTERNAL_ABOVE:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    else:
        onnx.save(model, str(path))
    onnx.checker.check_model(str(path))
