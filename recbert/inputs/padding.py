"""Ragged rows into rectangles, without a loop over their elements."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int64]
_Element = TypeVar("_Element", np.int64, np.bool_, np.float64)


def lay_out(values: NDArray[_Element], present: NDArray[np.bool_], fill: float) -> NDArray[_Element]:
    """Lay rows that stand one after another into a rectangle.

    Args:
        values: (T,) the elements of all rows.
        present: (B, L) the places that they fill, see `present_places`.
        fill: the value after each row's end.

    Returns:
        (B, L).
    """
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
