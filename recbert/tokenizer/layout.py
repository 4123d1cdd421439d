"""Which id means what, and how an item id is spelled as a token."""

import re
from urllib.parse import quote, unquote

PAD_ID, UNK_ID, MASK_ID, BOS_ID, EOS_ID = range(5)
_NAMED_TOKENS = ("[PAD]", "[UNK]", "[MASK]", "[BOS]", "[EOS]")
#: Reserved from the start (times, event types), so that the ids of items never shift later.
SPECIAL_TOKENS = (*_NAMED_TOKENS, *(f"[unused{i}]" for i in range(64)))
FIRST_ITEM_ID = len(SPECIAL_TOKENS)
#: A vocabulary of more items is memory-mapped: at 10 M, a tokenizer.json takes 319 MB and 45 s to load.
MAPPED_FROM = 2_000_000

_ESCAPED = re.compile(r"[\s%]|\[(?=(?:PAD|UNK|MASK|BOS|EOS|unused[0-9]+)\])")


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
