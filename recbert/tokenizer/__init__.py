"""Item ids and token ids: the vocabulary of a recommender, saved as a stock fast tokenizer.

Every item is one word of a ``WordLevel`` vocabulary, and the text of a history is its words joined by
spaces. Whatever could break a word apart is percent-encoded, so that any string is an item id::

    id      0      1      2       3      4      5 ... 68                      69 ...
    token   [PAD]  [UNK]  [MASK]  [BOS]  [EOS]  [unused0] ... [unused63]      the items, sorted by item id

Above two million items the vocabulary is a memory-mapped index instead, see `recbert.tokenizer.index`.
"""

from recbert.tokenizer.index import INDEX_FILE, ItemIndex
from recbert.tokenizer.items import ItemTokenizer
from recbert.tokenizer.layout import (
    BOS_ID,
    EOS_ID,
    FIRST_ITEM_ID,
    MAPPED_FROM,
    MASK_ID,
    PAD_ID,
    SPECIAL_TOKENS,
    UNK_ID,
    escape_item,
    unescape_item,
)

__all__ = [
    "BOS_ID",
    "EOS_ID",
    "FIRST_ITEM_ID",
    "INDEX_FILE",
    "MAPPED_FROM",
    "MASK_ID",
    "PAD_ID",
    "SPECIAL_TOKENS",
    "UNK_ID",
    "ItemIndex",
    "ItemTokenizer",
    "escape_item",
    "unescape_item",
]
