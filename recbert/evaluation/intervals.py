"""How sure a number is: percentile bootstrap over users, for one ranking and for the difference of two.

Rows of one user stand or fall together, so whole users are drawn, with all their targets.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_PERCENTILES = (2.5, 97.5)
#: Draws that are held in memory at a time.
_DRAWS_AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The paired difference of two rankings of the same targets.

    Attributes:
        difference: mean of the first minus mean of the second.
        low: lower end of its 95 % interval.
        high: upper end of its 95 % interval.
        p_value: two-sided; the share of resamples that contradict the sign of the difference, doubled.
    """

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_mean(
    values: Values, clusters: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`.

    Args:
        values: (N,) one number a row.
        clusters: N user ids; rows of one user are drawn together.
        resamples: how often the users are drawn, with replacement.
        seed: of the draws.

    Raises:
        ValueError: there are no rows, or the lengths differ.
    """
    means = np.concatenate(list(_resampled_means(values, clusters, resamples, seed)))
    low, high = np.percentile(means, _PERCENTILES)
    return float(low), float(high)


def compare_means(
    first: Values, second: Values, clusters: Sequence[str], *, resamples: int = 1000, seed: int = 0
) -> Comparison:
    """Paired comparison of two sets of values of the same rows: the users are drawn once for both.

    Args:
        first: (N,) one number a row.
        second: (N,) the other run's numbers of the same rows.
        clusters: N user ids; rows of one user are drawn together.
        resamples: how often the users are drawn, with replacement.
        seed: of the draws.

    Raises:
        ValueError: there are no rows, or the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(
            f"first has {len(first)} rows and second {len(second)}: compare runs on the same targets"
        )
    means = np.concatenate(list(_resampled_means(first - second, clusters, resamples, seed)))
    low, high = np.percentile(means, _PERCENTILES)
    # One is added so that a finite number of resamples never claims certainty.
    contrary = 1 + min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Comparison(
        difference=float(np.mean(first - second)),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * contrary / (resamples + 1)),
    )


def _resampled_means(values: Values, clusters: Sequence[str], resamples: int, seed: int) -> Iterator[Values]:
    """Give the mean over the rows of the users drawn, a chunk of resamples at a time."""
    if len(values) == 0 or len(values) != len(clusters):
        raise ValueError(
            f"values has {len(values)} rows and clusters {len(clusters)}: give one user id for each row"
        )
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}: it must be at least 1")
    _, user_of_row = np.unique(np.asarray(clusters), return_inverse=True)
    rows = np.bincount(user_of_row).astype(np.float64)  # rows of each user
    sums = np.bincount(user_of_row, weights=values)
    generator = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_AT_ONCE // len(rows))
    for start in range(0, resamples, chunk):
        drawn = generator.integers(len(rows), size=(min(chunk, resamples - start), len(rows)))
        yield sums[drawn].sum(1) / rows[drawn].sum(1)
