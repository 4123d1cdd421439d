"""Adapters on disk: saved as standard PEFT adapters, loaded onto their base, merged away."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from torch import nn
from transformers import PreTrainedModel

_CONFIG_NAME = "adapter_config.json"


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
    check_folder(folder)
    try:
        with without_alias_warning():
            return saving_its_own(PeftModel.from_pretrained(base_model, str(folder), is_trainable=trainable))
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
    check_folder(folder)
    base = cast("str | None", PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
    if not base:
        raise ValueError(
            f"the adapter {folder} does not name its base: load the base yourself and use load_adapter, or "
            f"write its path as base_model_name_or_path into {_CONFIG_NAME}."
        )
    return base


def is_adapted(model: nn.Module) -> bool:
    """Whether a model is a base with an adapter that `add_lora` or `load_adapter` put onto it."""
    return isinstance(model, PeftModel)


def base_name(model: nn.Module) -> str | None:
    """The folder or Hub id of the base of an adapted model; None without an adapter or a name."""
    if not isinstance(model, PeftModel):
        return None
    return model.peft_config[model.active_adapter].base_model_name_or_path or None


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


def saving_its_own(model: PeftModel) -> PeftModel:
    """Keep an adapter for a grown base from being saved with the whole item table, whoever saves it."""
    save: Any = partial(model.save_pretrained, save_embedding_layers=False)
    model.save_pretrained = save  # type: ignore[method-assign]  # of this one model
    return model


@contextmanager
def without_alias_warning() -> Iterator[None]:
    """Hushes transformers about a deprecated alias that peft itself reads; nobody else can mend that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        yield


def check_folder(folder: str | Path) -> None:
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
