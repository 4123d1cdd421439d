"""Sequential rules: what follows soon after the latest items, nearer events counting more."""

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


class SequentialRules:
    """Scores an item by the rules that lead to it from the latest items of the history.

    Counting: every pair of events of a user at most `window` apart adds `1 / distance` to the rule from the
    earlier item to the later one. Query: the item at distance d from the end (1 is the last) contributes its
    rules times `1 / d`. The count baseline to beat on short histories. Ludewig and Jannach, "Evaluation of
    session-based recommendation algorithms", 2018 (there without the weight in the query).

    Args:
        window: largest distance that counts, and how many of the latest items ask; choose it on the
            validation part.

    Raises:
        ValueError: `window` is smaller than 1.
    """

    def __init__(self, window: int = 10) -> None:
        if window < 1:
            raise ValueError(f"window is {window}: it must be at least 1")
        self.window = window

    def fit(self, train: Dataset, num_items: int) -> Self:
        """Count the rules.

        Args:
            train: the training part as `build_sequences` wrote it.
            num_items: size of the catalogue.
        """
        self.links = count_successions(read_histories(train, num_items), num_items, self.window)
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]], moments: Moments | None = None) -> torch.Tensor:
        """Score all items for each history, (B, num_items) fp32; times are ignored."""
        return follow_links(self.links, [ask_rules(history, self.window) for history in histories])


def ask_rules(history: NDArray[np.int64], window: int) -> Query:
    """Start from the latest items of a history, the nearer the heavier.

    Args:
        history: (L,) token ids, `[UNK]` for unknown items.
        window: how many of the latest items ask.
    """
    latest = known_items(history)[: -window - 1 : -1] - FIRST_ITEM_ID  # the last one first
    return Query(latest, 1 / np.arange(1.0, len(latest) + 1))
