"""Rows for new tokens out of the rows of old ones: arrays in, arrays out. numpy only; reads and writes
nothing.

A model has two rows for a token. The input row is what later positions read once the word stands in the
context: there the word's last old token had read the others. The output row is what competes with all other
rows at the position where the word begins: there its first old token used to win. So the two are made apart
("side"), each from the rows of its own matrix. Where one matrix serves both (tied embeddings), the input form
is used at both ends: a word that is read wrongly spoils every text it stands in, one that is never chosen
only costs the tokens it would have saved.

    zeros       0: a word that says nothing, for comparison
    random      normal, each dimension with the mean and standard deviation of the old rows
    mean        mean of the rows of the word's old tokens                       (FVT, Gee et al. 2022)
    weighted    weights exp(2i) / Σ exp(2j) over the old tokens i = 0, 1, …: the last one dominates for the
                input; exp(−2i), the first one, for the output                  (AdaptiVocab, arXiv
                2503.19693)
    first_last  input: the row of the last old token; output: that of the first (jukofyork/transplant-vocab
                does so; EEVE, arXiv 2402.14714, takes the first for the output only)
    english     mean over the word's English equivalents, see english()
    neighbours  mean over the old words whose hidden states are nearest to the word's, see nearest()
    distill     no formula: `weighted` to begin with, then moved by gradients until the model goes on from the
                word as it does from its old tokens, see rows/distill.py. Where it can be had, it is the best

Every row's norm is then brought into the range of the old rows' norms: larger ones have been seen to win at
every position of tied models (Token Distillation, arXiv 2505.20133).

>>> rows = np.array([[0.0, 2.0], [4.0, 0.0]], np.float32)
>>> combine(rows, [[0, 1]], [piece_weights("mean", 2, side="input")]).tolist()
[[2.0, 1.0]]
"""

from collections.abc import Iterable, Sequence

import numpy as np

from vocabkit.checkpoint.numbers import RowStats

SIDES = ("input", "output")
STEEPNESS = 2.0  # AdaptiVocab's exponent: one token further away weighs e² = 7.4 times less
NEIGHBOURS = 5  # old words that make a row: fewer copy one word's quirks, more tend to the mean of all rows


def piece_weights(init: str, count: int, *, side: str) -> np.ndarray:
    """Return (count,) float32, sum 1: how much each old token of a word gives to its row.

    >>> [round(float(weight), 4) for weight in piece_weights("weighted", 2, side="input")]
    [0.1192, 0.8808]
    >>> piece_weights("first_last", 3, side="output").tolist()
    [1.0, 0.0, 0.0]
    """
    if init == "mean":
        return np.full(count, 1 / count, np.float32)
    at = np.arange(count) if side == "input" else np.arange(count)[::-1]
    if init == "weighted":
        weights = np.exp(STEEPNESS * (at - (count - 1)))  # the largest is 1, whatever the length
        return (weights / weights.sum()).astype(np.float32)
    if init == "first_last":
        return (at == count - 1).astype(np.float32)
    raise ValueError(f"{init} has no weights over a word's old tokens")


def combine(rows: np.ndarray, pieces: Sequence[Sequence[int]], weights: Sequence[np.ndarray]) -> np.ndarray:
    """Return (W, D) float32: for each word the weighted sum of its pieces' rows.

    rows: (N, D) float32; pieces: W lists of positions in rows; weights: W arrays as long as these.
    """
    made = [weight @ rows[list(piece)] for piece, weight in zip(pieces, weights, strict=True)]
    return np.stack(made).astype(np.float32) if made else np.empty((0, rows.shape[1]), np.float32)


def mean(rows: np.ndarray, pieces: Sequence[Sequence[int]]) -> np.ndarray:
    """Return (W, D) float32: for each word the mean of its pieces' rows."""
    return combine(rows, pieces, [piece_weights("mean", len(piece), side="input") for piece in pieces])


def random(stats: RowStats, count: int, *, seed: int, side: str) -> np.ndarray:
    """Return (count, D) float32 drawn from N(mean, std) of each dimension; the same for the same seed and
    side.
    """
    generator = np.random.default_rng([seed, SIDES.index(side)])
    noise = generator.standard_normal((count, len(stats.mean)), np.float32)
    return stats.mean + stats.std * noise


