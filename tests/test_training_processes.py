"""Two processes train and evaluate as one does with the same global batch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recbert.recommender import Recommender
from tests.training_runs import ITEMS, OBJECTIVES, global_batch_run

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder and the results of both objectives, trained by two gloo processes."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, "-m", "tests.training_runs", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_give_the_losses_and_metrics_of_one(
    objective: str, two_processes: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, results = two_processes
    two, one = results[objective], global_batch_run(tmp_path, objective, processes=1)
    # Two steps an epoch: the second has two rows only, so the second process computes on fillers alone.
    assert len(one["losses"]) == 6
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["gradients"] == pytest.approx(one["gradients"], rel=1e-3)
    assert two["weights"] == pytest.approx(one["weights"], rel=1e-5)
    assert two["ranks"] == one["ranks"]
    assert two["users"] == one["users"]
    for ours, expected in zip(two["figures"], one["figures"], strict=True):
        assert ours == pytest.approx(expected, rel=1e-6)
    assert one["losses"][-1] < one["losses"][0]
    assert len(Recommender.from_pretrained(folder / objective).recommend(ITEMS[:3], 5)) == 5
