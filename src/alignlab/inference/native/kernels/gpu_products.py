"""Triton kernels for the products of a decode step: each reads its matrices once, with the norm before them and the
activation or the residual behind them in the same pass.

Legend: R rows, K input width, N output width, P programs. Sums are fp32 and in a fixed order, so a shape always gives
the same numbers. Weights don't depend on the kernel before, so that with `AHEAD` their first tile is on
its way while that one still runs (programmatic dependent launch, Hopper and later).
"""

from __future__ import annotations

from collections.abc import Callable

try:
    import triton
    import triton.language as tl
except ImportError:  # the CPU's torch comes without; gpu_step.py asks before it launches anything
    triton = tl = None


def jit(function: Callable) -> object:
    """A Triton kernel; counts of rows and parts aren't compiled into it, as sizes are that 16 divides."""
    return function if triton is None else triton.jit(function, do_not_specialize=["R", "P", "S"])


SILU, GELU_TANH, GELU, RELU = range(4)


@jit
def activated(x, KIND: tl.constexpr):
    """SiLU, GELU by tanh or erf, ReLU."""
    if KIND == 0:
        return x / (1.0 + tl.exp(-x))
    elif KIND == 1:
        inner = 1.5957691216057308 * (x + 0.044715 * x * x * x)  # 2 sqrt(2 / pi)
        return x / (1.0 + tl.exp(-inner))  # x / 2 (1 + tanh(inner / 2))
    elif KIND == 2:
        return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))
    else:
        return tl.maximum(x, 0.0)


@jit
def wait(AHEAD: tl.constexpr):
    """Until the kernel before has left its results; lets the one behind begin."""
    if AHEAD:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@jit
def part_of(place, w0, w1, w2, b0, b1, b2, N0, N1, N2, PARTS: tl.constexpr, BLOCK_N: tl.constexpr):
    """Which of several matrices a program works on: its address, bias, rows, first row here and in the result."""
    w, b, count, before, first = w0, b0, N0, 0, place * BLOCK_N
    if PARTS == 3:
        end0 = tl.cdiv(N0, BLOCK_N)
        end1 = end0 + tl.cdiv(N1, BLOCK_N)
        second, third = (place >= end0) & (place < end1), place >= end1
        w = tl.where(third, w2, tl.where(second, w1, w0))
        b = tl.where(third, b2, tl.where(second, b1, b0))
        count = tl.where(third, N2, tl.where(second, N1, N0))
        before = tl.where(third, N0 + N1, tl.where(second, N0, 0))
        first = (place - tl.where(third, end1, tl.where(second, end0, 0))) * BLOCK_N
    return w, b, count, before, first


