"""Everything that ends with one clear message, exit code 2 and nothing half-made."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from recbert.checkpoint import read_info, write_info
from recbert.commands.main import main
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
    ("everything cleaned away", GOOD, ("--data.clean.min_item_count", "99"), "cleaning leaves no events"),
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


USERS, CUPS, TIMES = ["ann", "bob"] * 4, ["cup"] * 8, list(range(8))
FRAMES: list[tuple[str, list[dict[str, list[Any]]], str]] = [
    ("NaN ids", [{"user_id": [1.0, float("nan")] * 4, "item_id": CUPS, "timestamp": TIMES}], "user_id"),
    ("null ids", [{"user_id": USERS, "item_id": [None, "cup"] * 4, "timestamp": TIMES}], "item"),
    (
        "integer ids in one file and text in another",
        [
            {"user_id": USERS, "item_id": CUPS, "timestamp": TIMES},
            {"user_id": USERS, "item_id": TIMES, "timestamp": TIMES},
        ],
        "item_id",
    ),
    ("NaN times", [{"user_id": USERS, "item_id": CUPS, "timestamp": [float("nan"), 1.0] * 4}], "timestamp"),
]


@pytest.mark.parametrize(
    ("tables", "expected"), [case[1:] for case in FRAMES], ids=[case[0] for case in FRAMES]
)
def test_parquet_files_that_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], tables: list[dict[str, list[Any]]], expected: str
) -> None:
    events = tmp_path / "events"
    events.mkdir()
    for number, table in enumerate(tables):
        pq.write_table(pa.table(table), events / f"{number}.parquet")
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
    ("pretrain", ("--objective.name", "masked-item"), "gpt2"),
    ("pretrain", ("--model.hidden_size", "9"), "num_attention_heads"),
    (
        "pretrain",
        ("--model.family", "bert", "--objective.name", "masked-item", "--objective.start_token", "true"),
        "objective.start_token goes with",
    ),
    ("pretrain", ("--objective.horizon", "0"), "horizon is 0"),
    ("pretrain", ("--objective.augmentation.crop", "2"), "augmentation.crop is 2.0"),
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
    longer = ("--data.prepared", str(tmp_path / "longer"), "--sequences.max_length", "9")
    assert main(["prepare", "--config", str(world.gpt2_recipe), *longer]) == 0
    message = refused(capfd, tmp_path, *command, *longer)
    assert "max_length=9: the model holds at most 5 positions" in message
    assert "an adapter" in refused(capfd, tmp_path, *command, "--model.base", world.lora)
    assert "objective.name" in refused(capfd, tmp_path, *command, "--model.base", world.bert)
    started = ("--objective.start_token", "true")
    assert "objective.start_token is True" in refused(capfd, tmp_path, *command, *started)
    assert "matches no layer" in refused(capfd, tmp_path, *command, "--adapter.target_modules", "[nothing]")


def test_prepared_data_replaces_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "events.csv").write_text(GOOD, encoding="utf-8")
    command = ["prepare", "--data.events", tmp_path / "events.csv", "--split.method", "leave-one-out"]
    assert "holds other things" in refused(capfd, tmp_path, *command, "--data.prepared", tmp_path)


def test_another_length_than_the_data_was_prepared_for(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    for length in (4, 6):
        command = ["pretrain", "--config", world.gpt2_recipe, "--sequences.max_length", length]
        assert "was prepared with 5" in refused(capfd, world.folder, *command)


def test_titles_that_are_not_utf8(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "items.csv").write_bytes(b"item_id,title\njam,Am\xe9lie\n")
    command = ["recommend", "--checkpoint", world.gpt2, "--items", tmp_path / "items.csv", "--history", "jam"]
    assert "cannot be read" in refused(capfd, tmp_path, *command)


def test_metric_that_does_not_exist_before_training(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["pretrain", "--config", world.gpt2_recipe, "--training.metric_for_best_model", "loss"]
    assert "metric is 'loss'" in refused(capfd, world.folder, *command)


def test_weights_that_are_a_pickle(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(world.gpt2, tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = refused(capfd, tmp_path, "recommend", "--checkpoint", folder, "--history", "jam")
    assert "no file named model.safetensors" in message
