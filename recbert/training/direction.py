"""Whether a model looks the way that its objective needs."""

import torch
from transformers import PreTrainedModel

from recbert.models import hidden_only
from recbert.objectives import MaskedItem, NextItem
from recbert.tokenizer import FIRST_ITEM_ID


@torch.no_grad()
def check_direction(model: PreTrainedModel, objective: NextItem | MaskedItem) -> None:
    """Check that a next-item model sees earlier events only, and a masked-item model later ones too.

    A model that sees the event it is to predict learns nothing and shows the best of losses.

    Args:
        model: the model to train, in any state.
        objective: what it is to be trained for.

    Raises:
        ValueError: the model looks the other way.
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
