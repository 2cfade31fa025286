"""Dot products in whole numbers: the inner loops of MaxSim over compressed vectors, and of looking up centroids.

MaxSim takes sixteen-bit products of four vectors with sixteen query rows. On x86 with AVX2 it is `vpmaddwd` (or VNNI's fused
form, which LLVM chooses if the processor has it), written as LLVM code because numba's own loops do not become that
instruction; elsewhere plain loops that LLVM vectorises. It uses sixteen bits, not eight: `vpmaddubsw` needs a second
multiply-add to widen its sums, so eight bits would save nothing and lose precision.

A lookup takes the products of one sixteen-bit row with many rows of bytes. With VNNI it is `vpdpbusd` on the lower and on the
upper bytes of the row, which gives the same whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from late_interaction.compiling import FAST
from late_interaction.extras import required

with required("local", "a local index"):
    import numba
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.core.registry import cpu_target
    from numba.extending import intrinsic, overload

__all__ = [
    "CELLS",
    "GROUP",
    "SHARED",
    "TOKENS",
    "add_base",
    "dot_block",
    "expand_shared",
    "halved",
    "prefetch",
    "prefetch_cell",
    "products",
    "raise_bytes",
    "trailing_zeros",
]

TOKENS = 4  # vectors of a block
GROUP = 16  # query rows of a block
CELLS = 16  # of a 32-byte register: widths are multiples of it
LINE = 64  # bytes of a cache line
EIGHT, BYTES = 8, 32  # rows and bytes that a lookup multiplies at once
_VECTOR = 8  # int32 lanes of a 32-byte register
_NEIGHBOURS = ([0, 2, 8, 10, 4, 6, 12, 14], [1, 3, 9, 11, 5, 7, 13, 15])  # lanes of two registers that are added
_HALVES = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
_BYTES, _WORDS = ir.VectorType(ir.IntType(8), 16), ir.VectorType(ir.IntType(16), 8)
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_SUMS, _PAIRS = ir.VectorType(_I32, _VECTOR), ir.VectorType(_I16, 2 * _VECTOR)


def _has(*features: str) -> bool:
    """Tell whether the processor that numba compiles for has all these features.

    NUMBA_CPU_NAME and NUMBA_CPU_FEATURES may name a lesser processor than this one, for which LLVM would refuse the
    instruction and end the process.
    """
    known: str = cpu_target.target_context.codegen().magic_tuple()[2]
    return {f"+{feature}" for feature in features} <= set(known.split(","))


_HAS_AVX2 = _has("avx2")
_HAS_VNNI = _has("avx512vnni", "avx512vl") or _has("avxvnni")


@intrinsic
def _dot_avx2(typing_context: Any, vectors: Any, query: Any, sums: Any) -> Any:
    signature = types.void(vectors, query, sums)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args, args, strict=True)]
        pairs = cgutils.unpack_tuple(builder, arrays[1].shape, 3)[0]
        x, q, out = (
            builder.bitcast(array.data, kind.as_pointer()) for array, kind in zip(arrays, (_I32, _PAIRS, _SUMS), strict=True)
        )
        madd = _madd(builder)

        def add(pair: Any, totals: list[Any]) -> list[Any]:
            rows = [_load(builder, q, builder.add(builder.mul(pair, _I64(2)), _I64(half))) for half in range(2)]
            added = []
            for token in range(TOKENS):
                two = _load(builder, x, builder.add(builder.mul(pairs, _I64(token)), pair))
                both = builder.bitcast(_spread(builder, two), _PAIRS)
                added += [builder.add(totals[2 * token + half], builder.call(madd, [both, rows[half]])) for half in range(2)]
            return added

        for place, value in enumerate(_summed(builder, pairs, TOKENS * 2, add)):
            builder.store(value, builder.gep(out, [_I64(place)])).align = 4
        return context.get_dummy_value()

    return signature, codegen


def _madd(builder: Any) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(_SUMS, [_PAIRS, _PAIRS]), "llvm.x86.avx2.pmadd.wd")


def _load(builder: Any, pointer: Any, place: Any, align: int = 2) -> Any:
    loaded = builder.load(builder.gep(pointer, [place]))
    loaded.align = align
    return loaded


def _spread(builder: Any, value: Any) -> Any:
    """Return a register with an int32 in every lane."""
    nothing = ir.Constant(_SUMS, ir.Undefined)
    first = builder.insert_element(nothing, value, _I32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_SUMS, [0] * _VECTOR))


def _summed(builder: Any, steps: Any, count: int, add: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Emit a loop of `steps`, at least one, with `count` totals from zero on, and return these. add: makes the next ones."""
    before = builder.block
    loop, done = builder.append_basic_block("loop"), builder.append_basic_block("summed")
    builder.branch(loop)
    builder.position_at_end(loop)
    step, totals = builder.phi(_I64), [builder.phi(_SUMS) for _ in range(count)]
    step.add_incoming(_I64(0), before)
    for total in totals:
        total.add_incoming(ir.Constant(_SUMS, [0] * _VECTOR), before)
    added = add(step, totals)
    for total, value in zip(totals, added, strict=True):
        total.add_incoming(value, loop)
    after = builder.add(step, _I64(1))
    step.add_incoming(after, loop)
    builder.cbranch(builder.icmp_signed("<", after, steps), loop, done)
    builder.position_at_end(done)
    return added


