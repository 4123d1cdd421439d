"""All metrics of a ranking by name, with intervals and comparisons."""

from collections.abc import Sequence

import numpy as np

from recbert.evaluation.intervals import Comparison, bootstrap_mean, compare_means
from recbert.evaluation.metrics import (
    BUCKETS,
    ROW_METRICS,
    Counts,
    Values,
    coverage,
    debiasing_weights,
    novelty,
    popularity_buckets,
)
from recbert.evaluation.ranking import Ranking

DEBIASED = "debiased-"


class RankingMetrics:
    """Metrics of a full-catalogue ranking.

    Names are `<metric>@<k>` with hit, recall, precision, f1, ndcg, mrr, map, coverage, novelty; `accuracy` is
    `hit@1`; `debiased-<metric>@<k>` weighs the targets by `debiasing_weights`. The formulas stand in
    `recbert.evaluation.metrics`.

    Args:
        ks: lengths of the list of recommendations.
        resamples: bootstrap resamples behind each interval.
        seed: of the resamples.

    Raises:
        ValueError: a k is smaller than 1, or there is none.

    >>> ranks, targets = np.array([1, 4, np.inf]), np.array([0, 2, -1])
    >>> ranking = Ranking(ranks, np.array([[0], [1], [0]]), targets, users=["a", "b", "c"], num_items=4)
    >>> RankingMetrics(ks=(1,)).compute(ranking)["accuracy"]
    0.3333333333333333
    """

    def __init__(self, ks: Sequence[int] = (1, 5, 10, 20), *, resamples: int = 1000, seed: int = 0) -> None:
        if not ks or min(ks) < 1:
            raise ValueError(f"ks is {tuple(ks)}: give at least one k, each at least 1")
        self.ks = tuple(sorted(set(ks)))
        self.resamples, self.seed = resamples, seed

    def compute(self, ranking: Ranking, popularity: Counts | None = None) -> dict[str, float]:
        """All metrics over all targets.

        Args:
            ranking: of `rank_targets`.
            popularity: (V,) training events of each item; without it there is no novelty.

        Returns:
            Value by name. Coverage and novelty are left out when the ranking holds no lists (`k=0`).
        """
        metrics = {
            f"{name}@{k}": float(values(ranking.ranks, k).mean())
            for name, values in ROW_METRICS.items()
            for k in self.ks
        }
        debiased = [f"{DEBIASED}{name}@{k}" for name in ("hit", "ndcg") for k in self.ks]
        metrics |= {name: self.value(ranking, name) for name in debiased}
        metrics["accuracy"] = self.value(ranking, "accuracy")
        if ranking.top.shape[1]:
            names = ("coverage",) if popularity is None else ("coverage", "novelty")
            of_lists = [f"{name}@{k}" for name in names for k in self.ks]
            metrics |= {name: self.value(ranking, name, popularity) for name in of_lists}
        return metrics

    def by_popularity(self, ranking: Ranking, popularity: Counts) -> dict[str, dict[str, float]]:
        """The accuracy metrics over the targets of each popularity bucket: head, mid, tail and cold.

        Args:
            ranking: of `rank_targets`.
            popularity: (V,) training events of each item. Targets without any, or outside the vocabulary, are
                cold.

        Returns:
            For each bucket `targets` (how many there are) and, unless it is empty, the metrics by name.
        """
        _check_popularity(ranking, popularity)
        cold = BUCKETS.index("cold")
        buckets = np.append(popularity_buckets(popularity), cold)[
            ranking.targets
        ]  # -1 picks the appended one
        rows = {}
        for number, bucket in enumerate(BUCKETS):
            part = ranking.select(buckets == number)
            rows[bucket] = {"targets": float(len(part))}
            if len(part):
                rows[bucket] |= {
                    f"{name}@{k}": float(values(part.ranks, k).mean())
                    for name, values in ROW_METRICS.items()
                    for k in self.ks
                }
        return rows

    def value(self, ranking: Ranking, metric: str, popularity: Counts | None = None) -> float:
        """One metric over all targets.

        Args:
            ranking: of `rank_targets`.
            metric: a name such as `ndcg@10` (k need not be in `ks`), or `accuracy`.
            popularity: (V,) training events of each item; novelty needs it.

        Raises:
            ValueError: no such metric, or the ranking's lists are too short for it.
        """
        name, k = parse_metric(metric)
        if name != "coverage":
            return float(self.row_values(ranking, metric, popularity).mean())
        _check_lists(ranking, k)
        return coverage(ranking.top, k, ranking.num_items)

    def row_values(self, ranking: Ranking, metric: str, popularity: Counts | None = None) -> Values:
        """One value for each target, whose mean is the metric.

        Args:
            ranking: of `rank_targets`.
            metric: a name such as `ndcg@10` (k need not be in `ks`), or `accuracy`.
            popularity: (V,) training events of each item; novelty needs it.

        Raises:
            ValueError: no such metric, or it is no mean over targets (coverage).
        """
        name, k = parse_metric(metric)
        if name == "coverage":
            raise ValueError(f"metric {metric!r} is no mean over targets: it has no rows and no interval")
        if name.startswith(DEBIASED):
            values = ROW_METRICS[name.removeprefix(DEBIASED)](ranking.ranks, k)
            return values * debiasing_weights(ranking.targets)
        if name != "novelty":
            return ROW_METRICS[name](ranking.ranks, k)
        if popularity is None:
            raise ValueError(f"metric {metric!r} needs popularity: give the training events of each item")
        _check_popularity(ranking, popularity)
        _check_lists(ranking, k)
        return novelty(ranking.top, k, popularity)

    def bootstrap(
        self, ranking: Ranking, metric: str, popularity: Counts | None = None
    ) -> tuple[float, float]:
        """95 % percentile bootstrap interval of a metric, drawn by user.

        Args:
            ranking: of `rank_targets`.
            metric: a name such as `ndcg@10`.
            popularity: (V,) training events of each item; novelty needs it.
        """
        values = self.row_values(ranking, metric, popularity)
        return bootstrap_mean(values, ranking.users, resamples=self.resamples, seed=self.seed)

    def compare(self, first: Ranking, second: Ranking, metric: str = "ndcg@10") -> Comparison:
        """Paired bootstrap of the difference `first - second`, drawn by user.

        Args:
            first: the ranking that may be better.
            second: another ranking of the same targets in the same order.
            metric: a name such as `ndcg@10`, novelty excepted.

        Raises:
            ValueError: the rankings are not of the same targets.
        """
        if first.users != second.users or not np.array_equal(first.targets, second.targets):
            raise ValueError(
                "first and second rank different targets: evaluate both on the same split and vocabulary"
            )
        return compare_means(
            self.row_values(first, metric),
            self.row_values(second, metric),
            first.users,
            resamples=self.resamples,
            seed=self.seed,
        )


