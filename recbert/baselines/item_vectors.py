"""Vectors of items from counts of what stands near what: where a model's item table can begin."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn.functional import pad

from recbert.baselines.histories import read_histories
from recbert.baselines.links import ItemLinks, build_links, count_successions

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

_SMOOTHING = 0.75
_OVERSAMPLED, _ITERATIONS = 16, 6
"""Of the randomised decomposition: enough for vectors that no longer depend on the draws."""


class ItemVectors(NamedTuple):
    """Vectors of the V items of a catalogue, (V, size) fp32 each.

    The product of an item's first vector with another item's second one is high where they go together. An
    item does not go with itself unless it is taken again and again, which one set of vectors cannot say.

    Attributes:
        first: of the items as what was taken.
        second: of the items as what may come.
    """

    first: Tensor
    second: Tensor


def cooccurrence_vectors(train: Dataset, num_items: int, size: int, *, window: int = 10) -> ItemVectors:
    """Place items that stand near each other in many histories near each other.

    The positive pointwise mutual information of pairs at most `window` events apart (a pair counts
    `1 / distance`; the frequency of the second item raised to 0.75, which holds rare ones back) is decomposed
    into `U S V'`; an item's vectors are its rows of `U sqrt(S)` and `V sqrt(S)`. The same data gives the same
    vectors, on every run.

    Source: Levy, Goldberg and Dagan, "Improving Distributional Similarity with Lessons Learned from Word
    Embeddings", 2015.

    Args:
        train: the training part as `build_sequences` wrote it.
        num_items: size of the catalogue, V.
        size: length of a vector.
        window: largest distance that counts.

    Returns:
        Zeros for items that never stand near another, and in the last columns where there are fewer items
        than `size`.
    """
    information = _positive_information(
        count_successions(read_histories(train, num_items), num_items, window)
    )
    rank = min(size, num_items)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        left, values, right = torch.svd_lowrank(
            information, q=min(rank + _OVERSAMPLED, num_items), niter=_ITERATIONS
        )
    first, second = ((side * values.sqrt())[:, :rank] for side in (left, right))
    spare = (0, size - rank)
    return ItemVectors(pad(first, spare), pad(second, spare))


def tell_apart(vectors: Tensor, size: int) -> Tensor:
    """Add a code of its own to each item, by which a model can tell it from what is like it.

    The codes are drawn anew at each call, from a normal distribution with the spread of the vectors.

    Args:
        vectors: (V, D).
        size: length of a vector with its code, above D.

    Returns:
        (V, size), the codes in the columns behind.
    """
    codes = torch.randn(len(vectors), size - vectors.shape[1]) * vectors.std()
    return torch.cat([vectors, codes], dim=1)


def _positive_information(links: ItemLinks) -> Tensor:
    """Give the positive pointwise mutual information of linked items, in both directions, sparse (V, V)."""
    num_items = len(links.starts) - 1
    sources = links.sources()
    there, back = np.append(sources, links.ends), np.append(links.ends, sources)
    pairs = build_links(there, back, np.tile(links.weights, 2), num_items)
    first, second = pairs.sources(), pairs.ends
    totals = np.bincount(first, weights=pairs.weights, minlength=num_items)
    share, held_back = totals / totals.sum(), totals**_SMOOTHING / (totals**_SMOOTHING).sum()
    information = np.log(pairs.weights / totals.sum() / (share[first] * held_back[second])).clip(min=0)
    return torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([first, second])),
        torch.from_numpy(information.astype(np.float32)),
        (num_items, num_items),
        is_coalesced=True,
        check_invariants=False,
    )
