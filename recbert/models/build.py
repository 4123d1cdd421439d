"""Builds a stock transformers model from a family's name, uniform sizes and an item vocabulary."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from recbert.models.families import FAMILIES, Family, find_family
from recbert.models.fits import model_positions, unused_positions
from recbert.models.head import item_head
from recbert.models.initial import start_mimetic
from recbert.models.probe import probe_model
from recbert.models.ties import TieItems, mirror_items
from recbert.models.times import axes_settings, check_time_encoding, takes_types
from recbert.recurrent import CELLS, RecurrentConfig, RecurrentForCausalLM
from recbert.tokenizer.times import NUM_TOKEN_TYPES

if TYPE_CHECKING:
    from recbert.checkpoint import TimeEncoding
    from recbert.tokenizer import ItemTokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Sizes:
    """The uniform sizes of one model, checked for range."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int | None
    dropout: float
    max_length: int
    tie_items: bool

    def __post_init__(self) -> None:
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_length")
        for name in names:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: must be at least 0 and below 1.")


def build_model(
    family: str,
    tokenizer: ItemTokenizer,
    *,
    objective: str = "next-item",
    hidden_size: int = 64,
    num_hidden_layers: int = 2,
    num_attention_heads: int = 2,
    intermediate_size: int | None = None,
    dropout: float = 0.1,
    max_length: int = 200,
    tie_items: TieItems = True,
    time_encoding: TimeEncoding | None = None,
    mimetic: bool = False,
) -> PreTrainedModel:
    """A freshly initialised model of a family whose vocabulary are the items of `tokenizer`.

    Args:
        family: a transformers model type ("gpt2", "bert", "llama", ...), or "lstm" or "gru".
        tokenizer: gives the vocabulary size and the ids of the special tokens.
        objective: "next-item" (a causal-LM model) or "masked-item" (a masked-LM model).
        hidden_size: width of the item vectors and of the hidden states.
        num_hidden_layers: number of blocks.
        num_attention_heads: must divide `hidden_size`; families without attention ignore it.
        intermediate_size: width of the feed-forward layers, 4 * hidden_size by default. For "mamba" the inner
            width (default 2 *), for "lstm" and "gru" the width of the recurrent state (default 1 *).
        dropout: given to every dropout the family has; what it cannot reach is logged.
        max_length: positions the model must hold, an appended [MASK] included.
        tie_items: whether items as input and items as candidates share one table. Two tables nearly double
            the model and lose the help that each gives the other. `mirrored`: two mirror images, which
            `recbert.training.MirroredTables` keeps so; see `mirror_items`.
        time_encoding: that of the objective; the family has to take token types or rotary positions then.
        mimetic: start every attention layer as an average of the vectors it attends to; see
            `recbert.models.initial`.

    Raises:
        ValueError: a size out of range or one the family ignores, an unknown family, or a pair of family and
            objective or time encoding that does not exist; the message names what works.
    """
    sizes = _Sizes(
        len(tokenizer),
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        intermediate_size,
        dropout,
        max_length,
        tie_items is True,
    )
    row = find_family(family, objective)
    check_time_encoding(family, time_encoding)
    if mimetic and not row.attention_values:
        able = [name for name, other in FAMILIES.items() if other.attention_values]
        raise ValueError(f"mimetic: family={family!r} has no such start; choose one of {', '.join(able)}.")
    if family in CELLS:
        model = _build_recurrent(family, tokenizer, sizes)
    else:
        model = _build_stock(family, row, tokenizer, sizes, objective, takes_types(time_encoding))
    if mimetic:
        start_mimetic(model)
    if tie_items == "mirrored":
        mirror_items(model)
    return model


def _build_stock(
    family: str, row: Family, tokenizer: ItemTokenizer, sizes: _Sizes, objective: str, with_types: bool
) -> PreTrainedModel:
    auto_class: Any = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    try:
        config = _build_config(family, row, tokenizer, sizes, objective)
        if row.token_types == "own table" and with_types:
            config.type_vocab_size = NUM_TOKEN_TYPES
        model = cast(PreTrainedModel, auto_class.from_config(config))
    except ValueError:
        raise
    except Exception as error:  # families outside the table refuse sizes by errors of every kind
        raise ValueError(
            f"family={family!r} refuses these sizes ({type(error).__name__}: {error})."
        ) from error
    _check_table(model, family, sizes)
    if family not in FAMILIES:
        probe_model(model, family, objective, sizes.max_length)
    _say_dropout(family, row, config, sizes.dropout)
    return model


