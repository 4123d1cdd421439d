"""The scores of a model blended with sequential rules, and the blend of a checkpoint on disk."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from recbert.backends import TorchScorer
from recbert.baselines import ItemLinks, ask_rules, limit_links, spread_links, write_links
from recbert.checkpoint import RULES_FILE, Blend
from recbert.checkpoint.card import record_blend
from recbert.inputs import Moments, TokenIds

MOST_RULES = 200
"""Rules that a checkpoint keeps of each item, the strongest: 8 bytes each. More gained nothing measurable."""

_CELLS_AT_ONCE = 1 << 18
"""Exponentials in memory at once: few enough for the cache, fresh pages cost more."""


class Shares(NamedTuple):
    """What the rules say about a batch of histories; items that no rule reaches are left out.

    Attributes:
        rows: (M,) number of the history, ascending.
        items: (M,) item index.
        shares: (M,) the item's share of all the rules that the history follows, above 0.
    """

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    shares: NDArray[np.float32]


class BlendedScorer:
    """Scores of every item for a batch of histories: the model's, raised where sequential rules lead.

    With p the model's probability and r the item's share of the rules that the history follows, the blended
    probability is proportional to `p ** (1 - power) * ((1 - weight) * p + weight * r) ** power`: the
    geometric mean of the model and of its linear interpolation with the rules. As a score,
    `s + power * log(1 + weight / (1 - weight) * r / p)`, so that only the items that a rule reaches change,
    and scores stay on the scale of the logits s. `power` 1 is plain interpolation, as of n-gram models; less
    spares an item that the model thinks unlikely from being lifted by one chance rule. Histories that follow
    no rule get the model's scores, those without a known item popularity as always.

    Jelinek and Mercer, "Interpolated estimation of Markov source parameters from sparse data", 1980; Genest
    and Zidek, "Combining probability distributions", 1986, for the geometric mean.

    Args:
        scorer: of the model.
        links: rules of item to item, counted on the training part.
        blend: window, weight and power.

    Raises:
        ValueError: there are no links.
    """

    def __init__(self, scorer: TorchScorer, links: ItemLinks | None, blend: Blend) -> None:
        if links is None:
            raise ValueError("recbert.json has a blend and its rules are not given: give them, or blend=None")
        self.scorer, self.links, self.blend = scorer, links, blend

    def scores(self, histories: Sequence[TokenIds], moments: Moments | None = None) -> Tensor:
        """Score all items, (B, V_items) fp32 on the CPU.

        Args:
            histories: B arrays of token ids, the earliest event first.
            moments: their times, for a model that knows of time.
        """
        blocks = [block.cpu().clone() for block in self.score_blocks(histories, moments)]
        return torch.cat(blocks) if blocks else self.scorer.scores(histories, moments)

    @torch.no_grad()
    def score_blocks(self, histories: Sequence[TokenIds], moments: Moments | None = None) -> Iterator[Tensor]:
        """Give the scores of a few histories at a time, as `TorchScorer.score_blocks` does.

        Args:
            histories: B arrays of token ids, the earliest event first.
            moments: their times, for a model that knows of time.
        """
        start = 0
        for scores in self.scorer.score_blocks(histories, moments):  # (b, V_items)
            here = histories[start : start + len(scores)]
            start += len(scores)
            rows, items, shares = (
                torch.from_numpy(part).to(scores.device)
                for part in share_rules(self.links, here, self.blend.window)
            )
            own = scores[rows, items]
            gains = shares.log() + log_totals(scores)[rows] - own
            scores[rows, items] = own + raised(gains, self.blend)
            yield scores


def log_totals(scores: Tensor) -> Tensor:
    """Give `log(sum(exp(s)))` of each row of scores (B, V), (B,)."""
    if scores.device.type != "cpu":
        return scores.logsumexp(1)
    highest = scores.amax(1, keepdim=True)
    few = max(1, _CELLS_AT_ONCE // scores.shape[1])
    buffer = scores.new_empty(min(few, len(scores)), scores.shape[1])
    sums = [
        torch.sub(part, top, out=buffer[: len(part)]).exp_().sum(1)
        for part, top in zip(torch.split(scores, few), torch.split(highest, few), strict=True)
    ]
    return torch.cat(sums).log_() + highest[:, 0]


def raised(gains: Tensor, blend: Blend) -> Tensor:
    """Give what the blend adds to the scores of some items, (M,) fp32.

    Args:
        gains: (M,) fp32, `log(r / p)` of each.
        blend: weight and power.
    """
    odds = blend.weight / (1 - blend.weight)
    return blend.power * softplus(gains + math.log(odds))


def share_rules(links: ItemLinks, histories: Sequence[TokenIds], window: int) -> Shares:
    """Follow the rules of a batch of histories.

    Args:
        links: the rules.
        histories: B arrays of token ids.
        window: how many of the latest items ask.
    """
    num_items = len(links.starts) - 1
    rows, ends, weights = spread_links(links, [ask_rules(history, window) for history in histories])
    cells = rows * num_items + ends
    order = np.argsort(cells, kind="stable")  # by radix, several times faster
    cells = cells[order]
    first = np.flatnonzero(np.diff(cells, prepend=-1))
    sums = np.add.reduceat(weights[order], first) if len(first) else weights
    rows = rows[first]  # they ascend, so that sorting the cells leaves them as they are
    items = cells[first] - rows * num_items
    totals = np.bincount(rows, weights=sums, minlength=len(histories))
    return Shares(rows, items, (sums / totals[rows]).astype(np.float32))


def save_blend(folder: str | Path, blend: Blend | None, links: ItemLinks | None = None) -> None:
    """Put a blend into a checkpoint, or remove the one that it has.

    Whoever loads the checkpoint while it is written, or after an interruption, finds it without a blend.

    Args:
        folder: the checkpoint folder.
        blend: the blend; None removes it.
        links: its rules, as counted; the `MOST_RULES` strongest of each item are kept.
    """
    record_blend(folder, None)
    if blend is None or links is None:
        Path(folder, RULES_FILE).unlink(missing_ok=True)
        return
    write_links(folder, limit_links(links, MOST_RULES))
    record_blend(folder, blend)
