"""Histories into model inputs, for training and for a query.

The one place that knows padding, anchoring and [MASK].
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recbert.checkpoint import InputFormat
from recbert.tokenizer import FIRST_ITEM_ID, MASK_ID, PAD_ID, UNK_ID

TokenIds = NDArray[np.int64]


class Query(NamedTuple):
    """A batch of histories as model input.

    Attributes:
        input_ids: (B, L) int64, right-padded.
        attention_mask: (B, L) int64, 1 at real tokens.
        last: (B,) int64, the position whose hidden state predicts.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    last: torch.Tensor


def known_items(history: TokenIds) -> TokenIds:
    """Keep the items of a history that the vocabulary has.

    Args:
        history: (L,) token ids, `[UNK]` for unknown items.
    """
    return history[history >= FIRST_ITEM_ID]


def build_query(histories: Sequence[TokenIds], input_format: InputFormat) -> Query:
    """Build the input that asks a model for the next item of each history.

    Items that the vocabulary does not have are skipped (their row was never trained); the latest
    `input_format.history_length` of the others stay. A history with none of them is refused: it has no input.

    Args:
        histories: B arrays of token ids, the earliest event first.
        input_format: the checkpoint's format.

    Raises:
        ValueError: a history has no known item.
    """
    rows = []
    for history in histories:
        row = known_items(history)[-input_format.history_length :]
        if len(row) == 0:
            raise ValueError(
                "a history has no item that the vocabulary knows: answer it by popularity instead"
            )
        rows.append(np.append(row, MASK_ID) if input_format.append_mask else row)
    input_ids, attention_mask = pad_right(rows, PAD_ID)
    return Query(input_ids, attention_mask, attention_mask.sum(1) - 1)


def pad_right(rows: Sequence[TokenIds], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay ragged rows into a rectangle, without a loop over their elements.

    Args:
        rows: B arrays of token ids.
        fill: the value after each row's end.

    Returns:
        values: (B, L) int64, L the longest row.
        mask: (B, L) int64, 1 where a row has a value.
    """
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    mask = np.arange(lengths.max(initial=0)) < lengths[:, None]  # (B, L)
    values = np.full(mask.shape, fill, dtype=np.int64)
    values[mask] = np.concatenate(rows) if len(rows) else []
    return torch.from_numpy(values), torch.from_numpy(mask.astype(np.int64))


class TrainRow(NamedTuple):
    """One training sequence.

    Attributes:
        tokens: (L,) token ids, the earliest event first.
        is_target: (L,) bool, the events that may be predicted.
        seed: seed, epoch and row number: what is drawn from it does not depend on the number of processes.
    """

    tokens: TokenIds
    is_target: NDArray[np.bool_]
    seed: tuple[int, int, int]


class Draw(NamedTuple):
    """One use of a row, as a sampler asks for it.

    The epoch travels with the row number, so that it reaches every process and every loader worker.

    Attributes:
        row: row number, or `FILLER`.
        epoch: counted from 0.
    """

    row: int
    epoch: int


FILLER = -1
"""Row number of a row without a target, which fills the last batch of several processes up."""


class TrainRows(torch.utils.data.Dataset[TrainRow]):
    """The training part as ragged rows.

    Events whose item the vocabulary does not have are left out, as they are in a query, and counted in
    `unknown`. Rows of fewer than `least` known events have nothing to learn from and are counted in
    `dropped`; their events still count as popularity.

    Args:
        part: rows with `input_ids`, `is_target` and, for windows that overlap, `user_id`.
        least: known events that a row needs.
        seed: first part of every row's seed.
    """

    def __init__(self, part: Iterable[dict[str, Any]], *, least: int, seed: int) -> None:
        self._least, self._seed = least, seed
        self.unknown = 0
        self.dropped = 0
        self._rows: list[tuple[TokenIds, NDArray[np.bool_]]] = []
        self._events: list[NDArray[np.int32]] = []
        user = None
        for row in part:
            tokens = np.asarray(row["input_ids"], dtype=np.int64)
            is_target = np.asarray(row["is_target"], dtype=np.bool_)
            known = tokens >= FIRST_ITEM_ID
            self.unknown += int((~known).sum())
            tokens, is_target = tokens[known], is_target[known]
            # A later window of a user repeats events as context; the first one has nothing to repeat.
            is_first = "user_id" in row and row["user_id"] != user
            user = row.get("user_id")
            self._events.append((tokens if is_first else tokens[is_target]).astype(np.int32))
            if len(tokens) >= least and is_target[least - 1 :].any():
                self._rows.append((tokens, is_target))
            else:
                self.dropped += 1

    def __len__(self) -> int:
        """Give the number of rows."""
        return len(self._rows)

    def __getitem__(self, draw: Draw) -> TrainRow:
        """Give one row as it is used in one epoch."""
        if draw.row == FILLER:
            # A real item, since attention over padding alone is undefined.
            tokens, is_target = np.full(self._least, FIRST_ITEM_ID), np.zeros(self._least, dtype=np.bool_)
        else:
            tokens, is_target = self._rows[draw.row]
        return TrainRow(tokens, is_target, (self._seed, draw.epoch, max(draw.row, 0)))

    def count_items(self, num_items: int) -> TokenIds:
        """Count the events of each item; an event that several windows share counts once.

        Args:
            num_items: items in the vocabulary.

        Returns:
            (V_items,) counts in the order of the item tokens.
        """
        events = np.concatenate(self._events) if self._events else np.zeros(0, dtype=np.int32)
        return np.bincount(events - FIRST_ITEM_ID, minlength=num_items)

    @property
    def lengths(self) -> TokenIds:
        """Give the length of each row, (N,)."""
        return np.fromiter((len(tokens) for tokens, _ in self._rows), dtype=np.int64, count=len(self._rows))


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


def count_unknown(histories: Iterable[TokenIds]) -> int:
    """Count the events whose item the vocabulary does not have.

    Args:
        histories: arrays of token ids.
    """
    return sum(int((history == UNK_ID).sum()) for history in histories)
