import doctest
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recbert.evaluation import (
    Ranking,
    RankingMetrics,
    metrics,
    popularity_buckets,
    rank_scores,
    rank_targets,
    ranking_metrics,
    ranks,
    top_items,
)
from recbert.inputs import TargetRows
from recbert.tokenizer import FIRST_ITEM_ID, UNK_ID

Histories = Sequence[NDArray[np.int64]]
KS = (1, 3, 10)


class TableScorer:
    """Gives each history the row of a table that its first item names."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table

    def scores(self, histories: Histories, moments: object = None) -> torch.Tensor:
        return self.table[[int(history[0]) - FIRST_ITEM_ID for history in histories]]


def row(user: str, items: Sequence[int | None], targets: Sequence[int] = (-1,)) -> dict[str, object]:
    """One user's events; None is an unknown item; `targets` are positions."""
    is_target = [False] * len(items)
    for position in targets:
        is_target[position] = True
    tokens = [UNK_ID if item is None else FIRST_ITEM_ID + item for item in items]
    return {
        "user_id": user,
        "input_ids": tokens,
        "timestamps": [float(place) for place in range(len(items))],
        "is_target": is_target,
    }


def brute_force_rank(scores: Sequence[float], target: int, seen: set[int]) -> float:
    """The mean place of the target over all orders of the ties, by counting."""
    others = [score for item, score in enumerate(scores) if item != target and item not in seen]
    if target < 0 or target in seen:
        return math.inf
    better = sum(score > scores[target] for score in others)
    same = sum(score == scores[target] for score in others)
    return sum(better + 1 + place for place in range(same + 1)) / (same + 1)


def random_case(seed: int, rows: int = 40, items: int = 12) -> tuple[TableScorer, TargetRows]:
    """Scores with many ties, some cold and some repeated targets, several targets for some users."""
    generator = np.random.default_rng(seed)
    table = torch.from_numpy(generator.integers(0, 4, size=(items, items)).astype(np.float32))
    part = []
    for user in range(rows):
        history: list[int | None] = [int(item) for item in generator.integers(items, size=5)]
        history.append(None if user % 7 == 0 else int(generator.integers(items)))
        part.append(row(f"u{user}", history, targets=(-1, -2) if user % 3 == 0 else (-1,)))
    return TableScorer(table), TargetRows(part)


@pytest.mark.parametrize("module", [metrics, ranks, ranking_metrics])
def test_docstring_examples_are_true(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]  # a module is what testmod takes


@pytest.mark.parametrize("filter_seen", [True, False])
def test_ranks_equal_brute_force(filter_seen: bool) -> None:
    scorer, targets = random_case(0)
    ranking = rank_targets(scorer, targets, filter_seen=filter_seen, batch_size=7)
    for number, target in enumerate(targets):
        scores = scorer.scores([target.history])[0].tolist()
        seen = {int(token) - FIRST_ITEM_ID for token in target.history} if filter_seen else set()
        expected = brute_force_rank(scores, target.token_id - FIRST_ITEM_ID, seen)
        assert ranking.ranks[number] == expected
        assert ranking.users[number] == target.user


def test_debiased_metrics_are_what_dropping_targets_at_random_expects() -> None:
    generator = np.random.default_rng(3)
    targets = np.minimum(generator.geometric(0.2, 400) - 1, 14)
    targets[:150] = 0  # an outlier
    found = generator.integers(1, 20, 400).astype(np.float64)
    top = np.zeros((400, 0), dtype=np.int32)
    ranking = Ranking(found, top, targets, [str(row) for row in range(400)], num_items=20)
    counts = np.bincount(targets)
    first, third = np.percentile(counts[counts > 0], [25, 75])
    bound = int(third + 1.5 * (third - first))
    assert counts[0] > bound
    kept = []
    for _ in range(400):
        rows = [generator.permutation(np.flatnonzero(targets == item))[:bound] for item in range(20)]
        kept.append(RankingMetrics().value(ranking.select(np.concatenate(rows)), "ndcg@10"))
    debiased = RankingMetrics().compute(ranking)["debiased-ndcg@10"]
    assert debiased == pytest.approx(np.mean(kept), abs=0.004)
    assert abs(debiased - RankingMetrics().value(ranking, "ndcg@10")) > 0.0
    alike = ranking.select(np.unique(targets, return_index=True)[1])  # no item twice: nothing to take away
    assert RankingMetrics().value(alike, "debiased-hit@5") == RankingMetrics().value(alike, "hit@5")
    with pytest.raises(ValueError, match="metric is 'debiased-coverage@5'"):
        RankingMetrics().value(ranking, "debiased-coverage@5")


