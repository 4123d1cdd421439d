"""The same list for everybody: what was met most often, over all time or lately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from recbert.baselines.histories import read_histories
from recbert.inputs import Moments

if TYPE_CHECKING:
    from datasets import Dataset

_SECONDS_A_DAY = 86_400


class Popularity:
    """Scores an item by its number of training events.

    The floor of every comparison, and the answer to an empty history. See `RecentPopularity` where tastes
    move.
    """

    def fit(self, train: Dataset, num_items: int) -> Self:
        """Count the events of each item.

        Args:
            train: the training part as `build_sequences` wrote it.
            num_items: size of the catalogue.
        """
        items = read_histories(train, num_items).items
        self.counts = np.bincount(items, minlength=num_items)  # (V,)
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]], moments: Moments | None = None) -> torch.Tensor:
        """Give every history the same scores, (B, num_items) fp32; times are ignored."""
        return torch.from_numpy(self.counts).float().expand(len(histories), -1)


class RecentPopularity:
    """Scores an item by its events in the last days before the newest training event.

    Often far above `Popularity` when evaluation lies in the future of the training part. The days are counted
    back from the end of the training part, whenever a request comes: nothing later is known. Ji et al., "A
    re-visit of the popularity baseline in recommender systems", 2020.

    Args:
        days: length of the period that counts.

    Raises:
        ValueError: `days` is not positive.
    """

    def __init__(self, days: float = 30) -> None:
        if not days > 0:
            raise ValueError(f"days is {days}: it must be positive")
        self.days = days

    def fit(self, train: Dataset, num_items: int) -> Self:
        """Count the events of each item in the window.

        Args:
            train: the training part as `build_sequences` wrote it.
            num_items: size of the catalogue.

        Raises:
            ValueError: no training event has a time.
        """
        history = read_histories(train, num_items)
        if np.isnan(history.times).all():
            raise ValueError("train has no timestamps: use Popularity, or give the events their times")
        recent = history.times >= np.nanmax(history.times) - self.days * _SECONDS_A_DAY
        self.counts = np.bincount(history.items[recent], minlength=num_items)  # (V,)
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]], moments: Moments | None = None) -> torch.Tensor:
        """Give every history the same scores, (B, num_items) fp32; times are ignored."""
        return torch.from_numpy(self.counts).float().expand(len(histories), -1)