def parse_metric(metric: str) -> tuple[str, int]:
    """Split `ndcg@10` into its parts.

    Raises:
        ValueError: there is no such metric.
    """
    name, _, k = ("hit@1" if metric == "accuracy" else metric).partition("@")
    allowed = [*ROW_METRICS, "coverage", "novelty"]
    if (
        name.removeprefix(DEBIASED) not in (ROW_METRICS if name.startswith(DEBIASED) else allowed)
        or not k.isdecimal()
        or int(k) < 1
    ):
        raise ValueError(
            f"metric is {metric!r}: allowed are accuracy and {', '.join(allowed)} followed by @k"
            f" (and {DEBIASED} in front of those up to map)"
        )
    return name, int(k)


def _check_lists(ranking: Ranking, k: int) -> None:
    """Refuse a k beyond the lists that the ranking holds."""
    held = ranking.top.shape[1]
    if held < min(k, ranking.num_items):
        raise ValueError(
            f"k is {k} but the ranking holds lists of {held} items: call rank_targets(..., k={k})"
        )


def _check_popularity(ranking: Ranking, popularity: Counts) -> None:
    """Refuse counts of another catalogue."""
    if len(popularity) != ranking.num_items:
        raise ValueError(
            f"popularity has {len(popularity)} counts but the catalogue {ranking.num_items} items"
        )
