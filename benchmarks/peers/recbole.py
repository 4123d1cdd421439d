"""RecBole 1.2.1: SASRec with cross-entropy and BERT4Rec, through its config, data pipeline and Trainer.

Its SASRec trains on every prefix of a history as a sample of its own: an epoch has as many samples as events.
The checkpoint of the best epoch is never loaded: torch refuses the pickle that RecBole wrote.
"""

import logging
import os
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_trainer, init_seed
from recbole.utils.case_study import full_sort_topk
from recbole.utils.utils import get_model

from benchmarks.peers import task as given
from benchmarks.peers.task import Meter, Task, read_task, time_calls

METER = Meter()
NAME = "events"


def write_events(task: Task) -> None:
    """Write the atomic files; the item file holds the whole catalogue."""
    folder = task.folder / NAME
    folder.mkdir(parents=True, exist_ok=True)
    columns = zip(task.histories.users, task.histories.items, task.histories.places, strict=True)
    lines = (f"u{user}\ti{item}\t{place}" for user, item, place in columns)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / f"{NAME}.inter").write_text("\n".join([header, *lines]) + "\n")
    items = (f"i{item}" for item in range(task.histories.num_items))
    (folder / f"{NAME}.item").write_text("\n".join(["item_id:token", *items]) + "\n")


def build(task: Task, evaluation_batch: int = 256) -> tuple[Any, Any, Any, Any]:
    """The trainer and the three parts' loaders."""
    name = "BERT4Rec" if task.job == "masked-item" else "SASRec"
    settings = {
        "data_path": str(task.folder),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
        "MAX_ITEM_LIST_LENGTH": given.LENGTH,
        "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "n_layers": given.LAYERS,
        "n_heads": given.HEADS,
        "hidden_size": given.HIDDEN,
        "inner_size": 4 * given.HIDDEN,
        "hidden_dropout_prob": given.DROPOUT,
        "attn_dropout_prob": given.DROPOUT,
        "mask_ratio": given.MASK_RATE,
        "train_batch_size": given.BATCH,
        "eval_batch_size": evaluation_batch,
        "learning_rate": given.LEARNING_RATE,
        "topk": list(given.KS),
        "metrics": ["Hit", "Recall", "Precision", "NDCG", "MRR", "MAP"],
        "valid_metric": "NDCG@10",
        "epochs": task.epochs,
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "seed": task.seed,
        "checkpoint_dir": str(task.folder / "saved"),
    }
    config = Config(model=name, dataset=NAME, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    model = get_model(name)(config, train.dataset)
    return get_trainer(config["MODEL_TYPE"], name)(config, model), train, valid, test


def train(task: Task) -> None:
    trainer, part, _, _ = build(task)
    for epoch in range(task.epochs):
        METER.start()
        loss = trainer._train_epoch(part, epoch)  # `fit` would time its own validation and checkpoint too
        METER.stop()
    METER.write(task, loss=loss / len(part), steps=len(part) * task.epochs)


def evaluate(task: Task) -> None:
    trainer, _, _, test = build(task)
    METER.start()
    values = trainer.evaluate(test, load_best_model=False)
    METER.stop()
    METER.write(task, users=len(task.histories.lengths), ndcg=float(values["ndcg@10"]))


def recommend(task: Task) -> None:
    """Its `full_sort_topk` answers users of its own test part only."""
    trainer, _, _, test = build(task)
    users = np.random.default_rng(task.seed).permutation(np.arange(1, test.dataset.user_num))
    if task.job == "recommend-many":
        asked = [users[: given.CROWD]] * 5
    else:
        asked = [users[[number]] for number in range(min(given.CALLS, len(users)))]

    def call(group: Any) -> Any:
        return full_sort_topk(group, trainer.model, test, k=10)

    METER.write(task, **time_calls(call, asked, METER))


if __name__ == "__main__":
    task = read_task()
    logging.disable(logging.WARNING)
    torch.set_num_threads(task.threads)
    write_events(task)
    os.chdir(task.folder)  # it writes a folder of logs wherever it runs
    jobs = {"evaluate": evaluate, "recommend-one": recommend, "recommend-many": recommend}
    jobs.get(task.job, train)(task)
