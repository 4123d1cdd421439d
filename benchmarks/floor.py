"""The floor of a training epoch: its multiplications at the best rate at which this machine multiplies.

    python -m benchmarks.floor --job next-item --histories FILE.npz --report FILE.json

Counted are the products of the body (real events only, no padding), those of attention (pairs of real events
that may see each other), the item product and its two backward products at labels only. Not counted are
softmax, dropout, layer norm and the optimiser; the bytes that a step cannot avoid moving are reported beside.
`benchmarks.speed` runs this as one more contender, so that the rate is measured under the same load.
"""

import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.histories import Histories
from benchmarks.peers import task as given
from benchmarks.peers.task import Task, read_task

ROWS = (
    64,
    128,
    256,
    1024,
)  # rows of a product: the rate is that of the best, as a loss may cut its chunks freely
SECONDS = 0.3  # of measuring one shape
PASSES = 3  # one product forward, two backward
LAST_ITEM_SHARE = 0.1  # rows in which recbert masks the last event only


class Work(NamedTuple):
    """What an epoch has to do.

    Attributes:
        steps: optimiser steps.
        tokens: events that go through the body.
        labels: events that are predicted.
        body: FLOPs of the blocks, forward and backward.
        items: FLOPs of the item product, forward and backward.
        moved: bytes that the optimiser steps read and write: AdamW on the parameters in float32.
    """

    steps: int
    tokens: float
    labels: float
    body: float
    items: float
    moved: float


def count_work(job: str, train: Histories) -> Work:
    """Count an epoch of a job of `benchmarks.speed` at the sizes of `benchmarks.peers.task`.

    Args:
        job: next-item, masked-item or sampled-softmax.
        train: training histories; the last events of each are used.
    """
    width, masked = given.HIDDEN, job == "masked-item"
    lengths = train.lengths[train.lengths >= (1 if masked else 2)].astype(np.float64)
    if masked:
        events = np.minimum(lengths, given.LENGTH)
        pairs, labels = (events**2).sum(), masked_events(events).sum()
    else:
        events = np.minimum(lengths, given.LENGTH + 1) - 1
        pairs, labels = (events * (events + 1) / 2).sum(), events.sum()
    tokens = events.sum()
    blocks = given.LAYERS * (
        tokens * 24 * width**2 + pairs * 4 * width
    )  # qkv, out, feed-forward of 4 * width
    head = tokens * 2 * width**2 if masked else 0  # BERT's dense layer in front of the item matrix
    candidates = given.NEGATIVES + 1 if job == "sampled-softmax" else train.num_items
    steps = -(-len(lengths) // given.BATCH)
    parameters = width * (train.num_items + given.LENGTH + given.LAYERS * 12 * width)
    return Work(
        steps=steps,
        tokens=tokens,
        labels=labels,
        body=PASSES * (blocks + head),
        items=PASSES * 2 * labels * width * candidates,
        moved=steps * parameters * 4 * 7,  # reads parameter, gradient, two moments; writes three of them
    )


def masked_events(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Expected masked events of rows: a share of the events and at least one, or the last one alone."""
    several = given.MASK_RATE * lengths + (1 - given.MASK_RATE) ** lengths
    return LAST_ITEM_SHARE + (1 - LAST_ITEM_SHARE) * several


def measure_rate(width: int, columns: int, rows: tuple[int, ...] = ROWS) -> float:
    """FLOPs in a CPU second of (rows, width) x (width, columns) and of the two products of its gradient."""
    return max(_rate(count, width, columns) for count in rows)


def _rate(rows: int, width: int, columns: int) -> float:
    left, right = torch.randn(rows, width), torch.randn(columns, width)
    out, to_left, to_right = torch.empty(rows, columns), torch.empty(rows, width), torch.empty(columns, width)

    def multiply() -> None:
        torch.mm(left, right.T, out=out)
        torch.mm(out, right, out=to_left)
        torch.mm(out.T, left, out=to_right)

    return 6 * rows * width * columns / seconds_of(multiply)


def measure_bandwidth() -> float:
    """Bytes read and written in a CPU second by a copy too large for the caches."""
    source = torch.randn(2**24)
    goal = torch.empty_like(source)
    return 2 * 4 * 2**24 / seconds_of(lambda: goal.copy_(source))


def seconds_of(call: Callable[[], Any]) -> float:
    """CPU seconds of the fastest call."""
    call()
    taken, end = [], time.process_time() + SECONDS
    while len(taken) < 3 or time.process_time() < end:
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    return float(min(taken))


def measure_floor(task: Task) -> dict[str, float]:
    """Count the work of a job and divide it by the measured rates; `cpu` is the floor of an epoch."""
    work = count_work(task.job, task.train)
    candidates = given.NEGATIVES + 1 if task.job == "sampled-softmax" else task.train.num_items
    items_rate = measure_rate(given.HIDDEN, candidates)
    body_rate = measure_rate(given.HIDDEN, 4 * given.HIDDEN)
    return {
        "cpu": work.items / items_rate + work.body / body_rate,
        "items_gflops": items_rate / 1e9,
        "body_gflops": body_rate / 1e9,
        "bytes_cpu": work.moved / measure_bandwidth(),
        **work._asdict(),
    }


def main() -> None:
    task = read_task()
    torch.set_num_threads(task.threads)
    figures = measure_floor(task)
    task.report.write_text(json.dumps(figures))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
