"""The stock fast tokenizer of a vocabulary of items: built, and read back with its layout checked."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from recbert.tokenizer.layout import FIRST_ITEM_ID, SPECIAL_TOKENS, escape_item, unescape_item


def build_stock(item_ids: Iterable[str]) -> PreTrainedTokenizerFast:
    """A stock tokenizer whose token ``FIRST_ITEM_ID + i`` is the item ``item_ids[i]``."""
    tokens = map(escape_item, item_ids)
    vocabulary = {token: token_id for token_id, token in enumerate((*SPECIAL_TOKENS, *tokens))}
    backend = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers annotates no __init__
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def read_stock(hf: PreTrainedTokenizerFast, name: str) -> list[str]:
    """The item ids of a loaded tokenizer in token order, once its layout has proved to be ours.

    Raises:
        ValueError: It is not a tokenizer of items; the message names what is missing.
    """
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
