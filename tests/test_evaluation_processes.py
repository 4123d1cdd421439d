"""Several processes: every target is ranked exactly once, and the result is that of one process."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import distributed

from recbert.evaluation import Ranking, rank_targets
from recbert.inputs import TargetRows
from recbert.tokenizer import FIRST_ITEM_ID

CASES = {"uneven": 23, "fewer batches than processes": 1}


class SumScorer:
    """A scorer whose result depends on the whole history, with ties; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def scores(self, histories: Sequence[NDArray[np.int64]], moments: object = None) -> torch.Tensor:
        self.calls += 1
        sums = torch.tensor([int(history.sum()) for history in histories])
        return ((sums[:, None] * torch.arange(1, 12)) % 7).float()


def target_rows(count: int) -> TargetRows:
    generator = np.random.default_rng(0)
    part = []
    for user in range(count):
        length = int(generator.integers(2, 8))
        part.append(
            {
                "user_id": f"u{user}",
                "input_ids": (FIRST_ITEM_ID + generator.integers(11, size=length)).tolist(),
                "timestamps": [0.0] * length,
                "is_target": [False] * (length - 1) + [True],
            }
        )
    return TargetRows(part)


def rank_in_a_process(place: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=place, world_size=2)
    for name, count in CASES.items():
        scorer = SumScorer()
        ranking = rank_targets(scorer, target_rows(count), batch_size=5, k=4)
        np.savez(
            Path(folder, f"{name}-{place}.npz"), ranks=ranking.ranks, top=ranking.top, calls=scorer.calls
        )
    distributed.barrier()  # torch 2.6 hangs when one process leaves while the other still computes
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(rank_in_a_process, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("place", [0, 1])
def test_two_processes_equal_one(results: Path, name: str, place: int) -> None:
    alone: Ranking = rank_targets(SumScorer(), target_rows(CASES[name]), batch_size=5, k=4)
    found = np.load(results / f"{name}-{place}.npz")
    assert len(found["ranks"]) == CASES[name]
    assert np.array_equal(found["ranks"], alone.ranks)
    assert np.array_equal(found["top"], alone.top)


def test_every_process_calls_the_scorer_equally_often(results: Path) -> None:
    for name in CASES:
        calls = [int(np.load(results / f"{name}-{place}.npz")["calls"]) for place in (0, 1)]
        assert calls[0] == calls[1]