@intrinsic
def _add_avx2(typing_context: Any, vector: Any, base: Any) -> Any:
    signature = types.int32(vector, base)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args, args, strict=True)]
        blocks = builder.udiv(cgutils.unpack_tuple(builder, arrays[0].shape, 1)[0], _I64(2 * _VECTOR))
        x, b = (builder.bitcast(array.data, _PAIRS.as_pointer()) for array in arrays)
        madd = _madd(builder)

        def add(place: Any, totals: list[Any]) -> list[Any]:
            cells = builder.add(_load(builder, x, place), _load(builder, b, place))
            builder.store(cells, builder.gep(x, [place])).align = 2
            return [builder.add(totals[0], builder.call(madd, [cells, cells]))]

        reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I32, [_SUMS]), "llvm.vector.reduce.add.v8i32")
        return builder.call(reduce, _summed(builder, blocks, 1, add))

    return signature, codegen


@intrinsic
def _expand_avx2(typing_context: Any, payload: Any, table: Any, scales: Any, base: Any, out: Any) -> Any:
    """Expand buckets of 2 or 4 bits by one table of sixteen words: `out = base + table[bucket] * scales / 2^15`."""
    signature = types.int32(payload, table, scales, base, out)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in zip(signature.args, args, strict=True)]
        bytes_, width = (cgutils.unpack_tuple(builder, arrays[i].shape, 1)[0] for i in (0, 4))
        pointers = [builder.bitcast(array.data, _BYTES.as_pointer()) for array in arrays[:2]]
        words = [builder.bitcast(array.data, _PAIRS.as_pointer()) for array in arrays[2:]]
        tables = [_load(builder, pointers[1], _I64(half)) for half in range(2)]
        madd = _madd(builder)
        look = _external(builder, "llvm.x86.ssse3.pshuf.b.128", _BYTES, [_BYTES, _BYTES])
        scaled = _external(builder, "llvm.x86.avx2.pmul.hr.sw", _PAIRS, [_PAIRS, _PAIRS])
        four = builder.icmp_signed("==", builder.mul(bytes_, _I64(2)), width)
        squares = cgutils.alloca_once_value(builder, ir.Constant(_SUMS, [0] * _VECTOR))

        def block(at: Any, places: list[Any]) -> None:
            for number, buckets in enumerate(places):
                low, high = (builder.call(look, [half, buckets]) for half in tables)
                cells = builder.bitcast(builder.shuffle_vector(low, high, _mask(_interleaved(0, 16, 16))), _PAIRS)
                place = builder.add(builder.mul(at, _I64(len(places))), _I64(number))
                cells = builder.call(scaled, [cells, _load(builder, words[0], place)])
                cells = builder.add(cells, _load(builder, words[1], place))
                builder.store(cells, builder.gep(words[2], [place])).align = 2
                builder.store(builder.add(builder.load(squares), builder.call(madd, [cells, cells])), squares)

        def cut(bytes_: Any, shift: int, mask: int) -> Any:
            moved = builder.lshr(bytes_, ir.Constant(_BYTES, [shift] * 16)) if shift else bytes_
            return builder.and_(moved, ir.Constant(_BYTES, [mask] * 16))

        def halves(left: Any, right: Any, lanes: int) -> list[Any]:
            half = lanes // 2
            return [builder.shuffle_vector(left, right, _mask(_interleaved(first, half, lanes))) for first in (0, half)]

        with cgutils.for_range(builder, builder.udiv(bytes_, _I64(16))) as loop:
            at = loop.index
            loaded = _load(builder, pointers[0], at)
            with builder.if_else(four) as (then, otherwise):
                with then:
                    block(at, halves(cut(loaded, 4, 15), cut(loaded, 0, 15), 16))
                with otherwise:
                    first = halves(cut(loaded, 6, 3), cut(loaded, 4, 3), 16)
                    second = halves(cut(loaded, 2, 3), cut(loaded, 0, 3), 16)
                    places = []
                    for left, right in zip(first, second, strict=True):
                        pairs = halves(builder.bitcast(left, _WORDS), builder.bitcast(right, _WORDS), 8)
                        places += [builder.bitcast(pair, _BYTES) for pair in pairs]
                    block(at, places)
        reduce = _external(builder, "llvm.vector.reduce.add.v8i32", _I32, [_SUMS])
        return builder.call(reduce, [builder.load(squares)])

    return signature, codegen


