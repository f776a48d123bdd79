"""Rows of a checkpoint as numbers: float32 out of the stored types, back again, and statistics.

Reads rows, a block at a time; writes nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocabkit.checkpoint.shards import Tensor, read_rows
from vocabkit.errors import UserError

NUMPY_DTYPES: dict[str, Any] = {"F16": np.float16, "F32": np.float32, "F64": np.float64}


def rows_as_float32(tensor: Tensor, ids: Sequence[int]) -> np.ndarray:
    """Return (len(ids), D) float32: the values of these ascending rows; UserError for a dtype that is no
    plain float.
    """
    raw = (
        np.concatenate(list(read_rows(tensor, ids)))
        if len(ids)
        else np.empty((0, tensor.row_bytes), np.uint8)
    )
    return as_float32(raw, tensor)


def as_float32(raw: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return (rows, D) float32: the values of rows given as the (rows, row_bytes) uint8 that read_rows
    yields.
    """
    if tensor.dtype == "BF16":  # the upper half of a float32
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if tensor.dtype in NUMPY_DTYPES:
        return raw.view(NUMPY_DTYPES[tensor.dtype]).astype(np.float32)
    raise _no_plain_float(tensor)


def as_stored(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Return (rows, row_bytes) uint8: (rows, D) float32 values in the tensor's type, rounded to nearest even.

    UserError for a value that the type cannot hold.
    """
    with np.errstate(over="ignore"):
        if tensor.dtype == "BF16":
            stored = to_bfloat16(values)
            finite = (stored & 0x7F80) != 0x7F80
        elif tensor.dtype in NUMPY_DTYPES:
            stored = values.astype(NUMPY_DTYPES[tensor.dtype])
            finite = np.isfinite(stored)
        else:
            raise _no_plain_float(tensor)
    if not finite.all():
        raise UserError(f"{tensor.file}: a new row of {tensor.name} does not fit into {tensor.dtype}")
    return np.ascontiguousarray(stored).view(np.uint8).reshape(len(values), tensor.row_bytes)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return uint16 of the same shape: float32 values as bfloat16, to nearest, ties to even.

    bfloat16 is the upper half of a float32. Adding 0x7FFF, and 1 more where the lowest bit that stays is set,
    carries into the upper half exactly when the lower half is above one half, or is one half below an odd
    number. NaN stays NaN: it could carry into the sign.

    >>> [hex(bits) for bits in to_bfloat16(np.array([1.0, 1.00390625, 1.01171875], np.float32))]
    ['0x3f80', '0x3f80', '0x3f82']
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _no_plain_float(tensor: Tensor) -> UserError:
    return UserError(f"{tensor.file}: {tensor.name} is {tensor.dtype}, expected BF16, F16, F32 or F64")


@dataclass(frozen=True)
class RowStats:
    """The old rows of one matrix. mean, std: (D,) float32, of each dimension; smallest, largest: of their
    norms.
    """

    mean: np.ndarray
    std: np.ndarray
    smallest: float
    largest: float


def row_stats(blocks: Iterable[np.ndarray]) -> RowStats:
    """Return the statistics of a matrix given as (n, D) float32 blocks of rows, summed in float64.

    >>> stats = row_stats([np.array([[3.0, 4.0]], np.float32), np.array([[1.0, 0.0]], np.float32)])
    >>> stats.mean.tolist(), stats.std.tolist(), stats.smallest, stats.largest
    ([2.0, 2.0], [1.0, 2.0], 1.0, 5.0)
    """
    count, total, squares = 0, np.float64(0), np.float64(0)
    smallest, largest = np.inf, 0.0
    for block in blocks:
        values = block.astype(np.float64)
        count += len(values)
        total = total + values.sum(0)
        squares = squares + (values**2).sum(0)
        norms = np.sqrt((values**2).sum(1))
        smallest, largest = min(smallest, norms.min()), max(largest, norms.max())
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return RowStats(mean.astype(np.float32), std.astype(np.float32), float(smallest), float(largest))


def stats_of(tensor: Tensor, ids: Sequence[int]) -> RowStats:
    """Return the statistics of a matrix's rows at these ascending ids, read a block at a time."""
    return row_stats(as_float32(block, tensor) for block in read_rows(tensor, ids))
