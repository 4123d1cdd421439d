"""The times that belong to histories, and the moments at which they are asked about."""

import logging
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_SHORTEST_SPAN_S = 100_000.0


class Moments(NamedTuple):
    """When the events of B histories happened, and when the next item of each is asked for.

    Attributes:
        times: B arrays of epoch seconds, one for each event; NaN where unknown.
        at: (B,) the request's epoch seconds; NaN where unknown.
    """

    times: Sequence[NDArray[np.float64]]
    at: NDArray[np.float64]

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Keep some histories, in the order asked for.

        Args:
            rows: (B,) bool, or the row numbers to keep.
        """
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return self._replace(times=[self.times[number] for number in numbers], at=self.at[numbers])

    @classmethod
    def unknown(cls, lengths: Sequence[int]) -> Self:
        """Give the moments of histories of which nothing is known.

        Args:
            lengths: B numbers of events.
        """
        return cls([np.full(length, np.nan) for length in lengths], np.full(len(lengths), np.nan))


def check_times(times: Sequence[NDArray[np.float64]]) -> None:
    """Refuse times that tell nothing, and say so where they look like something else.

    Args:
        times: epoch seconds of the training events, in any number of arrays.

    Raises:
        ValueError: all times are missing or the same.
    """
    known = [part[~np.isnan(part)] for part in times]
    known = [part for part in known if len(part)]
    low = min((part.min() for part in known), default=np.nan)
    high = max((part.max() for part in known), default=np.nan)
    if not low < high:
        raise ValueError(
            "objective.time is set, but the timestamps of the training part are "
            f"{'all the same' if known else 'all missing'}: leave time out, or prepare the data with the "
            "column of event times as data.time"
        )
    if 0 <= low and high < _SHORTEST_SPAN_S:
        logger.warning(
            "all timestamps lie in the first hours of 1970: if they are positions instead of times, leave "
            "objective.time out; if they count something else than seconds, set data.time_unit"
        )
