"""Items liked by the same users, in whatever order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from numpy.typing import NDArray

from recbert.baselines.histories import Histories, read_histories
from recbert.baselines.links import Query, add_links, build_links, follow_links
from recbert.inputs import Moments, known_items
from recbert.tokenizer import FIRST_ITEM_ID

if TYPE_CHECKING:
    from datasets import Dataset

#: Items whose co-occurrences are counted at a time.
_BLOCK = 512


class ItemKNN:
    """Scores an item by its similarity to the items of the history, order and repeats ignored.

    `similarity(i, j) = users of both / (sqrt(users of i * users of j) + shrinkage)`, the cosine of the two
    items' user vectors; each item of the history contributes its nearest neighbours. What a sequential model
    has to add to, see `SequentialRules` for the count baseline that knows the order. Sarwar et al.,
    "Item-based collaborative filtering recommendation algorithms", 2001.

    Args:
        neighbours: how many neighbours of each item contribute; those that tie with the last one do too.
        shrinkage: lowers similarities that rest on few users.

    Raises:
        ValueError: `neighbours` is smaller than 1 or `shrinkage` negative.
    """

    def __init__(self, neighbours: int = 100, shrinkage: float = 0.0) -> None:
        if neighbours < 1:
            raise ValueError(f"neighbours is {neighbours}: it must be at least 1")
        if not shrinkage >= 0:
            raise ValueError(f"shrinkage is {shrinkage}: it must be 0 or more")
        self.neighbours, self.shrinkage = neighbours, shrinkage

    def fit(self, train: Dataset, num_items: int) -> Self:
        """Find the neighbours of each item.

        Args:
            train: the training part as `build_sequences` wrote it.
            num_items: size of the catalogue.
        """
        of_item = _users_of_items(read_histories(train, num_items), num_items)  # (V, U)
        degrees = torch.sparse.sum(of_item, 1).to_dense()  # (V,)
        of_user = of_item.t().coalesce()
        parts = []
        for start in range(0, num_items, _BLOCK):
            stop = min(start + _BLOCK, num_items)
            block = of_user.index_select(1, torch.arange(start, stop)).to_dense()  # (U, block)
            shared = torch.sparse.mm(of_item, block).T  # (block, V)
            similarity = shared / ((degrees[start:stop, None] * degrees).sqrt() + self.shrinkage).clamp(min=1)
            similarity[torch.arange(stop - start), torch.arange(start, stop)] = 0
            kept = similarity >= similarity.topk(min(self.neighbours, num_items), dim=1).values[:, -1:]
            sources, ends = (kept & (similarity > 0)).nonzero(as_tuple=True)
            weights = similarity[sources, ends].double()
            parts.append(build_links((sources + start).numpy(), ends.numpy(), weights.numpy(), num_items))
        self.links = add_links(parts)
        return self

    def scores(self, histories: Sequence[NDArray[np.int64]], moments: Moments | None = None) -> torch.Tensor:
        """Score all items for each history, (B, num_items) fp32; times are ignored."""
        queries = []
        for history in histories:
            items = np.unique(known_items(history)) - FIRST_ITEM_ID
            queries.append(Query(items, np.ones(len(items))))
        return follow_links(self.links, queries)


def _users_of_items(histories: Histories, num_items: int) -> torch.Tensor:
    """A sparse (V, U) matrix with 1 where a user has met an item."""
    cells = np.unique(np.stack([histories.items, histories.users]), axis=1)  # (2, M)
    size = (num_items, int(histories.users.max()) + 1)
    values = torch.ones(cells.shape[1])
    return torch.sparse_coo_tensor(
        torch.from_numpy(cells), values, size, is_coalesced=True, check_invariants=True
    )
