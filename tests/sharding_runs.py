"""What two processes check about a split item table; each check compares with the whole table.

Run under torch.multiprocessing: every function `check_*` runs in both processes at once, and what it raises
is written beside the other results, by which tests/test_sharding.py knows it.
"""

import datetime
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from packaging.version import Version
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, set_seed

from recbert.models import build_model, hidden_only, item_table
from recbert.sharding import (
    item_mesh,
    item_tables,
    load_sharded,
    own_slice,
    read_weights,
    shard_items,
    tables,
    write_tables,
)
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer
from recbert.training import RecTrainer
from tests import sharding_tables
from tests.sharding_tables import ROWS, own_part, rank
from tests.training_runs import (
    BEST_EPOCH,
    MAX_LENGTH,
    TOKENIZER,
    TRAIN,
    VALID,
    figures,
    losses,
    tiny_arguments,
    tiny_objective,
)

MODELS = [("gpt2", "next-item"), ("gru", "next-item"), ("bert", "masked-item"), ("distilbert", "masked-item")]
UNKNOWN = {"user_id": "new", "input_ids": [1, 72], "timestamps": [0.0, 1.0], "is_target": [False, True]}
TARGETS = [*VALID, UNKNOWN]
VOCABULARY = ItemTokenizer.from_items([f"item {number:02}" for number in range(ROWS - FIRST_ITEM_ID)])


def check_models_equal_and_checkpoints_are_stock(folder: Path) -> None:
    ids = torch.randint(FIRST_ITEM_ID, ROWS, (6, 5), generator=torch.Generator().manual_seed(1))
    for family, objective in MODELS:
        set_seed(3)
        whole = build_model(
            family,
            VOCABULARY,
            objective=objective,
            hidden_size=8,
            num_hidden_layers=1,
            dropout=0.0,
            max_length=8,
        ).eval()
        for bias in (parameter for parameter in whole.parameters() if parameter.shape == (ROWS,)):
            torch.nn.init.normal_(bias)
        one, two = folder / f"{family}-one", folder / f"{family}-two"
        if rank() == 0:
            whole.save_pretrained(one)
        distributed.barrier()
        model = load_sharded(one, item_mesh(), objective=objective)
        with hidden_only(model), hidden_only(whole):
            assert torch.equal(model(input_ids=ids).logits, whole(input_ids=ids).logits)
        if rank() == 0:
            model.save_pretrained(two)
        distributed.barrier()
        write_tables(model, two)
        assert (two / "config.json").read_text() == (one / "config.json").read_text()
        auto = AutoModelForCausalLM if objective == "next-item" else AutoModelForMaskedLM
        again, loading = auto.from_pretrained(two, output_loading_info=True)
        assert not any(loading.values()), loading
        for name, tensor in whole.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor), name
        for table in item_tables(model).values():
            own_slice(table).zero_()
        read_weights(model, two)
        with hidden_only(model), hidden_only(whole):
            assert torch.equal(model(input_ids=ids).logits, whole(input_ids=ids).logits)


def check_fresh_rows_do_not_depend_on_the_processes(folder: Path) -> None:
    groups = [distributed.new_group([0]), distributed.new_group([1])]
    alone = DeviceMesh.from_group(groups[rank()], "cpu")
    tables._BLOCK_ROWS = 16
    for family, padded in (("gpt2", False), ("bert", True), ("gru", True)):
        objective = "masked-item" if family == "bert" else "next-item"
        weights = []
        for mesh in (alone, item_mesh()):
            model = build_model(family, ItemTokenizer(["any"]), objective=objective, hidden_size=8)
            shard_items(model, ROWS, mesh, seed=5)
            assert model.get_input_embeddings().weight.shape == (ROWS, 8)
            assert model.config.vocab_size == ROWS
            weights.append(own_slice(item_table(model)[0]))  # type: ignore[arg-type]
        whole, own = weights
        assert torch.equal(own_part(whole), own)
        assert len(whole.unique(dim=0)) == ROWS
        assert bool(whole[0].eq(0).all()) == padded and not bool(whole[16].eq(0).any())
    tables._BLOCK_ROWS = 1 << 16


def sharded_trainer(folder: Path, **changes: Any) -> RecTrainer:
    """A trainer of a masked-item model whose table and bias are split."""
    set_seed(0)
    model = build_model(
        "bert",
        ItemTokenizer(["any"]),
        objective="masked-item",
        hidden_size=16,
        num_hidden_layers=1,
        dropout=0.0,
        max_length=MAX_LENGTH,
    )
    shard_items(model, len(TOKENIZER), item_mesh(), seed=1)
    arguments = tiny_arguments(
        folder, per_device_train_batch_size=2, gradient_accumulation_steps=2, **changes
    )
    return RecTrainer(
        model, arguments, objective=tiny_objective("masked-item"), data={"train": TRAIN, "valid": TARGETS}
    )


def check_training_saves_and_resumes(folder: Path) -> None:
    trainer = sharded_trainer(folder / "run", **BEST_EPOCH, num_train_epochs=4)
    trainer.train()
    trainer.save_model(folder / "trained")
    steps = losses(trainer)
    assert sum(steps[-2:]) < sum(steps[:2])
    # Older ones cannot restore the optimiser of two CPU processes: torch knows no place "cpu:0".
    if Version(transformers.__version__) >= Version("5.23"):
        checkpoints = sorted((folder / "run").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
        resumed = sharded_trainer(folder / "resumed", **BEST_EPOCH, num_train_epochs=4)
        resumed.train(resume_from_checkpoint=str(checkpoints[0]))
        assert figures(resumed)[-1] == figures(trainer)[-1]
        for again, table in zip(*(item_tables(t.model).values() for t in (resumed, trainer)), strict=True):
            torch.testing.assert_close(own_slice(again), own_slice(table))
    evaluated = trainer.evaluate()
    if rank() == 0:
        np.save(folder / "ranks.npy", trainer.ranking.ranks)  # type: ignore[union-attr]
        np.save(folder / "top.npy", trainer.ranking.top)  # type: ignore[union-attr]
    assert evaluated["eval_ndcg@10"] == max(entry["eval_ndcg@10"] for entry in figures(trainer))


CHECKS: dict[str, Callable[[Path], None]] = {
    name.removeprefix("check_"): function
    for name, function in [*vars(sharding_tables).items(), *globals().items()]
    if name.startswith("check_")
}


def run(place: int, folder: str) -> None:
    """Run all checks in one of two processes; the first failure ends them."""
    torch.set_num_threads(1)
    accelerate = {
        "RANK": place,
        "LOCAL_RANK": place,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_PORT": 0,
    }
    os.environ |= {name: str(value) for name, value in accelerate.items()} | {"MASTER_ADDR": "localhost"}
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=place,
        world_size=2,
        timeout=datetime.timedelta(seconds=30),
    )
    for name, check in CHECKS.items():
        set_seed(0)
        outcome = Path(folder, f"{name}-{place}.txt")
        try:
            check(Path(folder))
        except BaseException:
            outcome.write_text(traceback.format_exc())
            raise
        outcome.write_text("")
    distributed.barrier()
    distributed.destroy_process_group()
