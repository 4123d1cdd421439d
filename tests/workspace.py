"""A small world for the tests of the commands, made by the commands themselves."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbert.commands.main import main

ITEMS = [
    "a cup",
    "50% tea",
    "[MASK]",
    "ünï",
    "jam",
    "pan",
    "pot",
    "x,y",
    "🍵",
    "oat",
    "rye",
    "fig",
    "7",
    "08",
    "q",
    "z",
]
"""Sixteen item ids, some of them hard to spell as tokens."""

TINY_MODEL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.0}
TINY_TRAINING = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 8,
    "report_to": "none",
    "use_cpu": True,
}


def write_events(path: Path, users: int = 24, length: int = 6) -> Path:
    """Users who walk around the circle of items, each from another start; all times differ."""
    rows = ["user_id,item_id,timestamp"]
    for step in range(length):
        for user in range(users):
            item = ITEMS[(user + step) % len(ITEMS)]
            rows.append(f'u{user},"{item}",{1000 * step + user}')
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def write_recipe(path: Path, run: str, **sections: dict[str, Any]) -> Path:
    """A recipe of the tiny world beside its `events.csv`; sections given here are merged into it."""
    recipe: dict[str, dict[str, Any]] = {
        "data": {"events": str(path.parent / "events.csv"), "prepared": str(path.parent / "prepared")},
        "split": {"method": "leave-one-out"},
        "sequences": {"max_length": 5},
        "model": dict(TINY_MODEL),
        "training": {"output_dir": str(path.parent / run), **TINY_TRAINING},
        "evaluation": {"bootstrap": 20},
    }
    for name, values in sections.items():
        recipe[name] = {**recipe.get(name, {}), **values}
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    return path


@dataclasses.dataclass(frozen=True)
class World:
    """Paths of the prepared data, the recipes and the checkpoints."""

    folder: Path
    gpt2_recipe: Path
    bert_recipe: Path
    lora_recipe: Path

    @property
    def prepared(self) -> Path:
        return self.folder / "prepared"

    @property
    def gpt2(self) -> Path:
        return self.folder / "gpt2" / "model"

    @property
    def bert(self) -> Path:
        return self.folder / "bert" / "model"

    @property
    def lora(self) -> Path:
        return self.folder / "lora" / "model"


def build_world(folder: Path) -> World:
    """Events, recipes, prepared data and three checkpoints: two pretrained, one adapted."""
    write_events(folder / "events.csv")
    masked = {"name": "masked-item", "mask_rate": 0.3}
    world = World(
        folder,
        gpt2_recipe=write_recipe(folder / "gpt2.yaml", "gpt2"),
        bert_recipe=write_recipe(folder / "bert.yaml", "bert", model={"family": "bert"}, objective=masked),
        lora_recipe=write_recipe(
            folder / "lora.yaml", "lora", model={"base": str(folder / "gpt2" / "model")}, adapter={"r": 2}
        ),
    )
    steps = [
        ("prepare", world.gpt2_recipe),
        ("pretrain", world.gpt2_recipe),
        ("pretrain", world.bert_recipe),
        ("finetune", world.lora_recipe),
    ]
    for verb, recipe in steps:
        assert main([verb, "--config", str(recipe)]) == 0
    return world


def run_json(capfd: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """Run a command and parse all of its standard output as one JSON object."""
    capfd.readouterr()
    assert main([str(argument) for argument in arguments]) == 0
    output = capfd.readouterr().out
    assert output.count("\n") == 1
    return json.loads(output)
