"""A catalogue takes new items in, by what is known about them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from recbert.growth import Start, find_neighbours, grow_tables
from recbert.recommender.catalogue import Catalogue
from recbert.tokenizer import ItemTokenizer


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
        return list(items), [text or "" for text in items.values()]
    item_ids = list(items)
    return item_ids, [""] * len(item_ids)


def grow(
    model: PreTrainedModel,
    old: Catalogue,
    items: Any,
    *,
    start: Start,
    neighbours: int,
    known: Any,
) -> Catalogue:
    """Take new items into a catalogue; see `Recommender.add_items`.

    Args:
        model: gets rows for them, in place.
        old: the catalogue as it is.
        items: what is new, as for `item_words`.
        start: where their rows begin.
        neighbours: how many old items a new one may be like.
        known: what the old items are called, as for `item_words`.

    Returns:
        The catalogue with them.

    Raises:
        ValueError: one of the arguments is out of range, or an item is there already.
    """
    if start not in get_args(Start):
        raise ValueError(f"start is {start!r}: choose one of {', '.join(get_args(Start))}")
    if neighbours < 1:
        raise ValueError(f"neighbours is {neighbours}: it must be at least 1")
    item_ids, words = item_words(items)
    tokenizer, near = old.tokenizer.with_items(item_ids), None
    if start == "neighbours":
        near = nearest_items(words, dict(zip(*item_words(known), strict=True)), old.tokenizer, neighbours)
    count = len(item_ids)
    info = dataclasses.replace(
        old.info,
        popularity=np.append(old.info.popularity, np.zeros(count, dtype=np.int64)),
        untrained_items=old.info.untrained_items + count,
    )
    grow_tables(model, count, near)
    return Catalogue(model, tokenizer, info, old.blended.links.with_items(count) if old.blended else None)


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
