import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recbert.commands.main import main
from recbert.recommender import Recommender
from tests.workspace import write_events, write_recipe

SCRIPTS = Path(__file__).parents[2] / "scripts"


def launch(monkeypatch: pytest.MonkeyPatch, verb: str, *arguments: str) -> int:
    """Run a launch target the way an interpreter does, in this process."""
    monkeypatch.setattr(sys, "argv", [f"{verb}.py", *arguments])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(SCRIPTS / f"{verb}.py"), run_name="__main__")
    return int(str(done.value.code))


def test_targets_are_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_events(tmp_path / "events.csv", users=8)
    recipe = str(write_recipe(tmp_path / "recipe.yaml", "run", training={"num_train_epochs": 1}))
    assert main(["prepare", "--config", recipe]) == 0
    assert launch(monkeypatch, "pretrain", "--config", recipe) == 0
    assert launch(monkeypatch, "pretrain", "--config", recipe, "--training.learning_rat", "1") == 2
    base = ["--model.base", str(tmp_path / "run" / "model"), "--adapter.r", "1"]
    output = ["--training.output_dir", str(tmp_path / "lora")]
    assert launch(monkeypatch, "finetune", "--config", recipe, *base, *output) == 0
    capfd.readouterr()
    assert launch(monkeypatch, "evaluate", "--config", recipe, *output, "--json") == 0
    assert "lora" in json.loads(capfd.readouterr().out)["models"]


def wait_for_two_checkpoints(run: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the training is well under way: old checkpoints go, so none is waited for by its number."""
    end = time.monotonic() + 120
    while len(list(run.glob("checkpoint-*/trainer_state.json"))) < 2:
        assert process.poll() is None, "the training ended before it was interrupted"
        assert time.monotonic() < end, "no two checkpoints appeared in 120 s"
        time.sleep(0.02)


INTERRUPTIBLE = (
    "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""A test run in the background may have handed down an ignored SIGINT."""


def test_interrupted_training_keeps_its_checkpoints_and_goes_on(tmp_path: Path) -> None:
    write_events(tmp_path / "events.csv")
    endless = {"num_train_epochs": 100_000, "early_stopping_patience": 0, "save_total_limit": 2}
    recipe = write_recipe(tmp_path / "recipe.yaml", "run", training=endless)
    command = ["pretrain", "--config", str(recipe)]
    assert main(["prepare", "--config", str(recipe)]) == 0
    assert main([*command, "--training.num_train_epochs", "1"]) == 0  # the model of an earlier run
    earlier = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()

    # A file takes any amount of progress bars; a pipe that nobody reads would stop the training.
    with (tmp_path / "errors").open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTIBLE, str(SCRIPTS / "pretrain.py"), *command[1:]],
            stdout=subprocess.DEVNULL,
            stderr=stream,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        wait_for_two_checkpoints(tmp_path / "run", process)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    finally:
        process.kill()
    errors = (tmp_path / "errors").read_text(encoding="utf-8")
    assert process.returncode == 130
    assert "recbert pretrain: interrupted" in errors and "Traceback" not in errors
    assert "--training.resume_from_checkpoint true" in errors

    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert not [name for name in names if name.startswith(".")]
    checkpoints = [name for name in names if name.startswith("checkpoint-")]
    assert checkpoints
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == earlier
    Recommender.from_pretrained(tmp_path / "run" / "model")

    last = max(checkpoints, key=lambda name: int(name.rpartition("-")[2]))
    state = json.loads((tmp_path / "run" / last / "trainer_state.json").read_text(encoding="utf-8"))
    more = [
        "--training.num_train_epochs",
        str(state["epoch"] + 1),
        "--training.resume_from_checkpoint",
        "true",
    ]
    assert main([*command, *more]) == 0
    state_file = tmp_path / "run" / f"checkpoint-{state['global_step'] + 3}" / "trainer_state.json"
    resumed = json.loads(state_file.read_text(encoding="utf-8"))
    assert resumed["epoch"] == state["epoch"] + 1
    assert resumed["log_history"][: len(state["log_history"])] == state["log_history"]
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() != earlier
