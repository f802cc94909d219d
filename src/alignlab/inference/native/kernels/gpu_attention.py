"""Triton kernels for what lies between the products of a decode step: embedding, rotation, cache and attention of one
new token a row, norms, gates, and the choice of the likeliest token.

Legend: R rows, H query heads, G key heads, D head width, C columns that the step looks at, S parts that the columns
are cut into, T rows of the rotation's tables, V vocabulary, P programs of the head.
"""

from __future__ import annotations

from alignlab.inference.native.kernels.gpu_products import activated, jit, tl, wait


@jit
def embed(ids, table, x, count, now, W, BLOCK: tl.constexpr):
    """x = table[ids], (R, 1) -> (R, W); notes count in `now` and counts on, for the choice that ends the step."""
    row, block = tl.program_id(0), tl.program_id(1)
    cell = block * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(ids + row)
    value = tl.load(table + token * W + cell, mask=cell < W, other=0.0)
    tl.store(x + row * W + cell, value, mask=cell < W)
    if (row == 0) & (block == 0):
        number = tl.load(count)
        tl.store(now, number)
        tl.store(count, number + 1)


@jit
def attention(
    qkv, keys, values, starts, at, cosine, sine, out, sums, scale, C, key_row, key_head, H, G,
    D: tl.constexpr, WIDTH: tl.constexpr, ROTARY: tl.constexpr, GROUP: tl.constexpr, BLOCK_G: tl.constexpr,
    BLOCK_C: tl.constexpr, SPLIT: tl.constexpr, EXACT: tl.constexpr, AHEAD: tl.constexpr,
):  # fmt: skip
    """Rotates queries and the new key, writes key and value to column `at`, attends to columns starts[row]..at.

    Args:
        qkv: (R, (H + 2G) D).
        keys: (R, G, ..., D) by strides `key_row` and `key_head`, and `values` alike.
        cosine: (T, ROTARY), and `sine` with the sign of the rotation.
        out: (R, H D); with `SPLIT`, fp32 (S, R, H, D) without its division.
        sums: (S, R, H, 2) largest score and sum of exponentials, of each part.
        WIDTH: a power of two that holds D; `EXACT`: products in fp32.
    """
    row, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    parts = tl.num_programs(2)
    d, g = tl.arange(0, WIDTH), tl.arange(0, BLOCK_G)
    wide, real = d < D, g < GROUP
    wait(AHEAD)
    column, start = tl.load(at), tl.load(starts + row)
    position = tl.maximum(column - start, 0)
    turned = wide & (d < ROTARY)
    partner = tl.where(d < ROTARY // 2, d + ROTARY // 2, d - ROTARY // 2)
    cos = tl.load(cosine + position * ROTARY + d, mask=turned, other=1.0).to(tl.float32)
    sin = tl.load(sine + position * ROTARY + d, mask=turned, other=0.0).to(tl.float32)
    kind = qkv.dtype.element_ty
    own = qkv + row * (H + 2 * G) * D
    heads = own + (head * GROUP + g[:, None]) * D
    query = tl.load(heads + d[None, :], mask=real[:, None] & wide[None, :], other=0.0).to(tl.float32)
    other = tl.load(heads + partner[None, :], mask=real[:, None] & turned[None, :], other=0.0).to(tl.float32)
    query = (query * cos[None, :] + other * sin[None, :]).to(kind)
    new = own + (H + head) * D
    key = tl.load(new + d, mask=wide, other=0.0).to(tl.float32)
    other_key = tl.load(new + partner, mask=turned, other=0.0).to(tl.float32)
    key = (key * cos + other_key * sin).to(kind)
    value = tl.load(new + G * D + d, mask=wide, other=0.0)
    base = row.to(tl.int64) * key_row + head.to(tl.int64) * key_head
    if part == 0:
        tl.store(keys + base + column * D + d, key, mask=wide)
        tl.store(values + base + column * D + d, value, mask=wide)

    size = tl.cdiv(tl.cdiv(C, parts), BLOCK_C) * BLOCK_C
    first = part * size
    last = tl.minimum(first + size, column + 1)
    if not SPLIT:  # whole tiles before the row's start hold padding only
        first = tl.minimum(start, column) // BLOCK_C * BLOCK_C
    largest = tl.full([BLOCK_G], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_G], tl.float32)
    result = tl.zeros([BLOCK_G, WIDTH], tl.float32)
    for tile in range(first, last, BLOCK_C):
        c = tile + tl.arange(0, BLOCK_C)
        is_new = c == column
        seen = ((c >= start) & (c < column)) | is_new
        cells = base + c[:, None] * D + d[None, :]
        cached = (seen & (c != column))[:, None] & wide[None, :]  # the new one may still be on its way to memory
        k = tl.where(is_new[:, None], key[None, :], tl.load(keys + cells, mask=cached, other=0.0))
        v = tl.where(is_new[:, None], value[None, :], tl.load(values + cells, mask=cached, other=0.0))
        if EXACT:
            score = tl.dot(query, tl.trans(k), input_precision="ieee") * scale
        else:
            score = tl.dot(query, tl.trans(k)) * scale
        score = tl.where(seen[None, :], score, -float("inf"))
        higher = tl.maximum(largest, tl.max(score, 1))
        finite = tl.where(higher == -float("inf"), 0.0, higher)
        weight = tl.exp(score - finite[:, None])
        shrink = tl.exp(largest - finite)
        total = total * shrink + tl.sum(weight, 1)
        result *= shrink[:, None]
        if EXACT:
            result = tl.dot(weight, v, result, input_precision="ieee")
        else:
            result = tl.dot(weight.to(kind), v, result)
        largest = higher
    h = head * GROUP + g
    both = real[:, None] & wide[None, :]
    if SPLIT:
        spot = (part * tl.num_programs(0) + row) * H + h
        tl.store(out + spot[:, None] * D + d[None, :], result, mask=both)
        tl.store(sums + spot * 2, largest, mask=real)
        tl.store(sums + spot * 2 + 1, total, mask=real)
    else:
        tl.store(out + (row * H + h)[:, None] * D + d[None, :], result / total[:, None], mask=both)


