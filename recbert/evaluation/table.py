"""The table of an evaluation in Markdown, with the line that says what its numbers mean."""

from collections.abc import Mapping, Sequence

import numpy as np

from recbert.evaluation.intervals import Comparison
from recbert.evaluation.metrics import BUCKETS, Counts
from recbert.evaluation.ranking import Ranking
from recbert.evaluation.ranking_metrics import DEBIASED, RankingMetrics


def build_table(
    rankings: Mapping[str, Ranking],
    *,
    split: str,
    metrics: RankingMetrics | None = None,
    columns: Sequence[str] = ("hit@10", "ndcg@10", "mrr@10", "coverage@10"),
    against: str | None = None,
    popularity: Counts | None = None,
) -> str:
    """One row for each ranking, one column for each metric, 95 % intervals in brackets, the protocol below.

    Args:
        rankings: rankings of the same targets by the name to print.
        split: the split in words, for the protocol line.
        metrics: says how intervals are resampled; the default ones if not given.
        columns: metric names; coverage is no mean over targets and gets no interval.
        against: name of the ranking that the others are compared with, in one more column, by the last of the
            columns that is `ndcg@k` (`ndcg@10` if none is).
        popularity: (V,) training events of each item, for novelty.

    Raises:
        ValueError: there is no ranking, `against` is not one of them, or they are not of the same targets.
    """
    metrics = metrics or RankingMetrics()
    if not rankings or (against is not None and against not in rankings):
        raise ValueError(f"against is {against!r}: allowed are {sorted(rankings)}")
    compared = next((column for column in reversed(columns) if column.startswith("ndcg@")), "ndcg@10")
    header = ["model", *columns]
    if against is not None:
        header.append(f"{compared} against {against}")
    lines = [markdown_line(header), markdown_line(["---", *["---:"] * (len(header) - 1)])]
    for name, ranking in rankings.items():
        cells = [name, *(_cell(ranking, column, metrics, popularity) for column in columns)]
        if against is not None:
            found = None if name == against else metrics.compare(ranking, rankings[against], compared)
            cells.append("" if found is None else difference_text(found))
        lines.append(markdown_line(cells))
    protocol = describe_protocol(split, next(iter(rankings.values())), metrics)
    if any(column.startswith(DEBIASED) for column in columns):
        protocol += " Debiased: an item with an outlying number of targets counts as if it had the bound's."
    return "\n".join([*lines, "", protocol, ""])


def build_bucket_table(
    rankings: Mapping[str, Ranking],
    popularity: Counts,
    *,
    metrics: RankingMetrics | None = None,
    column: str = "ndcg@10",
) -> str:
    """One metric by the popularity of the target: one row for each ranking; head, mid, tail and cold targets.

    Args:
        rankings: rankings of the same targets by the name to print.
        popularity: (V,) training events of each item.
        metrics: the metrics to choose from; the default ones if not given.
        column: name of the metric, with a k that `metrics` has.

    Raises:
        ValueError: there is no ranking.
    """
    metrics = metrics or RankingMetrics()
    if not rankings:
        raise ValueError("rankings is empty: give at least one ranking")
    rows = {name: metrics.by_popularity(ranking, popularity) for name, ranking in rankings.items()}
    targets = next(iter(rows.values()))
    header = [f"{bucket} ({targets[bucket]['targets']:,.0f} targets)" for bucket in BUCKETS]
    lines = [
        markdown_line([f"{column} by popularity", *header]),
        markdown_line(["---", *["---:"] * len(header)]),
    ]
    for name, buckets in rows.items():
        cells = [f"{buckets[bucket][column]:.4f}" if column in buckets[bucket] else "-" for bucket in BUCKETS]
        lines.append(markdown_line([name, *cells]))
    return "\n".join([*lines, ""])


def describe_protocol(split: str, ranking: Ranking, metrics: RankingMetrics) -> str:
    """One line with everything that a number depends on beside the model.

    Args:
        split: the split in words.
        ranking: a ranking of the targets.
        metrics: says how intervals are resampled.
    """
    unknown = ranking.targets < 0
    barred = int((np.isinf(ranking.ranks) & ~unknown).sum())
    barred_text = f"; so do {barred:,} targets that the filter or a deny-list excludes" if barred else ""
    return (
        f"Protocol: {split}; {len(ranking):,} targets of {len(set(ranking.users)):,} users; all "
        f"{ranking.num_items:,} items are candidates; items of the history are {ranking.seen_items}; ties at "
        f"mid-rank; {int(unknown.sum()):,} targets outside the vocabulary count as misses{barred_text}; in "
        f"brackets 95 % percentile bootstrap intervals over users ({metrics.resamples:,} resamples)."
    )


def _cell(ranking: Ranking, column: str, metrics: RankingMetrics, popularity: Counts | None) -> str:
    """One number with its interval, if it has one."""
    value = metrics.value(ranking, column, popularity)
    if column.startswith("coverage"):
        return f"{value:.4f}"
    low, high = metrics.bootstrap(ranking, column, popularity)
    digits = 2 if column.startswith("novelty") else 4
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def difference_text(found: Comparison) -> str:
    """A paired difference with its interval and p-value.

    Args:
        found: the difference.
    """
    return f"{found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}], p = {found.p_value:.3f}"


def markdown_line(cells: Sequence[str]) -> str:
    """One line of a table; a bar inside a cell is escaped.

    Args:
        cells: what stands in its columns.
    """
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
