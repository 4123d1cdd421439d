"""The evaluation room: the short ways to ranks and lists give what the long ways give."""

import pytest
import torch

from recbert.evaluation import rank_scores, top_items


def _scores(items: int, kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(20, items, generator=generator)
    if kind == "ties":
        scores = (scores * 2).round()
    if kind == "few candidates":
        scores[:, 5:] = -torch.inf
    if kind == "constant":
        scores[:] = 1.0
    return scores


@pytest.mark.parametrize("kind", ["distinct", "ties", "few candidates", "constant"])
@pytest.mark.parametrize(("items", "k"), [(50, 10), (640, 10), (641, 10), (3000, 7), (3001, 20), (640, 640)])
def test_best_of_blocks_are_the_best_of_all(items: int, k: int, kind: str) -> None:
    scores = _scores(items, kind)
    expected = []
    for row in scores.tolist():
        order = sorted((-score, item) for item, score in enumerate(row) if score > -torch.inf)[:k]
        expected.append([item for _, item in order] + [-1] * (k - len(order)))
    assert top_items(scores, k).tolist() == expected


@pytest.mark.parametrize("kind", ["distinct", "ties", "few candidates", "constant"])
@pytest.mark.parametrize("items", [1, 63, 64, 1000])
def test_counted_ranks_are_those_of_a_loop(items: int, kind: str) -> None:
    scores = _scores(items, kind)
    targets = torch.arange(20) % items
    for row, target, rank in zip(
        scores, targets.tolist(), rank_scores(scores, targets).tolist(), strict=True
    ):
        own = row[target]
        plain = 1 + int((row > own).sum()) + (int((row == own).sum()) - 1) / 2
        assert rank == (float("inf") if own == -torch.inf else plain)


def test_nan_among_the_scores_is_refused() -> None:
    scores = _scores(500, "distinct")
    scores[3, 400] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        rank_scores(scores, torch.zeros(20, dtype=torch.int64))
