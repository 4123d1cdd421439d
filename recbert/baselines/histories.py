"""The training part as flat arrays of whole histories, whatever windows it was cut into."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recbert.tokenizer import FIRST_ITEM_ID

if TYPE_CHECKING:
    from datasets import Dataset


class Histories(NamedTuple):
    """The training events of all users, user by user, the earliest first.

    Attributes:
        users: (E,) number of each event's user.
        items: (E,) item index of each event.
        times: (E,) epoch seconds of each event.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    times: NDArray[np.float64]


def read_histories(train: Dataset, num_items: int) -> Histories:
    """Undo the windows: every event once.

    The first window of a user counts whole, the following ones only by the events that are targets, since the
    others stood in a window before. Items outside the vocabulary are left out. Events that `build_sequences`
    cut away are not there to be counted.

    Args:
        train: rows in the order in which `build_sequences` wrote them, with `user_id`, `input_ids`,
            `timestamps` and `is_target`.
        num_items: size of the catalogue.

    Raises:
        ValueError: there is no training event, or an item is outside the catalogue.
    """
    if len(train) == 0:
        raise ValueError("train is empty: a baseline needs training events")
    columns = train.select_columns(["user_id", "input_ids", "timestamps", "is_target"]).with_format("arrow")[
        :
    ]
    names = np.asarray(columns["user_id"].to_pylist(), dtype=object)
    first_of_user = np.append(True, names[1:] != names[:-1])
    tokens = columns["input_ids"].combine_chunks()
    lengths = tokens.value_lengths().to_numpy(zero_copy_only=False)
    items, times, is_target = (
        columns[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        for name in ("input_ids", "timestamps", "is_target")
    )
    counted = is_target.astype(np.bool_) | np.repeat(first_of_user, lengths)
    counted &= items >= FIRST_ITEM_ID
    if not counted.any():
        raise ValueError(
            "train has no event whose item is in the vocabulary: a baseline has nothing to count"
        )
    users = np.repeat(np.cumsum(first_of_user) - 1, lengths)[counted]
    items = items[counted].astype(np.int64) - FIRST_ITEM_ID
    if items.max() >= num_items:
        raise ValueError(
            f"train holds item {items.max()} but num_items is {num_items}: give the tokenizer's num_items"
        )
    return Histories(users, items, times[counted].astype(np.float64))
