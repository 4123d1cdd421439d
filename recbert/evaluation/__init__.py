"""Full-catalogue ranks, the metrics made of them, their intervals, and the table that shows them.

The `evaluate.Metric` modules live in `recbert.evaluation.modules`, so that ranking needs neither `evaluate`
nor `datasets`.
"""

from recbert.evaluation.intervals import Comparison, bootstrap_mean, compare_means
from recbert.evaluation.lists import top_items
from recbert.evaluation.metrics import popularity_buckets
from recbert.evaluation.ranking import Ranking, Scorer
from recbert.evaluation.ranking_metrics import RankingMetrics, parse_metric
from recbert.evaluation.ranks import exclude_items, hide_seen, rank_scores, rank_targets, seen_cells
from recbert.evaluation.shards import ItemSlice, VectorScorer, best_items, rank_over_shards, slice_items
from recbert.evaluation.table import build_bucket_table, build_table, describe_protocol

__all__ = [
    "Comparison",
    "ItemSlice",
    "Ranking",
    "RankingMetrics",
    "Scorer",
    "VectorScorer",
    "best_items",
    "bootstrap_mean",
    "build_bucket_table",
    "build_table",
    "compare_means",
    "describe_protocol",
    "exclude_items",
    "hide_seen",
    "parse_metric",
    "popularity_buckets",
    "rank_over_shards",
    "rank_scores",
    "rank_targets",
    "seen_cells",
    "slice_items",
    "top_items",
]
