"""Training stops at a loss that is no finite number, with everything needed to look into it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor


def check_finite(
    loss: Tensor, batch: Mapping[str, Any], *, step: int, rate: float, folder: str | Path, process: int
) -> None:
    """Stop at a NaN or an infinite loss, before the optimiser has used its gradients.

    The number is waited for, which the Trainer does right afterwards in any case, for its log.

    Args:
        loss: a scalar.
        batch: what the model was given; its tensors are saved.
        step: optimiser steps made so far.
        rate: the learning rate of this step.
        folder: where `not-finite-step-STEP-process-PROCESS.safetensors` is written.
        process: number of this process.

    Raises:
        ValueError: the loss is not finite; the message tells step, learning rate and file.
    """
    if torch.isfinite(loss):
        return
    path = Path(folder, f"not-finite-step-{step + 1}-process-{process}.safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    save_file(
        {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
        path,
        metadata={"step": str(step + 1), "learning_rate": str(rate)},
    )
    raise ValueError(
        f"the loss is {loss.item()} at step {step + 1} with learning rate {rate:g}; the batch is saved as "
        f"{path}: lower training.learning_rate, warm up with training.warmup_steps, or leave fp16 for bf16; "
        "the checkpoints before this step stand and can be resumed"
    )
