"""What an install without extras has, what importing it costs, and what each missing extra is answered with."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from vespa_bundles import small_bundle

from late_interaction.errors import MissingDependency
from late_interaction.extras import require, required

ROOT = Path(__file__).resolve().parent.parent
ENCODING = ["numpy", "onnxruntime", "tokenizers", "httpx"]
OF_EXTRAS = (
    "numba llvmlite scipy faiss bm25s Stemmer pycurl vespa cryptography prometheus_client torch onnx transformers "
    "sentence_transformers matplotlib pyarrow lxml pypdf datasets mcp fastapi uvicorn starlette pydantic"
).split()
EVERYTHING = "from colbert_vespa import AppSettings, AsyncClient, Bundle, Client, build_package, deploy, explain, feed"


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import colbert_vespa", ENCODING + OF_EXTRAS),
        ("import colbert_vespa.cli", ENCODING + OF_EXTRAS),
        ("import colbert_vespa.cli.commands", ENCODING + OF_EXTRAS),
        ("from colbert_vespa import Client", ["onnxruntime", "tokenizers", "vespa_app.package", *OF_EXTRAS]),
        (EVERYTHING, OF_EXTRAS),
        ("import feeder.copying, feeder.targets.vespa, query, vespa_app.deploying.cloud", OF_EXTRAS),
        ("import colbert_vespa.ray", ["ray", *OF_EXTRAS]),
        ("import colbert_vespa.store, colbert_vespa.monitor.checks, colbert_vespa.evaluation.evaluating", OF_EXTRAS),
    ],
)
def test_nothing_is_imported_before_it_is_used(statement, unwanted):
    code = f"import sys; {statement}; print([name for name in {unwanted!r} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_what_is_missing_is_one_line_with_the_command():
    line = r"^plots need no_such_module, which is not installed: pip install 'colbert-vespa\[plot\]'$"
    with pytest.raises(MissingDependency, match=line.replace("need ", "needs ")), required("plot", "plots"):
        import no_such_module  # noqa: F401
    with pytest.raises(MissingDependency, match=line.replace("need ", "needs ")):
        require(("json", "no_such_module"), "plot", "plots")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The command of an environment that has the wheel and no extra."""
    uv = shutil.which("uv") or ROOT / ".tools" / "bin" / "uv"
    if not Path(uv).exists():
        pytest.skip("needs uv")
    folder = tmp_path_factory.mktemp("bare")
    run(uv, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    run(uv, "venv", "--quiet", "--python", sys.executable, folder / "venv")
    run(uv, "pip", "install", "--quiet", "--python", folder / "venv", *folder.glob("*.whl"))
    return folder / "venv" / "bin"


def run(*command, code=0, **more):
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=300, check=False, **more)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_a_bare_install_makes_packages_and_searches_vespa(bare, vespa, tmp_path):
    bundle = small_bundle(tmp_path / "bundle", onnx=True)
    run(bare / "python", "-c", EVERYTHING)
    for help_ in ((), ("feed",), ("index",), ("monitor",), ("evaluate",)):
        run(bare / "colbert-vespa", *help_, "--help")
    for codec in ("float32", "binary", "residual"):
        package = tmp_path / codec
        options = ("--codec", codec, "--candidates", "centroid", "--candidates", "bm25")
        run(bare / "colbert-vespa", "app", bundle.path, "-o", package, *options)
    vespa.description = (package / "colbert-vespa.json").read_text()
    fields = {"id": "a#0", "document_id": "a", "title": "", "text": "late interaction"}
    vespa.search_answer = {"root": {"coverage": {"full": True, "coverage": 100}, "fields": {"totalCount": 1},
                                    "children": [{"relevance": 1.5, "fields": fields}]}}  # fmt: skip
    search = ("search", "late interaction", "--from", vespa.url, "--bundle", bundle.path, "--json")
    result = json.loads(run(bare / "colbert-vespa", *search, "--candidates", "centroid").stdout.splitlines()[-1])
    assert [hit["id"] for hit in result["hits"]] == ["a"]
    assert "weightedSet" in vespa.search_bodies[-1]["yql"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("local", ["feed", "FILE", "--bundle", "BUNDLE", "--to", "index"]),
        ("feed", ["feed", "FILE", "--bundle", "BUNDLE", "--to", "VESPA"]),
        ("monitor", ["monitor", "VESPA", "--prometheus", "0"]),
        ("monitor", ["feed", "FILE", "--bundle", "BUNDLE", "--to", "VESPA", "--metrics", "65535"]),
        ("sources", ["app", "BUNDLE", "-o", "other", "--sample", "PAGE"]),
        ("export", ["export", "BUNDLE", "-o", "exported"]),
        ("demo", ["demo"]),
        ("train", ["train", "FILE", "--model", "BUNDLE", "-o", "trained"]),
        ("serve", ["serve", "VESPA", "--mcp"]),
    ],
)
def test_a_bare_install_names_the_extra_that_is_missing(bare, extra, command, vespa, tmp_path):
    bundle = small_bundle(tmp_path / "bundle", onnx=True)
    run(bare / "colbert-vespa", "app", bundle.path, "-o", tmp_path / "package", "--candidates", "exhaustive")
    vespa.description = (tmp_path / "package" / "colbert-vespa.json").read_text()
    given = {
        "FILE": tmp_path / "documents.jsonl",
        "PAGE": tmp_path / "page.html",
        "BUNDLE": bundle.path,
        "VESPA": vespa.url,
    }
    given["FILE"].write_text('{"id": "a", "text": "late interaction", "query": "late", "positive": "interaction"}\n')
    given["PAGE"].write_text("<p>late interaction</p>")
    done = run(bare / "colbert-vespa", *(given.get(word, word) for word in command), code=1, cwd=tmp_path)
    assert done.stderr.splitlines()[-1].endswith(f"which is not installed: pip install 'colbert-vespa[{extra}]'")
    assert not (tmp_path / "index").exists()