def test_metrics_equal_hand_computed() -> None:
    ranking = Ranking(
        ranks=np.array([1.0, 3.0, 2.5, np.inf]),
        top=np.array([[0, 1, 2], [0, 1, 3], [0, 2, 1], [1, 0, -1]], dtype=np.int32),
        targets=np.array([0, 3, 1, -1]),
        users=["a", "b", "c", "d"],
        num_items=8,
    )
    found = RankingMetrics(ks=(1, 3)).compute(ranking, popularity=[8, 4, 2, 0, 1, 1, 0, 0])
    assert found["hit@1"] == found["accuracy"] == 0.25
    assert found["hit@3"] == found["recall@3"] == 0.75
    assert found["precision@3"] == pytest.approx(0.25)
    assert found["f1@3"] == pytest.approx(2 * 0.25 * 0.75 / (0.25 + 0.75))
    # 1 / log2(2) = 1, 1 / log2(4) = 0.5, 1 / log2(3.5) = 0.5532, then 0 for the target that nobody could find
    assert found["ndcg@3"] == pytest.approx((1 + 0.5 + 0.55329) / 4, abs=1e-5)
    assert found["mrr@3"] == found["map@3"] == pytest.approx((1 + 1 / 3 + 0.4) / 4)
    assert found["coverage@1"] == 2 / 8
    assert found["coverage@3"] == 4 / 8
    # 16 events: the items have 1, 2, 3 and (none, counted as one event) 4 bits
    assert found["novelty@1"] == pytest.approx((1 + 1 + 1 + 2) / 4)
    assert found["novelty@3"] == pytest.approx((6 / 3 + 7 / 3 + 6 / 3 + 3 / 2) / 4)


