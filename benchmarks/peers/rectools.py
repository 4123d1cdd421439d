"""RecTools 0.19: SASRecModel and BERT4RecModel through `fit`, `recommend` and `calc_metrics`."""

import logging
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import MAP, MRR, NDCG, CatalogCoverage, HitRate, Precision, Recall, calc_metrics
from rectools.models import BERT4RecModel, SASRecModel
from rectools.models.nn.transformers.bert4rec import BERT4RecDataPreparator
from rectools.models.nn.transformers.sasrec import SASRecDataPreparator

from benchmarks.histories import Histories
from benchmarks.peers import task as given
from benchmarks.peers.task import Meter, Progress, Task, mean_ndcg, read_task, time_calls

METER = Meter()  # the model deep-copies its trainer and callbacks: a module-level meter survives that


class Laps(Callback):
    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        METER.start()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        METER.stop()


def whole_catalogue(preparator: type, num_items: int) -> type:
    """A preparator whose items are the catalogue's and not only those of the users who train."""

    class WholeCatalogue(preparator):  # type: ignore[misc]
        def process_dataset_train(self, dataset: Dataset) -> None:
            super().process_dataset_train(dataset)
            made = self.train_dataset
            self.item_id_map = made.item_id_map.add_ids(np.arange(num_items))
            self.train_dataset = Dataset(made.user_id_map, self.item_id_map, made.interactions)

    return WholeCatalogue


def build_dataset(histories: Histories) -> Dataset:
    """Days since 1970 stand for the order of events."""
    frame = {
        Columns.User: histories.users,
        Columns.Item: histories.items,
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(histories.places, unit="D"),
    }
    return Dataset.construct(pd.DataFrame(frame))


def build_model(job: str, variant: str, num_items: int, **trainer: Any) -> Any:
    """SASRec or BERT4Rec at the sizes of all libraries, trained by a Lightning trainer with these options."""

    def make_trainer() -> Trainer:
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        options = {
            "accelerator": given.DEVICE,
            "devices": 1,
            "enable_model_summary": False,
            **quiet,
            **trainer,
        }
        return Trainer(callbacks=[Laps()], **options)

    masked = job == "masked-item"
    model, preparator = SASRecModel, SASRecDataPreparator
    if masked:
        model, preparator = BERT4RecModel, BERT4RecDataPreparator
    loss = {"sampled-softmax": "sampled_softmax", "gbce": "gBCE"}.get(variant, "softmax")
    return model(
        n_factors=given.HIDDEN,
        n_blocks=given.LAYERS,
        n_heads=given.HEADS,
        session_max_len=given.LENGTH,
        dropout_rate=given.DROPOUT,
        batch_size=given.BATCH,
        lr=given.LEARNING_RATE,
        loss=loss,
        n_negatives=given.NEGATIVES,
        gbce_t=0.75,
        data_preparator_type=whole_catalogue(preparator, num_items),
        get_trainer_func=make_trainer,
        **({"mask_prob": given.MASK_RATE} if masked else {}),
    )


def train(task: Task) -> None:
    options = {"precision": "bf16-mixed"} if task.variant == "bf16" else {}
    model = build_model(task.job, task.variant, task.histories.num_items, max_epochs=task.epochs, **options)
    model.fit(build_dataset(task.train))
    loss = float(model.fit_trainer.callback_metrics["train_loss"])
    METER.write(task, loss=loss, steps=model.fit_trainer.global_step)


def fit_one_step(task: Task, dataset: Dataset) -> Any:
    """The weights do not change what an answer costs."""
    model = build_model("next-item", "", task.histories.num_items, max_steps=1)
    model.fit(dataset)
    METER.laps.clear()
    return model


def reach_quality(task: Task) -> None:
    """Train to the target, an epoch at a time, validated by `recommend` with the seen filter."""
    num_items = task.histories.num_items
    users, targets = (
        np.arange(len(task.histories.lengths)),
        task.histories.items[task.histories.offsets[1:] - 2],
    )
    progress, begun = Progress(task), time.perf_counter()
    model, dataset = build_model("next-item", "", num_items, max_epochs=1), build_dataset(task.train)
    for epoch in range(1, task.epochs + 1):
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        found = model.recommend(users=users, dataset=dataset, k=10, filter_viewed=True)
        lists = np.full((len(users), 10), -1)
        lists[found[Columns.User], found[Columns.Rank] - 1] = found[Columns.Item]
        if progress.reached(epoch, mean_ndcg(lists, targets)):
            break
    METER.write(task, whole_training=time.perf_counter() - begun)


def evaluate(task: Task) -> None:
    context = build_dataset(task.histories.without_last(1))
    model = fit_one_step(task, context)
    users, last = np.arange(len(task.histories.lengths)), task.histories.offsets[1:] - 1
    truth = pd.DataFrame({Columns.User: users, Columns.Item: task.histories.items[last]})
    kinds = {"hit": HitRate, "ndcg": NDCG, "mrr": MRR, "map": MAP, "recall": Recall, "precision": Precision}
    metrics = {f"{name}@{k}": kind(k=k) for name, kind in kinds.items() for k in given.KS}
    metrics |= {f"coverage@{k}": CatalogCoverage(k=k) for k in given.KS}
    METER.start()
    found = model.recommend(users=users, dataset=context, k=max(given.KS), filter_viewed=True)
    values = calc_metrics(metrics, found, interactions=truth, catalog=np.arange(task.histories.num_items))
    METER.stop()
    METER.write(task, users=len(users), ndcg=float(values["ndcg@10"]))


def recommend(task: Task) -> None:
    dataset = build_dataset(task.histories)
    model = fit_one_step(task, dataset)
    users = np.random.default_rng(task.seed).permutation(len(task.histories.lengths))
    asked: Any = [[user] for user in users[: given.CALLS].tolist()]
    if task.job == "recommend-many":
        asked = [users[: given.CROWD]] * 5
    datasets: dict[int, Dataset] = {}
    if task.variant == "own-dataset":  # the least that `recommend` can be given: a dataset of this user alone
        datasets = {user: build_dataset(task.histories.take(np.array([user]))) for (user,) in asked}

    def call(users: Any) -> Any:
        if datasets:
            return model.recommend(users=[0], dataset=datasets[users[0]], k=10, filter_viewed=True)
        return model.recommend(users=users, dataset=dataset, k=10, filter_viewed=True)

    METER.write(task, **time_calls(call, asked, METER))


if __name__ == "__main__":
    task = read_task()
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(task.threads)
    seed_everything(task.seed, verbose=False)
    jobs = {
        "quality": reach_quality,
        "evaluate": evaluate,
        "recommend-one": recommend,
        "recommend-many": recommend,
    }
    jobs.get(task.job, train)(task)
