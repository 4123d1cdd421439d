"""The best blend of a model with sequential rules, found on held-out targets."""

import itertools
from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from recbert.backends import TorchScorer
from recbert.baselines import ItemLinks
from recbert.checkpoint import Blend
from recbert.evaluation import hide_seen, rank_scores
from recbert.evaluation.metrics import ROW_METRICS
from recbert.evaluation.ranks import item_indices
from recbert.inputs import TargetRows, group_by_length
from recbert.recommender.blending import Shares, log_totals, raised, share_rules

WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
POWERS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

_K = 10
_PLACES = 32
"""Best items without a rule that are compared with the target: ties with more of them change nothing here."""


class Choice(NamedTuple):
    """Mean NDCG@10 of a model and of its blends.

    Attributes:
        alone: of the model without rules.
        blends: of each blend.
    """

    alone: float
    blends: dict[Blend, float]

    @property
    def best(self) -> Blend | None:
        """The best blend; None when the model alone is at least as good."""
        found = max(self.blends, key=lambda blend: self.blends[blend])
        return found if self.blends[found] > self.alone else None


@torch.no_grad()
def try_blends(
    scorer: TorchScorer,
    rules: Mapping[int, ItemLinks],
    targets: TargetRows,
    *,
    filter_seen: bool = True,
    allow_repeats: bool = False,
    batch_size: int = 512,
) -> Choice:
    """Measure the blends of every window, weight and power of the grid.

    Every item is a candidate, as in `rank_targets`. The model scores once: a blend moves only the items that
    a rule reaches, so the others keep their order, and their best ones stand for all of them.

    Args:
        scorer: of the model.
        rules: links by the window that they were counted with.
        targets: of the validation part.
        filter_seen: whether items of the history are left out.
        allow_repeats: with `filter_seen`, keep the target a candidate if it was seen.
        batch_size: histories scored at once.

    Raises:
        ValueError: there are no targets.
    """
    if len(targets) == 0:
        raise ValueError("targets is empty: the part has no event marked is_target; choose another split")
    blends = [Blend(*cell) for cell in itertools.product(rules, WEIGHTS, POWERS)]
    items = item_indices(targets.token_ids)
    sums = np.zeros(1 + len(blends))
    for rows in tqdm(group_by_length(targets.lengths, batch_size), desc="Blending"):
        histories, start = [targets.history(row) for row in rows], 0
        for scores in scorer.score_blocks(histories, targets.moments(rows)):
            few = slice(start, start + len(scores))
            start += len(scores)
            totals, scores = log_totals(scores).cpu(), scores.cpu()
            here, wanted = histories[few], torch.from_numpy(items[rows[few]])
            if filter_seen:
                hide_seen(scores, here, keep=wanted if allow_repeats else None)
            contests = {
                window: _Contest.of(scores, totals, wanted, share_rules(links, here, window))
                for window, links in rules.items()
            }
            found = [rank_scores(scores, wanted), *(contests[blend.window].ranks(blend) for blend in blends)]
            sums += [ROW_METRICS["ndcg"](ranks.numpy(), _K).sum() for ranks in found]
    alone, *values = (sums / len(targets)).tolist()
    return Choice(alone, dict(zip(blends, values, strict=True)))


class _Contest(NamedTuple):
    """What the rank of each target among all items depends on, for the blends of one window.

    Attributes:
        own: (b,) fp32 model's score of the target, -inf for one that cannot be recommended.
        place: (b,) number of the target's cell, -1 where no rule reaches it.
        best: (b, P) the best scores of items that no rule reaches.
        rows: (M,) row of each cell: an item that a rule reaches and that may be recommended.
        scores: (M,) fp32, the model's.
        gains: (M,) `log(r / p)`.
    """

    own: Tensor
    place: Tensor
    best: Tensor
    rows: Tensor
    scores: Tensor
    gains: Tensor

    @classmethod
    def of(cls, scores: Tensor, totals: Tensor, wanted: Tensor, found: Shares) -> Self:
        """Take what matters from scores (b, V) without the items that may not be recommended."""
        rows, items, shares = (torch.from_numpy(part) for part in found)
        cells = scores[rows, items]
        rivals = scores.clone()
        rivals[rows, items] = -torch.inf
        own = scores.gather(1, wanted.clamp(min=0)[:, None])[:, 0].masked_fill(wanted < 0, -torch.inf)
        allowed = ~cells.isneginf()
        rows, items, shares, cells = rows[allowed], items[allowed], shares[allowed], cells[allowed]
        place = torch.full_like(wanted, -1)
        hits = (items == wanted[rows]).nonzero()[:, 0]
        place[rows[hits]] = hits
        best = rivals.topk(min(_PLACES, rivals.shape[1])).values
        return cls(own, place, best, rows, cells, shares.log() + totals[rows] - cells)

    def ranks(self, blend: Blend) -> Tensor:
        """Give the mid-rank of each target, (b,) float64; exact down to place 10."""
        cells = self.scores + raised(self.gains, blend)
        own = torch.where(self.place < 0, self.own, torch.cat([cells, self.own[:1]])[self.place])
        bars = own[self.rows]
        higher, equal = (
            torch.bincount(self.rows[marks], minlength=len(own)) for marks in (cells > bars, cells == bars)
        )
        higher = higher + (self.best > own[:, None]).sum(1)
        equal = equal + (self.best == own[:, None]).sum(1)
        return (1 + higher + (equal - 1).clamp(min=0) / 2).double().masked_fill(own.isneginf(), torch.inf)