@jit
def combine(parts, sums, out, S, D: tl.constexpr, WIDTH: tl.constexpr, AHEAD: tl.constexpr):
    """Parts of an attention into one, in their order: (S, R, H, D) -> (R, H D)."""
    place, heads = tl.program_id(0), tl.num_programs(0)  # a row's head
    d = tl.arange(0, WIDTH)
    wait(AHEAD)
    largest = -float("inf")
    for part in range(S):
        largest = tl.maximum(largest, tl.load(sums + (part * heads + place) * 2))
    total, result = 0.0, tl.zeros([WIDTH], tl.float32)
    for part in range(S):
        spot = part * heads + place
        factor = tl.exp(tl.load(sums + spot * 2) - largest)
        total += tl.load(sums + spot * 2 + 1) * factor
        result += tl.load(parts + spot * D + d, mask=d < D, other=0.0) * factor
    tl.store(out + place * D + d, result / total, mask=d < D)


@jit
def norm(x, gain, y, W, eps, BLOCK: tl.constexpr, AHEAD: tl.constexpr):
    """RMSNorm of a row: (R, W) -> (R, W)."""
    row, cell = tl.program_id(0), tl.arange(0, BLOCK)
    wait(AHEAD)
    value = tl.load(x + row * W + cell, mask=cell < W, other=0.0).to(tl.float32)
    value *= tl.rsqrt(tl.sum(value * value, 0) / W + eps)
    tl.store(y + row * W + cell, value * tl.load(gain + cell, mask=cell < W, other=0.0).to(tl.float32), mask=cell < W)


@jit
def gate(pair, y, F, KIND: tl.constexpr, BLOCK: tl.constexpr, AHEAD: tl.constexpr):
    """Activation of the first half times the second: (R, 2F) -> (R, F)."""
    row, cell = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    wait(AHEAD)
    first = tl.load(pair + row * 2 * F + cell, mask=cell < F, other=0.0).to(tl.float32)
    second = tl.load(pair + row * 2 * F + F + cell, mask=cell < F, other=0.0).to(tl.float32)
    tl.store(y + row * F + cell, activated(first, KIND) * second, mask=cell < F)


@jit
def bests(logits, best, V, BLOCK: tl.constexpr, AHEAD: tl.constexpr):
    """What the head's own programs leave, from logits: (R, V) -> (R, 3, P), a part of `BLOCK` columns each."""
    row, place, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    cell = place * BLOCK + tl.arange(0, BLOCK)
    wait(AHEAD)
    value = tl.load(logits + row.to(tl.int64) * V + cell, mask=cell < V, other=-3.0e38).to(tl.float32)
    largest = tl.max(value, 0)
    spot = best + row * 3 * parts + place
    tl.store(spot, largest)
    tl.store(spot + parts, tl.min(tl.where(value == largest, cell, 2**24), 0).to(tl.float32))
    tl.store(spot + 2 * parts, tl.sum(tl.where(cell < V, tl.exp(value - largest), 0.0), 0))


@jit
def take(best, ids, told, at, now, P, V, columns, BLOCK: tl.constexpr, AHEAD: tl.constexpr):
    """The likeliest token of each row and its log-probability, from the programs of the head; the next step's column.

    Args:
        best: (R, 3, P) largest logit, its token, sum of exponentials of logits less the largest.
        told: (R, columns, 2) fp64, filled at `now`.
    """
    row, cell = tl.program_id(0), tl.arange(0, BLOCK)
    wait(AHEAD)
    own = best + row * 3 * P
    largest = tl.full([BLOCK], -3.0e38, tl.float32)
    token, total = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for start in range(0, P, BLOCK):
        place = start + cell
        here = tl.load(own + place, mask=place < P, other=-3.0e38)
        there = tl.load(own + P + place, mask=place < P, other=0.0)
        exponentials = tl.load(own + 2 * P + place, mask=place < P, other=0.0)
        higher = tl.maximum(largest, here)
        total = total * tl.exp(largest - higher) + exponentials * tl.exp(here - higher)
        token = tl.where(here > largest, there, token)  # of equal ones the first
        largest = higher
    highest = tl.max(largest, 0)
    chosen = tl.min(tl.where(largest == highest, token, 3.0e38), 0)
    chosen = tl.minimum(chosen, V - 1)  # logits that are no numbers have no largest
    logprob = -tl.log(tl.sum(total * tl.exp(largest - highest), 0))
    number = tl.load(now)
    tl.store(ids + row, chosen.to(tl.int64))
    spot = told + (row * columns + number) * 2
    tl.store(spot, chosen.to(tl.float64))
    tl.store(spot + 1, logprob.to(tl.float64))
    if row == 0:
        tl.store(at, tl.load(at) + 1)
