"""LoRA adapters: added to a model, saved as standard PEFT adapters, loaded onto their base, merged away.

The only room that imports peft.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from recbert.models import default_lora_targets, item_head
from recbert.tokenizer import FIRST_ITEM_ID

_CONFIG_NAME = "adapter_config.json"


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
    with _without_alias_warning():
        return _saving_its_own(cast(PeftModel, get_peft_model(model, config)))


def save_adapter(model: PeftModel, folder: str | Path) -> None:
    """Writes a standard PEFT adapter: `adapter_config.json` and `adapter_model.safetensors`."""
    model.save_pretrained(str(folder))


def load_adapter(base_model: PreTrainedModel, folder: str | Path, *, trainable: bool = False) -> PeftModel:
    """A saved adapter on its base.

    Args:
        base_model: the model the adapter was trained on; it is changed in place.
        folder: the adapter's folder, or its Hub id.
        trainable: whether the adapter is to be trained further.

    Raises:
        FileNotFoundError: the folder holds no adapter.
        ValueError: the adapter's matrices do not fit the model.
    """
    _check_folder(folder)
    try:
        with _without_alias_warning():
            return _saving_its_own(PeftModel.from_pretrained(base_model, str(folder), is_trainable=trainable))
    except RuntimeError as error:
        raise ValueError(
            f"the adapter {folder} does not fit this model: load it onto the base it was trained on, "
            f"{adapter_base(folder)}."
        ) from error


def merge_adapter(model: PeftModel) -> PreTrainedModel:
    """The base with the adapter added into its weights: a plain transformers model again.

    The PeftModel's own base is changed and returned; use only the returned model afterwards.
    """
    return cast(PreTrainedModel, model.merge_and_unload())


def adapter_base(folder: str | Path) -> str:
    """The folder or Hub id of the base that a saved adapter belongs to.

    Raises:
        FileNotFoundError: the folder holds no adapter.
        ValueError: the adapter does not name its base.
    """
    _check_folder(folder)
    base = cast("str | None", PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
    if not base:
        raise ValueError(
            f"the adapter {folder} does not name its base: load the base yourself and use load_adapter, or "
            f"write its path as base_model_name_or_path into {_CONFIG_NAME}."
        )
    return base


def base_name(model: nn.Module) -> str | None:
    """The folder or Hub id of the base of an adapted model; None without an adapter or a name."""
    if not isinstance(model, PeftModel):
        return None
    return model.peft_config[model.active_adapter].base_model_name_or_path or None


def base_folder(model: nn.Module) -> Path | None:
    """The folder the base of an adapted model was loaded from; None without an adapter or a local folder."""
    name = base_name(model)
    return Path(name) if name and Path(name).is_dir() else None


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """The size of a model in numbers.

    Returns:
        `total` and `trainable` parameters (a tied table counts once), and `adapter_bytes`, the size of what
        `save_adapter` writes as tensors; 0 without an adapter.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    adapted = isinstance(model, PeftModel)
    adapter = get_peft_model_state_dict(model, save_embedding_layers=False) if adapted else {}
    return {
        "total": sum(size for size, _ in sizes),
        "trainable": sum(size for size, trains in sizes if trains),
        "adapter_bytes": sum(tensor.numel() * tensor.element_size() for tensor in adapter.values()),
    }


def _saving_its_own(model: PeftModel) -> PeftModel:
    """Keep an adapter for a grown base from being saved with the whole item table, whoever saves it."""
    save: Any = partial(model.save_pretrained, save_embedding_layers=False)
    model.save_pretrained = save  # type: ignore[method-assign]  # of this one model
    return model


@contextmanager
def _without_alias_warning() -> Iterator[None]:
    """Hushes transformers about a deprecated alias that peft itself reads; nobody else can mend that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield


def _check_targets(model: PreTrainedModel, targets: list[str] | str, r: int) -> None:
    """Every listed name must match a layer no narrower than r: peft is content when one of them matches."""
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))
    }
    if isinstance(targets, str):
        return
    missing = [t for t in targets if not any(name == t or name.endswith(f".{t}") for name in layers)]
    if missing or not targets:
        known = sorted({name.rsplit(".", 1)[-1] for name in layers})
        raise ValueError(
            f"target_modules: {', '.join(missing) or 'an empty list'} matches no layer of this model; its "
            f"layers are {', '.join(known)}."
        )
    for name, module in layers.items():
        width = min(module.weight.shape)
        if r > width and any(name == t or name.endswith(f".{t}") for t in targets):
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
    if missing := [n for n in names if not any(name == n or name.endswith(f".{n}") for name in modules)]:
        known = sorted({name.rsplit(".", 1)[-1] for name in modules})
        raise ValueError(
            f"modules_to_save: {', '.join(missing)} is no module of this model; it has {', '.join(known)}."
        )


def _check_folder(folder: str | Path) -> None:
    """Names what is missing in a local folder; a name that is no folder may be a Hub id."""
    path = Path(folder)
    if not path.is_dir():
        if isinstance(folder, Path) or str(folder).count("/") > 1:
            raise FileNotFoundError(f"{folder}: no such folder.")
        return
    try:
        json.loads((path / _CONFIG_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder}: holds no {_CONFIG_NAME}, so it is not an adapter.") from None
    except ValueError as error:
        raise ValueError(f"{path / _CONFIG_NAME}: not valid JSON ({error}); copy it again.") from error
