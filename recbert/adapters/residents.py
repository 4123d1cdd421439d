"""Many adapters on one base, of which one answers at a time."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from recbert.adapters.saved import check_folder, without_alias_warning
from recbert.models import item_table

_ROWS = ".token_adapter.trainable_tokens_delta"


class _Rows(NamedTuple):
    """Rows of an item table that an adapter brings: the module that holds it, where, and what."""

    module: str
    places: Tensor
    values: Tensor


class _Resident(NamedTuple):
    """An adapter in memory: what peft calls it, and the rows that it brings."""

    number: str
    rows: list[_Rows]


class Residents:
    """Adapters that share one base in memory; changing from one to another leaves no trace.

    The rows of items that an adapter has trained stand in the base's own tables while the adapter answers;
    what stood there comes back afterwards. peft instead copies the whole table at every call.

    Args:
        model: the base, changed in place; with rows for the items of every adapter.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self._adapted: PeftModel | None = None
        self._loaded: dict[str, _Resident] = {}
        self._count = 0
        self._layers: list[Any] = []
        self._active: str | None = None
        self._covered: list[_Rows] = []

    @torch.no_grad()
    def load(self, name: str, folder: str | Path) -> None:
        """Load an adapter beside the others.

        Args:
            name: what it is called from now on; one of this name is replaced.
            folder: its folder, or its Hub id.

        Raises:
            FileNotFoundError: the folder holds no adapter.
            ValueError: it is no LoRA adapter, or its tensors do not fit the model.
        """
        check_folder(folder)
        config = PeftConfig.from_pretrained(str(folder))
        if not isinstance(config, LoraConfig):
            raise ValueError(
                f"{folder} is no LoRA adapter but {type(config).__name__}: merge it into its base."
            )
        indices = config.trainable_token_indices
        config.trainable_token_indices, config.inference_mode = None, True
        tensors = load_peft_weights(str(folder), device="cpu")
        found = {key: tensors.pop(key) for key in [*tensors] if key.endswith(_ROWS)}
        rows = [_read_rows(key, values, indices) for key, values in found.items()]
        self.activate(None)
        self._check_rows(rows, folder)
        resident = _Resident(f"adapter{self._count}", rows)  # peft takes some names amiss
        self._count += 1
        with without_alias_warning():
            if self._adapted is None:
                self._adapted = PeftModel(self.model, config, adapter_name=resident.number)
            else:
                self._adapted.add_adapter(resident.number, config)
        try:
            set_peft_model_state_dict(self._adapted, tensors, adapter_name=resident.number)
        except RuntimeError as error:
            self._forget(resident)
            raise ValueError(
                f"the adapter {folder} does not fit this model: load it onto the base it was trained on."
            ) from error
        finally:
            self._adapted.requires_grad_(False).train(False)
            kinds = (BaseTunerLayer, AuxiliaryTrainingWrapper)
            self._layers = [layer for layer in self.model.modules() if isinstance(layer, kinds)]
            self._switch(None)
        self.unload(name)
        self._loaded[name] = resident

    def unload(self, name: str) -> None:
        """Forget an adapter, if there is one of this name.

        Args:
            name: what it was called.
        """
        if name in self._loaded:
            self.activate(None)
            self._forget(self._loaded.pop(name))

    @torch.no_grad()
    def activate(self, name: str | None) -> None:
        """Let an adapter answer from now on; None is the base itself.

        Args:
            name: of one that was loaded.

        Raises:
            ValueError: there is none of this name.
        """
        if name == self._active:
            return
        if name is not None and name not in self._loaded:
            known = ", ".join(sorted(self._loaded)) or "none, since none is loaded"
            raise ValueError(f"adapter={name!r}: choose one of {known}.")
        for covered in self._covered:
            self._table(covered.module)[covered.places] = covered.values
        self._covered, self._active = [], name
        if name is None:
            self._switch(None)
            return
        self._switch(self._loaded[name].number)
        for rows in self._loaded[name].rows:
            table = self._table(rows.module)
            self._covered.append(rows._replace(values=table[rows.places].clone()))
            table[rows.places] = rows.values.to(table)

    def _forget(self, resident: _Resident) -> None:
        """Remove an adapter from peft's layers."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
            cast(PeftModel, self._adapted).delete_adapter(resident.number)

    def _switch(self, number: str | None) -> None:
        """Let the layers use one adapter or none.

        peft's own way visits every adapter of every layer: with fifty of them 30 ms instead of 0.1.
        """
        for layer in self._layers:
            there = number is not None and number in getattr(layer, "_adapters", (number,))
            layer._active_adapter = [number] if there else []
            layer._disable_adapters = not there

    def _table(self, module: str) -> Tensor:
        """Give the weight of a module of the base, by name."""
        return cast(nn.Parameter, self.model.get_submodule(module).weight).data

    def _check_rows(self, rows: list[_Rows], folder: str | Path) -> None:
        """Refuse rows that the base has no place for."""
        width = item_table(self.model)[0].shape[1]
        for module, places, values in rows:
            if values.shape != (len(places), width) or int(places.max()) >= len(self._table(module)):
                raise ValueError(
                    f"the adapter {folder} has rows of shape {tuple(values.shape)} up to number "
                    f"{int(places.max())}, the base {len(self._table(module))} rows {width} wide: load it "
                    "onto the base it was trained on."
                )


def _read_rows(key: str, values: Tensor, indices: list[int] | dict[str, list[int]] | None) -> _Rows:
    """Read the rows of one table as peft has saved them."""
    module = key.removeprefix("base_model.model.").removesuffix(_ROWS)
    if isinstance(indices, dict):
        indices = next((places for name, places in indices.items() if module.endswith(name)), None)
    if indices is None or not len(indices):
        raise ValueError(f"the adapter has rows for {module} and does not say which: train it again.")
    return _Rows(module, torch.tensor(indices), values)
