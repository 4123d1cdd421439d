"""`ItemTokenizer`: the two-way table between item ids and token ids."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.hub import cached_file

from recbert.tokenizer.index import INDEX_FILE, ItemIndex
from recbert.tokenizer.layout import (
    BOS_ID,
    EOS_ID,
    FIRST_ITEM_ID,
    MAPPED_FROM,
    MASK_ID,
    PAD_ID,
    SPECIAL_TOKENS,
    UNK_ID,
)
from recbert.tokenizer.stock import build_stock, read_stock

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class ItemTokenizer:
    """The two-way table between item ids (strings of the outside world) and token ids.

    Build one with `from_items` or `from_pretrained`. `hf` is the stock tokenizer that gets saved; its ids
    for ``" ".join(escape_item(i) for i in item_ids)`` are those of `encode`.

    >>> tokenizer = ItemTokenizer.from_items(["b", "a", "b"])
    >>> tokenizer.encode(["a", "b", "never seen"])
    [69, 70, 1]
    >>> tokenizer.decode([70, 69])
    ['b', 'a']
    """

    def __init__(self, item_ids: Sequence[str], hf: PreTrainedTokenizerFast | None = None) -> None:
        """Take distinct item ids in token order and, where it exists already, their stock tokenizer."""
        if len(item_ids) > MAPPED_FROM and not isinstance(item_ids, ItemIndex):
            item_ids = ItemIndex.build(item_ids)
        self.item_ids = item_ids
        self._hf = hf
        mapped = isinstance(item_ids, ItemIndex)
        places = enumerate(() if mapped else item_ids, FIRST_ITEM_ID)
        self._token_ids = {item_id: token_id for token_id, item_id in places}

    @classmethod
    def from_items(cls, items: Iterable[str] | Any) -> "ItemTokenizer":
        """A tokenizer with one token for each distinct item, in the order of their ids.

        Args:
            items: Item ids, repeated or not, in any order; or an event frame of any kind (its ``item_id``
                column counts).

        Raises:
            ValueError: No items, or an id that is not a non-empty string of valid Unicode.
        """
        return cls(_sorted_ids(items))

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | PathLike[str]) -> "ItemTokenizer":
        """The tokenizer saved in a folder or a Hub repository.

        Raises:
            FileNotFoundError: There is no such folder, or it holds neither ``items.safetensors`` nor
                ``tokenizer.json``.
            ValueError: It is not a tokenizer of items; the message names what is missing.
        """
        name = str(path_or_hub_id)
        index = _find_index(name)
        if index is not None:
            return cls(ItemIndex.load(index))
        hf = AutoTokenizer.from_pretrained(name)
        if not isinstance(hf, PreTrainedTokenizerFast):
            raise ValueError(f"{name} is no tokenizer of items: it is a {type(hf).__name__}, not a fast one")
        return cls(read_stock(hf, name), hf)

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, which plain ``AutoTokenizer`` loads.

        Above two million items ``items.safetensors`` alone is written, since a tokenizer.json of that size
        takes half a minute to load; whoever wants it nevertheless calls ``tokenizer.hf.save_pretrained``.
        What an earlier vocabulary has left in the folder in the other form is removed.
        """
        if isinstance(self.item_ids, ItemIndex):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.item_ids.save(Path(folder) / INDEX_FILE)
            (Path(folder) / "tokenizer.json").unlink(missing_ok=True)
        else:
            self.hf.save_pretrained(str(folder))
            (Path(folder) / INDEX_FILE).unlink(missing_ok=True)

    @property
    def hf(self) -> PreTrainedTokenizerFast:
        """The stock tokenizer, built when it is first asked for."""
        if self._hf is None:
            self._hf = build_stock(self.item_ids)
        return self._hf

    def with_items(self, item_ids: Sequence[str]) -> "ItemTokenizer":
        """A tokenizer with new items behind the old ones, whose token ids stay.

        Args:
            item_ids: Distinct ids that are not in the vocabulary, in token order.

        Raises:
            ValueError: One is in the vocabulary, there twice, or no non-empty string.
        """
        _sorted_ids(item_ids)
        if known := [item_id for item_id in item_ids if item_id in self]:
            raise ValueError(
                f"{len(known)} of {len(item_ids)} items are in the catalogue already, such as {known[:5]}: "
                "leave them out, growing adds new items only"
            )
        if len(set(item_ids)) < len(item_ids):
            doubled = next(item_id for item_id, count in Counter(item_ids).items() if count > 1)
            raise ValueError(f"items holds {doubled!r} more than once: keep one of them")
        return ItemTokenizer([*self.item_ids, *item_ids])

    def extends(self, other: "ItemTokenizer") -> bool:
        """Whether the first items are those of another vocabulary, so that their token ids are the same."""
        if self.num_items <= other.num_items:
            return self.item_ids == other.item_ids
        return all(mine == theirs for mine, theirs in zip(self.item_ids, other.item_ids, strict=False))

    def encode(self, item_ids: Iterable[str]) -> list[int]:
        """The token id of each item id; ``[UNK]`` (1) for items that are not in the vocabulary."""
        if isinstance(self.item_ids, ItemIndex):
            places = self.item_ids.find(list(item_ids))
            token_ids_found: list[int] = np.where(places < 0, UNK_ID, places + FIRST_ITEM_ID).tolist()
            return token_ids_found
        token_ids = self._token_ids
        return [token_ids.get(item_id, UNK_ID) for item_id in item_ids]

    def decode(self, token_ids: Iterable[int]) -> list[str]:
        """The item id of each token id; for special tokens their spelling, such as ``[UNK]``.

        Raises:
            ValueError: A token id outside 0 .. len(tokenizer) - 1.
        """
        decoded = []
        for token_id in token_ids:
            if not 0 <= token_id < len(self):
                raise ValueError(f"token_ids holds {token_id}; allowed are 0 to {len(self) - 1}")
            special = token_id < FIRST_ITEM_ID
            decoded.append(SPECIAL_TOKENS[token_id] if special else self.item_ids[token_id - FIRST_ITEM_ID])
        return decoded

    def __len__(self) -> int:
        """The size of the vocabulary: special tokens and items."""
        return FIRST_ITEM_ID + len(self.item_ids)

    def __contains__(self, item_id: object) -> bool:
        """Whether the item id is in the vocabulary."""
        return item_id in (self.item_ids if isinstance(self.item_ids, ItemIndex) else self._token_ids)

    def __repr__(self) -> str:
        return f"ItemTokenizer(num_items={self.num_items})"

    @property
    def num_items(self) -> int:
        """The number of items in the vocabulary."""
        return len(self.item_ids)

    @property
    def pad_token_id(self) -> int:
        """The id of ``[PAD]``, which fills rows up: 0."""
        return PAD_ID

    @property
    def unk_token_id(self) -> int:
        """The id of ``[UNK]``, which stands for every unknown item: 1."""
        return UNK_ID

    @property
    def mask_token_id(self) -> int:
        """The id of ``[MASK]``, which stands where an item is asked for: 2."""
        return MASK_ID

    @property
    def bos_token_id(self) -> int:
        """The id of ``[BOS]``, which families with a start token are given: 3."""
        return BOS_ID

    @property
    def eos_token_id(self) -> int:
        """The id of ``[EOS]``, which families with an end token are given: 4."""
        return EOS_ID


