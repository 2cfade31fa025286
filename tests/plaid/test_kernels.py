"""Compiled kernels that are kept on disk belong to the sources that they were made of."""

import ast
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import late_interaction
from late_interaction import compiling, lookup_kernels, residual_kernels
from late_interaction.plaid.searching import kernels as searching_kernels
from late_interaction.plaid.store import kernels as store_kernels

TYPES_AND_OPTIONS = {"typing", "numpy.typing", "late_interaction.array_types", "late_interaction.compiling"}
SCORE = """
import sys; sys.path.insert(0, sys.argv[1])
import numpy as np
from late_interaction.plaid.store import kernels
assert kernels.__file__.startswith(sys.argv[1])
one, passages = np.ones((1, 2), np.float32), np.zeros(1, np.int64)
out = np.zeros(1, np.float32)
kernels.maxsim_rows(passages, np.array([0, 1]), one, np.ones((1, 1, 16, 2), np.int16), 1.0, out, np.zeros(1, np.float32))
print(int(np.sign(out[0])))
"""


@pytest.mark.slow
def test_kept_kernels_are_not_those_of_another_simd(tmp_path):
    """An upgrade that changes simd.py alone."""
    shutil.copytree(Path(late_interaction.__file__).parent, tmp_path / "late_interaction")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_CPU_NAME": "generic"}

    def score():
        command = [sys.executable, "-c", SCORE, str(tmp_path)]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()

    assert score() == score() == "1"
    assert list((tmp_path / "cache").rglob("*.nbc"))
    simd = tmp_path / "late_interaction/simd.py"
    simd.write_text(simd.read_text().replace("total[row] += ", "total[row] -= "))
    assert score() == "-1"


@pytest.mark.parametrize("kernels", [lookup_kernels, residual_kernels, searching_kernels, store_kernels])
def test_every_source_that_kernels_take_code_from_is_in_their_names(kernels):
    tree = ast.parse(Path(kernels.__file__).read_text())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    inlined = {node.module for node in imports} - {"__future__", "late_interaction", *TYPES_AND_OPTIONS}
    compilers = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "compiler"]
    assert compilers
    for compiler in compilers:
        sources = [ast.unparse(source).removesuffix(".__file__") for source in compiler.args]
        assert sources == ["__file__", *(module.rpartition(".")[2] for module in sorted(inlined))]


def test_compiling_is_announced_once_and_loading_from_the_cache_is_not(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "doubling.py"
    source.write_text("def double(x):\n    return x + x\n")

    def kernel(package):
        spec = importlib.util.spec_from_file_location(f"{package}.doubling", source)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        spec.loader.exec_module(module)
        return compiling.compiler(str(source))(module.double)

    caplog.set_level(logging.INFO, logger=compiling.LOG.name)
    for package, calls, lines in (("elsewhere", (1,), 0), ("late_interaction", (1, 1.5), 1), ("late_interaction", (1, 1.5), 0)):
        monkeypatch.setattr(compiling.ANNOUNCEMENT, "told", False)
        caplog.clear()
        double = kernel(package)
        assert [double(number) for number in calls] == [2 * number for number in calls]
        assert len(caplog.records) == lines
