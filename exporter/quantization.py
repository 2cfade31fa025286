"""Graphs with smaller weights: one function per scheme, one line per scheme in the table.

`int8` quantizes the rows that enter a matrix product one by one, each by its own largest value; onnxruntime's dynamic
quantization (`int8-tensor`) takes one scale for the whole batch. So a text's vectors never depend on the texts it is
encoded with, and one large activation does not reduce the precision of others (measured: docs/performance/notes.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exporter.graph import load_graph, save_graph
from exporter.quiet import quiet
from late_interaction.devices import onnxruntime
from late_interaction.errors import UsageError

__all__ = ["QUANTIZERS", "check_schemes", "quantize", "quantize_all"]

ORT_DOMAIN = "com.microsoft"  # operators that every onnxruntime has, including Vespa's
ZERO_POINT = 128
LEVELS = 127
LEAST_SCALE = 1e-10
LEAST_TABLE = 1024  # least rows of an embedding table to quantize; position and token type tables stay


def check_schemes(names: tuple[str, ...]) -> None:
    """Check the names of schemes.

    Raises:
        UsageError: if a scheme is not in the table; the message names the first.
    """
    for name in names:
        if name not in QUANTIZERS:
            raise UsageError(f"--quantize {name} is unknown; known: {', '.join(QUANTIZERS)}")


def quantize_all(schemes: Sequence[str], model: Path, progress: Callable[[str], None]) -> dict[str, str]:
    """Write the graphs of `schemes` beside `model`; return file name by precision, including fp32."""
    models = {"fp32": model.name}
    for scheme in schemes:
        progress(f"quantizing to {scheme}")
        models[scheme] = f"{model.stem}.{scheme}.onnx"
        quantize(scheme, model, model.with_name(models[scheme]))
    return models


def quantize(scheme: str, source: Path, target: Path) -> None:
    """Write one quantized graph."""
    onnxruntime()  # disable its telemetry before its tools import it
    with quiet():
        QUANTIZERS[scheme](source, target)


def _int8(source: Path, target: Path) -> None:
    """Quantize: int8 weights per channel, uint8 activations per row around 128, sums in int32, the rest in float32."""
    model = load_graph(source)
    rewrite = _RowWise(model.graph)
    rewrite.run()
    _add_domain(model)
    save_graph(model, target)


def _int8_tensor(source: Path, target: Path) -> None:
    """Quantize dynamically with onnxruntime: per-channel int8 weights, one scale for a batch of activations."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(source), str(target), op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8)


def _fp16(source: Path, target: Path) -> None:
    """Convert to half precision with float32 rows at the end, for accelerators: most CPUs emulate it with casts."""
    from onnx import helper
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = convert_float_to_float16(load_graph(source), keep_io_types=True)
    OnnxModel(model).topological_sort()
    (output,) = [item.name for item in model.graph.output]
    rounded = f"{output}_fp16"
    for node in model.graph.node:
        node.output[:] = [rounded if name == output else name for name in node.output]
    model.graph.node.append(helper.make_node("LpNormalization", [rounded], [output], axis=-1, p=2))
    save_graph(model, target)


QUANTIZERS: dict[str, Callable[[Path, Path], None]] = {"int8": _int8, "int8-tensor": _int8_tensor, "fp16": _fp16}


