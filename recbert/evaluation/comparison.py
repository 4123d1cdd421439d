"""Recipes against each other: the mean over their seeds, and the paired bootstrap against the first one."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbert.evaluation.intervals import Comparison, bootstrap_mean, compare_means
from recbert.evaluation.metrics import Values
from recbert.evaluation.ranking import Ranking
from recbert.evaluation.ranking_metrics import RankingMetrics
from recbert.evaluation.table import difference_text, markdown_line

COMPARED = ("hit@10", "ndcg@10", "debiased-ndcg@10")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One metric of one recipe.

    Attributes:
        mean: over seeds and targets.
        low: lower end of its 95 % interval over users.
        high: upper end of it.
        seeds: the metric of each seed.
        against: the paired difference to the first recipe; None for that one itself.
    """

    mean: float
    low: float
    high: float
    seeds: list[float]
    against: Comparison | None

    @property
    def spread(self) -> float:
        """Give the standard deviation of the seeds, NaN for a single one."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else float("nan")


def compare_recipes(
    recipes: Mapping[str, Sequence[Ranking]],
    *,
    metrics: RankingMetrics | None = None,
    columns: Sequence[str] = COMPARED,
) -> dict[str, dict[str, Figure]]:
    """Compare recipes over the same targets.

    A target's value is its mean over the seeds of the recipe; users are then drawn, the same ones for both
    recipes of a difference. The intervals say how much depends on who was asked; how much depends on the seed
    is the spread of `Figure.seeds`.

    Args:
        recipes: the rankings of each recipe, one a seed, by name; the first recipe is what others are
            compared with.
        metrics: says how intervals are resampled; the default ones if not given.
        columns: metric names.

    Returns:
        Figures by recipe and metric.

    Raises:
        ValueError: the rankings are not of the same targets.
    """
    metrics = metrics or RankingMetrics()
    first = next(iter(recipes.values()))[0]
    for name, rankings in recipes.items():
        if any(
            ranking.users != first.users or not np.array_equal(ranking.targets, first.targets)
            for ranking in rankings
        ):
            raise ValueError(
                f"{name} ranks other targets than {next(iter(recipes))}: evaluate on the same data"
            )
    draws = {"resamples": metrics.resamples, "seed": metrics.seed}
    figures: dict[str, dict[str, Figure]] = {name: {} for name in recipes}
    for column in columns:
        reference: Values | None = None
        for name, rankings in recipes.items():
            values = np.stack([metrics.row_values(ranking, column) for ranking in rankings])  # (seeds, N)
            mean = values.mean(0)
            low, high = bootstrap_mean(mean, first.users, **draws)
            against = None if reference is None else compare_means(mean, reference, first.users, **draws)
            reference = mean if reference is None else reference
            seeds = [float(value) for value in values.mean(1)]
            figures[name][column] = Figure(float(mean.mean()), low, high, seeds, against)
    return figures


def build_comparison_table(figures: Mapping[str, Mapping[str, Figure]]) -> str:
    """One row for each recipe: means with 95 % intervals, then the differences to the first recipe.

    Args:
        figures: of `compare_recipes`.
    """
    first = next(iter(figures))
    columns = list(figures[first])
    compared = columns if len(figures) > 1 else []
    header = ["recipe", "seeds", *columns, *(f"{column} against {first}" for column in compared)]
    lines = [markdown_line(header), markdown_line(["---", *["---:"] * (len(header) - 1)])]
    for name, row in figures.items():
        seeds = str(len(row[columns[0]].seeds))
        cells = [*map(_mean, row.values()), *(_difference(row[column]) for column in compared)]
        lines.append(markdown_line([name, seeds, *cells]))
    return "\n".join([*lines, ""])


def plain_figures(figures: Mapping[str, Mapping[str, Figure]]) -> dict[str, Any]:
    """Give the figures as JSON values.

    Args:
        figures: of `compare_recipes`.
    """
    return {
        name: {column: dataclasses.asdict(figure) for column, figure in row.items()}
        for name, row in figures.items()
    }


def _difference(figure: Figure) -> str:
    """The difference to the first recipe, nothing for that one itself."""
    return "" if figure.against is None else difference_text(figure.against)


def _mean(figure: Figure) -> str:
    """One mean with its interval, and the spread of its seeds if there are several."""
    spread = f" ± {figure.spread:.4f}" if len(figure.seeds) > 1 else ""
    return f"{figure.mean:.4f}{spread} [{figure.low:.4f}, {figure.high:.4f}]"
