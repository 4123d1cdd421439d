"""Asks a model outside the table of families whether it behaves as recbert expects."""

from __future__ import annotations

from typing import Any

import torch

from recbert.models.head import hidden_only, item_head, item_logits


def probe_model(model: Any, family: str, objective: str, max_length: int) -> None:
    """Checks length, item head and direction of attention of a model on short and full-length input.

    Raises:
        ValueError: the model fails on the input, changes its logits behind the item matrix, or looks the
            wrong way for its objective.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            problem = _find_problem(model, objective, max_length)
    except (IndexError, KeyError, RuntimeError, TypeError, AttributeError, ValueError) as error:
        problem = f"fails on a plain batch of item ids ({type(error).__name__}: {error})"
    finally:
        model.train(training)
    if problem:
        raise ValueError(f"family={family!r} {problem}; choose a family of recbert.models.families.FAMILIES.")


def _find_problem(model: Any, objective: str, max_length: int) -> str | None:
    rows = model.get_input_embeddings().weight.shape[0]
    full = (torch.arange(max_length) % (rows - 1) + 1).unsqueeze(0)  # (1, L), no pad
    length = min(4, max_length)
    short = full[:, :length]
    logits = model(input_ids=short).logits  # (1, 4, V)
    if logits.shape != (1, length, rows):
        return f"answers with logits of shape {tuple(logits.shape)}, not {(1, length, rows)}"
    with hidden_only(model):
        hidden = model(input_ids=short).logits  # (1, 4, D)
        if model(input_ids=full, attention_mask=torch.ones_like(full)).logits.shape[1] != max_length:
            return f"does not hold max_length={max_length} positions"
    if not torch.allclose(item_logits(model, hidden), logits, atol=1e-5):
        return "changes its logits behind the item matrix"
    if not _is_linear_behind_head(model, short, logits):
        return "caps or bends its logits behind the item matrix"
    return _find_wrong_direction(model, objective, short, logits, rows)


def _is_linear_behind_head(model: Any, short: torch.Tensor, logits: torch.Tensor) -> bool:
    """Whether doubled large outputs of the head come out of the model doubled; soft caps show only there."""
    head = item_head(model)
    large = torch.linspace(-50, 50, logits.numel()).reshape(logits.shape)
    outputs = []
    for factor in (1.0, 2.0):
        handle = head.register_forward_hook(lambda *_, factor=factor: large * factor)
        try:
            outputs.append(model(input_ids=short).logits)
        finally:
            handle.remove()
    return torch.allclose(2 * outputs[0], outputs[1], rtol=1e-4)


def _find_wrong_direction(
    model: Any, objective: str, short: torch.Tensor, logits: torch.Tensor, rows: int
) -> str | None:
    changed = short.clone()
    changed[:, -1] = rows - 1
    moved = (model(input_ids=changed).logits[:, 0] - logits[:, 0]).abs().max().item()
    if objective == "next-item" and moved > 1e-5:
        return "is not causal: an item changes the scores of the positions before it"
    if objective == "masked-item" and moved == 0 and short.shape[1] > 1:
        return "does not look at later items, which masked-item training needs"
    return None
