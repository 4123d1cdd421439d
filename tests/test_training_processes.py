"""Two processes train, evaluate, save and resume as one does with the same global batch: DDP and FSDP2."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

import recbert.commands.session
from recbert.commands.main import main
from recbert.objectives import NextItem
from recbert.recommender import Recommender
from recbert.training import RecTrainer, last_checkpoint
from recbert.training.fsdp import cut_model
from tests.process_runs import CPUS_CAN_CUT, FAMILIES, NEGATIVES, compared, fsdp_run
from tests.training_runs import (
    ITEMS,
    MAX_LENGTH,
    OBJECTIVES,
    circle_row,
    global_batch_run,
    losses,
    tiny_arguments,
    tiny_model,
    tiny_objective,
    weights,
)
from tests.workspace import write_events, write_recipe

ROOT = Path(__file__).parents[1]
DYING = {"num_train_epochs": 4, "per_device_train_batch_size": 6}


def launch(folder: Path, wanted: str) -> None:
    """Start two processes without a launcher, which would end the second one with the first."""
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = []
    for rank in ("0", "1"):
        with (folder / f"errors {rank}").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.process_runs", str(folder), wanted],
                cwd=ROOT,
                env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank},
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        processes.append(process)
    try:
        for process in processes:
            process.wait(timeout=300)
    finally:
        for process in processes:
            process.kill()
    assert (folder / "results.json").is_file(), (folder / "errors 0").read_text()[-4000:]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the results of all runs in two gloo processes; the second one dies in the last run."""
    folder = tmp_path_factory.mktemp("two")
    write_events(folder / "events.csv")
    recipe = write_recipe(folder / "recipe.yaml", "run", training=DYING)
    assert main(["prepare", "--config", str(recipe)]) == 0
    launch(folder, "all")
    return folder, json.loads((folder / "results.json").read_text())


def batch_run(objective: str, folder: Path, size: int, accumulated: int = 1) -> RecTrainer:
    """Train two epochs with so many rows at once; three steps an epoch, the last one smaller."""
    arguments = tiny_arguments(
        folder,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulated,
        num_train_epochs=2,
    )
    drawn = np.random.default_rng(0).integers((0, 2), (12, MAX_LENGTH + 1), size=(300, 2)).tolist()
    rows = [circle_row(start, length) for start, length in drawn]
    trainer = RecTrainer(
        tiny_model(objective), arguments, objective=tiny_objective(objective), data={"train": rows}
    )
    trainer.train()
    return trainer


