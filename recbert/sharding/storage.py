"""Split tables in a checkpoint that plain transformers loads: every process writes and maps its own rows.

The tables stand whole in one safetensors file beside that of the other weights, under their stock names and
with the index file that transformers writes. A process needs no more than its rows for either direction.
"""

import copy
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, distributed
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from recbert.checkpoint import ObjectiveName, write_text
from recbert.sharding.exchange import group_of, own_slice, owned_rows
from recbert.sharding.tables import item_tables, split_tables, whole_tables
from recbert.tokenizer import FIRST_ITEM_ID

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_REST, _TABLES = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def write_tables(model: PreTrainedModel, folder: str | Path) -> None:
    """Add the split tables to a checkpoint of everything else; all processes call it.

    Args:
        model: a model with split tables.
        folder: where the first process has called `model.save_pretrained`.
    """
    folder, tables = Path(folder), item_tables(model)
    write_rows(folder / _TABLES, tables)
    if distributed.get_rank() == 0:
        (folder / _WHOLE).replace(folder / _REST)
        with safe_open(folder / _REST, framework="pt") as stored:
            files = dict.fromkeys(stored.keys(), _REST) | dict.fromkeys(tables, _TABLES)
        total = sum(table.numel() * table.element_size() for table in (*tables.values(), *model.parameters()))
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
        write_text(folder / _INDEX, json.dumps(index, indent=2) + "\n")
    _wait(tables)


def read_weights(model: PreTrainedModel, folder: str | Path) -> None:
    """Bring a model with split tables back to what `write_tables`, or one process, has saved.

    Args:
        model: of the same sizes; split over any number of processes.
        folder: the checkpoint.

    Raises:
        FileNotFoundError: the folder has no safetensors.
        ValueError: they are damaged, or those of another model.
    """
    stored = _StoredWeights(folder)
    tables = item_tables(model)
    stored.load_rest(model, set(tables), tied=set())
    for name, table in tables.items():
        own_slice(table).copy_(stored.rows(name, owned_rows(len(table), table.device_mesh)))


def load_sharded(folder: str | Path, mesh: DeviceMesh, *, objective: ObjectiveName) -> PreTrainedModel:
    """Load a checkpoint with its tables split over processes.

    On a CPU the rows are mapped copy-on-write: they are read when they are needed first, and only rows that
    training changes take memory of their own.

    Args:
        folder: a checkpoint folder, written by `write_tables` or by one process.
        mesh: the processes, see `item_mesh`.
        objective: decides between a causal and a masked language model.

    Raises:
        FileNotFoundError: the folder has no configuration or no safetensors.
        ValueError: the weights are damaged or of another model, or the table cannot be split.
    """
    stored = _StoredWeights(folder)
    config = AutoConfig.from_pretrained(folder)
    rows, small = config.vocab_size, copy.deepcopy(config)
    small.vocab_size = FIRST_ITEM_ID + 1  # the tables are replaced, so that their length does not matter
    auto: Any = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    model = cast(PreTrainedModel, auto.from_config(small))
    names = whole_tables(model)
    everywhere = model.named_parameters(remove_duplicate=False)
    tied = {name for name, parameter in everywhere if any(parameter is table for table in names.values())}
    stored.load_rest(model, set(names), tied=tied)
    own = owned_rows(rows, mesh)
    split_tables(model, {name: stored.rows(name, own).to(mesh.device_type) for name in names}, rows, mesh)
    model.train(False)
    return model


def write_rows(path: str | Path, tables: Mapping[str, DTensor]) -> None:
    """Write split tensors whole into one safetensors file; each process writes its rows in their place.

    Args:
        path: on a disk that all processes see.
        tables: split tensors by name.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    size = 0
    for name, table in tables.items():
        end = size + table.numel() * table.element_size()
        header[name] = {
            "dtype": _DTYPES[table.dtype],
            "shape": list(table.shape),
            "data_offsets": [size, end],
        }
        size = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    if distributed.get_rank() == 0:
        with Path(path).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.flush()
            os.posix_fallocate(file.fileno(), 0, 8 + len(text) + size)  # a full disk shows here, not half-way
    _wait(tables)
    with Path(path).open("r+b") as file:
        for name, table in tables.items():
            local, own = own_slice(table).cpu(), owned_rows(len(table), table.device_mesh)
            row_bytes = table.numel() // len(table) * table.element_size()
            file.seek(8 + len(text) + header[name]["data_offsets"][0] + own.start * row_bytes)
            local.contiguous().view(torch.uint8).numpy().tofile(file)
    _wait(tables)


def read_rows(path: str | Path, tables: Mapping[str, DTensor]) -> None:
    """Fill split tensors from a file of `write_rows`, whatever number of processes wrote it.

    Args:
        path: the file.
        tables: split tensors by name.

    Raises:
        ValueError: the file is damaged, or of other tensors.
    """
    stored = _StoredWeights(path)
    for name, table in tables.items():
        own_slice(table).copy_(stored.rows(name, owned_rows(len(table), table.device_mesh)))


class _StoredWeights:
    """Tensors of a safetensors file or of a checkpoint folder, mapped."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._files: dict[str, Path] = {}
        whole = self._path / _WHOLE if self._path.is_dir() else self._path
        try:
            if whole.is_file():
                with safe_open(whole, framework="pt") as stored:
                    self._files = dict.fromkeys(stored.keys(), whole)
                return
            index = json.loads((self._path / _INDEX).read_text(encoding="utf-8"))
            self._files = {name: self._path / file for name, file in index["weight_map"].items()}
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{path} holds neither {_WHOLE} nor {_INDEX}: name a checkpoint"
            ) from error
        except (SafetensorError, ValueError, KeyError) as error:
            raise ValueError(
                f"the weights in {path} are damaged ({error}): copy the checkpoint again"
            ) from error

    def rows(self, name: str, own: range) -> Tensor:
        """Give some rows of a tensor: a view of the mapped file."""
        return self._tensor(name)[own.start : own.stop]

    def load_rest(self, model: PreTrainedModel, tables: set[str], *, tied: set[str]) -> None:
        """Copy everything but the tables into a model; `tied` are further names of the tables."""
        rest = {name: self._tensor(name) for name in self._files.keys() - tables}
        missing, unexpected = model.load_state_dict(rest, strict=False)
        if unexpected or (missing := sorted(set(missing) - tied)):
            raise ValueError(
                f"the weights in {self._path} lack {missing[:3]} and have {unexpected[:3]} too many: they "
                "are of another model, copy the checkpoint again"
            )

    def _tensor(self, name: str) -> Tensor:
        try:
            with safe_open(self._files[name], framework="pt") as stored:
                return cast(Tensor, stored.get_tensor(name))
        except KeyError as error:
            raise ValueError(f"{self._path} has no tensor {name}: it is of another model") from error
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"the weights in {self._path} are damaged ({error}): copy the checkpoint again"
            ) from error


def _wait(tables: Mapping[str, DTensor]) -> None:
    """Wait for all processes that share the tables."""
    distributed.barrier(group=group_of(next(iter(tables.values()))))
