"""The last block of a model for the predicted positions only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recbert.models.families import FAMILIES


@contextmanager
def last_only(model: nn.Module, last: Tensor) -> Iterator[None]:
    """Inside this block the last feed-forward, and maybe what follows, sees one position of each row.

    Both work position by position, so that position comes out as it would without. The others come out as
    anything, or not at all: the model's output is (B, L, ...) or (B, 1, ...). In a model of two layers this
    saves a third of the arithmetic. Families whose table row names no places for it are left as they are.

    Args:
        model: a transformers model, a PeftModel around one, or either inside a data-parallel wrapper.
        last: (B,) int64, the position of each row.
    """
    bare: Any = getattr(model, "module", model)
    bare = bare.get_base_model() if hasattr(bare, "get_base_model") else bare
    row = FAMILIES.get(bare.config.model_type)
    places = row.position_wise if row is not None else ()
    rows = torch.arange(len(last), device=last.device)

    def pick(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return inputs[0][rows, last].unsqueeze(1), *inputs[1:]

    with ExitStack() as hooks:
        for place in places:
            module = bare.get_submodule(place.format(last=bare.config.num_hidden_layers - 1))
            hooks.callback(module.register_forward_pre_hook(pick).remove)
        yield
