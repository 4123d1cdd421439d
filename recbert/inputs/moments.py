"""The times that belong to histories, and the moments at which they are asked about."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


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
