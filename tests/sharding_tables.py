"""Checks of a split table by itself, for two processes at once; see tests/sharding_runs.py."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor, Shard

from recbert.evaluation import best_items, exclude_items, rank_scores, seen_cells, slice_items, top_items
from recbert.evaluation.shards import _rank_known
from recbert.objectives import FullSoftmax, SampledSoftmax, UniformSampler
from recbert.sharding import (
    RowwiseAdam,
    clip_gradients,
    exchange_rows,
    item_mesh,
    own_slice,
    owned_rows,
    read_rows,
    softmax,
    write_rows,
)
from recbert.tokenizer import FIRST_ITEM_ID

ROWS, WIDTH = 91, 4  # an odd number: the second process has one row less


def rank() -> int:
    return distributed.get_rank()


def mine() -> torch.Generator:
    """Another generator in each process; the global one is the same in both."""
    return torch.Generator().manual_seed(int(torch.randint(1 << 30, ())) + rank())


def split(whole: Tensor) -> DTensor:
    """The same table split over both processes."""
    mesh = item_mesh()
    own = owned_rows(len(whole), mesh)
    local = whole[own.start : own.stop].clone()
    stride = whole.stride()
    table = DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=stride)
    return table.requires_grad_()  # type: ignore[no-any-return]


def own_part(whole: Tensor) -> Tensor:
    own = owned_rows(len(whole), item_mesh())
    return whole[own.start : own.stop]


def gradient_of(table: DTensor) -> Tensor:
    """The owned rows of a split table's gradient."""
    assert table.grad is not None and table.grad.is_sparse
    return own_part(table.grad.to_dense())


def averaged(gradient: Tensor) -> Tensor:
    """A gradient as data parallelism makes it: the mean over the processes."""
    distributed.all_reduce(gradient)
    return gradient / distributed.get_world_size()


def check_rows_travel_and_gradients_return(folder: Path) -> None:
    whole = torch.randn(ROWS, WIDTH)
    for ids in (
        torch.randint(ROWS, (30 + rank(),), generator=mine()),
        torch.randint(ROWS, (5 * rank(),), generator=mine()),
        torch.tensor([3, 3]),
    ):
        for shape in ((ROWS, WIDTH), (ROWS,)):
            plain = whole[:, 0].contiguous() if len(shape) == 1 else whole
            plain = plain.clone().requires_grad_()
            table = split(plain.detach())
            rows, scale = exchange_rows(table, ids), torch.randn(len(ids), *shape[1:], generator=mine())
            assert torch.equal(rows, plain[ids])
            (rows * scale).sum().backward()
            (plain[ids] * scale).sum().backward()
            assert plain.grad is not None
            torch.testing.assert_close(gradient_of(table), own_part(averaged(plain.grad)))
            touched = table.grad.coalesce().indices()[0]  # type: ignore[union-attr]
            asked = torch.unique(torch.cat([ids, other_ids(ids)]))
            assert torch.equal(
                touched, asked[torch.isin(asked, torch.tensor([*owned_rows(ROWS, item_mesh())]))]
            )


def other_ids(ids: Tensor) -> Tensor:
    """The ids of the other process."""
    gathered: list[Any] = [None, None]
    distributed.all_gather_object(gathered, ids.tolist())
    return torch.tensor(gathered[1 - rank()], dtype=torch.int64)


def check_losses_equal_those_of_the_whole_table(folder: Path) -> None:
    softmax._LEAST_ROWS = softmax._CHUNK_ELEMENTS = 4  # several chunks
    weight, bias = torch.randn(ROWS, WIDTH), torch.randn(ROWS)
    sampled = SampledSoftmax(8, sampler=UniformSampler(ROWS - FIRST_ITEM_ID))
    for loss in (FullSoftmax(), sampled):
        for counts in ((9, 4), (6, 0)):
            for with_bias in (True, False):
                hidden = torch.randn(counts[rank()], WIDTH, generator=mine())
                labels = torch.randint(FIRST_ITEM_ID, ROWS, (len(hidden),), generator=mine())
                parts = []
                for cut in (False, True):
                    leaves = [hidden.clone().requires_grad_()]
                    leaves += [split(t) if cut else t.clone().requires_grad_() for t in (weight, bias)]
                    torch.manual_seed(17 + rank())  # the same negatives, other ones in each process
                    total = loss(leaves[0], leaves[1], leaves[2] if with_bias else None, labels)
                    (total * (2 + rank())).backward()  # any scale, as gradient accumulation brings
                    parts.append((total.detach(), leaves))
                (expected, plain), (found, cut_leaves) = parts
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(cut_leaves[0].grad, plain[0].grad, rtol=1e-4, atol=1e-6)
                for ours, theirs in list(zip(cut_leaves, plain, strict=True))[1 : 2 + with_bias]:
                    mean = own_part(averaged(theirs.grad))  # type: ignore[arg-type]
                    torch.testing.assert_close(gradient_of(ours), mean, rtol=1e-4, atol=1e-6)  # type: ignore[arg-type]


