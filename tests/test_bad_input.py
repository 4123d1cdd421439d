"""Everything that ends with one clear message, exit code 2 and nothing half-made."""

import dataclasses
import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

import recbert.sequences.storage
from recbert.checkpoint import read_info, write_info
from recbert.commands.main import main
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer
from tests.workspace import ITEMS, World, build_world

HEADER = "user_id,item_id,timestamp\n"
GOOD = HEADER + "".join(f"u{u},i{(u + s) % 4},{100 * s + u}\n" for u in range(4) for s in range(4))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def contents(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def refused(capfd: pytest.CaptureFixture[str], folder: Path, *command: object) -> str:
    """Run a command that must fail: exit code 2, one line on standard error, no file written."""
    before = contents(folder)
    capfd.readouterr()
    assert main([str(part) for part in command]) == 2
    output = capfd.readouterr()
    verb = command[0]
    messages = [line for line in output.err.splitlines() if line.startswith(f"recbert {verb}: error: ")]
    assert len(messages) == 1 and "Traceback" not in output.err and output.out == ""
    assert contents(folder) == before
    return messages[0]


def prepare(folder: Path, events: Path, *options: str) -> list[str]:
    return ["prepare", "--data.events", str(events), "--data.prepared", str(folder / "prepared"), *options]


LEAVE_ONE_OUT = ("--split.method", "leave-one-out")
TABLES = [
    ("wrong delimiter", GOOD.replace(",", ";"), (), "separator"),
    ("absent column", GOOD.replace("item_id", "movie"), (), "item_id"),
    ("absent named column", GOOD, ("--data.value", "rating"), "rating"),
    ("empty file", "", (), "empty"),
    ("empty table", HEADER, (), "no events"),
    ("one user", HEADER + "".join(f"ann,i{i},{i}\n" for i in range(9)), (), "users"),
    ("one user, leave-one-out", HEADER + "ann,i,1\nann,j,2\nann,k,3\n", LEAVE_ONE_OUT, "users"),
    ("one item", HEADER + "".join(f"u{i % 3},tea,{i}\n" for i in range(9)), LEAVE_ONE_OUT, "items"),
    ("equal times", HEADER + "".join(f"u{i % 3},i{i},5\n" for i in range(9)), (), "timestamp 5"),
    ("text for times", GOOD.replace(",100\n", ",yesterday\n"), (), "yesterday"),
    ("ISO times read as seconds", GOOD.replace(",100\n", ",2015-01-01\n"), (), "iso"),
    ("negative time", GOOD.replace(",100\n", ",-100\n"), (), "-100"),
    ("missing user id", GOOD.replace("u0,i1", ",i1"), (), "user"),
    ("missing item id", GOOD.replace("u0,i1", "u0,"), (), "item"),
    ("milliseconds", GOOD.replace(",100\n", ",1500000000000\n"), (), "ms"),
    ("too few events", HEADER + "a,i,1\nb,j,2\n", LEAVE_ONE_OUT, "n_test"),
    ("everything cleaned away", GOOD, ("--data.clean.min_item_count", "99"), "min_item_count"),
    ("wrong time unit", GOOD, ("--data.time_unit", "hours"), "data.time_unit"),
    ("wrong cuts", GOOD, ("--split.cuts", "[0.9, 0.8]"), "cuts"),
    ("wrong fractions", GOOD, ("--split.method", "users", "--split.fractions", "[1, 1, 1]"), "fractions"),
    ("wrong length", GOOD, (*LEAVE_ONE_OUT, "--sequences.max_length", "0"), "max_length"),
    ("no pseudonym key", GOOD, ("--data.pseudonymise", "true"), "RECBERT_PSEUDONYM_KEY"),
    ("absent vocabulary", GOOD, ("--data.vocabulary", "/no/such/folder"), "/no/such/folder"),
]


@pytest.mark.parametrize(
    ("content", "options", "expected"), [t[1:] for t in TABLES], ids=[t[0] for t in TABLES]
)
def test_event_tables_that_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], content: str, options: tuple[str, ...], expected: str
) -> None:
    events = tmp_path / "events.csv"
    events.write_text(content, encoding="utf-8")
    assert expected in refused(capfd, tmp_path, *prepare(tmp_path, events, *options))


