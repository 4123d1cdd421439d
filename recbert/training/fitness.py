"""Whether a model fits its objective: its sizes, the way it looks, and its positions."""

import inspect
from typing import Any

import torch
from transformers import PreTrainedModel

from recbert.models import check_fits, hidden_only
from recbert.objectives import MaskedItem, NextItem
from recbert.tokenizer import FIRST_ITEM_ID


def check_model(model: PreTrainedModel, objective: NextItem | MaskedItem) -> None:
    """Check before training that a model fits its objective.

    Args:
        model: the model to train, in any state.
        objective: what it is to be trained for.

    Raises:
        ValueError: it is too small for the vocabulary, the length or the times, looks the wrong way, or lacks
            the positions that the objective asks for.
    """
    wanted = objective.input_format
    check_fits(model, objective.tokenizer, wanted.max_length, wanted.time_encoding)
    _check_direction(model, objective)
    _check_positions(model, objective)


@torch.no_grad()
def _check_direction(model: PreTrainedModel, objective: NextItem | MaskedItem) -> None:
    """Refuse a next-item model that sees later events, and a masked-item model that does not.

    A model that sees the event it is to predict learns nothing and shows the best of losses.
    """
    training = model.training
    model.train(False)
    last = FIRST_ITEM_ID + objective.tokenizer.num_items - 1
    rows = torch.tensor([[FIRST_ITEM_ID, FIRST_ITEM_ID], [FIRST_ITEM_ID, last]], device=model.device)
    if last == FIRST_ITEM_ID:
        rows[1, 1] = objective.tokenizer.unk_token_id
    with hidden_only(model):
        first = model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits[:, 0].float()  # (2, D)
    model.train(training)
    moved = bool((first[0] - first[1]).abs().max() > 1e-5 * first.abs().max())
    if moved and objective.input_format.objective == "next-item":
        raise ValueError(
            "the model sees the events that next-item training predicts: build it with "
            "build_model(..., objective='next-item'), or train it with MaskedItem"
        )
    if not moved and objective.input_format.objective == "masked-item":
        raise ValueError(
            "the model sees earlier events only, masked-item training needs both sides: build it with "
            "build_model(..., objective='masked-item'), or train it with NextItem"
        )


@torch.no_grad()
def _check_positions(model: PreTrainedModel, objective: NextItem | MaskedItem) -> None:
    """Refuse positions anchored on the right where a family takes none, or only their differences count."""
    if objective.input_format.anchoring == "left":
        return
    bare: Any = model
    bare = bare.get_base_model() if hasattr(bare, "get_base_model") else bare
    family = bare.config.model_type
    if "position_ids" not in inspect.signature(bare.forward).parameters:
        raise ValueError(f"anchoring is 'right', but {family} takes no positions: use 'left'")
    training = model.training
    model.train(False)
    row = torch.full((2, 1), FIRST_ITEM_ID, device=model.device)
    places = torch.tensor([[0], [objective.input_format.max_length - 1]], device=model.device)
    with hidden_only(model):
        hidden = model(input_ids=row, attention_mask=torch.ones_like(row), position_ids=places).logits.float()
    model.train(training)
    first, last = hidden
    if not bool((first - last).abs().max() > 1e-5 * first.abs().max()):
        raise ValueError(
            f"anchoring is 'right', but {family} takes no notice of where positions begin: use 'left'"
        )
