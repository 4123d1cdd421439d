"""The formulas. One row has one target, so a metric of a ranking is the mean of its rows' values.

A user with several targets has one row for each. Misses and targets that cannot be recommended have the rank
inf and earn 0; nothing leaves the denominator.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Counts = Sequence[int] | NDArray[np.int64]

BUCKETS = ("head", "mid", "tail", "cold")


def hit(ranks: Values, k: int) -> Values:
    """Whether the target is among the first k: `1 if rank <= k else 0`.

    The figure that papers call HR@k; `hit@1` is the accuracy. Blind to the place within the first k: see
    `ndcg`.

    Args:
        ranks: (N,) mid-ranks, 1 is best.
        k: length of the list.
    """
    return (ranks <= k).astype(np.float64)


def recall(ranks: Values, k: int) -> Values:
    """Share of the row's relevant items among the first k: with one target a row, the same as `hit`.

    Args:
        ranks: (N,) mid-ranks, 1 is best.
        k: length of the list.
    """
    return hit(ranks, k)


def precision(ranks: Values, k: int) -> Values:
    """Share of the first k that is relevant: `hit / k`, at most 1 / k with one target a row.

    Args:
        ranks: (N,) mid-ranks, 1 is best.
        k: length of the list.
    """
    return hit(ranks, k) / k


def f1(ranks: Values, k: int) -> Values:
    """Harmonic mean of precision and recall: with one target a row, `2 hit / (k + 1)`.

    Args:
        ranks: (N,) mid-ranks, 1 is best.
        k: length of the list.
    """
    return 2 * hit(ranks, k) / (k + 1)


def ndcg(ranks: Values, k: int) -> Values:
    """Discounted gain: `1 / log2(1 + rank) if rank <= k else 0`.

    The gain of an ideal list is 1 with one target, so nothing is divided. The figure to select models by.
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002.

    Args:
        ranks: (N,) mid-ranks, 1 is best.
        k: length of the list.
    """
    return hit(ranks, k) / np.log2(1 + ranks)


def mrr(ranks: Values, k: int) -> Values:
    """Reciprocal rank: `1 / rank if rank <= k else 0`; falls faster with the place than `ndcg`.

    Args:
        ranks: (N,) mid-ranks, 1 is best.
        k: length of the list.
    """
    return hit(ranks, k) / ranks


def average_precision(ranks: Values, k: int) -> Values:
    """Mean of the precision at the places of the relevant items: with one target a row, the same as `mrr`.

    Args:
        ranks: (N,) mid-ranks, 1 is best.
        k: length of the list.
    """
    return mrr(ranks, k)


ROW_METRICS: dict[str, Callable[[Values, int], Values]] = {
    "hit": hit,
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "ndcg": ndcg,
    "mrr": mrr,
    "map": average_precision,
}


def debiasing_weights(targets: NDArray[np.int64]) -> Values:
    """Weights of the targets that take the weight of the most popular items away: mean of `weight * metric`.

    `min(1, bound / targets of the item)`, divided by the mean weight. The bound is that of an outlier among
    the items by their targets: `Q3 + 1.5 (Q3 - Q1)`, quartiles over the items that are a target (Tukey,
    "Exploratory data analysis", 1977). An item beyond it counts as if it were the target that many times,
    so a model gains nothing by the few items that everybody takes. It is the expectation of RecTools'
    debiased metrics, which drop such targets at random. The weights belong to the set of targets, the same
    in all resamples. A target outside the vocabulary is an item of its own.

    Args:
        targets: (N,) item index of each target, -1 outside the vocabulary.

    Returns:
        (N,) weights with the mean 1.

    >>> debiasing_weights(np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 4])).round(2).tolist()
    [0.33, 0.33, 0.33, 0.33, 0.33, 0.33, 2.0, 2.0, 2.0, 2.0]
    """
    known = targets >= 0
    counts = np.bincount(targets[known])  # (V,)
    weights = np.ones(len(targets))
    if known.any():
        first, third = np.percentile(counts[counts > 0], (25, 75))
        weights[known] = np.minimum(1.0, (third + 1.5 * (third - first)) / counts[targets[known]])
    scaled: Values = weights / weights.mean()
    return scaled


def coverage(top: NDArray[np.int32], k: int, num_items: int) -> float:
    """Share of the catalogue that is recommended: distinct items in the first k of all rows / items.

    It grows with the number of rows, so compare it only over the same targets.

    Args:
        top: (N, K) item indices, best first, -1 for none.
        k: length of the list.
        num_items: size of the catalogue.
    """
    recommended = np.unique(top[:, :k])
    return float((recommended >= 0).sum() / num_items)


def novelty(top: NDArray[np.int32], k: int, popularity: Counts) -> Values:
    """Mean self-information of the first k items in bits: `mean of -log2(count / all counts)`.

    High when what is recommended is rare in training. Items without a training event count as if they had
    one. A row without any recommendation has 0. Zhou et al., "Solving the apparent diversity-accuracy
    dilemma", 2010.

    Args:
        top: (N, K) item indices, best first, -1 for none.
        k: length of the list.
        popularity: (V,) training events of each item.

    Returns:
        (N,) bits.
    """
    counts = np.asarray(popularity, dtype=np.float64)
    bits = -np.log2(np.maximum(counts, 1) / max(counts.sum(), 1))  # (V,)
    listed = top[:, :k]
    some = listed >= 0
    total = np.where(some, bits[listed], 0.0).sum(1)
    means: Values = total / np.maximum(np.count_nonzero(some, axis=1), 1)
    return means


def popularity_buckets(popularity: Counts) -> NDArray[np.int64]:
    """Sort the items into head (0), mid (1), tail (2) and cold (3) by their training events.

    From the most popular item down, the items that hold the first third of all training events are the head,
    those of the second third are the middle, the rest is the tail. Items with equal counts fall into one
    bucket. Items without a training event are cold.

    Args:
        popularity: (V,) training events of each item.

    Returns:
        (V,) index into `BUCKETS`.

    >>> popularity_buckets([1, 4, 0, 3, 1]).tolist()
    [2, 0, 3, 1, 2]
    """
    counts = np.asarray(popularity, dtype=np.int64)
    levels, level_of_item = np.unique(-counts, return_inverse=True)
    held = np.bincount(level_of_item, weights=counts, minlength=len(levels))
    share_before = (np.cumsum(held) - held) / max(counts.sum(), 1)
    buckets = np.searchsorted([1 / 3, 2 / 3], share_before, side="right")[level_of_item]
    return np.where(counts > 0, buckets, BUCKETS.index("cold"))
