"""The item head of a model: hidden states in front of it, and logits from them.

Every transformers model with a language-model head multiplies its last hidden states with an item matrix.
With the head's forward replaced by the identity, the model's `logits` are those hidden states, and the item
matrix can be applied to the positions that have a label only, or in chunks, without any code per family.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import nn


def item_head(model: nn.Module) -> nn.Linear:
    """The module that multiplies hidden states with the item matrix (the output embeddings of `model`).

    `model` is a transformers model, a PeftModel around one, or either of them inside a data-parallel wrapper.
    The head has `weight` (V, D) and, in some families, `bias` (V,).

    Raises:
        ValueError: the model has no language-model head (load it with AutoModelForMaskedLM or
            AutoModelForCausalLM, not with AutoModel).
    """
    wrappers = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    bare = model.module if isinstance(model, wrappers) else model
    finder = getattr(bare, "get_output_embeddings", None)
    head = finder() if callable(finder) else None
    if not isinstance(head, nn.Module):
        raise ValueError(
            f"model: {type(bare).__name__} has no item head; load it with AutoModelForMaskedLM or "
            "AutoModelForCausalLM."
        )
    return cast(nn.Linear, head)


def item_table(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The item matrix (V, D) and, where the family has one, its bias (V,): live parameters, not copies."""
    head = item_head(model)
    bias = getattr(head, "bias", None)
    if bias is None:  # peft hides it behind rows that train
        bias = getattr(getattr(head, "original_module", None), "bias", None)
    return head.weight, cast("torch.Tensor | None", bias)


def spare_biases(model: nn.Module) -> list[nn.Parameter]:
    """The second name of the head's bias, which unties together with the item tables.

    Families such as bert declare the item bias twice and use one of the two.

    Args:
        model: a model with one or two item tables; with one, both names mean one bias and none is spare.
    """
    head = item_head(model)
    owners = [module for module in model.modules() if any(child is head for child in module.children())]
    found = [owner._parameters.get("bias") for owner in owners]
    used = item_table(model)[1]
    return [spare for spare in found if spare is not None and spare is not used]


def freeze_spare_bias(model: nn.Module) -> None:
    """Exclude the spare bias from training: data parallelism would wait for its gradient, which never comes.

    Args:
        model: as for `spare_biases`.
    """
    for spare in spare_biases(model):
        spare.requires_grad_(False)


def _identity(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


@contextmanager
def hidden_only(model: nn.Module) -> Iterator[None]:
    """Inside this block `model(...).logits` is the hidden state in front of the item matrix: (B, L, D).

    Pass no labels inside the block: the families that compute their loss themselves expect V columns.
    The module is changed for the time of the block, so threads may not share one model while one is inside.
    """
    head = item_head(model)
    replaced = head.__dict__.get("forward")
    head.__dict__["forward"] = _identity
    try:
        yield
    finally:
        if replaced is None:
            head.__dict__.pop("forward", None)
        else:
            head.__dict__["forward"] = replaced


def item_logits(model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (..., V) of hidden states (..., D) taken under `hidden_only`: the model's own logits."""
    weight, bias = item_table(model)
    return nn.functional.linear(hidden, weight, bias)