def english(
    rows: np.ndarray, pieces: Sequence[Sequence[int]], equivalents: Sequence[Sequence[Sequence[int]]]
) -> np.ndarray:
    """Return (W, D) float32: for each word the mean over its English equivalents.

    equivalents: for each word a list of equivalents, each the positions of its tokens in rows, written with a
    leading space. Those that are one token are taken first; only where none is, each equivalent counts with
    the mean of its tokens. A word without an equivalent gets the mean of its own old tokens.

    >>> rows = np.array([[1.0], [3.0], [9.0], [50.0]], np.float32)
    >>> english(rows, [[3], [3], [3]], [[[0], [1], [0, 2]], [[0, 1], [2, 2]], []]).tolist()
    [[2.0], [5.5], [50.0]]
    """
    made = []
    for own, words in zip(pieces, equivalents, strict=True):
        whole = [word for word in words if len(word) == 1]
        made.append(mean(rows, whole or list(words) or [own]).mean(0))
    return np.stack(made) if made else np.empty((0, rows.shape[1]), np.float32)


def nearest(
    queries: np.ndarray, blocks: Iterable[tuple[np.ndarray, np.ndarray]], *, count: int = NEIGHBOURS
) -> tuple[np.ndarray, np.ndarray]:
    """Return (Q, count) int64 and (Q, count) float: for each query the ids of the rows with the highest
    cosine, the nearest first, and these cosines. Fewer than count where there are fewer rows.

    queries: (Q, H); blocks: (ids, (n, H) rows), a block of ids and their rows after the other.

    >>> rows = np.array([[0.0, 1.0], [5.0, 0.0], [1.0, 1.0]])
    >>> ids, cosines = nearest(np.array([[3.0, 4.0]]), [(np.arange(3), rows)], count=2)
    >>> ids.tolist(), cosines.round(2).tolist()
    ([[2, 0]], [[0.99, 0.8]])
    """
    unit = _directions(queries)
    found: np.ndarray = np.empty((len(queries), 0), np.int64)
    best: np.ndarray = np.empty((len(queries), 0), np.float32)
    for ids, rows in blocks:
        found = np.hstack([found, np.broadcast_to(ids, (len(queries), len(ids)))])
        best = np.hstack([best, unit @ _directions(rows).T])
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        found, best = (np.take_along_axis(values, order, axis=1) for values in (found, best))
    return found, best


def _directions(rows: np.ndarray) -> np.ndarray:
    """Rows of norm 1; a row without a direction stays zero."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def with_clamped_norms(rows: np.ndarray, *, smallest: float, largest: float) -> np.ndarray:
    """Return rows whose norm is out of range scaled to the nearer end of it, the others as they are.

    A row of zeros has no direction to scale and stays.

    >>> with_clamped_norms(np.array([[0.0, 9.0], [0.0, 2.0]], np.float32), smallest=1.0, largest=3.0).tolist()
    [[0.0, 3.0], [0.0, 2.0]]
    """
    norms = np.sqrt((rows.astype(np.float64) ** 2).sum(1, keepdims=True))
    scale = np.where(norms > 0, np.clip(norms, smallest, largest) / np.where(norms > 0, norms, 1), 1)
    return np.where(scale == 1, rows, (rows * scale).astype(np.float32))


def rows_by_formula(
    init: str,
    *,
    side: str,
    rows: np.ndarray,
    pieces: Sequence[Sequence[int]],
    stats: RowStats,
    seed: int = 0,
    equivalents: Sequence[Sequence[Sequence[int]]] = (),
    near: Sequence[Sequence[int]] = (),
) -> np.ndarray:
    """Return (W, D) float32: the rows of W new words at one side, norms within those of the old rows.

    rows: (N, D) float32, the old rows that are named; pieces: for each word the positions in rows of its old
    tokens in reading order; equivalents: for english, as there; near: for neighbours, the positions of the
    nearest old words' rows.
    """
    if init == "zeros":
        return np.zeros((len(pieces), rows.shape[1]), np.float32)
    if init == "random":
        made = random(stats, len(pieces), seed=seed, side=side)
    elif init == "english":
        made = english(rows, pieces, equivalents)
    elif init == "neighbours":
        made = mean(rows, near)
    else:
        made = combine(rows, pieces, [piece_weights(init, len(piece), side=side) for piece in pieces])
    return with_clamped_norms(made, smallest=stats.smallest, largest=stats.largest)
