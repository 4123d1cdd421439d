"""Cornac 3.0.1: TransformerRec, the only other library on stock transformers models (GPT-2, causal).

It has no full softmax: its cross-entropy is over the batch's own targets and sampled negatives, so it stands
in the job of sampled losses only.
"""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from cornac.data import SequentialDataset
from cornac.models import TransformerRec
from cornac.models.transformer_rec import recom_transformer_rec

from benchmarks.peers import task as given
from benchmarks.peers.task import Meter, Task, read_task

METER = Meter()


class Laps:
    """Stands in for the progress bar that `fit` draws over its epochs."""

    def __init__(self, first: int, last: int, **_: Any) -> None:
        self._epochs = range(first, last)

    def __iter__(self) -> Iterator[int]:
        for epoch in self._epochs:
            METER.start()
            yield epoch
            METER.stop()

    def set_postfix(self, **_: Any) -> None:
        """Show nothing."""


def train(task: Task) -> None:
    columns = zip(task.train.users, task.train.users, task.train.items, task.train.places, strict=True)
    items = OrderedDict((item, item) for item in range(task.histories.num_items))
    dataset = SequentialDataset.build([*columns], fmt="USIT", global_iid_map=items, seed=task.seed)
    model = TransformerRec(
        backbone="gpt2",
        objective="clm",
        loss_at="all",
        loss="ce",
        embedding_dim=given.HIDDEN,
        num_blocks=given.LAYERS,
        num_heads=given.HEADS,
        max_len=given.LENGTH + 1,  # inputs and targets are cut from one row
        dropout=given.DROPOUT,
        batch_size=given.BATCH,
        learning_rate=given.LEARNING_RATE,
        n_sample=given.NEGATIVES,
        n_epochs=task.epochs,
        seed=task.seed,
    )
    recom_transformer_rec.trange = Laps
    model.fit(dataset)
    if model.total_items != task.histories.num_items:
        raise ValueError(f"the model has {model.total_items} items, not the catalogue's")
    METER.write(task)


if __name__ == "__main__":
    task = read_task()
    torch.set_num_threads(task.threads)
    if task.job != "sampled-softmax":
        raise SystemExit(f"Cornac does not do {task.job}: it samples its negatives")
    train(task)