def _interleaved(first: int, count: int, lanes: int) -> list[int]:
    """Return places `first ..` of a vector of so many lanes and of a second one, alternating."""
    return [place for i in range(first, first + count) for place in (i, i + lanes)]


def _mask(places: list[int]) -> Any:
    return ir.Constant(ir.VectorType(_I32, len(places)), places)


def _external(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, arguments), name)


@intrinsic
def _eight_vnni(typing_context: Any, rows: Any, first: Any, halves: Any, shift: Any, out: Any) -> Any:
    """Write to `out [first:first + 8]` the products of those rows with `halves [2, d]`, less `shift`. d: a multiple of 32.

    `vpdpbusd` multiplies unsigned bytes by signed ones, so the row's bytes plus 128 meet its signed upper bytes, and its
    unsigned lower bytes the row's; `shift` takes away the 128.
    """
    signature = types.void(rows, types.int64, halves, types.int32, out)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = [(signature.args[place], args[place]) for place in (0, 2, 4)]
        arrays = [context.make_array(kind)(context, builder, value) for kind, value in kinds]
        width = cgutils.unpack_tuple(builder, arrays[0].shape, 2)[1]
        blocks = builder.udiv(width, _I64(4 * _VECTOR))
        start = builder.gep(arrays[0].data, [builder.mul(args[1], width)])
        x, q = (builder.bitcast(data, _SUMS.as_pointer()) for data in (start, arrays[1].data))
        multiply = _external(builder, "llvm.x86.avx512.vpdpbusd.256", _SUMS, [_SUMS] * 3)

        def add(block: Any, totals: list[Any]) -> list[Any]:
            low, high = (_load(builder, q, place, 1) for place in (block, builder.add(block, blocks)))
            added = []
            for row in range(EIGHT):
                cells = _load(builder, x, builder.add(builder.mul(blocks, _I64(row)), block), 1)
                moved = builder.xor(cells, ir.Constant(_SUMS, [-0x7F7F7F80] * _VECTOR))
                added += [
                    builder.call(multiply, [totals[2 * row], low, cells]),
                    builder.call(multiply, [totals[2 * row + 1], moved, high]),
                ]
            return added

        added = _summed(builder, blocks, 2 * EIGHT, add)
        eight = ir.Constant(_SUMS, [8] * _VECTOR)
        sums = [builder.add(added[2 * row], builder.shl(added[2 * row + 1], eight)) for row in range(EIGHT)]
        for lanes in (_NEIGHBOURS, _NEIGHBOURS, _HALVES):  # so that lane r becomes the sum of row r
            both = zip(sums[::2], sums[1::2], strict=True)
            sums = [builder.add(*(builder.shuffle_vector(a, b, _mask(part)) for part in lanes)) for a, b in both]
        place = builder.bitcast(builder.gep(arrays[2].data, [args[1]]), _SUMS.as_pointer())
        builder.store(builder.sub(sums[0], _spread(builder, args[3])), place).align = 4
        return context.get_dummy_value()

    return signature, codegen


