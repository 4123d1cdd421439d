"""Which reserved tokens stand for time.

The ids are token types too: families with a type table of their own get one as long as the special tokens, so
that an id means the same in every family::

    id      0             5               6 ... 33              34 ... 40           41 ... 64
    token   [PAD]         [unused0]       [unused1 ... 28]      [unused29 ... 35]   [unused36 ... 59]
    means   nothing       time unknown    gaps, by powers of 2  Monday to Sunday    hours 0 to 23 (UTC)

A gap of s seconds has bucket ``floor(log2(s + 1))``, from 0 (under a second; a negative gap counts as 0) to
27 (4.25 years and more).
"""

import numpy as np
from numpy.typing import NDArray

from recbert.tokenizer.layout import EOS_ID, FIRST_ITEM_ID

GAP_BUCKETS = 28
UNKNOWN_TIME_ID = EOS_ID + 1
FIRST_GAP_ID = UNKNOWN_TIME_ID + 1
FIRST_WEEKDAY_ID = FIRST_GAP_ID + GAP_BUCKETS
FIRST_HOUR_ID = FIRST_WEEKDAY_ID + 7
#: Rows of a type table that holds all of them.
NUM_TOKEN_TYPES = FIRST_ITEM_ID

_HOUR, _DAY = 3600.0, 86_400.0
_MONDAY = 3
"""The first day of the epoch was a Thursday: so many days after a Monday."""


def gap_ids(gaps: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the token of each gap; of NaN the one for an unknown time.

    Args:
        gaps: seconds, of any shape.

    >>> (gap_ids(np.array([-5.0, 0.0, 1.0, 86_400.0, 1e12, np.nan])) - FIRST_GAP_ID).tolist()
    [0, 0, 1, 16, 27, -1]
    """
    buckets = np.floor(np.log2(np.maximum(np.nan_to_num(gaps), 0) + 1)).clip(max=GAP_BUCKETS - 1)
    return np.where(np.isnan(gaps), UNKNOWN_TIME_ID, FIRST_GAP_ID + buckets.astype(np.int64))


def hour_ids(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the token of the hour of the day (UTC); of NaN the one for an unknown time.

    Args:
        times: epoch seconds, of any shape.
    """
    hours = (np.nan_to_num(times) % _DAY // _HOUR).astype(np.int64)
    return np.where(np.isnan(times), UNKNOWN_TIME_ID, FIRST_HOUR_ID + hours)


def weekday_ids(times: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give the token of the day of the week (UTC); of NaN the one for an unknown time.

    Args:
        times: epoch seconds, of any shape.

    >>> int(weekday_ids(np.array([1_600_000_000.0]))[0]) - FIRST_WEEKDAY_ID  # Sunday, 13 September 2020
    6
    """
    days = (np.nan_to_num(times) // _DAY).astype(np.int64)
    return np.where(np.isnan(times), UNKNOWN_TIME_ID, FIRST_WEEKDAY_ID + (days + _MONDAY) % 7)
