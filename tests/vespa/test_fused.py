"""Each codec's MaxSim, as Vespa's config model hands it to the content node, ends in the engine's fused instruction."""

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from vespa_bundles import WITHOUT_DENSE, small_bundle

from late_interaction.bundle import write_manifest
from late_interaction.codebook_training import train_codebook
from late_interaction.thresholds import Thresholds
from vespa_app.codecs import CODECS, VECTORS, bundle_codebooks
from vespa_app.package import build_package
from vespa_app.settings import AppSettings

EVAL = Path("/opt/vespa/bin/vespa-eval-expr")
FUSED = "vespalib::eval::SumMaxDotProductFunction"
BEST_ROW = "vespalib::eval::BestSimilarityFunction"
INNER = "vespalib::eval::UniversalDotProduct"  # products are summed as they are made
DIM = 16
# what a codec can be set to
FORMS = {
    "float32": {},
    "bfloat16": {},
    "bfloat16-paged": {"paged": True},
    "binary": {},
    "binary-thresholds": {"thresholds": True},
    "residual-1": {"residual_bits": 1},
    "residual-2": {"residual_bits": 2},
    "residual-4": {"residual_bits": 4},
}

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.live,
    pytest.mark.skipif(not EVAL.is_file(), reason=f"needs {EVAL} of a Vespa installation"),
]


def evaluate(expressions: dict[str, str]) -> dict[str, dict]:
    """Names to expressions, each of which may use the earlier names; the engine's steps for each."""
    commands = [{"name": name, "expr": text, "verbose": True} for name, text in expressions.items()]
    done = subprocess.run(
        [EVAL, "json-repl"], input=json.dumps(commands), capture_output=True, text=True, timeout=60, check=True
    )
    answers = dict(zip(expressions, json.loads(done.stdout), strict=True))
    assert all("error" not in answer for answer in answers.values()), answers
    return answers


def literal(type_: str, cells: np.ndarray) -> str:
    """A tensor whose first dimension is mapped, or a dense vector."""
    type_ = type_.replace(" ", "")
    if "{}" not in type_:
        return f"{type_}:{json.dumps(cells.tolist())}"
    return f"{type_}:{{{','.join(f'{number}:{json.dumps(row)}' for number, row in enumerate(cells.tolist()))}}}"


def value(type_: str, fed: dict) -> str:
    """What the feeder sends, as a literal."""
    if "cells" in fed:
        cells = ",".join(f"{{c:{c['address']['c']},dt:{c['address']['dt']}}}:{c['value']}" for c in fed["cells"])
        return f"{type_.replace(' ', '')}:{{{cells}}}"
    kind = {"float": ">f4", "int8": ">i1"}.get(type_[7 : type_.index(">")])
    shape = [int(size) for size in re.findall(r"\[(\d+)\]", type_)]
    raw = [bytes.fromhex(row) for row in fed["blocks"].values()]
    if kind is None:  # bfloat16: the upper halves of floats
        rows = [(np.frombuffer(row, ">u2").astype(np.uint32) << 16).view(np.float32) for row in raw]
    else:
        rows = [np.frombuffer(row, kind) for row in raw]
    return literal(type_, np.stack(rows).reshape(len(rows), *shape))


def steps_of(answer: dict) -> list[str]:
    return [step["class"] for step in answer["steps"]]


def bundle_with_books(folder, bits):
    bundle = small_bundle(folder, dim=DIM)
    random = np.random.default_rng(5)
    sample = random.standard_normal((2000, DIM)).astype(np.float32)
    train_codebook(sample, bits=bits, centroids=8).save(bundle.file("codebooks/residual.npz"))
    Thresholds(sample[0] / 4, np.abs(sample[1]) + 0.1).save(folder / "codebooks" / "binary.npz")
    books = {**bundle.manifest.codebooks, "binary": "codebooks/binary.npz"}
    return write_manifest(folder, dataclasses.replace(bundle.manifest, codebooks=books))


def scripts_of(properties: dict[str, str]) -> dict[str, str]:
    found = {}
    for key, text in properties.items():
        if match := re.fullmatch(r"rankingExpression\((\w+)\)\.rankingScript", key):
            found[match[1]] = text
    return found