JSON_LINES = [
    ("mixed ids", [{"item_id": 1}, {"item_id": "tea"}], "item_id"),
    ("NaN id", [{"user_id": float("nan")}, {"user_id": 2.0}], "user_id"),
    ("null id", [{"item_id": None}, {"item_id": "tea"}], "item"),
]


@pytest.mark.parametrize(
    ("rows", "expected"), [case[1:] for case in JSON_LINES], ids=[c[0] for c in JSON_LINES]
)
def test_json_lines_that_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], rows: list[dict[str, Any]], expected: str
) -> None:
    events = tmp_path / "events.jsonl"
    whole = [
        {"user_id": "ann", "item_id": "cup", "timestamp": time, **row} for time, row in enumerate(rows * 4)
    ]
    events.write_text("\n".join(json.dumps(row) for row in whole), encoding="utf-8")
    assert expected in refused(capfd, tmp_path, *prepare(tmp_path, events))


def test_files_that_are_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "absent.csv" in refused(capfd, tmp_path, *prepare(tmp_path, tmp_path / "absent.csv"))
    assert "absent*.csv" in refused(capfd, tmp_path, *prepare(tmp_path, tmp_path / "absent*.csv"))
    assert "data.events is missing" in refused(capfd, tmp_path, "prepare", "--data.prepared", tmp_path / "x")
    for verb in ("pretrain", "evaluate"):
        message = refused(capfd, tmp_path, verb, "--data.prepared", tmp_path / "x")
        assert "is not prepared data: run `recbert prepare`" in message


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("\ufeff" + GOOD, LEAVE_ONE_OUT),
        (HEADER + "".join(f"u{u},i{s}{u},5\n" for u in range(3) for s in range(3)), LEAVE_ONE_OUT),
        (GOOD.replace("i1", "1").replace("i2", "2"), LEAVE_ONE_OUT),
        (GOOD.replace(",", ";"), (*LEAVE_ONE_OUT, "--data.separator", ";")),
        (GOOD.replace(",100\n", ",\n"), (*LEAVE_ONE_OUT, "--data.clean.drop_invalid", "true")),
    ],
    ids=[
        "byte order mark",
        "equal times under leave-one-out",
        "mixed ids in CSV",
        "separator",
        "dropped rows",
    ],
)
def test_tables_that_only_look_bad(tmp_path: Path, content: str, options: tuple[str, ...]) -> None:
    events = tmp_path / "events.csv"
    events.write_text(content, encoding="utf-8")
    assert main(prepare(tmp_path, events, *options)) == 0


def _grow(folder: Path) -> None:
    ItemTokenizer.from_items([*ITEMS, "new"]).save_pretrained(folder)
    write_info(folder, dataclasses.replace(read_info(folder), popularity=[1] * (len(ITEMS) + 1)))


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