@numba.njit(nogil=True)
def halved(query: Any, halves: Any) -> Any:
    """Write lower and upper bytes of `query [d]` int16 to `halves [2, d]` int8; return the shift that `products` takes."""
    total = np.int32(0)
    for j in range(query.shape[0]):
        halves[0, j] = np.int8(query[j] & 255)
        halves[1, j] = np.int8(query[j] >> 8)
        total += np.int32(query[j] >> 8)
    return np.int32(total << 15)


@numba.njit(nogil=True, fastmath=FAST)
def _products_plain(rows: Any, query: Any, out: Any, ahead: Any) -> None:
    for row in range(rows.shape[0]):
        if row < ahead.shape[0]:
            prefetch(ahead, row)
        value = np.int32(0)
        for j in range(rows.shape[1]):
            value = np.int32(value + np.int32(np.int32(rows[row, j]) * np.int32(query[j])))
        out[row] = value


def products(rows: Any, query: Any, halves: Any, shift: Any, out: Any, ahead: Any) -> None:
    """Write the products of `rows [n, d]`, int8 or int16, with `query [d]` int16 to `out [n]` int32, for compiled code only.

    halves, shift: of `halved`. ahead: rows to prefetch meanwhile.
    """


@overload(products)
def _products(rows: Any, query: Any, halves: Any, shift: Any, out: Any, ahead: Any) -> Any:
    def plain(rows: Any, query: Any, halves: Any, shift: Any, out: Any, ahead: Any) -> None:
        _products_plain(rows, query, out, ahead)

    def of_bytes(rows: Any, query: Any, halves: Any, shift: Any, out: Any, ahead: Any) -> None:
        if rows.shape[0] < EIGHT or rows.shape[1] % BYTES:
            _products_plain(rows, query, out, ahead)
            return
        for first in range(0, rows.shape[0], EIGHT):
            for row in range(first, min(first + EIGHT, ahead.shape[0])):
                prefetch(ahead, row)
            _eight_vnni(rows, min(first, rows.shape[0] - EIGHT), halves, shift, out)

    return of_bytes if _HAS_VNNI and rows.dtype == types.int8 and rows.layout == "C" else plain


