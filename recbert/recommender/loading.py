"""The weights of a checkpoint, or of an adapter and its base."""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

import recbert.recurrent  # noqa: F401  # registers the recurrent models with the Auto classes
from recbert.adapters import adapter_base, load_adapter
from recbert.checkpoint import CheckpointInfo, find_file, hash_base
from recbert.growth import grow_tables


def load_model(checkpoint: str | Path, base: str | Path | None, info: CheckpointInfo) -> PreTrainedModel:
    """Load the model of a checkpoint, or an adapter on its base, which gets rows for the adapter's own items.

    Args:
        checkpoint: a folder or a Hub id.
        base: for an adapter, the folder or Hub id of its base; None takes the one that it names.
        info: the `recbert.json` of the checkpoint.

    Raises:
        FileNotFoundError: weights or configuration are missing.
        ValueError: a file is damaged, or the adapter belongs to another base.
    """
    if find_file(checkpoint, "adapter_config.json") is not None:
        base = adapter_base(checkpoint) if base is None else base
        check_base(checkpoint, base, info)
        model = load_weights(base, info)
        if info.own_items:
            grow_tables(model, info.own_items)  # the adapter's rows take their place
        return cast(PreTrainedModel, load_adapter(model, checkpoint))
    if base is not None:
        raise ValueError(f"base is {str(base)!r}, but {checkpoint} is a whole checkpoint: leave base out")
    return load_weights(checkpoint, info)


def check_base(adapter: str | Path, base: str | Path, info: CheckpointInfo) -> None:
    """Refuse a base that is not there, or that an adapter was not trained on.

    Args:
        adapter: folder or Hub id of the adapter.
        base: folder or Hub id of the base.
        info: the `recbert.json` of the adapter.

    Raises:
        FileNotFoundError: the base is gone.
        ValueError: it is another one.
    """
    try:
        found = hash_base(base)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"the base of {adapter} is gone, name it as base: {error}") from error
    if info.base_hash is not None and found != info.base_hash:
        raise ValueError(
            f"the adapter {adapter} was trained on another base than {base}: name the base whose hash is "
            f"{info.base_hash} (generation {info.generation}), or train the adapter again"
        )


def load_weights(checkpoint: str | Path, info: CheckpointInfo) -> PreTrainedModel:
    """Load the stock model of a checkpoint.

    Args:
        checkpoint: a folder or a Hub id.
        info: its `recbert.json`, which says whether the model is causal or masked.

    Raises:
        FileNotFoundError: there are no weights or no configuration.
        ValueError: the weights are damaged, or those of another model.
    """
    auto = AutoModelForMaskedLM if info.input.objective == "masked-item" else AutoModelForCausalLM
    try:
        loaded: Any = auto.from_pretrained(checkpoint, output_loading_info=True, use_safetensors=True)
    except OSError as error:
        raise FileNotFoundError(f"{checkpoint} cannot be loaded: {' '.join(str(error).split())}") from error
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"the weights in {checkpoint} are damaged ({' '.join(str(error).split())[:200]}): copy the "
            "checkpoint again"
        ) from error
    model: PreTrainedModel
    model, loading = loaded
    if loading["missing_keys"]:
        raise ValueError(
            f"the weights in {checkpoint} lack {sorted(loading['missing_keys'])[:3]}: copy the checkpoint "
            "again, or train it again"
        )
    return model


def place_model(model: nn.Module, device: str | torch.device) -> None:
    """Move a model to where it computes.

    Args:
        model: the model, moved in place.
        device: where to.

    Raises:
        ValueError: this machine cannot use the device.
    """
    try:
        model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {str(device)!r}, which this machine cannot use: {error}") from error
