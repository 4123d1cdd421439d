"""A first-order Markov chain: what follows the last item most often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from recbert.baselines.histories import read_histories
from recbert.baselines.links import Query, count_successions, follow_links
from recbert.inputs import Moments, known_items
from recbert.tokenizer import FIRST_ITEM_ID

if TYPE_CHECKING:
    from datasets import Dataset


class Markov:
    """Scores an item by the share of the last item's successions that led to it: `P(next = item | last)`.

    Sees one event of the history; `SequentialRules` sees several and is the stronger one. Histories without a
    known item, and items that were last in every training history, score 0 everywhere.
    """

    def fit(self, train: Dataset, num_items: int) -> Self:
        """Count which item follows which.

        Args:
            train: the training part as `build_sequences` wrote it.
            num_items: size of the catalogue.
        """
        self.links = count_successions(read_histories(train, num_items), num_items, window=1)
        totals = np.concatenate(([0.0], np.cumsum(self.links.weights)))[self.links.starts]
        self.totals = np.diff(totals)  # (V,) successions of each item
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]], moments: Moments | None = None) -> torch.Tensor:
        """Score all items for each history, (B, num_items) fp32, probabilities; times are ignored."""
        queries = []
        for history in histories:
            last = known_items(history)[-1:] - FIRST_ITEM_ID
            queries.append(Query(last, 1 / np.maximum(self.totals[last], 1)))
        return follow_links(self.links, queries)
