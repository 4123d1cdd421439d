"""The events to predict, each with its history."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbert.inputs.blocks import read_columns
from recbert.inputs.moments import Moments
from recbert.inputs.padding import TokenIds


class Target(NamedTuple):
    """One event to predict.

    Attributes:
        user: the user's id.
        history: (L,) token ids of the user's earlier events, the earliest first, not cut.
        token_id: the event's item; `[UNK]` when it never occurs in training.
        request_time: when it is asked for, in epoch seconds: the event's time.
    """

    user: str
    history: TokenIds
    token_id: int
    request_time: float


class TargetRows:
    """The events to predict of one part of the data, one after the other.

    A part holds one row a user with all events; each event marked `is_target` is one target whose history is
    everything before it. Nothing is copied: a history is a slice of its user's row, which may be mapped from
    the disk.

    Args:
        part: rows with `user_id`, `input_ids`, `timestamps` and `is_target`, such as a `datasets.Dataset`.

    Attributes:
        lengths: (N,) length of each target's history.
        token_ids: (N,) the item of each target, `[UNK]` when it never occurs in training.
        true_times: (N,) epoch seconds of each target.
        request_times: (N,) epoch seconds at which each is asked for: those of the targets unless others are
            set, see `request_times`.
    """

    def __init__(self, part: Iterable[dict[str, Any]]) -> None:
        self._blocks = list(read_columns(part))
        found = [np.flatnonzero(block.all_targets()) for block, _, _ in self._blocks]
        rows = [
            np.searchsorted(block.bounds, places, "right") - 1
            for (block, _, _), places in zip(self._blocks, found, strict=True)
        ]
        none = np.zeros(0, dtype=np.int64)
        tokens = [block.tokens[places] for (block, _, _), places in zip(self._blocks, found, strict=True)]
        starts = [block.bounds[row] for (block, _, _), row in zip(self._blocks, rows, strict=True)]
        self._block = np.repeat(np.arange(len(found)), [len(places) for places in found])  # (N,)
        self._row = np.concatenate([none, *rows])  # (N,) in its block
        self._place = np.concatenate([none, *found])  # (N,) in its block
        self._start = np.concatenate([none, *starts])  # (N,) of the row, in its block
        self.lengths: TokenIds = self._place - self._start
        self.token_ids: TokenIds = np.concatenate([none, *tokens]).astype(np.int64)
        self.true_times = self._times_at(self._place)
        self.request_times = self.true_times

    def __len__(self) -> int:
        """Give the number of targets."""
        return len(self._place)

    def __getitem__(self, index: int) -> Target:
        """Give one target with its history."""
        block, users, _ = self._blocks[self._block[index]]
        place = self._place[index]
        user = users[int(self._row[index])]
        return Target(
            str(user), self.history(index), int(block.tokens[place]), float(self.request_times[index])
        )

    def __iter__(self) -> Iterator[Target]:
        """Give the targets in order."""
        return (self[index] for index in range(len(self)))

    def history(self, index: int) -> TokenIds:
        """Give the (L,) token ids of the events before a target."""
        block = self._blocks[self._block[index]][0]
        history = block.tokens[self._start[index] : self._place[index]]
        tokens: TokenIds = history.astype(np.int64, copy=False)
        return tokens

    @property
    def last_times(self) -> NDArray[np.float64]:
        """Give the epoch seconds of the last event before each target, (N,); NaN where there is none."""
        last = self._times_at(np.maximum(self._place - 1, self._start))
        return np.where(self.lengths > 0, last, np.nan)

    def _times_at(self, places: TokenIds) -> NDArray[np.float64]:
        """Give the epoch seconds of one place in the row of each target, (N,)."""
        found = np.empty(len(places))
        for number, (_, _, times) in enumerate(self._blocks):
            own = self._block == number
            found[own] = times[places[own]]
        return found

    def moments(self, rows: TokenIds) -> Moments:
        """Give the times of the histories of some targets, and their request times.

        Args:
            rows: (B,) target numbers.
        """
        return Moments([self._times(row) for row in rows], self.request_times[rows])

    def _times(self, index: int) -> NDArray[np.float64]:
        """Give the (L,) epoch seconds of the events before a target."""
        times: NDArray[np.float64] = self._blocks[self._block[index]][2][
            self._start[index] : self._place[index]
        ]
        return times

    @property
    def users(self) -> list[str]:
        """Give the user of each target."""
        users: list[str] = []
        for number, (_, names, _) in enumerate(self._blocks):
            rows = self._row[self._block == number]
            users.extend(np.asarray(names, dtype=object)[rows].tolist())
        return users


def group_by_length(lengths: TokenIds, batch_size: int) -> list[TokenIds]:
    """Cut rows into batches of similar length, the longest first, so that little is padded.

    Args:
        lengths: (N,) length of each row.
        batch_size: rows in a batch at most; one ends early where rows are half as long as its first.

    Returns:
        Arrays of row numbers; every row stands in exactly one.
    """
    order = np.argsort(-lengths, kind="stable")
    descending = lengths[order]
    batches = []
    start = 0
    while start < len(order):
        # The first row that is at most half as long: in what falls, the mirror image is sorted.
        half = int(np.searchsorted(-descending, -(descending[start] // 2), "left"))
        stop = min(start + batch_size, max(half, start + 1))
        batches.append(order[start:stop])
        start = stop
    return batches
