"""First weights that let attention begin as an average of the history."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbert.models.families import FAMILIES


@torch.no_grad()
def start_mimetic(model: Any) -> None:
    """Add the identity to the value and output projections of every attention layer, in place.

    A fresh layer then adds the attended items' own vectors to the hidden state, instead of a random image of
    them that training has to undo: with a tied item matrix the first scores are similarities to the whole
    history. On small catalogues this generalises better. Source: Trockman and Kolter, "Mimetic
    Initialization of Self-Attention Layers", 2023 (there fitted to trained vision models; here the value side
    alone, at full strength).

    Args:
        model: a fresh stock model of a family whose table row names its projections.
    """
    width = model.config.hidden_size
    for layer in range(model.config.num_hidden_layers):
        for place in FAMILIES[model.config.model_type].attention_values:
            weight: Tensor = model.get_submodule(place.format(layer=layer)).weight  # (D, D) or (D, 3 D)
            weight[:, -width:].diagonal().add_(1)
