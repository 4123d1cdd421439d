"""Item ids and token ids: the vocabulary of a recommender, saved as a stock fast tokenizer.

Every item is one word of a ``WordLevel`` vocabulary, and the text of a history is its words joined by
spaces. Whatever could break a word apart is percent-encoded, so that any string is an item id::

    id      0      1      2       3      4      5 ... 68                      69 ...
    token   [PAD]  [UNK]  [MASK]  [BOS]  [EOS]  [unused0] ... [unused63]      the items, sorted by item id
"""

import logging
import re
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoTokenizer, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

PAD_ID, UNK_ID, MASK_ID, BOS_ID, EOS_ID = range(5)
_NAMED_TOKENS = ("[PAD]", "[UNK]", "[MASK]", "[BOS]", "[EOS]")
#: Reserved from the start (times, event types), so that the ids of items never shift later.
SPECIAL_TOKENS = (*_NAMED_TOKENS, *(f"[unused{i}]" for i in range(64)))
FIRST_ITEM_ID = len(SPECIAL_TOKENS)

_ESCAPED = re.compile(r"[\s%]|\[(?=(?:PAD|UNK|MASK|BOS|EOS|unused[0-9]+)\])")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def escape_item(item_id: str) -> str:
    """The token of an item: whitespace, ``%`` and spellings of special tokens are percent-encoded.

    >>> escape_item("a b"), escape_item("100%"), escape_item("x[PAD]y"), escape_item("[sic]")
    ('a%20b', '100%25', 'x%5BPAD]y', '[sic]')
    """
    return _ESCAPED.sub(lambda match: quote(match.group(), safe=""), item_id)


def unescape_item(token: str) -> str:
    """The item id of a token; undoes `escape_item` exactly.

    >>> unescape_item(escape_item("50% off, [MASK]"))
    '50% off, [MASK]'
    """
    return unquote(token)


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

    def __init__(self, hf: PreTrainedTokenizerFast, item_ids: list[str]) -> None:
        """Wrap a tokenizer whose token ``FIRST_ITEM_ID + i`` is the item ``item_ids[i]``."""
        self.hf = hf
        self.item_ids = item_ids
        self._token_ids = {item_id: token_id for token_id, item_id in enumerate(item_ids, FIRST_ITEM_ID)}

    @classmethod
    def from_items(cls, items: Iterable[str] | Any) -> "ItemTokenizer":
        """A tokenizer with one token for each distinct item, in the order of their ids.

        Args:
            items: Item ids, repeated or not, in any order; or an event frame of any kind (its ``item_id``
                column counts).

        Raises:
            ValueError: No items, or an id that is not a non-empty string of valid Unicode.
        """
        item_ids = _sorted_ids(items)
        tokens = [escape_item(item_id) for item_id in item_ids]
        vocabulary = {token: token_id for token_id, token in enumerate((*SPECIAL_TOKENS, *tokens))}
        backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
        backend.pre_tokenizer = WhitespaceSplit()
        hf = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers annotates no __init__
            tokenizer_object=backend,
            pad_token="[PAD]",
            unk_token="[UNK]",
            mask_token="[MASK]",
            bos_token="[BOS]",
            eos_token="[EOS]",
            model_input_names=["input_ids", "attention_mask"],
            clean_up_tokenization_spaces=False,
        )
        return cls(hf, item_ids)

    @classmethod
    def from_pretrained(cls, path_or_hub_id: str | PathLike[str]) -> "ItemTokenizer":
        """The tokenizer saved in a folder or a Hub repository.

        Raises:
            FileNotFoundError: There is no such folder, or it holds no ``tokenizer.json``.
            ValueError: It is not a tokenizer of items; the message names what is missing.
        """
        name = str(path_or_hub_id)
        if Path(name).is_dir():
            if not (Path(name) / "tokenizer.json").is_file():
                raise FileNotFoundError(f"{name} holds no tokenizer.json: save the tokenizer there")
        elif not _HUB_ID.fullmatch(name):
            raise FileNotFoundError(f"{name} is neither a folder nor a Hub id (owner/name)")
        hf = AutoTokenizer.from_pretrained(name)
        if not isinstance(hf, PreTrainedTokenizerFast):
            raise ValueError(f"{name} is no tokenizer of items: it is a {type(hf).__name__}, not a fast one")
        return cls(hf, _checked_ids(hf, name))

    def save_pretrained(self, folder: str | PathLike[str]) -> None:
        """Write ``tokenizer.json`` and ``tokenizer_config.json``, which plain ``AutoTokenizer`` loads."""
        self.hf.save_pretrained(str(folder))

    def encode(self, item_ids: Iterable[str]) -> list[int]:
        """The token id of each item id; ``[UNK]`` (1) for items that are not in the vocabulary."""
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
        return item_id in self._token_ids

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


def _checked_ids(hf: PreTrainedTokenizerFast, name: str) -> list[str]:
    """The item ids of a loaded tokenizer in token order, once its layout has proved to be ours."""
    backend = hf.backend_tokenizer
    model = type(backend.model).__name__
    if model != "WordLevel":
        raise ValueError(f"{name} is no tokenizer of items: its model is {model}, expected WordLevel")
    if type(backend.pre_tokenizer).__name__ != "WhitespaceSplit" or backend.normalizer is not None:
        raise ValueError(f"{name} is no tokenizer of items: it must split at whitespace, normalise nothing")
    by_id = _tokens_by_id(backend.get_vocab(with_added_tokens=True), name)
    misplaced = [f"{token} at {i}" for i, token in enumerate(SPECIAL_TOKENS) if by_id[i : i + 1] != [token]]
    if misplaced:
        raise ValueError(f"{name} is no tokenizer of items: it lacks {', '.join(misplaced[:5])}")
    if len(by_id) == FIRST_ITEM_ID:
        raise ValueError(f"{name} holds no items: build it with ItemTokenizer.from_items")
    return [unescape_item(token) for token in by_id[FIRST_ITEM_ID:]]


def _tokens_by_id(vocabulary: dict[str, int], name: str) -> Sequence[str]:
    """The tokens in the order of their ids, which have to be 0, 1, 2, ..."""
    by_id = [""] * len(vocabulary)
    for token, token_id in vocabulary.items():
        if token_id >= len(by_id):
            raise ValueError(f"{name} is no tokenizer of items: ids have gaps ({token!r} has {token_id})")
        by_id[token_id] = token
    return by_id
