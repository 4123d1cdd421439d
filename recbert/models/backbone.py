"""A pretrained language model becomes one of items: its blocks stay, items take the place of its words."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from recbert.models.build import may_look_both_ways
from recbert.models.families import FAMILIES, OTHER, find_family
from recbert.models.fits import model_positions
from recbert.models.head import item_table
from recbert.models.times import check_time_encoding, takes_types
from recbert.tokenizer import BOS_ID, EOS_ID, FIRST_ITEM_ID, MASK_ID, PAD_ID, UNK_ID
from recbert.tokenizer.times import NUM_TOKEN_TYPES

if TYPE_CHECKING:
    from recbert.checkpoint import TimeEncoding
    from recbert.tokenizer import ItemTokenizer

logger = logging.getLogger(__name__)

TitleStart = Literal["title-tokens", "title-states"]
"""Where items begin: at the mean of the words of their titles, or of what the backbone makes of them."""

_TITLES_AT_ONCE, _TITLE_TOKENS = 64, 64


def build_from_backbone(
    backbone: str,
    tokenizer: ItemTokenizer,
    *,
    objective: str,
    titles: Sequence[str] | None = None,
    start: TitleStart | None = None,
    max_length: int = 200,
    time_encoding: TimeEncoding | None = None,
    dropout: float | None = None,
    gguf_file: str | None = None,
) -> PreTrainedModel:
    """A model of items with the blocks of a pretrained language model, whose words are dropped.

    Items begin at vectors of the spread that the words had. Special tokens take over the backbone's own
    where it has them ([BOS] its start of text, [EOS] its end), and the mean of its words otherwise.

    Args:
        backbone: folder or Hub id of a masked or causal language model, or of an encoder, whose head is then
            drawn afresh.
        tokenizer: gives the items.
        objective: "next-item" (a causal-LM model) or "masked-item" (a masked-LM model).
        titles: one for each item, in the tokenizer's order; items with an empty one are drawn.
        start: `title-tokens`: the mean of the word vectors of an item's title. `title-states`: the mean of
            the backbone's last hidden states while it reads the title. None: items are drawn.
        max_length: positions the model must hold.
        time_encoding: that of the objective; token types are added where it needs them, all alike at first.
        dropout: replaces the backbone's own, wherever the family has dropout; None leaves it.
        gguf_file: name of the GGUF file of a backbone that has its weights in one.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it does not go with the objective, the length or the times, or `start` needs titles.
    """
    if start is not None and not (titles and any(titles)):
        raise ValueError(f"start={start!r}: there are no titles; give the item table, or None to draw items.")
    old, words = _load(backbone, objective, gguf_file)
    family = old.config.model_type
    find_family(family, objective)
    check_time_encoding(family, time_encoding)
    config = _items_config(old.config, len(tokenizer), time_encoding, dropout)
    if objective == "next-item" and may_look_both_ways(family):
        config.is_decoder = True
    positions = model_positions(config)
    if positions is not None and positions < max_length:
        raise ValueError(f"max_length={max_length}: {backbone} holds at most {positions} positions.")
    auto_class: Any = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    new = cast(PreTrainedModel, auto_class.from_config(config, dtype=torch.float32))
    vectors = None if start is None else _title_vectors(old, words, cast(Sequence[str], titles), start)
    _take_over(old, new, words, vectors)
    return new


def _load(
    backbone: str, objective: str, gguf_file: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a backbone and its tokenizer, in float32."""
    auto_class: Any = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    options = {} if gguf_file is None else {"gguf_file": gguf_file}
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)  # of its report, one line is left below
    try:
        model, loading = auto_class.from_pretrained(
            backbone, dtype=torch.float32, output_loading_info=True, **options
        )
        words = AutoTokenizer.from_pretrained(backbone, **options)
    except OSError as error:
        raise FileNotFoundError(f"{backbone} cannot be loaded: {' '.join(str(error).split())}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    if loading["missing_keys"]:
        logger.warning("%s has no %s: drawn afresh", backbone, ", ".join(sorted(loading["missing_keys"])))
    return cast(PreTrainedModel, model.eval()), words


def _items_config(
    old: PreTrainedConfig, rows: int, time_encoding: TimeEncoding | None, dropout: float | None
) -> PreTrainedConfig:
    """Give the configuration of a backbone over items."""
    config = copy.deepcopy(old)
    row = FAMILIES.get(config.model_type, OTHER)
    if row.unused_positions == "pad":  # positions begin behind the pad id, which moves
        setattr(config, row.positions[0], getattr(config, row.positions[0]) - int(old.pad_token_id) + PAD_ID)
    config.vocab_size = rows
    ids = {"pad": PAD_ID, "bos": BOS_ID, "eos": EOS_ID, "mask": MASK_ID, "cls": BOS_ID, "sep": EOS_ID}
    for name, token_id in ids.items():
        if hasattr(config, f"{name}_token_id"):
            setattr(config, f"{name}_token_id", token_id)
    if row.token_types == "own table" and takes_types(time_encoding):
        config.type_vocab_size = NUM_TOKEN_TYPES
    if dropout is not None:
        for name in row.dropout:
            setattr(config, name, dropout)
    for name in ("quantization_config", "architectures"):
        if hasattr(config, name):
            delattr(config, name)
    return config


@torch.no_grad()
def _title_vectors(
    model: PreTrainedModel, words: PreTrainedTokenizerBase, titles: Sequence[str], start: TitleStart
) -> Tensor:
    """Give a vector for each title, (V_items, D); NaN for empty ones."""
    table = model.get_input_embeddings()
    vectors = torch.full((len(titles), model.config.hidden_size), torch.nan)
    named = [place for place, title in enumerate(titles) if title]
    if words.pad_token is None:
        words.pad_token = words.eos_token
    named.sort(key=lambda place: len(titles[place]))
    for first in range(0, len(named), _TITLES_AT_ONCE):
        places = named[first : first + _TITLES_AT_ONCE]
        read = words(
            [titles[place] for place in places],
            add_special_tokens=start == "title-states",
            padding=True,
            truncation=True,
            max_length=_TITLE_TOKENS,
            return_tensors="pt",
        )
        ids, there = read["input_ids"], read["attention_mask"]
        if start == "title-tokens":
            states = table(ids)
        else:
            states = model.base_model(input_ids=ids, attention_mask=there).last_hidden_state
        weights = there / there.sum(1, keepdim=True).clamp(min=1)
        vectors[places] = (states * weights[..., None]).sum(1)  # (b, D)
    return vectors


@torch.no_grad()
def _take_over(
    old: PreTrainedModel, new: PreTrainedModel, words: PreTrainedTokenizerBase, vectors: Tensor | None
) -> None:
    """Fill the new model: what has the same shape is copied, tables of tokens are made anew."""
    entered = cast(nn.Embedding, new.get_input_embeddings()).weight
    ranked, bias = item_table(new)
    sources = dict(old.named_parameters(remove_duplicate=False))
    for name, parameter in new.named_parameters():
        source = sources[name]
        if parameter is entered or parameter is ranked:
            parameter.copy_(_token_rows(source, len(parameter), words, vectors))
        elif parameter is bias or (parameter.ndim == 1 and len(parameter) == len(entered) != len(source)):
            parameter.zero_()
        elif parameter.shape == source.shape:
            parameter.copy_(source)
        elif "token_type_embeddings" in name:
            parameter.copy_(source[:1].expand_as(parameter))
        else:  # positions, whose first rows the pad id no longer takes up
            parameter.copy_(source[-len(parameter) :])


def _token_rows(source: Tensor, count: int, words: PreTrainedTokenizerBase, vectors: Tensor | None) -> Tensor:
    """Give the rows of special tokens and items, (count, D), from those of words (W, D)."""
    rows = source.mean(0).expand(count, -1).clone()
    starts = {
        PAD_ID: words.pad_token_id,
        UNK_ID: words.unk_token_id,
        MASK_ID: words.mask_token_id,
        BOS_ID: words.bos_token_id if words.cls_token_id is None else words.cls_token_id,
        EOS_ID: words.eos_token_id if words.sep_token_id is None else words.sep_token_id,
    }
    for token_id, word in starts.items():
        if word is not None:
            rows[token_id] = source[word]
    items = rows[FIRST_ITEM_ID:]
    items += torch.randn_like(items) * source.std(0)
    if vectors is not None:
        known = ~vectors[:, 0].isnan()
        found = vectors[known]
        items[known] = source.mean(0) + (found - found.mean(0)) / found.std() * source.std()
        logger.info("%s of %s items begin at their titles", f"{int(known.sum()):,}", f"{len(items):,}")
    return rows
