"""One of two gloo processes: runs that are compared with those of one process, and a death at the end.

RANK=0 LOCAL_RANK=0 WORLD_SIZE=2 python -m tests.process_runs FOLDER all     (and the same with rank 1)
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

import recbert.commands.session
from recbert.commands.main import main
from recbert.training import RecTrainer, check_shared_folder, last_checkpoint
from tests.training_runs import (
    BEST_EPOCH,
    OBJECTIVES,
    figures,
    global_batch_run,
    losses,
    tiny_model,
    tiny_trainer,
    weights,
)

NEGATIVES = 5

CPUS_CAN_CUT = hasattr(torch.cpu.current_stream(), "record_event")
"""Whether torch has FSDP2 on CPUs: 2.6 has it on accelerators only."""

FAMILIES = {
    "next-item": ["llama", "mamba", "gru"],
    "masked-item": ["roberta", "distilbert", "modernbert", "electra", "albert"],
}
"""Beside gpt2 and bert: heads with and without bias, with and without layers of their own."""


class StopAt(TrainerCallback):
    """End a run after a step: by Ctrl-C in every process, or by the death of the second one."""

    def __init__(self, step: int, *, kill: bool = False) -> None:
        self.step, self.kill = step, kill

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step != self.step:
            return
        if not self.kill:
            raise KeyboardInterrupt
        if args.process_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def fsdp2() -> Iterator[None]:
    """Have accelerate use FSDP2 on CPUs: it offers it for accelerators only, torch for both."""
    settings = {
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_TORCH_DEVICE": "cpu",
        "FSDP_VERSION": "2",
        "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartialState, "_prepare_backend", lambda *_: ("gloo", DistributedType.MULTI_GPU))
        for name, value in settings.items():
            patch.setenv(name, value)
        yield


def resumed_equals_whole(objective: str, folder: Path) -> bool:
    """Compare a run that ends in the middle of its second epoch and goes on with an uninterrupted one."""
    saving = {"save_strategy": "steps", "save_steps": 4, "per_device_train_batch_size": 2}
    whole = tiny_trainer(folder / "whole", objective, dropout=0.2, **saving)
    whole.train()
    stopped = tiny_trainer(folder / "cut", objective, dropout=0.2, callbacks=(StopAt(5),), **saving)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    # The other process may still write its part of the checkpoint.
    torch.distributed.barrier()
    checkpoint = last_checkpoint(folder / "cut")
    assert checkpoint is not None and checkpoint.endswith("checkpoint-4")
    resumed = tiny_trainer(folder / "cut", objective, dropout=0.2, **saving)
    resumed.train(resume_from_checkpoint=checkpoint)
    assert len(losses(whole)) == 9
    same = losses(resumed) == losses(whole) and figures(resumed) == figures(whole)
    pairs = zip(slices(resumed), slices(whole), strict=True)
    return same and all(torch.equal(ours, expected) for ours, expected in pairs)


def slices(trainer: RecTrainer) -> list[torch.Tensor]:
    """What this process keeps of the weights."""
    return [
        weight.to_local() if isinstance(weight, DTensor) else weight
        for weight in weights(trainer.model).values()
    ]


def fsdp_run(
    objective: str, family: str, folder: Path, size: int, negatives: int | None = None
) -> RecTrainer:
    """Train and save a model of a family, with validation and the best epoch kept."""
    trainer = tiny_trainer(
        folder / "run",
        objective,
        model=tiny_model(objective, family=family),
        negatives=negatives,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=2,
        **BEST_EPOCH,
    )
    trainer.train()
    trainer.save_model(folder / "model")
    return trainer


def compared(trainer: RecTrainer) -> dict[str, Any]:
    """What is compared between numbers of processes beside the saved weights."""
    return {"losses": losses(trainer), "figures": figures(trainer), "type": type(trainer.model).__name__}


def dying_run(folder: Path) -> int:
    """Run `recbert pretrain` on the prepared folder; the second process dies after five of eight steps."""

    class Dying(RecTrainer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "callbacks": [StopAt(5, kill=True)]})

    recbert.commands.session.RecTrainer = Dying
    return main(["pretrain", "--config", str(folder / "recipe.yaml")])


def run(folder: Path) -> dict[str, Any]:
    """Give the results of DDP and of FSDP2, trained, saved and resumed."""
    results: dict[str, Any] = {}
    check_shared_folder(folder / "shared")
    with pytest.raises(ValueError, match="process 1 does not see what process 0 writes"):
        check_shared_folder(folder / f"of {os.environ['RANK']}")
    for name in OBJECTIVES:
        results[f"two {name}"] = global_batch_run(folder / "two", name, processes=2)
    results["resumed"] = resumed_equals_whole("next-item", folder / "resumed" / "ddp")
    if not CPUS_CAN_CUT:
        return results
    with fsdp2():
        for name, family in zip(OBJECTIVES, ("gpt2", "bert"), strict=True):
            trainer = fsdp_run(name, family, folder / "fsdp" / family, size=2)
            results[f"fsdp {family}"] = compared(trainer)
        trainer = fsdp_run("next-item", "gpt2", folder / "fsdp" / "sampled", size=2, negatives=NEGATIVES)
        results["fsdp sampled"] = compared(trainer)
        results["fsdp resumed"] = resumed_equals_whole("masked-item", folder / "resumed" / "fsdp")
    return results


def run_families(folder: Path) -> dict[str, Any]:
    """Give the results of FSDP2 for more families."""
    with fsdp2():
        return {
            family: compared(fsdp_run(name, family, folder / family, size=2))
            for name, families in FAMILIES.items()
            for family in families
        }


def start(folder: Path, wanted: str) -> None:
    """Join the other process, run, and let the first process write the results."""
    torch.set_num_threads(1)
    gc.freeze()  # every run begins with a collection, which would walk through all imported modules
    place = os.environ["RANK"]
    meet = f"file://{folder}/meet"
    torch.distributed.init_process_group("gloo", init_method=meet, rank=int(place), world_size=2)
    results = run_families(folder) if wanted == "families" else run(folder)
    if place == "0":
        (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    if wanted == "families":
        torch.distributed.barrier()
    else:
        (folder / "code").write_text(str(dying_run(folder)), encoding="utf-8")


if __name__ == "__main__":
    start(Path(sys.argv[1]), sys.argv[2])
