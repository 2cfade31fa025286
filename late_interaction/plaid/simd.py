"""Sixteen-bit dot products of four vectors with sixteen query rows: the inner loop of MaxSim over compressed vectors.

On x86 with AVX2 it is `vpmaddwd` (or VNNI's fused form, which LLVM chooses where the processor has it), written as LLVM
code because numba's own loops do not become that instruction; elsewhere plain loops that LLVM vectorises as it can.
Sixteen bits and not eight: `vpmaddubsw` needs a second multiply-add to widen its sums, so that eight bits would save nothing
but precision.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["GROUP", "TOKENS", "dot_block", "run_block"]

TOKENS = 4  # vectors of a block
GROUP = 16  # query rows of a block
_VECTOR = 8  # int32 lanes of a 32-byte register
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_SUMS, _PAIRS = ir.VectorType(_I32, _VECTOR), ir.VectorType(_I16, 2 * _VECTOR)


def _has_avx2() -> bool:
    features = llvmlite.binding.get_host_cpu_features()
    return bool(features.get("avx2", False))


@intrinsic
def _dot_avx2(typing_context: Any, vectors: Any, query: Any, sums: Any) -> Any:
    signature = types.void(vectors, query, sums)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args, args, strict=True)]
        pairs = cgutils.unpack_tuple(builder, arrays[1].shape, 3)[0]
        x, q, out = (
            builder.bitcast(array.data, kind.as_pointer()) for array, kind in zip(arrays, (_I32, _PAIRS, _SUMS), strict=True)
        )
        madd = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_SUMS, [_PAIRS, _PAIRS]), "llvm.x86.avx2.pmadd.wd"
        )
        before = builder.block
        loop, done = builder.append_basic_block("pairs"), builder.append_basic_block("summed")
        builder.branch(loop)
        builder.position_at_end(loop)
        pair = builder.phi(_I64)
        pair.add_incoming(_I64(0), before)
        totals = [builder.phi(_SUMS) for _ in range(TOKENS * 2)]
        for total in totals:
            total.add_incoming(ir.Constant(_SUMS, [0] * _VECTOR), before)
        rows = [_load(builder, q, builder.add(builder.mul(pair, _I64(2)), _I64(half))) for half in range(2)]
        added = []
        for token in range(TOKENS):
            two = _load(builder, x, builder.add(builder.mul(pairs, _I64(token)), pair))
            spread = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), two, _I32(0))
            spread = builder.shuffle_vector(spread, ir.Constant(_SUMS, ir.Undefined), ir.Constant(_SUMS, [0] * _VECTOR))
            both = builder.bitcast(spread, _PAIRS)
            added += [builder.add(totals[2 * token + half], builder.call(madd, [both, rows[half]])) for half in range(2)]
        for total, value in zip(totals, added, strict=True):
            total.add_incoming(value, loop)
        after = builder.add(pair, _I64(1))
        pair.add_incoming(after, loop)
        builder.cbranch(builder.icmp_signed("<", after, pairs), loop, done)
        builder.position_at_end(done)
        for place, value in enumerate(added):
            builder.store(value, builder.gep(out, [_I64(place)])).align = 4
        return context.get_dummy_value()

    return signature, codegen


def _load(builder: Any, pointer: Any, place: Any) -> Any:
    loaded = builder.load(builder.gep(pointer, [place]))
    loaded.align = 2
    return loaded


@numba.njit(nogil=True)
def _dot_plain(vectors: Any, query: Any, sums: Any) -> None:
    for token in range(TOKENS):
        total = np.zeros(GROUP, np.int32)
        for pair in range(query.shape[0]):
            a, b = np.int32(vectors[token, 2 * pair]), np.int32(vectors[token, 2 * pair + 1])
            for row in range(GROUP):
                total[row] += a * np.int32(query[pair, row, 0]) + b * np.int32(query[pair, row, 1])
        sums[token] = total


# (vectors int16 [4, 2 pairs], query int16 [pairs, 16, 2], sums int32 [4, 16]) -> sums are overwritten. All C-contiguous;
# there is at least one pair, and the caller sees to it that no sum passes 31 bits.
dot_block = _dot_avx2 if _has_avx2() else _dot_plain


@numba.njit
def run_block(vectors: Any, query: Any, sums: Any, plain: bool) -> None:
    """`dot_block`, or the plain loops in its place: for tests."""
    if plain:
        _dot_plain(vectors, query, sums)
    else:
        dot_block(vectors, query, sums)
