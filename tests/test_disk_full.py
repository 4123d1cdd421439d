"""A full disk: one message, exit code 2, and what stood there before still stands."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import recbert.sequences.storage
from recbert.commands.main import main
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer
from tests.workspace import World, build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def error_message(capfd: pytest.CaptureFixture[str], verb: str) -> str:
    lines = capfd.readouterr().err.splitlines()
    (message,) = (line for line in lines if line.startswith(f"recbert {verb}: error: "))
    return message


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    Exception("No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 12800 vs 12692"),
]
"""What Python, safetensors, tokenizers and torch.save raise on a full disk."""


@pytest.mark.parametrize("error", FULL, ids=[type(error).__name__ for error in FULL])
@pytest.mark.parametrize("place", ["checkpoint", "model"])
def test_disk_full_while_saving(
    world: World,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    place: str,
) -> None:
    """The earlier model stands, and no half of a new one or of a resumable checkpoint is left."""
    shutil.copytree(world.gpt2, tmp_path / "run" / "model")
    before = set(tmp_path.rglob("*"))

    def fail(*_: object, **__: object) -> None:
        raise error

    if place == "checkpoint":
        monkeypatch.setattr(torch, "save", fail)
    else:
        monkeypatch.setattr(ItemTokenizer, "save_pretrained", fail)
    options = ["--training.output_dir", str(tmp_path / "run"), "--training.num_train_epochs", "1"]
    assert main(["pretrain", "--config", str(world.gpt2_recipe), *options]) == 2
    message = error_message(capfd, "pretrain")
    assert "No space left" in message or "free some space" in message
    left = {path for path in set(tmp_path.rglob("*")) - before if "checkpoint-" not in str(path)}
    assert not left
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    assert Recommender.from_pretrained(tmp_path / "run" / "model").recommend(["jam"], 1)


def test_disk_full_while_preparing(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(recbert.sequences.storage, "build_dataset_card", fail)
    command = ["prepare", "--config", world.gpt2_recipe, "--data.prepared", tmp_path / "prepared"]
    assert main([str(part) for part in command]) == 2
    assert "No space left on device" in error_message(capfd, "prepare")
    assert list(tmp_path.iterdir()) == []