@pytest.mark.parametrize("form", FORMS)
def test_max_sim_is_fused(vespa_oracle, tmp_path, form):
    codec = CODECS[form.partition("-")[0]]
    strategies = [name for name in WITHOUT_DENSE if name != "token" or "paged" not in FORMS[form]]  # a graph wants memory
    settings = AppSettings(dim=DIM, query_rows=8, codec=codec.name, candidates=tuple(strategies), embedder=False, **FORMS[form])
    bundle = bundle_with_books(tmp_path / "bundle", settings.residual_bits)
    app = build_package(bundle, settings).write(tmp_path / "app")
    random = np.random.default_rng(0)
    Q = random.standard_normal((3, DIM)).astype(np.float32)
    D = random.standard_normal((5, DIM)).astype(np.float32)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    books = bundle_codebooks(bundle, thresholds=settings.thresholds)
    fed = codec.encode(D, books)
    types = {VECTORS: codec.field_type(settings), **codec.more_fields(settings)}
    constants = codec.constant_values(settings, books)
    script = {"query_qt": literal(f"tensor<float>(qt{{}},x[{DIM}])", Q)}
    script |= {f"attribute_{name}": value(types[name], fed[name]) for name in fed}
    script |= {f"constant_{name}": literal(type_, constants[name]) for name, type_ in codec.constants(settings).items()}
    truth = float((Q @ codec.decode(fed, books).T).max(axis=1).sum())
    for profile in strategies:
        scripts = profile_scripts(vespa_oracle, app, profile)
        order = [*codec.functions(settings), "max_sim", "best_similarities"]
        own = {name: as_expression(scripts[name]) for name in order}
        answers = evaluate(script | own)
        steps = steps_of(answers["max_sim"])
        assert FUSED in steps, (profile, steps)
        assert not any("Reduce" in step for step in steps[: steps.index(FUSED)]), (profile, steps)
        assert float(answers["max_sim"]["result"]) == pytest.approx(truth, abs=1e-4)
        assert BEST_ROW in steps_of(answers["best_similarities"]), (profile, steps_of(answers["best_similarities"]))
        for name in order:  # bits become floats by the engine's own instruction, not cell by cell
            if "unpack_bits" in own[name] or "bit(" in own[name]:
                assert any("UnpackBits" in step for step in steps_of(answers[name])), (name, steps_of(answers[name]))


def profile_scripts(vespa_oracle, app, profile) -> dict[str, str]:
    return scripts_of(vespa_oracle.ask("properties", app=str(app), schema="passage", profile=profile)["properties"])


def as_expression(script: str) -> str:
    """A ranking script over the names that `evaluate` was given."""
    text = re.sub(r"rankingExpression\((\w+)\)", r"\1", script)
    return re.sub(r"(query|attribute|constant)\((\w+)\)", r"\1_\2", text)


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "binary"])
def test_chunks_are_scored_without_the_whole_product(vespa_oracle, tmp_path, codec):
    """The engine fuses the whole of MaxSim over two dimensions only; over chunks it still must not keep every product."""
    settings = AppSettings(dim=DIM, query_rows=8, codec=codec, layout="chunks", candidates=("exhaustive",), embedder=False)
    app = build_package(small_bundle(tmp_path / "bundle", dim=DIM), settings).write(tmp_path / "app")
    random = np.random.default_rng(0)
    Q, D = (random.standard_normal((count, DIM)).astype(np.float32) for count in (3, 7))
    parts = [D[:2], D[2:6], D[6:]]
    encoded = [CODECS[codec].encode(part)[VECTORS] for part in parts]
    type_ = CODECS[codec].field_type(settings)
    cells = []
    for chunk, fed in enumerate(encoded):
        text = value(type_, fed).partition(":{")[2].removesuffix("}")
        for row, numbers in enumerate(json.loads(f"[{re.sub(r'(^|,)[0-9]+:', lambda m: m[1], text)}]")):
            cells += [f"{{chunk:{chunk},dt:{row},x:{x}}}:{number}" for x, number in enumerate(numbers)]
    script = {"query_qt": literal(f"tensor<float>(qt{{}},x[{DIM}])", Q)}
    chunked = type_.replace(" ", "").replace("(dt{}", "(chunk{},dt{}")
    script["attribute_vectors"] = f"{chunked}:{{{','.join(cells)}}}"
    scripts = profile_scripts(vespa_oracle, app, "exhaustive")
    own = {name: as_expression(scripts[name]) for name in [*CODECS[codec].functions(settings), "max_sim"]}
    answer = evaluate(script | own)["max_sim"]
    best = max(float((Q @ CODECS[codec].decode({VECTORS: fed}).T).max(axis=1).sum()) for fed in encoded)
    assert float(answer["result"]) == pytest.approx(best, abs=1e-4)
    steps = steps_of(answer)
    assert INNER in steps, steps
    assert not any("Join" in step for step in steps[: steps.index(INNER)]), steps


def test_an_expression_off_the_fused_path_is_seen():
    """So that the test above can fail: bits unpacked as int8 cells."""
    bits = "map_subspaces(b,f(s)(tensor<int8>(x[16])(bit(s{x:(x/8)},7-(x%8)))))"
    answers = evaluate(
        {
            "a": literal("tensor<float>(qt{},x[16])", np.ones((2, 16), np.float32)),
            "b": literal("tensor<int8>(dt{},x[2])", np.ones((2, 2), np.int8)),
            "c": f"reduce(reduce(reduce(a*{bits},sum,x),max,dt),sum,qt)",
        }
    )
    assert FUSED not in steps_of(answers["c"])
