"""Whether a model holds a vocabulary, a length and times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from recbert.models.families import FAMILIES, OTHER, Family
from recbert.models.times import check_time_encoding, takes_types
from recbert.tokenizer.times import NUM_TOKEN_TYPES

if TYPE_CHECKING:
    from recbert.checkpoint import TimeEncoding
    from recbert.tokenizer import ItemTokenizer


def check_fits(
    model: nn.Module,
    tokenizer: ItemTokenizer,
    max_length: int,
    time_encoding: TimeEncoding | None = None,
) -> None:
    """Checks that a model has a row for every token of `tokenizer`, `max_length` positions and room for time.

    Raises:
        ValueError: the vocabulary or `max_length` is larger than the model's, or it does not take the time
            encoding.
    """
    config = cast(PreTrainedConfig, model.config)
    rows = cast(nn.Embedding, cast(PreTrainedModel, model).get_input_embeddings()).weight.shape[0]
    if len(tokenizer) > rows:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the model only {rows} rows: use the tokenizer saved "
            "with this model, or train a model on the larger vocabulary."
        )
    positions = model_positions(config)
    if positions is not None and max_length > positions:
        raise ValueError(
            f"max_length={max_length}: the model holds at most {positions} positions; lower max_length or "
            "build a model with more."
        )
    check_time_encoding(config.model_type, time_encoding)
    row = FAMILIES.get(config.model_type, OTHER)
    if row.token_types == "own table" and takes_types(time_encoding):
        types = config.type_vocab_size
        if types < NUM_TOKEN_TYPES:
            raise ValueError(
                f"time_encoding={time_encoding!r}: the model has {types} token types and {NUM_TOKEN_TYPES} "
                "are needed; build it with build_model(..., time_encoding=...)"
            )


def model_positions(config: PreTrainedConfig) -> int | None:
    """The longest input a model of this configuration takes; None where the family sets no bound."""
    row = FAMILIES.get(config.model_type, OTHER)
    positions = getattr(config, row.positions[0], None) if row.positions else None
    if positions is None:
        return None
    return int(positions) - unused_positions(row, config.pad_token_id)


def unused_positions(row: Family, pad_token_id: Any) -> int:
    """The rows of a family's position table before the first one used."""
    return int(pad_token_id or 0) + 1 if row.unused_positions == "pad" else row.unused_positions