def assert_same_weights(ours: Path, expected: Path) -> None:
    """Compare two saved checkpoints, names included."""
    found, wanted = load_file(ours / "model.safetensors"), load_file(expected / "model.safetensors")
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_give_the_losses_and_metrics_of_one(
    objective: str, two: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, results = two
    ours, one = results[f"two {objective}"], global_batch_run(tmp_path, objective, processes=1)
    # Two steps an epoch: the second has two rows only, so the second process computes on fillers alone.
    assert len(one["losses"]) == 6
    assert ours["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert ours["gradients"] == pytest.approx(one["gradients"], rel=1e-3)
    assert ours["weights"] == pytest.approx(one["weights"], rel=1e-5)
    assert ours["ranks"] == one["ranks"]
    assert ours["users"] == one["users"]
    for found, expected in zip(ours["figures"], one["figures"], strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    assert one["losses"][-1] < one["losses"][0]
    model = folder / "two" / objective
    assert len(Recommender.from_pretrained(model).recommend(ITEMS[:3], 5)) == 5


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_the_global_batch_counts(objective: str, tmp_path: Path) -> None:
    """128 rows at once = twice 64; two processes are compared above."""
    whole = batch_run(objective, tmp_path / "whole", 128)
    accumulated = batch_run(objective, tmp_path / "accumulated", 64, accumulated=2)
    assert len(losses(whole)) == 6
    assert losses(accumulated) == pytest.approx(losses(whole), rel=1e-5)
    for name, weight in weights(whole.model).items():
        torch.testing.assert_close(weights(accumulated.model)[name], weight, rtol=1e-3, atol=1e-4)


def test_two_processes_resume_as_if_uninterrupted(two: tuple[Path, dict[str, Any]]) -> None:
    assert two[1]["resumed"]


def test_every_machine_must_see_the_folder_of_the_run(two: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = two
    assert list((folder / "shared").iterdir()) == list((folder / "of 0").iterdir()) == []
    assert not (folder / "of 1").exists()


# FSDP2


def check_fsdp(one: RecTrainer, family: str, folder: Path, results: dict[str, Any], tmp_path: Path) -> None:
    """Compare a run under FSDP2 with one of one process, and load its checkpoint by plain transformers."""
    assert results["type"] == f"FSDP{type(one.model).__name__}"
    assert results["losses"] == pytest.approx(losses(one), rel=1e-5)
    for found, expected in zip(results["figures"], compared(one)["figures"], strict=True):
        assert found == pytest.approx(expected, rel=1e-6)
    assert_same_weights(folder / "model", tmp_path / "model")
    if family != "gru":
        auto = AutoModelForCausalLM if isinstance(one.objective, NextItem) else AutoModelForMaskedLM
        tokens = torch.tensor([[69, 70, 71]])
        logits = auto.from_pretrained(folder / "model").eval()(tokens).logits
        torch.testing.assert_close(logits, one.model.eval()(tokens).logits, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not CPUS_CAN_CUT, reason="this torch has FSDP2 on accelerators only")
@pytest.mark.parametrize(
    ("run", "objective", "family", "negatives"),
    [
        ("gpt2", "next-item", "gpt2", None),
        ("bert", "masked-item", "bert", None),
        ("sampled", "next-item", "gpt2", NEGATIVES),
    ],
)
def test_fsdp_gives_the_losses_and_the_checkpoint_of_one_process(
    run: str,
    objective: str,
    family: str,
    negatives: int | None,
    two: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:
    folder, results = two
    one = fsdp_run(objective, family, tmp_path, size=4, negatives=negatives)
    check_fsdp(one, family, folder / "fsdp" / run, results[f"fsdp {run}"], tmp_path)


@pytest.mark.skipif(not CPUS_CAN_CUT, reason="this torch has FSDP2 on accelerators only")
def test_fsdp_resumes_as_if_uninterrupted(two: tuple[Path, dict[str, Any]]) -> None:
    assert two[1]["fsdp resumed"]


@pytest.mark.skipif(not CPUS_CAN_CUT, reason="this torch has FSDP2 on accelerators only")
@pytest.mark.slow
def test_fsdp_with_other_families(tmp_path: Path) -> None:
    launch(tmp_path, "families")
    results = json.loads((tmp_path / "results.json").read_text())
    for objective, families in FAMILIES.items():
        for family in families:
            one = fsdp_run(objective, family, tmp_path / "one" / family, size=4)
            check_fsdp(one, family, tmp_path / family, results[family], tmp_path / "one" / family)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"fsdp_version": 1}, "set fsdp_version: 2"), ({"cpu_ram_efficient_loading": True}, "set it to false")],
)
def test_fsdp_settings_that_train_something_else_are_refused(settings: dict[str, Any], message: str) -> None:
    plugin = FullyShardedDataParallelPlugin(**({"fsdp_version": 2} | settings))
    with pytest.raises(ValueError, match=message):
        cut_model(tiny_model("next-item"), plugin)


# A process that dies


class KillLoader(TrainerCallback):
    """End the DataLoader's workers from outside, as a machine short of memory does."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step == 3:
            for worker in multiprocessing.active_children():
                worker.kill()
                worker.join()  # here its end is noticed, else at any moment that follows


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 names it where threads run
def test_death_of_a_loader_worker_is_told_and_its_run_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killing(RecTrainer):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "callbacks": [KillLoader()]})

    write_events(tmp_path / "events.csv")
    settings = {"per_device_train_batch_size": 1, "save_strategy": "steps", "save_steps": 2}
    settings |= {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "num_train_epochs": 1,
        "dataloader_num_workers": 1,
    }
    command = ["--config", str(write_recipe(tmp_path / "recipe.yaml", "run", training=settings))]
    assert main(["prepare", *command]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(recbert.commands.session, "RecTrainer", Killing)
        assert main(["pretrain", *command]) == 1
    (message,) = re.findall("recbert pretrain: error: .*", capfd.readouterr().err)
    assert "another process of this run has ended" in message and "DataLoader worker" in message
    assert message.endswith("go on with --training.resume_from_checkpoint true")
    checkpoint = last_checkpoint(tmp_path / "run")
    assert checkpoint is not None and checkpoint.endswith("checkpoint-2")

    assert main(["pretrain", *command, "--training.resume_from_checkpoint", "true"]) == 0
    assert main(["pretrain", *command, "--training.output_dir", str(tmp_path / "whole")]) == 0
    assert_same_weights(tmp_path / "run" / "model", tmp_path / "whole" / "model")


def test_death_of_a_process_is_told_and_its_run_goes_on(
    two: tuple[Path, dict[str, Any]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, _ = two
    assert (folder / "code").read_text() == "1"
    (message,) = re.findall("recbert pretrain: error: .*", (folder / "errors 0").read_text())
    assert "another process of this run has ended" in message
    assert message.endswith("go on with --training.resume_from_checkpoint true")
    checkpoint = last_checkpoint(folder / "run")
    assert checkpoint is not None and checkpoint.endswith("checkpoint-4")

    command = [
        "pretrain",
        "--config",
        str(folder / "recipe.yaml"),
        "--training.per_device_train_batch_size",
        "12",
    ]
    assert main([*command, "--training.resume_from_checkpoint", "true"]) == 0
    assert main([*command, "--training.output_dir", str(tmp_path / "whole")]) == 0
    assert_same_weights(folder / "run" / "model", tmp_path / "whole" / "model")