def _build_recurrent(cell: str, tokenizer: ItemTokenizer, sizes: _Sizes) -> PreTrainedModel:
    config = RecurrentConfig(
        cell=cell,
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.hidden_size,
        recurrent_size=sizes.intermediate_size or sizes.hidden_size,
        num_hidden_layers=sizes.num_hidden_layers,
        dropout=sizes.dropout,
        tie_word_embeddings=sizes.tie_items,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return RecurrentForCausalLM(config)


def _build_config(
    family: str, row: Family, tokenizer: ItemTokenizer, sizes: _Sizes, objective: str
) -> PreTrainedConfig:
    """The family's configuration with every size under the family's own name."""
    default = AutoConfig.for_model(family)
    values: dict[str, object] = {
        "vocab_size": sizes.vocab_size,
        "tie_word_embeddings": sizes.tie_items,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **_size_values(family, row, sizes, tokenizer.pad_token_id),
        **row.settings,
    }
    if row.rotary_axes == 3:
        values |= axes_settings(sizes.hidden_size // sizes.num_attention_heads, sizes.num_hidden_layers)
    if hasattr(default, "cls_token_id"):
        values |= {"cls_token_id": tokenizer.bos_token_id, "sep_token_id": tokenizer.eos_token_id}
    if objective == "masked-item":
        values["mask_token_id"] = tokenizer.mask_token_id
    elif hasattr(default, "is_decoder") and may_look_both_ways(family):
        values["is_decoder"] = True
    if family not in FAMILIES:
        # Uniform names that this family does not know would only decorate its configuration.
        known = {"mask_token_id", "tie_word_embeddings"}
        values = {name: value for name, value in values.items() if name in known or hasattr(default, name)}
        _check_names(family, default, values)
    return AutoConfig.for_model(family, **values)


def may_look_both_ways(family: str) -> bool:
    """Whether a family of the causal mapping is an encoder unless its configuration says decoder."""
    return family in MODEL_FOR_MASKED_LM_MAPPING_NAMES or family not in FAMILIES


def _size_values(family: str, row: Family, sizes: _Sizes, pad_token_id: int) -> dict[str, object]:
    width, heads = sizes.hidden_size, sizes.num_attention_heads
    if row.heads and width % heads:
        raise ValueError(f"hidden_size={width}: must be a multiple of num_attention_heads={heads}.")
    values: dict[str, object] = dict.fromkeys(row.hidden, width)
    values[row.layers] = sizes.num_hidden_layers
    values |= dict.fromkeys(row.heads, heads) | dict.fromkeys(row.head_size, width // heads)
    positions = sizes.max_length + unused_positions(row, pad_token_id)
    values |= dict.fromkeys(row.positions, positions) | dict.fromkeys(row.dropout, sizes.dropout)
    if not row.feed_forward:
        if sizes.intermediate_size not in (None, 4 * width):
            raise ValueError(
                f"intermediate_size={sizes.intermediate_size}: family={family!r} has no other feed-forward "
                f"width than 4 * hidden_size={4 * width}."
            )
    elif not row.feed_forward_is_factor:
        values[row.feed_forward] = sizes.intermediate_size or 4 * width
    elif sizes.intermediate_size is not None:
        if sizes.intermediate_size % width:
            raise ValueError(
                f"intermediate_size={sizes.intermediate_size}: must be a multiple of hidden_size={width}."
            )
        values[row.feed_forward] = sizes.intermediate_size // width
    return values


def _check_names(family: str, default: PreTrainedConfig, values: dict[str, object]) -> None:
    """Refuses a family outside the table that would ignore a size, before anything large is built."""
    for name in ("vocab_size", "hidden_size", "num_hidden_layers"):
        if name not in values:
            raise ValueError(f"family={family!r} ignores {name}: its configuration has no such name.")
    if default.is_encoder_decoder:
        raise ValueError(f"family={family!r} is an encoder-decoder; recbert uses encoders and decoders only.")
    if getattr(default, "final_logit_softcapping", None) is not None:
        raise ValueError(f"family={family!r} soft-caps its logits behind the item matrix: choose another.")


def _check_table(model: PreTrainedModel, family: str, sizes: _Sizes) -> None:
    """Checks on the built model what its configuration promised."""
    table = cast(nn.Embedding, model.get_input_embeddings()).weight
    rows, width = table.shape
    positions = model_positions(model.config)
    got = {
        "vocab_size": rows,
        "hidden_size": width,
        "num_hidden_layers": model.config.num_hidden_layers,
        "max_length": sizes.max_length if positions is None else positions,
    }
    for name, value in got.items():
        if value != getattr(sizes, name):
            raise ValueError(f"family={family!r} ignores {name}={getattr(sizes, name)} and uses {value}.")
    if not sizes.tie_items and item_head(model).weight is table:
        raise ValueError(f"family={family!r} ignores tie_items=False and has one table: leave it True.")
    if model.config.hidden_size != sizes.hidden_size:
        raise ValueError(
            f"family={family!r} ignores hidden_size={sizes.hidden_size} and uses {model.config.hidden_size}."
        )


def _say_dropout(family: str, row: Family, config: PreTrainedConfig, dropout: float) -> None:
    """Logs where a dropout cannot reach."""
    reached = {name for name in row.dropout if hasattr(config, name)}
    if not dropout or reached - {"attention_dropout"}:
        return
    where = "only in attention" if reached else "nowhere: the family has none"
    logger.warning("%s: dropout=%s applies %s.", family, dropout, where)
