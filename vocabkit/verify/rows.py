"""Rung 3: the rows of an edited checkpoint beside those of its base.

Reads the vocabulary tensors of the two folders a block at a time and the headers of all others; writes
nothing.
"""

from collections.abc import Iterator

import numpy as np

from vocabkit.checkpoint.numbers import as_float32, row_stats, rows_as_float32
from vocabkit.checkpoint.shards import Tensor, is_zero, read_rows
from vocabkit.verify.check import SHOWN, Check
from vocabkit.verify.edited import Edited

ROUNDING = 2**-7  # how much a norm may change when its row is stored in bfloat16: twice the most


def check_rows(edited: Edited) -> Check:
    """3: every kept row has the bytes of its source row, padding rows are zero, new rows are finite and no
    longer or shorter than old ones, other tensors kept their shape.
    """
    check = Check("3 rows")
    before, after = edited.base_tensors, edited.tensors
    n_tokens, vocab_size = edited.record.n_tokens, edited.record.vocab_size
    kept = [(new, old) for new, old in enumerate(edited.new_to_old) if old is not None]
    new_ids, old_ids = [new for new, _ in kept], [old for _, old in kept]
    if before.names != after.names:
        check.findings.append(
            f"vocabulary tensors are {sorted(after.names)}, in the base {sorted(before.names)}"
        )
        return check
    different = 0
    for source, target in zip([*before.embed, *before.head], [*after.embed, *after.head], strict=True):
        if edited.added:
            check.find(f"{target.name} new row", _new_rows(edited, source, target))
        at = 0
        for old_block, new_block in aligned(read_rows(source, old_ids), read_rows(target, new_ids)):
            wrong = np.flatnonzero((old_block != new_block).any(axis=1))
            different += len(wrong)
            check.find(
                f"{target.name} row differs",
                (f"{new_ids[at + i]} ({edited.tokenizer.tokens[new_ids[at + i]]!r})" for i in wrong[:SHOWN]),
            )
            at += len(old_block)
        if vocab_size > n_tokens and not is_zero(target, n_tokens, vocab_size - 1):
            check.findings.append(
                f"{target.name}: padding rows {n_tokens} to {vocab_size - 1} are not all zero"
            )
    check.looked_at = (
        f"{len(kept):,} rows of {', '.join(sorted(after.names))}; {vocab_size - n_tokens} padding rows"
    )
    if edited.added:
        check.looked_at += f"; {len(edited.added):,} new rows"
    check.numbers = {"rows_compared": len(kept) * len(after.names), "rows_different": different}
    _compare_others(edited, before.names, check)
    return check


def _new_rows(edited: Edited, source: Tensor, target: Tensor) -> Iterator[str]:
    """Yield what is wrong with the rows of new tokens: not finite, or a norm that no old row has."""
    rows = rows_as_float32(target, list(edited.added)).reshape(len(edited.added), -1)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    old_ids = list(edited.old_to_new)
    stats = row_stats(as_float32(block, source) for block in read_rows(source, sorted(old_ids)))
    is_zeros = (edited.record.init or {}).get("name") == "zeros"
    low, high = (0.0, 0.0) if is_zeros else (stats.smallest, stats.largest)
    for (new, text), norm in zip(edited.added.items(), norms, strict=True):
        if not np.isfinite(norm):
            yield f"{new} ({text!r}) is not finite"
        elif rows.shape[1] > 1 and not low * (1 - ROUNDING) <= norm <= high * (1 + ROUNDING):
            yield f"{new} ({text!r}) has the norm {norm:.4g}, expected {low:.4g} to {high:.4g}"


def _compare_others(edited: Edited, vocabulary: set[str], check: Check) -> None:
    before, after = edited.base_checkpoint.tensors, edited.checkpoint.tensors
    check.find("tensor is gone", sorted(before.keys() - after.keys()))
    check.find("tensor is new", sorted(after.keys() - before.keys()))
    for name in sorted((before.keys() & after.keys()) - vocabulary):
        old, new = before[name], after[name]
        if (old.dtype, old.shape) != (new.dtype, new.shape):
            check.find("tensor changed", [f"{name} is {new.dtype} {new.shape}, was {old.dtype} {old.shape}"])


def aligned(
    left: Iterator[np.ndarray], right: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of equally long pieces of two block streams of the same total length."""
    a = b = np.empty((0, 0), np.uint8)
    while True:
        a = a if len(a) else next(left, a[:0])
        b = b if len(b) else next(right, b[:0])
        count = min(len(a), len(b))
        if not count:
            return
        yield a[:count], b[:count]
        a, b = a[count:], b[count:]
