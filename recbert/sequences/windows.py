"""Where rows begin and end: windows over a table sorted by user and time, cut in numpy without a loop."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]
WindowKind = Literal["last", "sliding", "prefix"]

#: Elements in one block of rows: bounds working memory. Only a single longer history makes a larger block.
BLOCK_EVENTS = 1 << 22


class Windows(NamedTuple):
    """N rows over the events of a sorted table.

    Attributes:
        start: (N,) the table row of each window's first event.
        stop: (N,) the table row after its last event.
        target: (N,) the table row of its first target; the events before it are context only.
    """

    start: Places
    stop: Places
    target: Places


def cut_windows(bounds: Places, kind: WindowKind, length: int, stride: int) -> Windows:
    """The training rows of all users.

    Args:
        bounds: (U + 1,) the table rows at which users begin; the last is the number of events.
        kind: "last", "sliding" or "prefix"; see `build_sequences`.
        length: The most events in a window, at least 2.
        stride: Events between the ends of sliding windows, 1 to ``length - 1``.
    """
    low, high = bounds[:-1], bounds[1:]
    if kind == "last":
        start = np.maximum(low, high - length)
        return Windows(start, high, start + (start > low))
    if kind == "sliding":
        return _slide(low, high, length, stride)
    stop = np.arange(1, bounds[-1] + 1)
    return Windows(np.maximum(np.repeat(low, high - low), stop - length), stop, stop - 1)


def keep_whole(bounds: Places) -> Windows:
    """One row a user, with all of its events."""
    low, high = bounds[:-1], bounds[1:]
    return Windows(low, high, low)


def _slide(low: Places, high: Places, length: int, stride: int) -> Windows:
    """Windows that end at a user's last event and every stride before it, until they reach the first one."""
    rest = np.maximum(high - low - length, 0)
    counts = 1 + -(-rest // stride)
    back = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(counts.sum())
    low, high = np.repeat(low, counts), np.repeat(high, counts)
    stop = high - back * stride
    start = np.maximum(low, stop - length)
    # What an earlier window has already asked for is context here.
    is_first = start == low
    return Windows(start, stop, np.where(is_first, low, stop - stride))


def gather_blocks(
    windows: Windows, block_events: int = BLOCK_EVENTS
) -> Iterator[tuple[slice, Places, Places]]:
    """Blocks of rows with the events that fill them.

    Yields:
        rows: The slice of the windows in this block.
        offsets: (rows + 1,) where each row begins among the block's elements.
        events: (elements,) the table row of each element.
    """
    lengths = windows.stop - windows.start
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + block_events, side="right")))
        rows = slice(first, last)
        offsets = np.concatenate([[0], ends[rows] - done])
        events = np.arange(offsets[-1]) + np.repeat(windows.start[rows] - offsets[:-1], lengths[rows])
        yield rows, offsets, events
        first = last
