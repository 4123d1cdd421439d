"""Ragged rows into rectangles, without a loop over their elements."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

TokenIds = NDArray[np.int64]
_Element = TypeVar("_Element", np.int64, np.bool_)


def lay_out(values: NDArray[_Element], lengths: TokenIds, fill: int) -> NDArray[_Element]:
    """Lay rows that stand one after another into a rectangle.

    Args:
        values: (T,) the elements of all rows.
        lengths: (B,) elements of each row.
        fill: the value after each row's end.

    Returns:
        (B, L), L the longest row.
    """
    present = present_places(lengths)
    rectangle = np.full(present.shape, fill, dtype=values.dtype)
    rectangle[present] = values
    return rectangle


def present_places(lengths: TokenIds) -> NDArray[np.bool_]:
    """Mark the places of a rectangle that rows of these lengths fill, (B, L).

    Args:
        lengths: (B,) elements of each row.
    """
    return np.arange(lengths.max(initial=0)) < lengths[:, None]


def ranges(starts: TokenIds, lengths: TokenIds) -> TokenIds:
    """Give the places of several runs, one run after another.

    Args:
        starts: (B,) first place of each run.
        lengths: (B,) places in each run.

    Returns:
        (T,) with T the sum of the lengths.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)


def pad_right(rows: Sequence[TokenIds], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay separate rows into a rectangle.

    Args:
        rows: B arrays of token ids.
        fill: the value after each row's end.

    Returns:
        values: (B, L) int64, L the longest row.
        mask: (B, L) int64, 1 where a row has a value.
    """
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    values = np.concatenate(rows, dtype=np.int64) if len(rows) else np.zeros(0, dtype=np.int64)
    mask = present_places(lengths).astype(np.int64)
    return torch.from_numpy(lay_out(values, lengths, fill)), torch.from_numpy(mask)
