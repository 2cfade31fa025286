"""The int8 rewrite: its arithmetic on graphs small enough to compute by hand."""

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exporter.quantization import LEAST_TABLE, quantize
from late_interaction.devices import open_graph


def graph(path, weight, table=None):
    """x W, after a lookup of x in a table where one is given."""
    nodes, constants = [], [numpy_helper.from_array(weight, "W")]
    kind, rank, source = TensorProto.FLOAT, ["batch", "tokens", weight.shape[0]], "x"
    if table is not None:
        kind, rank, source = TensorProto.INT64, ["batch", "tokens"], "rows"
        constants.append(numpy_helper.from_array(table, "table"))
        nodes.append(helper.make_node("Gather", ["table", "x"], ["rows"]))
    nodes.append(helper.make_node("MatMul", [source, "W"], ["y"]))
    inputs = [helper.make_tensor_value_info("x", kind, rank)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens", weight.shape[1]])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, str(path))


def run(path, x):
    return open_graph(path).run(None, {"x": x})[0]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.integers(1, 40), st.integers(1, 20))
def test_products_are_those_of_rounded_rows_and_columns(tmp_path_factory, seed, spread, k, n):
    random = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("g")
    weight = (random.standard_normal((k, n)) * spread).astype(np.float32)
    x = (random.standard_normal((2, 3, k)) * random.uniform(0.01, 100, (2, 3, 1))).astype(np.float32)
    x[0, 0] = 0
    graph(folder / "a.onnx", weight)
    quantize("int8", folder / "a.onnx", folder / "b.onnx")
    columns = np.maximum(np.abs(weight).max(axis=0), 1e-10) / 127
    rows = np.maximum(np.abs(x).max(axis=-1, keepdims=True), 1e-10) / 127
    want = (np.rint(x / rows) @ np.rint(weight / columns)) * rows * columns
    found = run(folder / "b.onnx", x)
    size = np.abs(x).max(axis=-1, keepdims=True) * np.abs(weight).max(axis=0) * k
    assert np.all(np.abs(found - want) <= size * 0.01 + 1e-6)  # a level at most, where x / scale is halfway between two
    assert np.all(np.abs(found - x @ weight) <= size / 127 + 1e-6)
    assert np.all(found[0, 0] == 0)


def test_a_large_table_is_stored_as_levels_and_a_small_one_is_left_alone(tmp_path):
    random = np.random.default_rng(0)
    weight = random.standard_normal((8, 4)).astype(np.float32)
    for rows, quantized in ((LEAST_TABLE, True), (LEAST_TABLE - 1, False)):
        table = random.standard_normal((rows, 8)).astype(np.float32)
        graph(tmp_path / "a.onnx", weight, table)
        quantize("int8", tmp_path / "a.onnx", tmp_path / "b.onnx")
        names = {item.name: item.data_type for item in onnx.load(str(tmp_path / "b.onnx")).graph.initializer}
        assert ("table" not in names) == quantized
        ids = np.array([[0, 5, rows - 1]], np.int64)
        np.testing.assert_allclose(run(tmp_path / "b.onnx", ids), table[ids] @ weight, atol=0.3)


def test_a_constant_that_is_both_looked_up_and_multiplied_has_both_scales(tmp_path):
    random = np.random.default_rng(1)
    table = random.standard_normal((LEAST_TABLE, LEAST_TABLE)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["T", "x"], ["rows"]), helper.make_node("MatMul", ["rows", "T"], ["y"])]
    model = helper.make_model(
        helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", "tokens"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens", LEAST_TABLE])],
            [numpy_helper.from_array(table, "T")],
        ),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    onnx.save(model, str(tmp_path / "a.onnx"))
    quantize("int8", tmp_path / "a.onnx", tmp_path / "b.onnx")
    found = run(tmp_path / "b.onnx", np.array([[3]], np.int64))
    want = table[[[3]]] @ table
    assert (found * want).sum() / np.linalg.norm(found) / np.linalg.norm(want) > 0.999


def test_int8_tensor_stays_near(tmp_path):
    weight, x = example()
    graph(tmp_path / "a.onnx", weight)
    quantize("int8-tensor", tmp_path / "a.onnx", tmp_path / "b.onnx")
    np.testing.assert_allclose(run(tmp_path / "b.onnx", x), x @ weight, atol=0.3)


def test_fp16_gives_unit_rows_of_full_precision(tmp_path):
    weight, x = example()
    graph(tmp_path / "a.onnx", weight)
    quantize("fp16", tmp_path / "a.onnx", tmp_path / "b.onnx")
    found = run(tmp_path / "b.onnx", x)
    assert found.dtype == np.float32
    want = x @ weight
    want /= np.linalg.norm(want, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, want, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)


def example():
    random = np.random.default_rng(2)
    return random.standard_normal((16, 8)).astype(np.float32), random.standard_normal((2, 5, 16)).astype(np.float32)
