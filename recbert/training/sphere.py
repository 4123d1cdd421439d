"""Item rows on a sphere, where the loss compares directions only."""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recbert.models import item_table
from recbert.objectives.losses import Tempered
from recbert.sharding import item_tables
from recbert.tokenizer import FIRST_ITEM_ID


class ItemSphere(TrainerCallback):
    """Put the item rows of a model back onto a sphere after each optimiser step.

    The saved table then ranks by plain products as the loss does by cosines. The rows of special tokens stay
    where they are.

    Args:
        model: the model under training.
        loss: its loss; with a learned temperature the radius follows the rows' mean length.

    Raises:
        ValueError: the model's item table is split, frozen, or has a bias.
    """

    def __init__(self, model: PreTrainedModel, loss: Tempered) -> None:
        if item_tables(model):
            raise ValueError("temperature is set and shard_items is on: leave one of them out")
        weight, bias = item_table(model)
        if bias is not None:
            raise ValueError(
                f"temperature is set and a {model.config.model_type} model has an item bias, which no cosine "
                "has: take a family without one, such as gpt2 or llama, or leave temperature out"
            )
        if not weight.requires_grad:
            raise ValueError(
                "temperature is set and the item table is frozen, as it is under an adapter: train all "
                "weights, or leave temperature out"
            )
        self._model, self._learned = model, loss.learned

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start on the unit sphere; a resumed run lies on its own already."""
        if state.global_step == 0:
            _project(self._rows(), follow=False)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Return to the sphere."""
        _project(self._rows(), follow=self._learned)

    def _rows(self) -> Tensor:
        return item_table(self._model)[0].detach()[FIRST_ITEM_ID:]


def _project(rows: Tensor, *, follow: bool) -> None:
    """Give all rows (V_items, D) one length, in place: their mean length, or 1."""
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True, dtype=torch.float32).clamp(min=1e-12)
    radius = lengths.mean() if follow else 1.0
    rows.mul_(radius / lengths)