@jit
def one_row(
    x, gain, w0, w1, w2, b0, b1, b2, y, best, K, N0, N1, N2, eps,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BEST: tl.constexpr,
    KIND: tl.constexpr, PARTS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, ONCE: tl.constexpr,
    AHEAD: tl.constexpr,
):  # fmt: skip
    """y = W norm(x) for one row, (K,) -> (N,), by multiplying and adding: a tile of `BLOCK_N` outputs a program.

    Args:
        gain: of an RMSNorm in front (`NORM`); its division comes last, so that x is read once.
        w0: and w1, w2: (N0, K), ... side by side (`PARTS` is 3), or gate and up (`GATED`).
        y: (N,); with `ADD` the result is added to what is there.
        best: (3, P) largest value, its place and the sum of exponentials of each program (`BEST`), instead of y.
        ONCE: K fits into one tile.
    """
    place = tl.program_id(0)
    w, b, count, before, first = part_of(place, w0, w1, w2, b0, b1, b2, N0, N1, N2, PARTS, BLOCK_N)
    n, k = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    inside = first + n < count
    cells = n[:, None] * K + k[None, :]
    here = w + first.to(tl.int64) * K
    mask = inside[:, None] & (k < K)[None, :]
    tile = tl.load(here + cells, mask=mask, other=0.0, eviction_policy="evict_first")
    if GATED:
        there = w1 + first.to(tl.int64) * K
        upper = tl.load(there + cells, mask=mask, other=0.0, eviction_policy="evict_first")
    wait(AHEAD)
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    raised = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    for start in range(0, K, BLOCK_K):
        value = tl.load(x + start + k, mask=start + k < K, other=0.0).to(tl.float32)
        if NORM:
            squares += value * value
            value *= tl.load(gain + start + k, mask=start + k < K, other=0.0).to(tl.float32)
        now = tile.to(tl.float32)
        if not ONCE:  # the next tile is on its way while this one is used
            following = inside[:, None] & (start + BLOCK_K + k < K)[None, :]
            tile = tl.load(here + start + BLOCK_K + cells, mask=following, other=0.0, eviction_policy="evict_first")
        total += now * value[None, :]
        if GATED:
            now = upper.to(tl.float32)
            if not ONCE:
                upper = tl.load(
                    there + start + BLOCK_K + cells, mask=following, other=0.0, eviction_policy="evict_first"
                )
            raised += now * value[None, :]
    out = tl.sum(total, 1)
    if NORM:
        out *= tl.rsqrt(tl.sum(squares, 0) / K + eps)
    if BIAS:
        out += tl.load(b + first + n, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        other = tl.sum(raised, 1)
        if NORM:
            other *= tl.rsqrt(tl.sum(squares, 0) / K + eps)
        if BIAS:
            other += tl.load(b1 + first + n, mask=inside, other=0.0).to(tl.float32)
        out = activated(out, KIND) * other
    target = y + before + first + n
    if ADD:
        out += tl.load(target, mask=inside, other=0.0).to(tl.float32)
    if BEST:  # rounded as logits of this type are
        out = tl.where(inside, out.to(w0.dtype.element_ty).to(tl.float32), -3.0e38)
        programs, largest = tl.num_programs(0), tl.max(out, 0)
        tl.store(best + place, largest)
        tl.store(best + programs + place, tl.min(tl.where(out == largest, first + n, 2**24), 0).to(tl.float32))
        tl.store(best + 2 * programs + place, tl.sum(tl.where(inside, tl.exp(out - largest), 0.0), 0))
    else:
        tl.store(target, out, mask=inside)


@jit
def some_rows(
    x, gain, w0, w1, w2, b0, b1, b2, y, best, sums, arrived, R, K, N0, N1, N2, stride, eps,
    NORM: tl.constexpr, GATED: tl.constexpr, ADD: tl.constexpr, BIAS: tl.constexpr, BEST: tl.constexpr,
    KIND: tl.constexpr, PARTS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """The same for up to `BLOCK_R` rows on the tensor cores, (R, K) -> (R, N) with `stride` numbers from row to row of
    y; `best` is (R, 3, P).

    With `SPLIT`, so many programs share the K of a tile: each leaves what it has in `sums`, fp32 (P, SPLIT, 3, BLOCK_R,
    BLOCK_N), and the last to arrive, by the counters `arrived` (P,), adds them in their order.
    """
    place, piece, share = tl.program_id(0), tl.program_id(1), tl.cdiv(tl.cdiv(K, SPLIT), BLOCK_K) * BLOCK_K
    w, b, count, before, first = part_of(place, w0, w1, w2, b0, b1, b2, N0, N1, N2, PARTS, BLOCK_N)
    r, n, k = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    inside, rows = first + n < count, r < R
    here = w + first.to(tl.int64) * K + n[:, None] * K + k[None, :]
    there = w1 + first.to(tl.int64) * K + n[:, None] * K + k[None, :]
    wait(AHEAD)
    total = tl.zeros([BLOCK_R, BLOCK_N], tl.float32)
    raised = tl.zeros([BLOCK_R, BLOCK_N], tl.float32)
    squares = tl.zeros([BLOCK_R, BLOCK_K], tl.float32)
    if NORM:
        coming = tl.load(gain + piece * share + k, mask=piece * share + k < K, other=0.0)
    for start in range(piece * share, tl.minimum(piece * share + share, K), BLOCK_K):
        left = start + k < K
        value = tl.load(x + r[:, None] * K + start + k[None, :], mask=rows[:, None] & left[None, :], other=0.0)
        tile = tl.load(here + start, mask=inside[:, None] & left[None, :], other=0.0)
        if NORM:
            wide, scale = value.to(tl.float32), coming.to(tl.float32)
            coming = tl.load(gain + start + BLOCK_K + k, mask=start + BLOCK_K + k < K, other=0.0)
            squares += wide * wide
            value = (wide * scale[None, :]).to(value.dtype)
        total = tl.dot(value, tl.trans(tile), total)
        if GATED:
            upper = tl.load(there + start, mask=inside[:, None] & left[None, :], other=0.0)
            raised = tl.dot(value, tl.trans(upper), raised)
    square = tl.sum(squares, 1)
    last = True
    if SPLIT > 1:
        size: tl.constexpr = BLOCK_R * BLOCK_N
        cells = r[:, None] * BLOCK_N + n[None, :]
        own = sums + (place * SPLIT + piece) * 3 * size
        tl.store(own + cells, total)
        if GATED:
            tl.store(own + size + cells, raised)
        if NORM:
            tl.store(own + 2 * size + r, square)
        tl.debug_barrier()  # all threads' sums are there before this program counts as arrived
        last = tl.atomic_add(arrived + place, 1, sem="acq_rel") == SPLIT - 1
        if last:
            tl.store(arrived + place, 0)  # for the next product
            total = tl.zeros([BLOCK_R, BLOCK_N], tl.float32)
            raised = tl.zeros([BLOCK_R, BLOCK_N], tl.float32)
            square = tl.zeros([BLOCK_R], tl.float32)
            for other in range(SPLIT):
                theirs = sums + (place * SPLIT + other) * 3 * size
                total += tl.load(theirs + cells, cache_modifier=".cg")  # not from this multiprocessor's own cache
                if GATED:
                    raised += tl.load(theirs + size + cells, cache_modifier=".cg")
                if NORM:
                    square += tl.load(theirs + 2 * size + r, cache_modifier=".cg")
    if NORM:
        factor = tl.rsqrt(square / K + eps)
        total *= factor[:, None]
        raised *= factor[:, None]
    if BIAS:
        total += tl.load(b + first + n, mask=inside, other=0.0).to(tl.float32)[None, :]
    if GATED:
        if BIAS:
            raised += tl.load(b1 + first + n, mask=inside, other=0.0).to(tl.float32)[None, :]
        total = activated(total, KIND) * raised
    rows = rows & last
    both = rows[:, None] & inside[None, :]
    target = y + r[:, None].to(tl.int64) * stride + (before + first + n)[None, :]
    if ADD:
        total += tl.load(target, mask=both, other=0.0).to(tl.float32)
    if BEST:
        total = tl.where(inside[None, :], total.to(w0.dtype.element_ty).to(tl.float32), -3.0e38)
        programs, largest = tl.num_programs(0), tl.max(total, 1)
        column = tl.min(tl.where(total == largest[:, None], (first + n)[None, :], 2**24), 1)
        exponentials = tl.sum(tl.where(inside[None, :], tl.exp(total - largest[:, None]), 0.0), 1)
        spot = best + r * 3 * programs + place
        tl.store(spot, largest, mask=rows)
        tl.store(spot + programs, column.to(tl.float32), mask=rows)
        tl.store(spot + 2 * programs, exponentials, mask=rows)
    else:
        tl.store(target, total, mask=both)