def test_metrics_equal_brute_force_over_lists() -> None:
    """For untied scores every metric follows from the sorted list alone."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(12, 12, generator=generator)
    _, targets = random_case(1)
    ranking = rank_targets(TableScorer(table), targets)
    found = RankingMetrics(ks=KS).compute(ranking)
    for k in KS:
        hits, gains, reciprocals, recommended = [], [], [], set()
        for target in targets:
            items = [int(token) - FIRST_ITEM_ID for token in target.history]
            order = [
                item for item in table[items[0]].argsort(descending=True).tolist() if item not in set(items)
            ]
            recommended.update(order[:k])
            place = (
                order[:k].index(target.token_id - FIRST_ITEM_ID) + 1
                if (target.token_id - FIRST_ITEM_ID in order[:k])
                else 0
            )
            hits.append(place > 0)
            gains.append(1 / math.log2(1 + place) if place else 0)
            reciprocals.append(1 / place if place else 0)
        assert found[f"hit@{k}"] == pytest.approx(np.mean(hits))
        assert found[f"ndcg@{k}"] == pytest.approx(np.mean(gains))
        assert found[f"mrr@{k}"] == pytest.approx(np.mean(reciprocals))
        assert found[f"coverage@{k}"] == len(recommended) / 12


def test_ties_get_the_mid_rank() -> None:
    constant = torch.zeros(1, 101)
    assert rank_scores(constant, torch.tensor([7])).item() == 51
    assert rank_scores(torch.tensor([[2.0, 1.0, 1.0, 0.0]]), torch.tensor([2])).item() == 2.5


def test_seen_items_are_excluded_over_the_whole_history() -> None:
    targets = TargetRows([row("a", [0, 1, 2, 1, 4])])
    scorer = TableScorer(torch.tensor([[9.0, 8.0, 7.0, 6.0, 5.0]]))
    filtered = rank_targets(scorer, targets, k=5)
    assert filtered.ranks.tolist() == [2]
    assert filtered.top.tolist() == [[3, 4, -1, -1, -1]]
    kept = rank_targets(scorer, targets, filter_seen=False, k=2)
    assert kept.ranks.tolist() == [5]
    assert kept.top.tolist() == [[0, 1]]


def test_repeated_targets() -> None:
    targets = TargetRows([row("a", [0, 1, 2, 1])])
    scorer = TableScorer(torch.tensor([[9.0, 8.0, 7.0, 8.5]]))
    assert rank_targets(scorer, targets).ranks.tolist() == [math.inf]
    assert rank_targets(scorer, targets, filter_seen=False).ranks.tolist() == [3]
    allowed = rank_targets(scorer, targets, allow_repeats=True)
    assert allowed.ranks.tolist() == [2]
    assert allowed.top.tolist() == [[3, 1, -1, -1]]
    assert "unless they are the target" in allowed.seen_items


def test_special_tokens_are_never_ranked() -> None:
    """There is no column for them: unknown events in a history exclude nothing, and all columns are items."""
    targets = TargetRows([row("a", [0, None, None, 2])])
    ranking = rank_targets(TableScorer(torch.zeros(1, 4)), targets)
    assert ranking.num_items == 4
    assert ranking.ranks.tolist() == [2]
    assert ranking.top.tolist() == [[1, 2, 3, -1]]


def test_cold_targets_stay_in_the_denominator() -> None:
    targets = TargetRows([row("a", [0, 1]), row("b", [0, None])])
    ranking = rank_targets(TableScorer(torch.tensor([[0.0, 1.0]])), targets)
    assert ranking.targets.tolist() == [1, -1]
    assert RankingMetrics(ks=(1,)).compute(ranking)["hit@1"] == 0.5


def test_permuting_the_items_permutes_the_results() -> None:
    scorer, targets = random_case(2)
    order = np.random.default_rng(3).permutation(12)  # item i becomes item order[i]
    table = torch.empty_like(scorer.table)
    table[torch.from_numpy(order)[:, None], torch.from_numpy(order)[None, :]] = scorer.table
    part = [
        {
            "user_id": target.user,
            "input_ids": [
                token if token < FIRST_ITEM_ID else FIRST_ITEM_ID + order[token - FIRST_ITEM_ID]
                for token in (*target.history.tolist(), target.token_id)
            ],
            "timestamps": [0.0] * (len(target.history) + 1),
            "is_target": [False] * len(target.history) + [True],
        }
        for target in targets
    ]
    before = rank_targets(scorer, targets)
    after = rank_targets(TableScorer(table), TargetRows(part))
    assert np.array_equal(before.ranks, after.ranks)
    popularity = np.arange(12) % 5
    permuted = np.empty(12, dtype=np.int64)
    permuted[order] = popularity
    names = [f"{name}@{k}" for name in ("hit", "ndcg", "mrr") for k in (1, 5)]
    found = RankingMetrics().by_popularity(before, popularity)
    again = RankingMetrics().by_popularity(after, permuted)
    for bucket in found:
        assert found[bucket]["targets"] == again[bucket]["targets"]
        assert [found[bucket].get(name) for name in names] == [again[bucket].get(name) for name in names]


def test_batches_change_nothing() -> None:
    scorer, targets = random_case(4)
    whole = rank_targets(scorer, targets, batch_size=1000)
    for batch_size in (1, 3, 16):
        part = rank_targets(scorer, targets, batch_size=batch_size)
        assert np.array_equal(part.ranks, whole.ranks)
        assert np.array_equal(part.top, whole.top)


def test_top_items_break_ties_by_index() -> None:
    scores = torch.tensor([[1.0, 1.0, 2.0, 1.0, 0.0], [0.0] * 5, [-math.inf] * 4 + [3.0]])
    assert top_items(scores, 3).tolist() == [[2, 0, 1], [0, 1, 2], [4, -1, -1]]
    assert top_items(scores, 0).shape == (3, 0)
    many = torch.from_numpy(np.random.default_rng(0).integers(0, 9, size=(30, 200)).astype(np.float32))
    expected = np.argsort(-many.numpy(), axis=1, kind="stable")[:, :17]
    assert top_items(many, 17).tolist() == expected.tolist()


def test_half_precision_scores_are_ranked_in_single() -> None:
    scores = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.bfloat16)
    assert rank_scores(scores, torch.tensor([1])).item() == 2
    assert rank_scores(scores, torch.tensor([1]), (torch.tensor([0]), torch.tensor([2]))).item() == 1
    assert scores.tolist() == [[1.0, 2.0, 3.0]]


def test_popularity_buckets_add_up_to_all_targets() -> None:
    scorer, targets = random_case(5)
    ranking = rank_targets(scorer, targets)
    popularity = [5, 5, 5, 3, 3, 1, 1, 1, 1, 0, 0, 2]
    buckets = RankingMetrics(ks=(3,)).by_popularity(ranking, popularity)
    assert list(buckets) == ["head", "mid", "tail", "cold"]
    assert sum(part["targets"] for part in buckets.values()) == len(ranking)
    weighted = sum(part["targets"] * part["ndcg@3"] for part in buckets.values() if part["targets"])
    assert weighted / len(ranking) == pytest.approx(RankingMetrics(ks=(3,)).compute(ranking)["ndcg@3"])
    cold = (ranking.targets == -1) | np.isin(ranking.targets, [9, 10])
    assert buckets["cold"]["targets"] == cold.sum()


def test_equally_popular_items_share_a_bucket() -> None:
    assert popularity_buckets([2, 2, 2, 2]).tolist() == [0, 0, 0, 0]
    assert popularity_buckets([6, 3, 3, 3, 3]).tolist() == [0, 1, 1, 1, 1]
    assert popularity_buckets([0, 0]).tolist() == [3, 3]


def test_an_empty_bucket_only_counts_its_targets() -> None:
    ranking = Ranking(np.array([1.0]), np.zeros((1, 1), dtype=np.int32), np.array([0]), ["a"], 2)
    assert RankingMetrics().by_popularity(ranking, [3, 1])["cold"] == {"targets": 0.0}


def test_bad_input_is_refused() -> None:
    ranking = Ranking(np.array([1.0]), np.zeros((1, 1), dtype=np.int32), np.array([0]), ["a"], 20)
    with pytest.raises(ValueError, match="no event marked is_target"):
        rank_targets(TableScorer(torch.zeros(1, 1)), TargetRows([]))
    with pytest.raises(ValueError, match="NaN"):
        rank_scores(torch.tensor([[math.nan, 1.0]]), torch.tensor([1]))
    with pytest.raises(ValueError, match="item 5 but scores have 2 columns"):
        rank_scores(torch.zeros(1, 2), torch.tensor([5]))
    with pytest.raises(ValueError, match=r"ks is \(0,\)"):
        RankingMetrics(ks=(0,))
    with pytest.raises(ValueError, match=r"rank_targets\(..., k=10\)"):
        RankingMetrics(ks=(10,)).compute(ranking)
    with pytest.raises(ValueError, match="allowed are accuracy and hit"):
        RankingMetrics().row_values(ranking, "auc@10")
    with pytest.raises(ValueError, match="no mean over targets"):
        RankingMetrics().bootstrap(ranking, "coverage@1")
    with pytest.raises(ValueError, match="needs popularity"):
        RankingMetrics().row_values(ranking, "novelty@1")
    with pytest.raises(ValueError, match="popularity has 2 counts but the catalogue 20 items"):
        RankingMetrics().by_popularity(ranking, [1, 2])
    with pytest.raises(ValueError, match="different lengths"):
        Ranking(np.array([1.0]), np.zeros((1, 1), dtype=np.int32), np.array([0]), [], 2)
