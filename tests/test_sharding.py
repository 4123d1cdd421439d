"""A split item table, in two processes, behaves as the whole one does in one; see tests/sharding_runs.py."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recbert.evaluation import rank_targets
from recbert.inputs import TargetRows
from recbert.recommender import Recommender
from tests.sharding_runs import CHECKS, run
from tests.training_runs import ITEMS, VALID


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
    ranking = rank_targets(recommender.scorer, TargetRows(VALID), batch_size=3)
    assert np.array_equal(ranking.ranks, np.load(results / "ranks.npy"))
    assert np.array_equal(ranking.top, np.load(results / "top.npy"))
