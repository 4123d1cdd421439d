"""Histories and times as callers give them, checked."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from recbert.inputs import Moments, TokenIds
from recbert.tokenizer import UNK_ID, ItemTokenizer

logger = logging.getLogger(__name__)

History = Sequence[str]
Time = float | datetime
"""Epoch seconds, or a date with its time of day; one without a zone is UTC."""
Times = Sequence[Time]


def as_batch(history: History | Sequence[History]) -> Sequence[History]:
    """Tell a batch of histories from one history, and refuse what is neither.

    Args:
        history: item ids, or a list of such lists.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(history, str):
        parts: list[Any] = list(history)
        if all(isinstance(part, str) for part in parts):
            return [parts]
        is_batch = not any(
            isinstance(part, (str, Mapping)) or not isinstance(part, Iterable) for part in parts
        )
        if is_batch and all(isinstance(item, str) for part in parts for item in part):
            return history
    raise ValueError(
        f"history is {str(history)[:60]}: give a list of item ids as strings, such as ['318', '296'], or a "
        "list of such lists"
    )


def encode_histories(batch: Sequence[History], tokenizer: ItemTokenizer, strict: bool) -> list[TokenIds]:
    """Turn item ids into token ids; what is unknown is reported once for the batch.

    Args:
        batch: lists of item ids.
        tokenizer: the vocabulary.
        strict: refuse a history without a known item.

    Raises:
        ValueError: `strict`, and a history has no known item.
    """
    tokens = [tokenizer.encode(items) for items in batch]
    incomplete = [items for items, row in zip(batch, tokens, strict=True) if UNK_ID in row]
    lost = [list(items) for items, row in zip(batch, tokens, strict=True) if row.count(UNK_ID) == len(row)]
    if lost and strict:
        raise ValueError(
            f"the history {lost[0][:5]} has no item that the checkpoint knows: check that these are item "
            "ids of its catalogue, or drop strict to get the most popular items"
        )
    if lost:
        logger.warning(
            "%d of %d histories have no known item and are answered by popularity, for example %s",
            len(lost),
            len(batch),
            lost[0][:5],
        )
    skipped = {item for items in incomplete for item in items if item not in tokenizer}
    if skipped:
        logger.warning("%d unknown items are skipped, for example %s", len(skipped), sorted(skipped)[:5])
    return [np.asarray(row, dtype=np.int64) for row in tokens]


def read_moments(
    histories: Sequence[History],
    timestamps: Times | Sequence[Times] | None,
    at: Time | Sequence[Time] | None,
    *,
    one: bool = False,
) -> Moments | None:
    """Give the times of histories as numbers.

    Args:
        histories: B lists of item ids.
        timestamps: a time for each event of each history; None if unknown.
        at: when the next items are asked for, one time for all histories or one for each; None for now if
            `timestamps` are given, else for unknown.
        one: whether `timestamps` are those of the single history instead of a list of such lists.

    Returns:
        None when nothing is known.

    Raises:
        ValueError: there are not as many times as events, or something is no time.
    """
    if timestamps is None and at is None:
        return None
    moments = Moments.unknown([len(history) for history in histories])
    if timestamps is not None:
        rows = cast("Sequence[Times]", [timestamps] if one else timestamps)
        times = [_seconds(row, "timestamps") for row in rows]
        if [len(row) for row in times] != [len(history) for history in histories]:
            raise ValueError(
                f"timestamps hold {[len(row) for row in times][:5]} times and history "
                f"{[len(history) for history in histories][:5]} events: give one time for each event"
            )
        moments = moments._replace(times=times)
    if at is None:
        requests = np.array([time.time()])
    else:
        requests = _seconds([at] if isinstance(at, (int, float, datetime)) else at, "at")
    if len(requests) not in (1, len(histories)):
        raise ValueError(
            f"at holds {len(requests)} times for {len(histories)} histories: give one, or one each"
        )
    return moments._replace(at=np.broadcast_to(requests, len(histories)).copy())


def _seconds(times: Any, argument: str) -> NDArray[np.float64]:
    """Give epoch seconds of numbers and datetimes."""
    if isinstance(times, (str, bytes)) or not isinstance(times, Iterable):
        raise ValueError(f"{argument} is {times!r}: give epoch seconds or datetimes")
    found = []
    for value in times:
        if value is None:
            value = np.nan
        elif isinstance(value, datetime):
            value = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        elif isinstance(value, (str, bytes, bool)) or not np.isreal(value):
            raise ValueError(f"{argument} holds {value!r}: give epoch seconds or datetimes")
        found.append(float(value))
    seconds = np.array(found, dtype=np.float64)
    if np.isinf(seconds).any():
        raise ValueError(f"{argument} holds an infinite time: give epoch seconds or datetimes")
    return seconds
