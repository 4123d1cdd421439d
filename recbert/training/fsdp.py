"""FSDP2: every process keeps a slice of the weights, and the whole item table only while a step needs it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from recbert.sharding import item_tables


def cut_model(model: nn.Module, plugin: Any) -> None:
    """Cut the weights of a model into one slice a process, as one group.

    accelerate would cut each layer on its own, and with it the embedding away from the head that shares its
    rows. The item table is most of a recommender's weights, is needed from the first operation of the forward
    to the last of the backward, and is multiplied outside of the forward: one group, gathered once a step and
    whole in between, costs no more and keeps all ties.

    Args:
        model: the whole model, the same on every process; changed in place.
        plugin: accelerate's `FullyShardedDataParallelPlugin`; precision and offloading are taken from it.

    Raises:
        ValueError: FSDP version 1 is asked for, or processes without weights, or the item table is split
            already.
    """
    if item_tables(model):
        raise ValueError(
            "model.shard_items splits the item table over the processes already: launch it with "
            "recipes/accelerate/ddp.yaml, or leave shard_items out"
        )
    if plugin.fsdp_version != 2:
        raise ValueError(
            "fsdp_version is 1: the loss needs the item table outside of the model's forward, which only "
            "FSDP2 offers; set fsdp_version: 2, see recipes/accelerate/fsdp.yaml"
        )
    if plugin.cpu_ram_efficient_loading:
        raise ValueError(
            "fsdp_cpu_ram_efficient_loading is true: all processes but the first would start without "
            "weights; set it to false, see recipes/accelerate/fsdp.yaml"
        )
    # Nothing changes the hidden states in place, which the warning is about.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view", category=UserWarning)
    fully_shard(
        model,
        reshard_after_forward=False,
        mp_policy=plugin.mixed_precision_policy or MixedPrecisionPolicy(),
        offload_policy=plugin.cpu_offload,
    )


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Inside this block every process has all weights; nothing changes without FSDP2.

    No forward exchanges anything then, so that processes may call the model a different number of times. The
    weights come in the precision that the model computes in: with bf16, validation figures are those of bf16.

    Args:
        model: the model under training, outside of its forward and backward.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()


def gather_weights(model: nn.Module, accelerator: Any) -> dict[str, Tensor] | None:
    """Give all weights by name, on the first process; None without FSDP2, when the model has them whole.

    Every process has to call it, for all bring their slices. Tied names share one tensor, as in the model.

    Args:
        model: the model under training.
        accelerator: the Trainer's `accelerate.Accelerator`.
    """
    if not isinstance(model, FSDPModule):
        return None
    weights: dict[str, Tensor] = accelerator.get_state_dict(model)
    first: dict[nn.Parameter, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        kept = first.setdefault(parameter, name)
        if kept != name and kept in weights:
            weights[name] = weights[kept]  # gathering copies the item table once for each of its names
    return weights
