"""Two item tables that stay mirror images of one another."""

from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from recbert.models import item_table, mirror_signs


class MirroredTables(TrainerCallback):
    """Train two mirrored item tables as if they were one: each gets the gradients of both.

    AdamW treats a value and its negative alike, so what begins as a mirror image stays one.

    Args:
        model: the model under training, after `recbert.models.mirror_items`.

    Raises:
        ValueError: its tables are one, or no mirror images, or do not train.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._entered = cast(nn.Embedding, model.get_input_embeddings()).weight
        self._ranked = cast(nn.Parameter, item_table(model)[0])
        self._signs = mirror_signs(self._entered)
        if self._ranked is self._entered or not (self._entered * self._signs).equal(self._ranked):
            raise ValueError(
                "tie_items is 'mirrored' and the model's item tables are no mirror images: build a new model "
                "with it, or set tie_items to what the model was built with"
            )
        if not self._entered.requires_grad:
            raise ValueError(
                "tie_items is 'mirrored' and the item tables are frozen, as they are under an adapter: leave "
                "tie_items out"
            )

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give both tables the sum of their gradients, each on its own side of the mirror."""
        there, here = self._entered.grad, self._ranked.grad
        if there is None or here is None:
            return
        signs = self._signs.to(there.device)
        there += signs * here
        here.copy_(signs * there)
