"""vocabkit/rows/formulas.py: every formula on numbers worked by hand."""

import math

import numpy as np
import pytest

from vocabkit.checkpoint.numbers import RowStats, row_stats
from vocabkit.rows import formulas
from vocabkit.rows.formulas import nearest, piece_weights, rows_by_formula, with_clamped_norms
from vocabkit.rows.names import FORMULAS

# Four old tokens in two dimensions
ROWS = np.array([[1, 0], [0, 2], [4, 4], [-1, 1]], np.float32)
WIDE = RowStats(np.zeros(2, np.float32), np.ones(2, np.float32), 0.0, 100.0)


def make(init: str, side: str, pieces: list[list[int]], **more) -> list[list[float]]:
    made = rows_by_formula(init, side=side, rows=ROWS, pieces=pieces, stats=more.pop("stats", WIDE), **more)
    assert made.dtype == np.float32
    return made.tolist()


def test_zeros():
    assert make("zeros", "input", [[0, 1], [2]]) == [[0, 0], [0, 0]]


@pytest.mark.parametrize("side", formulas.SIDES)
def test_mean_is_the_same_at_both_sides(side):
    assert make("mean", side, [[0, 1], [2, 2, 3, 3]]) == [[0.5, 1], [1.5, 2.5]]


def test_weights_of_two_and_three_tokens():
    """exp(2·0) = 1, exp(2·1) = 7.389, exp(2·2) = 54.598; their sums are 8.389 and 62.987."""
    two = [1 / 8.389056, 7.389056 / 8.389056]
    three = [1 / 62.987206, 7.389056 / 62.987206, 54.598150 / 62.987206]
    np.testing.assert_allclose(piece_weights("weighted", 2, side="input"), two, rtol=1e-6)
    np.testing.assert_allclose(piece_weights("weighted", 3, side="input"), three, rtol=1e-6)
    np.testing.assert_allclose(piece_weights("weighted", 3, side="output"), three[::-1], rtol=1e-6)
    assert piece_weights("weighted", 1, side="input").tolist() == [1]
    assert np.isfinite(piece_weights("weighted", 2000, side="output")).all()
    with pytest.raises(ValueError, match="zeros has no weights"):
        piece_weights("zeros", 2, side="input")


def test_weighted():
    last = 7.389056 / 8.389056
    (inner,), (outer,) = (make("weighted", side, [[0, 1]]) for side in formulas.SIDES)
    assert inner == pytest.approx([1 - last, 2 * last]) and outer == pytest.approx([last, 2 * (1 - last)])


def test_first_last():
    assert make("first_last", "input", [[0, 3, 2], [1]]) == [[4, 4], [0, 2]]
    assert make("first_last", "output", [[0, 3, 2], [1]]) == [[1, 0], [0, 2]]


def test_random_has_the_old_rows_mean_and_deviation_and_follows_its_seed():
    stats = RowStats(np.array([3, -1], np.float32), np.array([0.5, 2], np.float32), 0.0, 100.0)
    words = [[0]] * 20_000
    one = np.array(make("random", "input", words, stats=stats, seed=7))
    np.testing.assert_allclose(one.mean(0), [3, -1], atol=0.05)
    np.testing.assert_allclose(one.std(0), [0.5, 2], rtol=0.02)
    assert make("random", "input", words[:3], stats=stats, seed=7) == one[:3].tolist()
    for other in ({"seed": 8, "side": "input"}, {"seed": 7, "side": "output"}):
        side = other.pop("side")
        assert make("random", side, words[:3], stats=stats, **other) != one[:3].tolist()


def test_english_prefers_equivalents_that_are_one_token():
    equivalents = [[[0], [1], [2, 3]], [[0, 1], [2, 3]], []]
    # (1,0) and (0,2); then (0.5,1) and (1.5,2.5); then the word's own tokens (4,4) and (-1,1)
    assert make("english", "input", [[3], [3], [2, 3]], equivalents=equivalents) == [
        [0.5, 1], [1, 1.75], [1.5, 2.5]
    ]  # fmt: skip


def test_neighbours_are_the_mean_of_the_nearest_rows():
    hidden = np.array([[1, 0.1], [0, 3]], np.float32)
    anchors = np.array([[0, 9], [2, 0], [1, 1], [-1, 0]], np.float32)
    near, cosines = nearest(hidden, [(np.arange(4), anchors)], count=2)
    assert near.tolist() == [[1, 2], [0, 2]]
    assert cosines[1].tolist() == pytest.approx([1, math.sqrt(0.5)])
    assert make("neighbours", "output", [[0], [0]], near=near.tolist()) == [[2, 3], [2.5, 2]]
    fewer, _ = nearest(hidden, [(np.array([7]), anchors[:1])])
    assert fewer.tolist() == [[7], [7]], "fewer anchors than asked for"
    nothing = nearest(hidden, [(np.arange(3), np.zeros((3, 2), np.float32))], count=1)
    assert nothing[0].shape == (2, 1) and not nothing[1].any(), "no direction, no NaN"


def test_nearest_in_blocks_equals_all_at_once():
    generator = np.random.default_rng(1)
    hidden, anchors = generator.standard_normal((60, 8)), generator.standard_normal((500, 8))
    whole, cosines = nearest(hidden, [(np.arange(500), anchors)])
    blocks = [(np.arange(at, min(at + 64, 500)), anchors[at : at + 64]) for at in range(0, 500, 64)]
    in_blocks, again = nearest(hidden, blocks)
    assert (in_blocks == whole).all()
    np.testing.assert_allclose(again, cosines)


def test_row_stats_of_blocks_are_those_of_the_whole():
    rows = np.random.default_rng(0).normal(0.1, 0.02, (1000, 5)).astype(np.float32)
    stats = row_stats(rows[at : at + 300] for at in range(0, 1000, 300))
    np.testing.assert_allclose(stats.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats.std, rows.std(0), rtol=1e-4)
    norms = np.linalg.norm(rows, axis=1)
    assert stats.smallest == pytest.approx(norms.min()) and stats.largest == pytest.approx(norms.max())


def test_norms_are_clamped_and_others_keep_their_bits():
    rows = np.array([[3, 4], [0.3, 0.4], [1, 1], [0, 0]], np.float32)
    clamped = with_clamped_norms(rows, smallest=1.0, largest=2.5)
    np.testing.assert_allclose(clamped, [[1.5, 2], [0.6, 0.8], [1, 1], [0, 0]], rtol=1e-6)
    assert (clamped[2:] == rows[2:]).all() and clamped.dtype == np.float32
    narrow = RowStats(WIDE.mean, WIDE.std, 0.5, 2.0)
    ((x, y),) = make("mean", "input", [[2]], stats=narrow)
    assert x == y == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("init", FORMULAS)
def test_no_word_gives_no_row(init):
    assert rows_by_formula(init, side="input", rows=ROWS, pieces=[], stats=WIDE).shape == (0, 2)
