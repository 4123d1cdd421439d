"""LoRA matrices in the layers of a model, and rows of its item tables that train with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from recbert.adapters.saved import saving_its_own, without_alias_warning
from recbert.models import default_lora_targets, item_head
from recbert.tokenizer import FIRST_ITEM_ID


def add_lora(
    model: PreTrainedModel,
    *,
    r: int = 8,
    alpha: int = 16,
    dropout: float = 0.0,
    target_modules: Sequence[str] | str | None = None,
    new_rows: int = 0,
    use_dora: bool = False,
    use_rslora: bool = False,
    modules_to_save: Sequence[str] = (),
) -> PeftModel:
    """`model` with trainable LoRA matrices in its linear layers; everything else is frozen.

    A fresh adapter changes nothing until it is trained. The model given is changed in place.

    Args:
        model: a model from `build_model` or an Auto class; load it from a folder or the Hub, so that the
            saved adapter can name its base.
        r: rank of the update of each matrix.
        alpha: the update is scaled by alpha / r.
        dropout: on the input of the update, in training.
        target_modules: names of the layers to adapt, or "all-linear"; by default the family's attention and
            feed-forward layers.
        new_rows: how many rows at the end of the item tables train too and are saved with the adapter;
            without them LoRA never learns items that the base has not seen.
        use_dora: learn the size of each output apart from its direction (Liu et al., "DoRA", 2024): slower,
            better at small ranks.
        use_rslora: scale by alpha / sqrt(r) instead, for ranks past about 32 (Kalajdzievski, "A Rank
            Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023).
        modules_to_save: names of modules that train and are saved whole, such as a norm.

    Raises:
        ValueError: r, dropout or new_rows out of range, an adapter is there already, or no layer has such a
            name.
    """
    if r < 1:
        raise ValueError(f"r={r}: must be at least 1.")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: must be at least 0 and below 1.")
    if isinstance(cast(nn.Module, model), PeftModel):
        raise ValueError("model has an adapter already: merge it with merge_adapter, or start from the base.")
    family = model.config.model_type
    targets = default_lora_targets(family) if target_modules is None else target_modules
    targets = targets if isinstance(targets, str) else list(targets)
    _check_targets(model, targets, r)
    _check_saved(model, modules_to_save)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in model.modules()),
        trainable_token_indices=_last_rows(model, new_rows),
        use_dora=use_dora,
        use_rslora=use_rslora,
        modules_to_save=list(modules_to_save) or None,
    )
    with without_alias_warning():
        return saving_its_own(cast(PeftModel, get_peft_model(model, config)))


def _check_targets(model: PreTrainedModel, targets: list[str] | str, r: int) -> None:
    """Every listed name must match a layer no narrower than r: peft is content when one of them matches."""
    if isinstance(targets, str):
        return
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))
    }
    missing = [target for target in targets if not any(_is_meant(name, target) for name in layers)]
    if missing or not targets:
        known = sorted({name.rsplit(".", 1)[-1] for name in layers})
        raise ValueError(
            f"target_modules: {', '.join(missing) or 'an empty list'} matches no layer of this model; its "
            f"layers are {', '.join(known)}."
        )
    for name, module in layers.items():
        width = min(module.weight.shape)
        if r > width and any(_is_meant(name, target) for target in targets):
            raise ValueError(
                f"r={r}: layer {name} is {width} wide, and a rank above that learns no more; lower r or "
                "leave the layer out of target_modules."
            )


def _last_rows(model: PreTrainedModel, count: int) -> list[int] | dict[str, list[int]] | None:
    """Number the last rows of a model's item table, as peft wants them; by name where there are two."""
    head, entered = item_head(model), cast(nn.Embedding, model.get_input_embeddings())
    rows = len(entered.weight)
    if not 0 <= count <= rows - FIRST_ITEM_ID:
        raise ValueError(f"new_rows={count}: must be from 0 to the model's {rows - FIRST_ITEM_ID} items.")
    if not count:
        return None
    last = list(range(rows - count, rows))
    if head.weight is entered.weight:
        return last
    return {name: last for name, module in model.named_modules() if module is entered or module is head}


def _check_saved(model: PreTrainedModel, names: Sequence[str]) -> None:
    """Every module to save must exist: peft itself passes over those that do not."""
    modules = [name for name, _ in model.named_modules() if name]
    if missing := [name for name in names if not any(_is_meant(module, name) for module in modules)]:
        known = sorted({name.rsplit(".", 1)[-1] for name in modules})
        raise ValueError(
            f"modules_to_save: {', '.join(missing)} is no module of this model; it has {', '.join(known)}."
        )


def _is_meant(module: str, name: str) -> bool:
    """Whether peft takes a module for the one of this name: its full name, or the end of it."""
    return module == name or module.endswith(f".{name}")