CHECKPOINTS: list[tuple[str, Callable[[Path], object], str]] = [
    ("no tokenizer", lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
    ("truncated weights", _cut, "are damaged"),
    ("vocabulary larger than the model's", _grow, "tokens, the model only"),
    ("no weights", lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    ("no recbert.json", lambda folder: (folder / "recbert.json").unlink(), "recbert.json"),
    ("no folder", shutil.rmtree, "neither a folder"),
]


@pytest.mark.parametrize(
    ("damage", "expected"), [c[1:] for c in CHECKPOINTS], ids=[c[0] for c in CHECKPOINTS]
)
def test_damaged_checkpoints(
    world: World,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path], object],
    expected: str,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(world.gpt2, folder)
    damage(folder)
    recommend = ("recommend", "--checkpoint", folder, "--history", "jam")
    encode = ("encode", "--checkpoint", folder, "--histories", world.folder / "events.csv")
    evaluate = ("evaluate", "--config", world.gpt2_recipe, "--training.output_dir", tmp_path / "run")
    finetune = ("finetune", "--config", world.lora_recipe, "--training.output_dir", tmp_path / "run")
    assert expected in refused(capfd, tmp_path, *recommend)
    assert expected in refused(capfd, tmp_path, *encode, "--output", tmp_path / "vectors")
    assert expected in refused(capfd, tmp_path, *evaluate, "--evaluation.checkpoints", f"[{folder}]")
    message = refused(capfd, tmp_path, *finetune, "--model.base", folder)
    assert expected in message or "prepared with another vocabulary" in message


def test_unknown_history_is_refused_only_under_strict(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("recommend", "--checkpoint", world.gpt2, "--history", "new", "newer")
    assert "['new', 'newer'] has no item that the checkpoint knows" in refused(
        capfd, world.folder, *command, "--strict"
    )
    assert main([str(part) for part in command]) == 0
    files = world.folder / "unknown.csv"
    files.write_text(HEADER + "ann,new,1\n", encoding="utf-8")
    command = (
        "recommend",
        "--checkpoint",
        world.gpt2,
        "--histories",
        files,
        "--output",
        world.folder / "out",
    )
    assert main([str(part) for part in (*command, "--strict")]) == 2
    assert not list((world.folder / "out").glob("*.parquet"))


RECIPES = [
    ("pretrain", ("--model.hiden_size", "8"), "did you mean 'model.hidden_size'?"),
    ("pretrain", ("--model.hidden_size", "big"), "model.hidden_size is 'big': it must be a whole number"),
    ("pretrain", ("--model.family", "gpt5"), "gpt5"),
    ("pretrain", ("--model.family", "bert"), "bert"),
    ("pretrain", ("--model.hidden_size", "9"), "num_attention_heads"),
    ("pretrain", ("--adapter.r", "2"), "recbert finetune"),
    ("pretrain", ("--training.resume_from_checkpoint", "true"), "no checkpoint to resume"),
    ("pretrain", ("--training.resume_from_checkpoint", "/no/where"), "/no/where"),
    ("finetune", (), "model.base is missing"),
    ("evaluate", ("--evaluation.part", "train"), "evaluation.part is 'train'"),
]


@pytest.mark.parametrize(("verb", "options", "expected"), RECIPES)
def test_recipes_that_are_refused(
    world: World,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    verb: str,
    options: tuple[str, ...],
    expected: str,
) -> None:
    command = (verb, "--config", world.gpt2_recipe, "--training.output_dir", tmp_path / "run")
    assert expected in refused(capfd, tmp_path, *command, *options)


def test_fine_tuning_that_does_not_fit_the_base(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = ("finetune", "--config", world.lora_recipe, "--training.output_dir", tmp_path / "run")
    message = refused(capfd, tmp_path, *command, "--sequences.max_length", "9")
    assert "max_length=9: the model holds at most 5 positions" in message
    assert "an adapter" in refused(capfd, tmp_path, *command, "--model.base", world.lora)
    assert "objective.name" in refused(capfd, tmp_path, *command, "--model.base", world.bert)
    assert "matches no layer" in refused(capfd, tmp_path, *command, "--adapter.target_modules", "[nothing]")


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
    before = contents(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise error

    if place == "checkpoint":
        monkeypatch.setattr(torch, "save", fail)
    else:
        monkeypatch.setattr(ItemTokenizer, "save_pretrained", fail)
    options = ["--training.output_dir", str(tmp_path / "run"), "--training.num_train_epochs", "1"]
    assert main(["pretrain", "--config", str(world.gpt2_recipe), *options]) == 2
    lines = capfd.readouterr().err.splitlines()
    (message,) = (line for line in lines if line.startswith("recbert pretrain: error: "))
    assert "No space left" in message or "free some space" in message
    left = {path for path in contents(tmp_path) - before if "checkpoint-" not in str(path)}
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
    assert "No space left on device" in refused(capfd, tmp_path, *command)
