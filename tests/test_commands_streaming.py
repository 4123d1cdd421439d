"""Training on prepared data that is read where it lies."""

import json
from pathlib import Path

import fsspec
import pytest

from recbert.commands.main import main
from recbert.recommender import Recommender
from recbert.sequences import fingerprint_data, read_prepared, stream_prepared
from tests.workspace import write_events, write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose data is prepared beside it."""
    folder = tmp_path_factory.mktemp("world")
    write_events(folder / "events.csv")
    path = write_recipe(folder / "recipe.yaml", "run")
    assert main(["prepare", "--config", str(path)]) == 0
    return path


@pytest.fixture
def bucket(recipe: Path) -> str:
    """The prepared data in a file system that is no disk, as in object storage."""
    url = "memory://bucket/prepared"
    fsspec.filesystem("memory").put(str(recipe.parent / "prepared"), url, recursive=True)
    return url


def test_a_stream_has_the_rows_of_the_folder(recipe: Path, bucket: str) -> None:
    data, tokenizer, manifest = read_prepared(recipe.parent / "prepared")
    for folder in (str(recipe.parent / "prepared"), bucket):
        streamed, its_tokenizer, its_manifest = stream_prepared(folder)
        assert list(streamed["train"]) == data["train"].to_list()
        assert list(streamed) == list(data) and its_manifest == manifest
        rest = {name: part for name, part in data.items() if name != "train"}
        its_rest = {name: part for name, part in streamed.items() if name != "train"}
        assert fingerprint_data(its_rest, its_tokenizer) == fingerprint_data(rest, tokenizer)


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_pretrain_on_a_stream(recipe: Path, bucket: str, tmp_path: Path, where: str) -> None:
    prepared = bucket if where == "bucket" else str(recipe.parent / "prepared")
    options = ["--data.streaming", "true", "--data.prepared", prepared, "--training.max_steps", "6"]
    options += ["--training.eval_strategy", "steps", "--training.eval_steps", "3"]
    options += ["--training.save_strategy", "steps", "--training.save_steps", "3"]
    options += ["--training.output_dir", str(tmp_path / "run")]
    assert main(["pretrain", "--config", str(recipe), *options]) == 0
    assert Recommender.from_pretrained(tmp_path / "run" / "model").recommend(["jam"], 1)
    state = json.loads((tmp_path / "run" / "checkpoint-6" / "trainer_state.json").read_text(encoding="utf-8"))
    assert [entry["step"] for entry in state["log_history"] if "eval_ndcg@10" in entry] == [3, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.prepared", "memory://bucket/nothing"], "memory://bucket/nothing holds no prepared data"),
        (
            [
                "--objective.loss",
                "sampled",
                "--objective.negatives",
                "2",
                "--objective.sampler",
                "popularity",
            ],
            "sampler is 'popularity', which counts the training events before training",
        ),
        (["--data.prepared", "gopher://bucket/nothing"], "gopher://bucket/nothing cannot be opened"),
        ([], "max_steps is -1, but a stream has no length"),
    ],
)
def test_streams_that_cannot_be_learnt_from(
    recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    command = ["pretrain", "--config", str(recipe), "--data.streaming", "true", *options]
    assert main([*command, "--training.output_dir", str(tmp_path / "run")]) == 2
    assert message in capfd.readouterr().err
