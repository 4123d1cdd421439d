"""RePlay 0.22: SasRec on its parquet pipeline, and Bert4Rec, which exists in its older interface only.

Variants beside the defaults: `length-bucket` wraps the encoder in LengthBucketedQueryEncoder, `restricted` is
Bert4Rec's loss on masked positions only. Both have to be asked for.
"""

import logging
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import torch
from lightning import Callback, Trainer, seed_everything
from replay.data import FeatureHint, FeatureSource, FeatureType
from replay.data.nn import PandasSequentialDataset, TensorFeatureInfo, TensorFeatureSource, TensorSchema
from replay.data.nn.parquet import ParquetModule
from replay.models.nn.optimizer_utils import FatOptimizerFactory
from replay.models.nn.sequential.bert4rec import Bert4Rec, Bert4RecTrainingDataset
from replay.nn.lightning import LightningModule
from replay.nn.lightning.callback import ComputeMetricsCallback
from replay.nn.lightning.optimizer import OptimizerFactory
from replay.nn.lightning.postprocessor import SeenItemsFilter
from replay.nn.loss import CESampled
from replay.nn.sequential import LengthBucketedQueryEncoder, SasRec
from replay.nn.transform import UniformNegativeSamplingTransform
from replay.nn.transform.template import make_default_sasrec_transforms
from torch.utils.data import DataLoader

from benchmarks.peers import task as given
from benchmarks.peers.task import Meter, Task, read_task

METER = Meter()
BUCKET = 32  # rows of a batch that the length-bucketed encoder pads together


class Laps(Callback):
    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        METER.start()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        METER.stop()


def build_schema(num_items: int, padding: int) -> TensorSchema:
    return TensorSchema(
        TensorFeatureInfo(
            "item_id",
            is_seq=True,
            feature_type=FeatureType.CATEGORICAL,
            embedding_dim=given.HIDDEN,
            padding_value=padding,
            cardinality=num_items,
            feature_hint=FeatureHint.ITEM_ID,
            feature_sources=[TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")],
        )
    )


def build_sasrec(task: Task, schema: TensorSchema) -> Any:
    """SasRec at the sizes of all libraries; its feed-forward layers are as wide as the model by default."""
    model = SasRec.from_params(
        schema,
        embedding_dim=given.HIDDEN,
        num_heads=given.HEADS,
        num_blocks=given.LAYERS,
        max_sequence_length=given.LENGTH,
        dropout=given.DROPOUT,
    )
    if "length-bucket" in task.variant:
        model.body.encoder = LengthBucketedQueryEncoder(model.body.encoder, BUCKET)
    if task.job == "sampled-softmax":
        model.loss = CESampled()
        model.loss.logits_callback = model.get_logits
    return LightningModule(model, optimizer_factory=OptimizerFactory(learning_rate=given.LEARNING_RATE))


def build_trainer(*callbacks: Callback, **limits: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator=given.DEVICE,
        devices=1,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **quiet,
        **limits,
    )


def train_sasrec(task: Task) -> None:
    num_items = task.histories.num_items
    schema = build_schema(num_items, padding=num_items)
    path = task.folder / "train.parquet"
    rows = [row[-given.LENGTH - 1 :] for row in task.train.rows() if len(row) > 1]
    pyarrow.parquet.write_table(pa.table({"item_id": pa.array(rows)}), path)
    transforms = {"train": make_default_sasrec_transforms(schema)["train"]}
    if task.job == "sampled-softmax":
        transforms["train"].append(UniformNegativeSamplingTransform(num_items, given.NEGATIVES))
    module = ParquetModule(
        batch_size=given.BATCH,
        metadata={"train": {"item_id": {"shape": given.LENGTH + 1, "padding": num_items}}},
        transforms=transforms,
        train_path=str(path),
    )
    precision = {"precision": "bf16-mixed"} if task.variant == "bf16" else {}
    trainer = build_trainer(Laps(), max_epochs=task.epochs, limit_val_batches=0, **precision)
    trainer.fit(build_sasrec(task, schema), datamodule=module)
    METER.write(task, loss=float(trainer.callback_metrics["train_loss_epoch"]), steps=trainer.global_step)


def train_bert4rec(task: Task) -> None:
    num_items = task.histories.num_items
    schema = build_schema(num_items, padding=0)  # the older interface has no row beyond the items'
    rows = [row[-given.LENGTH :] for row in task.train.rows()]
    frame = pd.DataFrame({"user_id": np.arange(len(rows)), "item_id": rows})
    dataset = Bert4RecTrainingDataset(
        PandasSequentialDataset(schema, "user_id", "item_id", frame),
        given.LENGTH,
        mask_prob=given.MASK_RATE,
        padding_value=0,
    )
    model = Bert4Rec(
        schema,
        block_count=given.LAYERS,
        head_count=given.HEADS,
        hidden_size=given.HIDDEN,
        max_seq_len=given.LENGTH,
        dropout_rate=given.DROPOUT,
        enable_embedding_tying=True,
        loss_type="CE_restricted" if task.variant == "restricted" else "CE",
        optimizer_factory=FatOptimizerFactory(learning_rate=given.LEARNING_RATE),
    )
    trainer = build_trainer(Laps(), max_epochs=task.epochs, limit_val_batches=0)
    trainer.fit(model, DataLoader(dataset, batch_size=given.BATCH, shuffle=True))
    METER.write(task, loss=float(trainer.callback_metrics["train_loss_epoch"]), steps=trainer.global_step)


def evaluate(task: Task) -> None:
    """Recall, precision, NDCG, MAP and MRR; no coverage, which would cost it more."""
    num_items = task.histories.num_items
    schema = build_schema(num_items, padding=num_items)
    seen = task.histories.without_last(1)
    last = task.histories.items[task.histories.offsets[1:] - 1]
    columns = {
        "item_id": [row[-given.LENGTH :] for row in seen.rows()],
        "seen_ids": seen.rows(),
        "ground_truth": last[:, None].tolist(),
    }
    path = task.folder / "valid.parquet"
    pyarrow.parquet.write_table(pa.table({name: pa.array(rows) for name, rows in columns.items()}), path)
    longest = int(seen.lengths.max())
    shapes = {"item_id": (given.LENGTH, num_items), "seen_ids": (longest, -2), "ground_truth": (1, -1)}
    metadata = {name: {"shape": size, "padding": padding} for name, (size, padding) in shapes.items()}
    module = ParquetModule(
        batch_size=256,
        metadata={"validate": metadata},
        transforms={"validate": make_default_sasrec_transforms(schema)["validate"]},
        validate_path=str(path),
    )
    metrics: Any = ["recall", "precision", "ndcg", "map", "mrr"]
    filters = [SeenItemsFilter(num_items)]
    callback = ComputeMetricsCallback(metrics, list(given.KS), filters, num_items, verbose=False)
    trainer, model = build_trainer(callback), build_sasrec(task, schema)
    METER.start()
    values = trainer.validate(model, datamodule=module, verbose=False)[0]
    METER.stop()
    METER.write(task, users=len(seen.lengths), ndcg=float(values["ndcg@10"]))


if __name__ == "__main__":
    task = read_task()
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(task.threads)
    pa.set_cpu_count(task.threads)
    pa.set_io_thread_count(task.threads)
    seed_everything(task.seed, verbose=False)
    {"masked-item": train_bert4rec, "evaluate": evaluate}.get(task.job, train_sasrec)(task)
