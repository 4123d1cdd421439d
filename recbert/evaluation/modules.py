"""The metrics as modules of the `evaluate` library, for lists of recommendations from anywhere.

They are made by their class, without the network: `RankingMetric().compute(...)`, alone or in
`evaluate.combine`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from recbert.evaluation.ranking import Ranking
from recbert.evaluation.ranking_metrics import RankingMetrics

_DESCRIPTION = (
    "Metrics of recommendations over the full catalogue: hit, NDCG, MRR and others at several cut-offs."
)
_INPUTS = """
Args:
    predictions: for each target either the recommended item ids, best first, or the rank of the target (a
        float, 1 is best, inf for a miss).
    references: the item id that is the target of each row.
    users: user id of each row, for the intervals; without it every row is a user of its own.
    ks: cut-offs, 1, 5 and 10 unless given.
    popularity: training events by item id, for novelty and coverage.
    intervals: whether to add a 95 % bootstrap interval for each metric that is a mean.
"""

ItemId = str | int


class RankingMetric(evaluate.Metric):  # type: ignore[misc]  # evaluate ships no types
    """All metrics of `RankingMetrics` as an `evaluate.Metric`.

    >>> metric = RankingMetric(keep_in_memory=True)
    >>> metric.compute(predictions=[["a", "b"], ["c", "a"]], references=["b", "d"], ks=[2])["hit@2"]
    0.5
    """

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=_features(("predictions",)),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[ItemId]] | Sequence[float],
        references: Sequence[ItemId],
        users: Sequence[str] | None = None,
        ks: Sequence[int] = (1, 5, 10),
        popularity: Mapping[ItemId, int] | None = None,
        intervals: bool = False,
    ) -> dict[str, float | tuple[float, float]]:
        """Value by name, and `<name>_interval` beside it on request."""
        metrics = RankingMetrics(ks)
        catalogue = {item: number for number, item in enumerate(popularity or ())}
        ranking = _to_ranking(predictions, references, users, catalogue)
        counts = None if popularity is None else [popularity.get(item, 0) for item in catalogue]
        values: dict[str, float | tuple[float, float]] = dict(metrics.compute(ranking, counts))
        if popularity is None:  # the size of the catalogue is not known
            values = {name: value for name, value in values.items() if not name.startswith("coverage")}
        if intervals:
            means = [name for name in values if not name.startswith("coverage")]
            values |= {f"{name}_interval": metrics.bootstrap(ranking, name, counts) for name in means}
        return values


class RankingComparison(evaluate.Comparison):  # type: ignore[misc]  # evaluate ships no types
    """The paired bootstrap of `RankingMetrics.compare` as an `evaluate.Comparison`.

    >>> comparison = RankingComparison(keep_in_memory=True)
    >>> found = comparison.compute(
    ...     predictions1=[["a"], ["b"]], predictions2=[["b"], ["b"]], references=["a", "a"], metric="hit@1"
    ... )
    >>> found["difference"]
    0.5
    """

    def _info(self) -> Any:
        return evaluate.ComparisonInfo(
            module_type="comparison",
            description="Paired bootstrap of the difference of two runs, drawn by user.",
            citation="",
            inputs_description=_INPUTS,
            features=_features(("predictions1", "predictions2")),
        )

    def _compute(
        self,
        predictions1: Sequence[Sequence[ItemId]] | Sequence[float],
        predictions2: Sequence[Sequence[ItemId]] | Sequence[float],
        references: Sequence[ItemId],
        users: Sequence[str] | None = None,
        metric: str = "ndcg@10",
    ) -> dict[str, float]:
        """The difference first minus second with the ends of its 95 % interval and its p-value."""
        first = _to_ranking(predictions1, references, users, {})
        second = _to_ranking(predictions2, references, users, {})
        found = RankingMetrics().compare(first, second, metric)
        return {
            "difference": found.difference,
            "low": found.low,
            "high": found.high,
            "p_value": found.p_value,
        }


def _features(predictions: Sequence[str]) -> list[Any]:
    """The accepted kinds of input: ids as strings or integers, lists of recommendations or ranks."""
    kinds = []
    for dtype in ("string", "int64"):  # strings first: an integer column would turn "007" into 7
        item = datasets.Value(dtype)
        for row in (datasets.Sequence(item), datasets.Value("float64")):
            kinds.append(datasets.Features({**dict.fromkeys(predictions, row), "references": item}))
    return kinds


def _to_ranking(
    predictions: Sequence[Sequence[ItemId]] | Sequence[float],
    references: Sequence[ItemId],
    users: Sequence[str] | None,
    catalogue: dict[ItemId, int],
) -> Ranking:
    """Number the items, the unseen ones after those of the catalogue, and find the rank of each target.

    Targets are numbered before recommendations, so that they get the same numbers in two runs.
    """
    if not len(references):
        raise ValueError("references is empty: give at least one target")
    targets = np.array([catalogue.setdefault(item, len(catalogue)) for item in references], dtype=np.int64)
    lists = [list(row) if isinstance(row, Sequence) else [] for row in predictions]
    top = np.full((len(lists), max(map(len, lists))), -1, dtype=np.int32)
    for number, row in enumerate(lists):
        top[number, : len(row)] = [catalogue.setdefault(item, len(catalogue)) for item in row]
    if top.shape[1]:
        found = top == targets[:, None]
        ranks = np.where(found.any(1), found.argmax(1) + 1.0, np.inf)
    else:
        ranks = np.asarray(predictions, dtype=np.float64)
    names = [str(number) for number in range(len(targets))] if users is None else list(users)
    return Ranking(ranks, top, targets, names, len(catalogue))
