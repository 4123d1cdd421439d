"""What a checkpoint says of its validation: which figures, and how they were obtained."""

from collections.abc import Mapping

from recbert.evaluation import Ranking, RankingMetrics, describe_protocol
from recbert.inputs import TokenIds, describe_request_time

MAIN_METRICS = ("hit@10", "ndcg@10", "mrr@10", "coverage@10")


def training_metrics(ranking: Ranking, popularity: TokenIds, chosen: str) -> dict[str, float]:
    """Give the main metrics of a ranking, and the one that chooses the best epoch.

    Args:
        ranking: of the validation part.
        popularity: (V_items,) training events of each item.
        chosen: its name.
    """
    metrics = RankingMetrics()
    return {name: metrics.value(ranking, name, popularity) for name in dict.fromkeys((*MAIN_METRICS, chosen))}


def list_length(chosen: str) -> int:
    """Give the longest list of best items that a metric may look at.

    Args:
        chosen: the metric that chooses the best epoch.
    """
    _, _, k = chosen.rpartition("@")
    return max(*RankingMetrics().ks, int(k) if k.isdecimal() else 1)


def validation_protocol(protocol: str, ranking: Ranking | None, knows_time: bool = False) -> str:
    """Say how the figures were obtained: on the validation part, which chose the epoch.

    Args:
        protocol: of the split, empty where nobody told it.
        ranking: of the validation part, None where there was none.
        knows_time: whether the model is told when it is asked.
    """
    if not ranking:
        return protocol
    split = f"{protocol or 'split not recorded'}; validation part"
    if knows_time:
        split += f"; {describe_request_time('true', has_window=False)}"
    return describe_protocol(split, ranking, RankingMetrics())


def validation_figures(
    validation: Mapping[int, Mapping[str, float]], best_step: int | None, ranking: Ranking | None
) -> dict[str, float]:
    """Give the main figures of the model as it is, with intervals if it was ranked last.

    Args:
        validation: metrics by the step after which they were taken.
        best_step: the step whose weights the model has; None for the last one's.
        ranking: the latest one of the validation part.
    """
    if not validation:
        return {}
    last = max(validation)
    chosen = validation.get(best_step or last, validation[last])
    figures = {name: float(chosen[name]) for name in MAIN_METRICS}
    metrics = RankingMetrics()
    if ranking and metrics.value(ranking, "ndcg@10") == figures["ndcg@10"]:
        for name in ("hit@10", "ndcg@10"):
            figures[f"{name}_low"], figures[f"{name}_high"] = metrics.bootstrap(ranking, name)
    return figures
