"""A split item table, in two processes, behaves as the whole one does in one; see tests/sharding_runs.py."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed
from transformers import AutoModelForCausalLM

from recbert.commands.main import main
from recbert.evaluation import rank_targets
from recbert.inputs import TargetRows
from recbert.recommender import Recommender
from recbert.sharding import item_mesh
from recbert.tokenizer import FIRST_ITEM_ID
from tests.sharding_runs import CHECKS, TARGETS, run
from tests.training_runs import ITEMS
from tests.workspace import write_events, write_recipe


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that both processes have written to."""
    folder = tmp_path_factory.mktemp("sharding")
    try:
        torch.multiprocessing.spawn(run, args=(str(folder),), nprocs=2)
    except torch.multiprocessing.ProcessRaisedException:
        pass  # each test below tells its own part
    return folder


@pytest.mark.parametrize("name", CHECKS)
def test_two_processes(name: str, results: Path) -> None:
    outcomes = [results / f"{name}-{place}.txt" for place in (0, 1)]
    told = [outcome.read_text() if outcome.is_file() else "did not finish" for outcome in outcomes]
    assert told == ["", ""], "\n".join(told)


def test_one_process_ranks_the_saved_model_alike(results: Path) -> None:
    recommender = Recommender.from_pretrained(results / "trained")
    assert len(recommender.recommend(ITEMS[:3], k=5)) == 5
    ranking = rank_targets(recommender.scorer, TargetRows(TARGETS), batch_size=3)
    assert np.array_equal(ranking.ranks, np.load(results / "ranks.npy"))
    assert np.array_equal(ranking.top, np.load(results / "top.npy"))


@pytest.fixture
def alone() -> Iterator[None]:
    """A single process, which may become a group of its own."""
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_commands_train_a_split_table_in_one_process(tmp_path: Path) -> None:
    write_events(tmp_path / "events.csv")
    sampled = {"loss": "sampled", "negatives": 8}
    recipe = write_recipe(tmp_path / "recipe.yaml", "run", model={"shard_items": True}, objective=sampled)
    assert main(["prepare", "--config", str(recipe)]) == 0
    assert main(["pretrain", "--config", str(recipe)]) == 0
    first = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert len(Recommender.from_pretrained(tmp_path / "run" / "model").recommend(["jam"], k=5)) == 5
    tuned = [
        "--model.base",
        str(tmp_path / "run" / "model"),
        "--training.output_dir",
        str(tmp_path / "tuned"),
    ]
    assert main(["finetune", "--config", str(recipe), *tuned, "--training.max_steps", "1"]) == 0
    second = AutoModelForCausalLM.from_pretrained(tmp_path / "tuned" / "model")
    moved = (first.get_input_embeddings().weight != second.get_input_embeddings().weight).any(1)
    assert (
        moved[FIRST_ITEM_ID:].any() and not moved[5:FIRST_ITEM_ID].any()
    )  # reserved tokens have no gradient
    assert main(["finetune", "--config", str(recipe), *tuned, "--adapter.r", "2"]) == 2


@pytest.mark.usefixtures("alone")
def test_several_processes_are_never_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="the processes are no group yet"):
        item_mesh()
