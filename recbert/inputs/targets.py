"""The events to predict, each with its history."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbert.inputs.padding import TokenIds


class Target(NamedTuple):
    """One event to predict.

    Attributes:
        user: the user's id.
        history: (L,) token ids of the user's earlier events, the earliest first, not cut.
        token_id: the event's item; `[UNK]` when it never occurs in training.
        request_time: the event's time in epoch seconds.
    """

    user: str
    history: TokenIds
    token_id: int
    request_time: float


class TargetRows:
    """The events to predict of one part of the data, one after the other.

    A part holds one row a user with all events; each event marked `is_target` is one target whose history is
    everything before it. Nothing is copied: a history is a slice of its user's row.

    Args:
        part: rows with `user_id`, `input_ids`, `timestamps` and `is_target`, such as a `datasets.Dataset`.
    """

    def __init__(self, part: Iterable[dict[str, Any]]) -> None:
        self._users: list[str] = []
        self._tokens: list[TokenIds] = []
        self._times: list[NDArray[np.float64]] = []
        self._places: list[tuple[int, int]] = []
        for row in part:
            self._users.append(row["user_id"])
            self._tokens.append(np.asarray(row["input_ids"], dtype=np.int64))
            self._times.append(np.asarray(row["timestamps"], dtype=np.float64))
            self._places.extend(
                (len(self._users) - 1, int(place)) for place in np.flatnonzero(row["is_target"])
            )

    def __len__(self) -> int:
        """Give the number of targets."""
        return len(self._places)

    def __getitem__(self, index: int) -> Target:
        """Give one target with its history."""
        row, place = self._places[index]
        tokens = self._tokens[row]
        return Target(self._users[row], tokens[:place], int(tokens[place]), float(self._times[row][place]))

    def __iter__(self) -> Iterator[Target]:
        """Give the targets in order."""
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> TokenIds:
        """Give the length of each target's history, (N,)."""
        return np.fromiter((place for _, place in self._places), dtype=np.int64, count=len(self._places))


def group_by_length(lengths: TokenIds, batch_size: int) -> list[TokenIds]:
    """Cut rows into batches of similar length, the longest first, so that little is padded.

    Args:
        lengths: (N,) length of each row.
        batch_size: rows in a batch.

    Returns:
        Arrays of row numbers; every row stands in exactly one.
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
