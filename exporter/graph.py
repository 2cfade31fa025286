"""Torch modules to one ONNX graph: encoder, projections, L2 normalisation; and its int8 form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.loading import Checkpoint
from exporter.quiet import quiet
from late_interaction.bundle import ATTENTION_MASK, INPUT_IDS, OUTPUT
from late_interaction.errors import CheckpointError

__all__ = ["OPSET", "export_graph", "quantize_int8", "torch_graph"]

OPSET = 17  # what every onnxruntime that Vespa ships reads
IR_VERSION = 10


def torch_graph(checkpoint: Checkpoint) -> Any:
    """A torch module: input_ids, attention_mask `[batch, tokens]` int64 -> unit rows `[batch, tokens, dim]` float32.

    Raises: CheckpointError where the checkpoint has a module that has no place in such a graph.
    """
    import torch

    modules = list(checkpoint.model)
    projections = []
    for module in modules[1:]:
        kind = type(module).__name__
        if kind == "Dense":
            if module.module_input_name != "token_embeddings":
                raise CheckpointError(f"{checkpoint.folder}: a Dense module reads {module.module_input_name}, not token rows")
            projections.append(module)
        elif kind not in ("MultiVectorMask", "Normalize"):
            raise CheckpointError(f"{checkpoint.folder}: module {kind} cannot be exported")
    backbone = modules[0].model

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.projections = torch.nn.ModuleList(projections)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            rows = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            for projection in self.projections:
                rows = projection({"token_embeddings": rows})[projection.module_output_name]
            return torch.nn.functional.normalize(rows, p=2.0, dim=-1)

    return Graph().eval()


def export_graph(graph: Any, path: Path) -> None:
    """Raises: CheckpointError where torch or onnx refuse."""
    import onnx
    import torch

    # lengths that differ from each other and from the batch, so that no axis is taken for a constant
    ids = torch.ones((2, 7), dtype=torch.int64)
    axes = {0: "batch", 1: "tokens"}
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(
                graph, (ids, torch.ones_like(ids)), str(path), input_names=[INPUT_IDS, ATTENTION_MASK], output_names=[OUTPUT],
                dynamic_axes={INPUT_IDS: axes, ATTENTION_MASK: axes, OUTPUT: axes}, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
            model = onnx.load(str(path))
            model.ir_version = min(model.ir_version, IR_VERSION)
            onnx.checker.check_model(model)
            onnx.save(model, str(path))
    except Exception as error:  # noqa: BLE001  the exporter runs the model's own code
        raise CheckpointError(f"torch cannot export this model to ONNX: {str(error).splitlines()[0]}") from None


def quantize_int8(source: Path, target: Path) -> None:
    """Weights of matrix products as int8 per output channel; activations are quantized at run time."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            str(source), str(target), op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8
        )
