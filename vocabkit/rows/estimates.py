"""Means with standard errors where observations come in clusters: arrays in, numbers out. numpy only; reads
and writes nothing.

Contexts of one word are alike: 200 words with 10 contexts each tell of 200 words, not of 2,000. So each word
(each line of text) is one observation of its own, whatever it holds, and standard errors come from the spread
of these.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A number, its standard error (None: one cluster has no spread), clusters and observations behind it."""

    value: float
    standard_error: float | None
    clusters: int
    observations: int

    def as_json(self) -> dict[str, Any]:
        """Return what our JSON files hold of it."""
        return {
            "value": self.value,
            "standard_error": self.standard_error,
            "clusters": self.clusters,
            "observations": self.observations,
        }


def mean_by_cluster(values: Sequence[float] | np.ndarray, clusters: Sequence[Hashable]) -> Estimate:
    """Return the mean over clusters of the mean in each, and s / √clusters, s over the clusters' means.

    >>> mean_by_cluster([1.0, 3.0, 6.0], ["a", "a", "b"])  # means 2 and 6, their s is √8
    Estimate(value=4.0, standard_error=2.0, clusters=2, observations=3)
    """
    inside: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        inside.setdefault(cluster, []).append(float(value))
    means = np.array([np.mean(found) for found in inside.values()])
    error = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
    return Estimate(float(means.mean()), error, len(means), len(values))


def ratio_by_cluster(tops: Sequence[float], bottoms: Sequence[float]) -> Estimate:
    """Return Σ tops / Σ bottoms, one of each a cluster; error √(n / (n − 1) · Σ (top − ratio · bottom)²) / Σ
    bottoms, the usual linearization.

    >>> ratio_by_cluster([1.0, 3.0], [2.0, 2.0])  # residuals −1 and 1: √(2 · 2) / 4
    Estimate(value=1.0, standard_error=0.5, clusters=2, observations=2)
    """
    top, bottom = np.asarray(tops, np.float64), np.asarray(bottoms, np.float64)
    ratio = float(top.sum() / bottom.sum())
    n = len(top)
    residuals = ((top - ratio * bottom) ** 2).sum()
    error = float(math.sqrt(n / (n - 1) * residuals) / bottom.sum()) if n > 1 else None
    return Estimate(ratio, error, n, n)