class _RowWise:
    """Replaces products with a constant matrix `[k, n]` in a graph, in place.

    scale = max |x| / 127 per row; q = round(x / scale) + 128; x W = scale * ((q - 128) Wq) * weight scale
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._constants = {item.name: item for item in graph.initializer}
        self._rows: dict[str, tuple[str, str]] = {}  # tensor -> (its quantized rows, their scales)
        self._weights: dict[tuple[str, int], tuple[str, str]] = {}
        self._nodes: list[Any] = []

    def run(self) -> None:
        for name, value in {
            "q8_per_level": np.float32(1 / LEVELS), "q8_least": np.float32(LEAST_SCALE), "q8_one": np.float32(1),
            "q8_zero": np.uint8(ZERO_POINT),
        }.items():  # fmt: skip
            self._constant(name, np.array(value))
        for node in self._graph.node:
            if node.op_type == "MatMul" and self._is_matrix(node.input[1], 1):
                self._product(node)
            elif node.op_type == "Gather" and self._is_matrix(node.input[0], LEAST_TABLE) and _axis(node) == 0:
                self._lookup(node)
            else:
                self._nodes.append(node)
        used = {name for node in self._nodes for name in node.input}
        kept = [item for item in self._graph.initializer if item.name in used]
        del self._graph.node[:], self._graph.initializer[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(kept)

    def _is_matrix(self, name: str, rows: int) -> bool:
        constant = self._constants.get(name)
        return constant is not None and len(constant.dims) == 2 and constant.dims[0] >= rows

    def _lookup(self, node: Any) -> None:
        """Quantize word embeddings: each row by its own largest value."""
        from onnx import TensorProto

        at = f"{node.output[0]}_q8_lookup_"
        table, scales = self._quantized_weight(node.input[0], axis=1)
        self._add("Gather", [table, node.input[1]], at + "levels")
        self._add("Cast", [at + "levels"], at + "rows", to=TensorProto.FLOAT)
        self._add("Gather", [scales, node.input[1]], at + "scales")
        self._add("Mul", [at + "rows", at + "scales"], node.output[0])

    def _product(self, node: Any) -> None:
        rows, scales = self._quantized_rows(node.input[0])
        weight, weight_scales = self._quantized_weight(node.input[1], axis=0)
        product = f"{node.output[0]}_q8_product"
        self._add("MatMulIntegerToFloat", [rows, weight, "q8_one", weight_scales, "q8_zero"], product, domain=ORT_DOMAIN)
        self._add("Mul", [product, scales], node.output[0])

    def _quantized_rows(self, name: str) -> tuple[str, str]:
        if name not in self._rows:
            at = f"{name}_q8_"
            self._add("Abs", [name], at + "abs")
            self._add("ReduceMax", [at + "abs"], at + "largest", axes=[-1], keepdims=1)
            self._add("Mul", [at + "largest", "q8_per_level"], at + "raw_scale")
            self._add("Max", [at + "raw_scale", "q8_least"], at + "scale")
            self._add("Reciprocal", [at + "scale"], at + "inverse")
            self._add("Mul", [name, at + "inverse"], at + "scaled")
            self._add("QuantizeLinear", [at + "scaled", "q8_one", "q8_zero"], at + "rows")
            self._rows[name] = at + "rows", at + "scale"
        return self._rows[name]

    def _quantized_weight(self, name: str, *, axis: int) -> tuple[str, str]:
        """Quantize with one scale per column (axis 0), `[n]`, or per row (axis 1), `[k, 1]`."""
        from onnx import numpy_helper

        key = name, axis
        if key not in self._weights:
            at = f"{name}_q8_{axis}"
            weight = numpy_helper.to_array(self._constants[name]).astype(np.float32)
            scale = np.maximum(np.abs(weight).max(axis=axis, keepdims=axis == 1), LEAST_SCALE) / LEVELS
            self._constant(at, np.rint(weight / scale).astype(np.int8))
            self._constant(f"{at}_scale", scale.astype(np.float32))
            self._weights[key] = at, f"{at}_scale"
        return self._weights[key]

    def _add(self, operator: str, inputs: list[str], output: str, domain: str | None = None, **attributes: object) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(operator, inputs, [output], domain=domain, **attributes))

    def _constant(self, name: str, value: np.ndarray) -> None:
        from onnx import numpy_helper

        self._graph.initializer.append(numpy_helper.from_array(value, name))


def _axis(node: Any) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "axis"), 0)


def _add_domain(model: Any) -> None:
    from onnx import helper

    if not any(item.domain == ORT_DOMAIN for item in model.opset_import):
        model.opset_import.append(helper.make_opsetid(ORT_DOMAIN, 1))
