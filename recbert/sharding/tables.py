"""A model whose item table is split by rows over processes."""

import os
from typing import cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel

from recbert.models import item_head
from recbert.sharding.exchange import exchange_rows, owned_rows

_BLOCK_ROWS = 1 << 16


class ShardedEmbedding(nn.Module):
    """Looks rows of a split table up; the gradient goes to the rows' owners.

    Args:
        weight: (V, D) with placement `Shard(0)`. It is no `nn.Parameter`: data parallelism would take every
            parameter for a replicated one, broadcast it at the start and average its gradient.
        padding_idx: row number whose gradient stays zero here, as in `nn.Embedding`.
    """

    def __init__(self, weight: DTensor, padding_idx: int | None) -> None:
        super().__init__()
        self.weight, self.padding_idx = weight, padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        """Give the rows (..., D) of ids (...)."""
        rows = exchange_rows(self.weight, ids.flatten()).view(*ids.shape, -1)
        if self.padding_idx is None:
            return rows
        return torch.where(ids.eq(self.padding_idx).unsqueeze(-1), rows.detach(), rows)


class ShardedHead(nn.Module):
    """Holds the split table in front of which `recbert.models.hidden_only` stops a model.

    Args:
        weight: (V, D) with placement `Shard(0)`.
        bias: (V,) likewise, or None.
    """

    def __init__(self, weight: DTensor, bias: DTensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, hidden: Tensor) -> Tensor:
        """Refuse: no process has all items' logits."""
        raise RuntimeError(
            "the item table is split over processes, so that none has all logits: take the hidden states "
            "under recbert.models.hidden_only, or load the checkpoint in one process"
        )


def item_mesh(device: torch.device | str = "cpu") -> DeviceMesh:
    """Give all processes as a mesh of one dimension; a single process becomes a group of its own.

    Args:
        device: where the table is to be.

    Raises:
        ValueError: there are several processes that are no group yet.
    """
    if not distributed.is_initialized():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                "the processes are no group yet: make the training arguments, or call "
                "torch.distributed.init_process_group, before item_mesh"
            )
        store = distributed.HashStore()  # type: ignore[attr-defined]  # torch does not say that it exports it
        distributed.init_process_group(store=store, rank=0, world_size=1)
    return init_device_mesh(torch.device(device).type, (distributed.get_world_size(),))


def item_tables(model: nn.Module) -> dict[str, DTensor]:
    """Give the split tables by their names in a stock checkpoint: the item table and, maybe, its bias.

    Args:
        model: any model; the result is empty unless its table was split.
    """
    tables: dict[str, DTensor] = {}
    for prefix, module in _head_last(model):
        for name, value in vars(module).items():
            if isinstance(value, DTensor) and not any(value is table for table in tables.values()):
                tables[f"{prefix}.{name}"] = value
    return tables


def whole_tables(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """Give the tables of a stock model, of which every process has all rows, by their names in a checkpoint.

    Args:
        model: its input and output table are one.

    Raises:
        ValueError: the table is of a kind that cannot be split.
    """
    embedding, head = model.get_input_embeddings(), item_head(model)
    kind = f"{type(embedding).__name__} and {type(head).__name__}"
    if type(embedding) is not nn.Embedding or type(head) is not nn.Linear:
        raise ValueError(
            f"the item table of a {model.config.model_type} model cannot be split over processes: it is of "
            f"{kind}, not plain; choose a family such as gpt2, llama or bert, or leave the table whole"
        )
    if head.weight is not embedding.weight:
        raise ValueError(
            "the model has two item tables, one for input and one for output: build it with tie_items, or "
            "leave them whole (without shard_items)"
        )
    tables: dict[str, nn.Parameter] = {}
    for prefix, module in _head_last(model):
        for name, value in module.named_parameters(recurse=False):
            found = value is embedding.weight or value is head.bias
            if found and not any(value is table for table in tables.values()):
                tables[f"{prefix}.{name}"] = value
    return tables


def split_tables(model: PreTrainedModel, slices: dict[str, Tensor], rows: int, mesh: DeviceMesh) -> None:
    """Replace the tables of a stock model by split ones.

    Args:
        model: changed in place; its own tables may be of any length, nothing of them is kept.
        slices: the rows that this process is to hold, under the names of `whole_tables`.
        rows: length of the whole tables.
        mesh: the processes.
    """
    old: dict[Tensor, DTensor] = {
        parameter: _as_table(slices[name], rows, mesh) for name, parameter in whole_tables(model).items()
    }
    embedding, head = cast(nn.Embedding, model.get_input_embeddings()), item_head(model)
    weight = old[embedding.weight]
    new_embedding = ShardedEmbedding(weight, embedding.padding_idx)
    new_head = ShardedHead(weight, None if head.bias is None else old[head.bias])
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if child is embedding or child is head:
                setattr(module, name, new_embedding if child is embedding else new_head)
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter in old and module is not embedding and module is not head:
                delattr(module, name)
                setattr(module, name, old[parameter])
    model.config.vocab_size = rows


@torch.no_grad()
def shard_items(model: PreTrainedModel, rows: int, mesh: DeviceMesh, *, seed: int) -> None:
    """Replace the item table of a model by a fresh one whose rows are split over processes.

    The rows are drawn as the family draws them, in blocks that depend on the seed and the row numbers alone:
    the number of processes does not change them. A bias starts at zero.

    Args:
        model: changed in place; build it over a handful of items, since nothing of its own table is kept.
        rows: size of the whole vocabulary, special tokens included.
        mesh: the processes, see `item_mesh`.
        seed: of the fresh rows.

    Raises:
        ValueError: the model's table is of a kind that cannot be split.
    """
    slices: dict[str, Tensor] = {}
    for name, parameter in whole_tables(model).items():
        own = owned_rows(rows, mesh)
        slices[name] = parameter.new_zeros(len(own), *parameter.shape[1:], device=mesh.device_type)
        if parameter.ndim == 2:
            _draw_rows(model, slices[name], own, seed)
    split_tables(model, slices, rows, mesh)


def _draw_rows(model: PreTrainedModel, table: Tensor, own: range, seed: int) -> None:
    """Fill the owned rows of a table as the model's family does it."""
    padding = cast(nn.Embedding, model.get_input_embeddings()).padding_idx
    block = nn.Embedding(_BLOCK_ROWS, table.shape[1], padding, dtype=table.dtype)
    with torch.random.fork_rng(devices=[]):
        for number in range(own.start // _BLOCK_ROWS, -(-own.stop // _BLOCK_ROWS)):
            if number:
                block.padding_idx = None  # the row with that number stands in the first block
            torch.manual_seed((seed << 20) + number)
            model._init_weights(block)  # type: ignore[no-untyped-call]  # transformers annotates none
            first = number * _BLOCK_ROWS
            start, stop = max(first, own.start), min(first + _BLOCK_ROWS, own.stop)
            table[start - own.start : stop - own.start] = block.weight[start - first : stop - first]


def _as_table(own: Tensor, rows: int, mesh: DeviceMesh) -> DTensor:
    """Put the slices of all processes together to one table, without moving any of them."""
    shape = torch.Size((rows, *own.shape[1:]))
    stride = (own.shape[1], 1) if own.ndim == 2 else (1,)
    table = DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=shape, stride=stride)
    return cast(DTensor, table.requires_grad_())


def _head_last(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Give the modules by name, the head last: what it shares is saved under the other module's name."""
    heads = (ShardedHead, nn.Linear)
    return sorted(model.named_modules(), key=lambda pair: isinstance(pair[1], heads))