def _sorted_ids(items: Any) -> list[str]:
    """The distinct item ids in ascending order, checked."""
    kind = type(items)
    # Looked up on the class: a lazy frame resolves its whole plan when asked for its own columns.
    if hasattr(kind, "columns") or hasattr(kind, "column_names"):
        # Imported here: who makes a tokenizer from strings (training images) has no data frame library.
        from recbert.events import distinct_items

        items = distinct_items(items)
    if isinstance(items, (str, bytes)):
        raise ValueError(f"items is one string, {items[:40]!r}; give a list of item ids or an event frame")
    distinct = set(items)
    if not distinct:
        raise ValueError("items is empty: a tokenizer needs at least one item id")
    for item_id in distinct:
        if not isinstance(item_id, str) or not item_id:
            raise ValueError(f"items holds {item_id!r}; item ids are non-empty strings: convert or drop it")
    try:
        "".join(distinct).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"items holds an id that is not Unicode ({error.reason}): repair it") from error
    return sorted(distinct)


def _find_index(name: str) -> Path | None:
    """The memory-mapped index of a folder or Hub repository; None when it has a stock tokenizer instead."""
    if Path(name).is_dir():
        path = Path(name) / INDEX_FILE
        if path.is_file():
            return path
        if not (Path(name) / "tokenizer.json").is_file():
            raise FileNotFoundError(f"{name} holds no tokenizer.json: save the tokenizer there")
        return None
    if not _HUB_ID.fullmatch(name):
        raise FileNotFoundError(f"{name} is neither a folder nor a Hub id (owner/name)")
    found = cached_file(name, INDEX_FILE, _raise_exceptions_for_missing_entries=False)
    return None if found is None else Path(found)
