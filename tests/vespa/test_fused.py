"""Each codec's MaxSim, as Vespa's config model hands it to the content node, ends in the engine's fused instruction."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from vespa_bundles import small_bundle

from vespa_app.codecs import CODECS
from vespa_app.package import build_package
from vespa_app.settings import AppSettings

EVAL = Path("/opt/vespa/bin/vespa-eval-expr")
FUSED = "vespalib::eval::SumMaxDotProductFunction"

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.live,
    pytest.mark.skipif(not EVAL.is_file(), reason=f"needs {EVAL} of a Vespa installation"),
]


def evaluate(expressions: dict[str, str]) -> list[dict]:
    """Names to expressions, each of which may use the earlier names; the engine's steps for each."""
    commands = [{"name": name, "expr": text, "verbose": True} for name, text in expressions.items()]
    done = subprocess.run(
        [EVAL, "json-repl"], input=json.dumps(commands), capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def literal(type_: str, cells: np.ndarray) -> str:
    rows = ",".join(f"{number}:[{','.join(str(x) for x in row)}]" for number, row in enumerate(cells.tolist()))
    return f"{type_}:{{{rows}}}"


def classes(expression: str, query: str, vectors: str) -> tuple[list[str], str]:
    script = expression.replace("query(qt)", "a").replace("attribute(vectors)", "b")
    answers = evaluate({"a": query, "b": vectors, "c": script})
    assert all("error" not in answer for answer in answers), answers
    return [step["class"] for step in answers[2]["steps"]], answers[2]["result"]


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_max_sim_is_fused(vespa_oracle, tmp_path, codec):
    bundle = small_bundle(tmp_path / "bundle", dim=16)
    app = build_package(bundle, AppSettings(dim=16, query_rows=8, codec=codec.name, embedder=False)).write(tmp_path / "app")
    reply = vespa_oracle.ask("properties", app=str(app), schema="passage", profile="exhaustive")
    script = reply["properties"]["rankingExpression(max_sim).rankingScript"]
    random = np.random.default_rng(0)
    Q, D = random.standard_normal((3, 16)).astype(np.float32), random.standard_normal((5, 16)).astype(np.float32)
    stored = codec.decode(codec.encode(D))
    cells = np.packbits(D > 0, axis=1).view(np.int8) if codec.name == "binary" else stored
    steps, result = classes(
        script, literal("tensor<float>(qt{},x[16])", Q), literal(codec.field_type(16).replace(" ", ""), cells)
    )
    assert FUSED in steps, steps
    assert not any("Reduce" in step for step in steps[: steps.index(FUSED)]), steps
    assert float(result) == pytest.approx(float((Q @ stored.T).max(axis=1).sum()), abs=1e-4)


def test_an_expression_off_the_fused_path_is_seen():
    """So that the test above can fail: bits unpacked as int8 cells."""
    bits = "map_subspaces(attribute(vectors),f(s)(tensor<int8>(x[16])(bit(s{x:(x/8)},7-(x%8)))))"
    steps, _ = classes(
        f"reduce(reduce(reduce(query(qt)*{bits},sum,x),max,dt),sum,qt)",
        literal("tensor<float>(qt{},x[16])", np.ones((2, 16), np.float32)),
        literal("tensor<int8>(dt{},x[2])", np.ones((2, 2), np.int8)),
    )
    assert FUSED not in steps