@intrinsic
def raise_bytes(typing_context: Any, table: Any, places: Any, count: Any, best: Any) -> Any:
    """Raise `best [width]` to the largest of each column among the rows `places[:count]` of `table`.

    All arrays are C-contiguous uint8 except places, int64. width is a multiple of 16. This is plain vector code, which
    every processor has.
    """
    signature = types.void(table, places, types.int64, best)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        """Generate the code."""
        kinds = (signature.args[0], signature.args[1], signature.args[3])
        arrays = [context.make_array(kind)(context, builder, args[place]) for kind, place in zip(kinds, (0, 1, 3), strict=True)]
        width = cgutils.unpack_tuple(builder, arrays[0].shape, 2)[1]
        number = args[2]
        with cgutils.for_range_slice(builder, _I64(0), width, _I64(16)) as (column, _):
            out = builder.bitcast(builder.gep(arrays[2].data, [column]), _BYTES.as_pointer())
            first = builder.load(out)
            first.align = 1
            before = builder.block
            loop, done = builder.append_basic_block("rows"), builder.append_basic_block("raised")
            builder.cbranch(builder.icmp_signed(">", number, _I64(0)), loop, done)
            builder.position_at_end(loop)
            row, most = builder.phi(_I64), builder.phi(_BYTES)
            row.add_incoming(_I64(0), before)
            most.add_incoming(first, before)
            place = builder.load(builder.gep(arrays[1].data, [row]))
            start = builder.gep(arrays[0].data, [builder.add(builder.mul(place, width), column)])
            loaded = builder.load(builder.bitcast(start, _BYTES.as_pointer()))
            loaded.align = 1
            raised = builder.select(builder.icmp_unsigned(">", loaded, most), loaded, most)
            most.add_incoming(raised, loop)
            after = builder.add(row, _I64(1))
            row.add_incoming(after, loop)
            builder.cbranch(builder.icmp_signed("<", after, number), loop, done)
            builder.position_at_end(done)
            final = builder.phi(_BYTES)
            final.add_incoming(first, before)
            final.add_incoming(raised, loop)
            builder.store(final, out).align = 1
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def prefetch(typing_context: Any, rows: Any, row: Any) -> Any:
    """Prefetch the cache lines of `rows[row]`, C-contiguous; nothing is read, so any row is safe."""
    signature = types.void(rows, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        """Generate the code."""
        kind = signature.args[0]
        array = context.make_array(kind)(context, builder, args[0])
        width = builder.mul(cgutils.unpack_tuple(builder, array.shape, 2)[1], _I64(kind.dtype.bitwidth // 8))
        byte = ir.IntType(8).as_pointer()
        start = builder.gep(builder.bitcast(array.data, byte), [builder.mul(args[1], width)])
        ask = _external(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, _I32, _I32, _I32])
        with cgutils.for_range_slice(builder, _I64(0), width, _I64(LINE)) as (at, _):
            builder.call(ask, [builder.gep(start, [at]), _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def prefetch_cell(typing_context: Any, cells: Any, place: Any) -> Any:
    """Prefetch the cache line of `cells[place]`; nothing is read, so any place is safe."""
    signature = types.void(cells, types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        """Generate the code."""
        array = context.make_array(signature.args[0])(context, builder, args[0])
        byte = ir.IntType(8).as_pointer()
        ask = _external(builder, "llvm.prefetch.p0", ir.VoidType(), [byte, _I32, _I32, _I32])
        builder.call(ask, [builder.bitcast(builder.gep(array.data, [args[1]]), byte), _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Return the place of the lowest bit that is set in a word, 64 if none is."""
    signature = types.int64(types.uint64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        """Generate the code."""
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return signature, codegen


@numba.njit(nogil=True)
def _add_plain(vector: Any, base: Any) -> Any:
    total = np.int32(0)
    for place in range(vector.shape[0]):
        value = np.int16(vector[place] + base[place])
        vector[place] = value
        total += np.int32(value) * np.int32(value)
    return total


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
# There is at least one pair, and the caller ensures that no sum exceeds 31 bits.
dot_block = _dot_avx2 if _HAS_AVX2 else _dot_plain

# (vector int16 [width], base int16 [width]) -> int32: adds base to vector, and returns the sum of the squares. width is a
# multiple of 16, and the squares of no row exceed 31 bits.
add_base = _add_avx2 if _HAS_AVX2 else _add_plain


@numba.njit(nogil=True)
def _expand_never(payload: Any, table: Any, scales: Any, base: Any, out: Any) -> int:
    return 0


# whether `expand_shared` may be called
SHARED = _HAS_AVX2
# (payload uint8 [bytes], table uint8 [2, 16], scales, base, out int16 [width]) -> int32: decodes buckets of 4 bits, where width
# is twice the bytes, or else of 2 bits; the sum of the squares. The table's rows are low and high bytes of sixteen words; bytes
# are a multiple of 16.
expand_shared = _expand_avx2 if SHARED else _expand_never
