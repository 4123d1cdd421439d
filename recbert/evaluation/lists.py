"""The best items of each row of scores."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_TILE_ITEMS = 32
"""Items whose maximum decides whether any of them can be among the best."""

_MOST_TIES = 8
"""Candidates for each place of a list above which the short way would be the longer one."""


def tile_maxima(scores: Tensor) -> NDArray[np.float32]:
    """Give the maxima of disjoint tiles of items that together hold them all; NaN where a tile holds NaN.

    Args:
        scores: (B, V) fp32 on the CPU.

    Returns:
        (B, T), T about V / 32.
    """
    values: NDArray[np.float32] = scores.numpy()
    tiles = values.shape[1] // _TILE_ITEMS
    tiled = values[:, : tiles * _TILE_ITEMS].reshape(len(values), _TILE_ITEMS, tiles)
    return np.concatenate([tiled.max(1), values[:, tiles * _TILE_ITEMS :]], axis=1)


def top_items(scores: Tensor, k: int, maxima: NDArray[np.float32] | None = None) -> Tensor:
    """List the best items of each row; of items with equal scores the one with the lower index comes first.

    Args:
        scores: (B, V) scores of the items, -inf for those that may not be recommended.
        k: items wanted.
        maxima: `tile_maxima` of these scores, where the caller has them already.

    Returns:
        (B, min(k, V)) int32 item indices on the CPU, best first, -1 where no candidate was left.
    """
    k = min(k, scores.shape[1])
    if k == 0 or len(scores) == 0:
        return torch.empty((len(scores), k), dtype=torch.int32)
    scores = scores.float()
    found = None
    if scores.device.type == "cpu" and scores.shape[1] >= 2 * k * _TILE_ITEMS:
        found = _best_of_tiles(scores.numpy(), tile_maxima(scores) if maxima is None else maxima, k)
    return _best_of_all(scores, k) if found is None else torch.from_numpy(found)


def _best_of_tiles(
    scores: NDArray[np.float32], maxima: NDArray[np.float32], k: int
) -> NDArray[np.int32] | None:
    """List the best items by a lower bound of the k-th best score: the k-th highest maximum of a tile.

    Returns:
        As `top_items`; None where so many items tie at the bound that it saves nothing.
    """
    bound = np.partition(maxima, maxima.shape[1] - k, axis=1)[:, maxima.shape[1] - k, None]
    cells = np.flatnonzero(scores >= bound)
    rows, items = np.divmod(cells, scores.shape[1])
    counts = np.bincount(rows, minlength=len(scores))
    if len(cells) > _MOST_TIES * k * len(scores) or counts.min() < k:  # fewer than k: NaN
        return None
    present = np.arange(counts.max()) < counts[:, None]
    values = np.full(present.shape, -np.inf, dtype=np.float32)
    values[present] = scores[rows, items]
    candidates = np.full(present.shape, -1, dtype=np.int32)
    candidates[present] = items
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]  # candidates stand in the order of their index
    return np.take_along_axis(candidates, order, 1)


def _best_of_all(scores: Tensor, k: int) -> Tensor:
    """List the best items, any number of which may tie."""
    values, items = scores.topk(k, dim=1)
    bound = values[:, -1:]
    # Items that tie with the last one, of which topk picks arbitrarily.
    unsure = ((scores >= bound).sum(1) > k) & ~torch.isneginf(bound.squeeze(1))
    if bool(unsure.any()):
        items[unsure] = _first_of_ties(scores[unsure], bound[unsure], k)
        values = scores.gather(1, items)
    items, order = torch.sort(items, dim=1)
    values, order = torch.sort(values.gather(1, order), dim=1, descending=True, stable=True)
    return items.gather(1, order).masked_fill(torch.isneginf(values), -1).int().cpu()


def _first_of_ties(scores: Tensor, bound: Tensor, k: int) -> Tensor:
    """Pick the k items of each row at or above its bound, those at the bound by item index."""
    higher = scores > bound
    tied = scores == bound
    wanted = k - higher.sum(1, keepdim=True)
    picked = higher | (tied & (tied.cumsum(1) <= wanted))
    return picked.nonzero()[:, 1].view(-1, k)
