"""Where negatives come from."""

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbert.tokenizer import FIRST_ITEM_ID


class Sampler(Protocol):
    """Draws items as negatives, with replacement, from a distribution q over the catalogue.

    Attributes:
        num_items: size of the catalogue.
        from_batch: whether the labels of the batch are among the draws.
    """

    num_items: int
    from_batch: bool

    def draw(self, count: int, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Draw items from the global random generator of a device, which a Trainer saves and restores.

        Args:
            count: number of draws.
            labels: (N,) token ids of the batch; the draws come to the same device.

        Returns:
            token_ids: (count,) int64; never a special token.
            log_q: (count,) natural logarithm of the probability with which one draw gives that item.
        """
        ...


class UniformSampler:
    """Every item is as likely as every other.

    Args:
        num_items: size of the catalogue.
    """

    from_batch = False

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def draw(self, count: int, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Draw items; see `Sampler.draw`."""
        end = FIRST_ITEM_ID + self.num_items
        token_ids = torch.randint(FIRST_ITEM_ID, end, (count,), device=labels.device)
        return token_ids, torch.full((count,), -math.log(self.num_items), device=labels.device)


class PopularitySampler:
    """Items in proportion to a power of their training events, one added so that every item can be drawn.

    `q_j = (n_j + 1)^power / sum_i (n_i + 1)^power`. Frequent items take most of the softmax's sum, so drawing
    them often estimates it better than as many uniform draws; `SampledSoftmax` takes q out of the scores
    again. Source: Bengio and Senecal, "Adaptive importance sampling to accelerate training of a neural
    probabilistic language model", 2008; powers below 1 from Mikolov et al., "Distributed representations of
    words and phrases and their compositionality", 2013.

    Args:
        counts: (V_items,) training events of each item.
        power: from 0, which is uniform, to 1.

    Raises:
        ValueError: `power` is outside of 0 to 1.
    """

    from_batch = False

    def __init__(self, counts: NDArray[np.int64], power: float = 1.0) -> None:
        if not 0 <= power <= 1:
            raise ValueError(f"power is {power}: it must be from 0 to 1")
        self.num_items = len(counts)
        weights = (counts + 1.0) ** power
        self._log_q = torch.from_numpy(np.log(weights / weights.sum())).float()
        ends = np.cumsum(weights)
        self._ends = torch.from_numpy(ends / ends[-1])  # in float64: a float32 cannot tell millions apart

    def draw(self, count: int, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Draw items; see `Sampler.draw`."""
        device = labels.device
        if self._ends.device != device:
            self._ends, self._log_q = self._ends.to(device), self._log_q.to(device)
        places = torch.rand(count, dtype=torch.float64, device=device)
        items = torch.searchsorted(self._ends, places, right=True).clamp(max=self.num_items - 1)
        return items + FIRST_ITEM_ID, self._log_q[items]


class BatchSampler:
    """Labels of the batch as negatives of one another, and maybe uniform draws beside them.

    A share of the draws comes from the labels of the batch, whose items appear as often as they are popular;
    the rest is uniform, so that rare items are negatives too. With n_j training events of an item,
    `q_j = share (n_j + 1) / sum_i (n_i + 1) + (1 - share) / V_items`. Source: Yi et al.,
    "Sampling-bias-corrected neural modeling for large corpus item recommendations", 2019, for the batch
    alone; Yang et al., "Mixed negative sampling for learning two-tower neural networks in recommendations",
    2020, for both.

    Args:
        counts: (V_items,) training events of each item.
        share: of the draws that come from the batch, above 0 and up to 1.

    Raises:
        ValueError: `share` is out of range.
    """

    from_batch = True

    def __init__(self, counts: NDArray[np.int64], share: float = 1.0) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"in_batch_share is {share}: it must be above 0 and up to 1")
        self.num_items = len(counts)
        self._share = share
        popularity = (counts + 1.0) / (counts + 1.0).sum()
        self._log_q = torch.from_numpy(np.log(share * popularity + (1 - share) / len(counts))).float()

    def draw(self, count: int, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Draw items; see `Sampler.draw`."""
        device = labels.device
        if self._log_q.device != device:
            self._log_q = self._log_q.to(device)
        token_ids = torch.randint(FIRST_ITEM_ID, FIRST_ITEM_ID + self.num_items, (count,), device=device)
        if len(labels):
            chosen = labels[torch.randint(len(labels), (count,), device=device)]
            # Each draw on its own, so that any part of the draws has the same distribution.
            token_ids = torch.where(torch.rand(count, device=device) < self._share, chosen, token_ids)
        return token_ids, self._log_q[token_ids - FIRST_ITEM_ID]