def check_rowwise_updates(folder: Path) -> None:
    whole, bias = torch.randn(ROWS, WIDTH), torch.randn(ROWS)
    split_tables = {"weight": split(whole), "bias": split(bias)}
    rows = RowwiseAdam(split_tables, beta2=0.9, eps=1e-6)
    moments = {"weight": torch.zeros(ROWS), "bias": torch.zeros(ROWS)}  # of every row, every step
    expected = {"weight": whole.clone(), "bias": bias.clone()}
    for step in range(1, 5):
        for name, table in split_tables.items():
            ids = torch.randint(ROWS, (20,), generator=mine())
            found = exchange_rows(table, ids)
            scale = torch.randn(found.shape, generator=mine())
            (found * scale).sum().backward()
            gradient = averaged(torch.zeros_like(expected[name]).index_add_(0, ids, scale))
            squares = gradient.square().reshape(ROWS, -1).mean(1)
            moments[name] = 0.9 * moments[name] + 0.1 * squares
            pace = ((moments[name] / (1 - 0.9**step)).sqrt() + 1e-6).reshape(-1, *[1] * (gradient.ndim - 1))
            expected[name] -= 0.1 * step * gradient / pace
        rows.step(0.1 * step, step)
    for name, table in split_tables.items():
        assert table.grad is None
        torch.testing.assert_close(own_slice(table), own_part(expected[name]))
        assert {own_slice(part).shape for part in rows.state.values()} == {
            (len(owned_rows(ROWS, item_mesh())),)
        }


def check_common_norm_of_all_gradients(folder: Path) -> None:
    for max_norm in (0.5, 1e6):
        dense = torch.nn.Parameter(torch.randn(7))
        dense.grad = averaged(torch.randn(7, generator=mine()))
        whole = torch.randn(ROWS, WIDTH)
        table = split(whole)
        ids = torch.randint(ROWS, (40,), generator=mine())
        scale = torch.randn(40, WIDTH, generator=mine())
        (exchange_rows(table, ids) * scale).sum().backward()
        plain = [dense.detach().clone().requires_grad_(), whole.clone().requires_grad_()]
        plain[0].grad = dense.grad.clone()
        plain[1].grad = averaged(torch.zeros_like(whole).index_add_(0, ids, scale))
        expected = torch.nn.utils.clip_grad_norm_(plain, max_norm)
        torch.testing.assert_close(clip_gradients([dense], {"table": table}, max_norm), expected)
        torch.testing.assert_close(dense.grad, plain[0].grad)
        torch.testing.assert_close(gradient_of(table), own_part(plain[1].grad))


class TableScorer:
    """Histories are known by their first item, whose row is the hidden state."""

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole

    def vectors(self, histories: Any, moments: object = None) -> Tensor:
        return torch.stack([self.whole[history[0]] for history in histories])


def check_ranks_and_best_items(folder: Path) -> None:
    draw = torch.Generator().manual_seed(2)
    for rows in (ROWS, 9000):  # 9,000: the cut goes through a block
        whole = torch.randint(-2, 3, (rows, WIDTH), generator=draw).float()  # many ties
        bias = torch.randint(0, 2, (rows,), generator=draw).float()
        num_items = rows - FIRST_ITEM_ID - 3  # the table may be longer than the vocabulary
        random = np.random.default_rng(4)
        histories = [
            random.integers(FIRST_ITEM_ID, FIRST_ITEM_ID + num_items, 1 + number % 5) for number in range(14)
        ]
        targets = torch.from_numpy(random.integers(num_items, size=14))
        targets[12:] = torch.tensor([-1, histories[13][0] - FIRST_ITEM_ID])  # an unknown and a seen one
        scorer = TableScorer(whole)
        vectors = scorer.vectors(histories)
        seen = seen_cells(histories)
        for with_bias in (True, False):
            scores = vectors @ whole[FIRST_ITEM_ID : FIRST_ITEM_ID + num_items].T
            scores += bias[FIRST_ITEM_ID : FIRST_ITEM_ID + num_items] if with_bias else 0
            table = slice_items(split(whole), split(bias) if with_bias else None, num_items)
            for k in (0, 5, 100):
                ranks, top = _rank_known(vectors, table, histories, targets, True, k)
                assert torch.equal(ranks, rank_scores(scores, targets, seen))
                assert torch.equal(top, top_items(exclude_items(scores, seen), k))
                ranks, top = _rank_known(vectors, table, histories, targets, False, k)
                assert torch.equal(ranks, rank_scores(scores, targets))
                assert torch.equal(top, top_items(scores, k))
            values, items = best_items(vectors, table, 7)
            assert torch.equal(items.int(), top_items(scores, 7))
            assert torch.equal(values, scores.gather(1, items))
            denied = torch.arange(num_items).repeat(len(histories))[:-2]  # two items are left to the last row
            cells = torch.arange(len(histories)).repeat_interleave(num_items)[:-2], denied
            values, items = best_items(vectors, table, 3, cells)
            assert items[:-1].eq(-1).all() and values[:-1].isneginf().all()
            assert sorted(items[-1].tolist()) == [-1, num_items - 2, num_items - 1]
    table = slice_items(split(torch.full((ROWS, WIDTH), torch.nan)), None, ROWS - FIRST_ITEM_ID)
    try:
        scorer = TableScorer(torch.zeros(ROWS, WIDTH))
        _rank_known(scorer.vectors([np.array([70])]), table, [np.array([70])], torch.tensor([1]), True, 3)
    except ValueError as error:
        assert "NaN" in str(error)
    else:
        raise AssertionError("NaN was ranked")


def check_rows_in_one_file(folder: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        whole = {"a": torch.randn(ROWS, WIDTH).to(dtype), "b": torch.randn(ROWS + 1).to(dtype)}
        path = folder / f"rows-{dtype}.safetensors"
        write_rows(path, {name: split(tensor) for name, tensor in whole.items()})
        found = {name: split(torch.zeros_like(tensor)) for name, tensor in whole.items()}
        read_rows(path, found)
        for name, table in found.items():
            assert torch.equal(own_slice(table), own_part(whole[name]))
