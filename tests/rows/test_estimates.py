"""vocabkit/rows/estimates.py: means and standard errors worked by hand."""

import math

import pytest

from vocabkit.rows.estimates import Estimate, mean_by_cluster, ratio_by_cluster


def test_mean_of_three_words():
    """Means 1, 2 and 6; their mean 3, s² = (4 + 1 + 9) / 2 = 7, error √(7 / 3)."""
    found = mean_by_cluster([0.0, 2.0, 2.0, 5.0, 6.0, 7.0], ["a", "a", "b", "c", "c", "c"])
    assert found.value == 3 and found.standard_error == pytest.approx(math.sqrt(7 / 3))
    assert (found.clusters, found.observations) == (3, 6)


def test_repeating_a_words_contexts_makes_nothing_surer():
    once = mean_by_cluster([1.0, 4.0], ["a", "b"])
    often = mean_by_cluster([1.0] * 50 + [4.0] * 50, ["a"] * 50 + ["b"] * 50)
    assert (once.value, once.standard_error) == pytest.approx((2.5, 1.5))
    assert (often.value, often.standard_error) == pytest.approx((2.5, 1.5))


def test_order_of_observations_does_not_matter():
    one = mean_by_cluster([1.0, 3.0, 8.0], ["a", "a", "b"])
    assert one == mean_by_cluster([8.0, 1.0, 3.0], ["b", "a", "a"])


def test_one_cluster_has_no_error():
    assert mean_by_cluster([1.0, 2.0], [0, 0]) == Estimate(1.5, None, 1, 2)
    assert ratio_by_cluster([3.0], [2.0]) == Estimate(1.5, None, 1, 1)


def test_ratio_weighs_lines_by_their_bytes():
    """(1 + 9) / (1 + 4) = 2; residuals 1 − 2 and 9 − 8; √(2 / 1 · 2) / 5."""
    found = ratio_by_cluster([1.0, 9.0], [1.0, 4.0])
    assert found.value == 2 and found.standard_error == pytest.approx(2 / 5)


def test_a_constant_ratio_has_no_spread():
    assert ratio_by_cluster([2.0, 4.0, 8.0], [1.0, 2.0, 4.0]).standard_error == 0


def test_as_json():
    assert Estimate(1.0, None, 2, 3).as_json() == {
        "value": 1.0, "standard_error": None, "clusters": 2, "observations": 3
    }  # fmt: skip
