"""Nothing outside late_interaction/files.py removes, renames, cuts or writes a file, but for the calls listed here.

A new one makes this fail: use files.py, whose functions recognise what is ours, or say here why it touches nothing of a user's.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("late_interaction", "exporter", "vespa_app", "feeder", "query", "colbert_vespa")
OWNER = "late_interaction/files.py"

ATTRIBUTES = {
    "rmtree", "unlink", "rmdir", "removedirs", "rename", "renames", "truncate", "ftruncate", "write_text", "write_bytes",
    "move", "copyfile", "copytree", "copy2", "symlink_to", "hardlink_to", "link", "symlink", "save", "savez", "tofile",
    "savefig", "save_file", "extractall", "touch", "chmod",
}  # fmt: skip

SCRATCH = "in a temporary folder of this process"
STAGING = "in a staging folder that replace_folder gave"
INDEX = "in an index folder, which replace_folder made, under the writer's lock"
OWN = "of a file that is recognised by its first line or record"
RUN = "in the folder of a training run, which claim_folder marked"
ALLOWED = {
    "late_interaction/plaid/writing/build.py": ({"rmtree"}, INDEX),
    "late_interaction/plaid/store/history.py": ({"unlink", "rmtree"}, INDEX),
    "late_interaction/plaid/store/lock.py": ({"open"}, INDEX),
    "late_interaction/plaid/writing/pending.py": ({"unlink", "ftruncate", "os.open"}, INDEX),
    "late_interaction/plaid/store/storage.py": ({"open"}, INDEX),
    "late_interaction/plaid/writing/training.py": ({"save"}, INDEX),
    "late_interaction/plaid/shards/index.py": ({"link", "os.replace"}, INDEX),
    "late_interaction/plaid/shards/intent.py": ({"unlink"}, INDEX),
    "late_interaction/vector_cache.py": ({"open", "truncate"}, OWN),
    "colbert_vespa/server/keys.py": ({"open", "os.open"}, "a lock beside the keys; a new file, never one that is there"),
    "feeder/own_files.py": ({"os.open", "ftruncate"}, OWN),
    "feeder/copying/backup.py": ({"save"}, "in a folder that check_free found new, or an unfinished backup"),
    "feeder/sources/packed.py": ({"NamedTemporaryFile"}, SCRATCH),
    "feeder/sources/spool.py": ({"unlink", "NamedTemporaryFile", "open"}, SCRATCH),
    "exporter/codebooks.py": ({"save"}, STAGING),
    "exporter/dense_baseline.py": ({"rmtree"}, SCRATCH),
    "exporter/graph.py": ({"save"}, STAGING),
    "exporter/plain.py": ({"save"}, SCRATCH),
    "exporter/weights.py": ({"symlink_to", "write_text", "save_file"}, SCRATCH),
    "late_interaction/arrays.py": ({"savez"}, "into memory"),
    "late_interaction/reading.py": ({"os.open"}, "for reading"),
    "vespa_app/deploying/cloud.py": ({"copytree", "write_bytes"}, SCRATCH),
    "colbert_vespa/cli/console.py": ({"os.open"}, "of /dev/null"),
    "colbert_vespa/cli/exporting.py": ({"rename", "rmdir", "rmtree"}, STAGING),
    "colbert_vespa/cli/packaging.py": ({"copytree"}, SCRATCH),
    "colbert_vespa/rag/building.py": ({"rmtree"}, SCRATCH),
    "colbert_vespa/training/running.py": ({"touch"}, RUN),
    "colbert_vespa/training/saving.py": (
        {"save", "rename", "rmtree", "copytree", "copyfile", "write_text", "save_file"}, STAGING,
    ),
    "colbert_vespa/training/scorers.py": ({"open", "truncate"}, RUN),
    "colbert_vespa/evaluation/plots.py": ({"savefig"}, "into memory"),
}  # fmt: skip


def destructive(tree):
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _name(node)):
            found.add(name)
        elif isinstance(node, ast.Attribute) and node.attr in ("unlink", "rmtree") and not _is_called(node, tree):
            found.add(node.attr)  # handed over, as to atexit
    return found


def _is_called(attribute, tree):
    return any(isinstance(node, ast.Call) and node.func is attribute for node in ast.walk(tree))


def _name(call):
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    of_os = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "os"
    if name in ("replace", "rename", "remove", "open") and of_os:
        return f"os.{name}"
    if name == "replace" and isinstance(function, ast.Attribute) and len(call.args) == 1 and not call.keywords:
        return "replace"  # of a path: a text's takes two
    if name in ("open", "fdopen", "NamedTemporaryFile"):
        places = call.args[:1] if isinstance(function, ast.Attribute) and not of_os else call.args[1:2]
        modes = [*places, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
        writes = any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax+") for mode in modes)
        return name if writes or name == "NamedTemporaryFile" else ""
    return name if name in ATTRIBUTES else ""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_destructive_call_is_in_files_or_has_a_reason(package):
    new = {}
    for file in sorted((ROOT / package).rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        calls = destructive(ast.parse(file.read_text(encoding="utf-8")))
        if name != OWNER and calls - ALLOWED.get(name, (set(), ""))[0]:
            new[name] = calls
    assert not new


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("shutil.rmtree(x)", ["rmtree"]), ("rmtree(x)", ["rmtree"]),
        ("path.unlink()", ["unlink"]), ("os.unlink(x)", ["unlink"]),
        ("os.remove(x)", ["os.remove"]), ("some_list.remove(x)", []), ("os.replace(a, b)", ["os.replace"]),
        ("path.replace(b)", ["replace"]), ("text.replace('a', 'b')", []), ("replace(x, y=1)", []), ("x.rename(y)", ["rename"]),
        ("open(p, 'w')", ["open"]), ("open(p, mode='ab')", ["open"]), ("open(p)", []),
        ("p.open('rb')", []), ("p.open('r+b')", ["open"]),
        ("os.open(p, f)", ["os.open"]), ("atexit.register(p.unlink)", ["unlink"]), ("file.truncate(3)", ["truncate"]),
        ("tempfile.NamedTemporaryFile()", ["NamedTemporaryFile"]), ("np.save(p, a)", ["save"]),
    ],
)  # fmt: skip
def test_what_counts_as_destructive(text, names):
    assert sorted(destructive(ast.parse(text))) == names
