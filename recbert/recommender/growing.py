"""What is known about items that a catalogue takes in, checked, and the old items that they are like."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from recbert.checkpoint import CheckpointInfo
from recbert.growth import Start, find_neighbours
from recbert.tokenizer import ItemTokenizer


def check_start(start: str, neighbours: int) -> None:
    """Refuse a way to begin that there is not.

    Args:
        start: where new rows begin.
        neighbours: how many old items a new one may be like.

    Raises:
        ValueError: one of them is out of range.
    """
    if start not in get_args(Start):
        raise ValueError(f"start is {start!r}: choose one of {', '.join(get_args(Start))}")
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}: it must be at least 1")


def item_words(items: Any) -> tuple[list[str], list[str]]:
    """Give items and the words of each: those of a table or mapping, none for a list of item ids.

    Args:
        items: path or table with a column `item_id` and, for words, `title` and `categories`; or words by
            item id; or item ids.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the table cannot be read.
    """
    is_table = hasattr(type(items), "columns") or hasattr(type(items), "column_names")
    if isinstance(items, (str, Path)) or is_table:
        # Imported here: a serving image that names new items by their ids has no data frame library.
        from recbert.events.items import read_words

        items = read_words(items)
    if isinstance(items, Mapping):
        return list(items), list(items.values())
    item_ids = list(items)
    return item_ids, [""] * len(item_ids)


def grown_info(info: CheckpointInfo, count: int) -> CheckpointInfo:
    """Give the `recbert.json` of a checkpoint with new items at the end, which no event has named yet.

    Args:
        info: the old one.
        count: how many are new.
    """
    popularity = np.append(info.popularity, np.zeros(count, dtype=np.int64))
    return dataclasses.replace(info, popularity=popularity, untrained_items=info.untrained_items + count)


def nearest_items(
    new: Sequence[str], known: Mapping[str, str], tokenizer: ItemTokenizer, most: int
) -> NDArray[np.int64]:
    """Give the old items that each new one is like, by their words.

    Args:
        new: words of N new items.
        known: words of old items by id; old items that are not named have none.
        tokenizer: the vocabulary as it is.
        most: how many neighbours at most, K.

    Returns:
        (N, K) item indices, the closest first; -1 fills up.

    Raises:
        ValueError: there are no words, of the new items or of the old ones.
    """
    old = [known.get(item_id, "") for item_id in tokenizer.item_ids]
    if not any(new):
        raise ValueError("start is 'neighbours' and no new item has a title or categories: add such a column")
    if not any(old):
        raise ValueError(
            "start is 'neighbours' and nothing is known about the old items: name a table with their titles "
            "as known"
        )
    return find_neighbours(new, old, most)
