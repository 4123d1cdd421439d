import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from recbert.commands.main import main
from recbert.recipe import load_recipe, recipe_parser

ROOT = Path(__file__).parents[2]
DEBUG = Path(__file__).with_name("debug.yaml")
YAMLS = sorted(ROOT.glob("recipes/**/*.y*ml"))
HARDWARE = [path for path in YAMLS if path.parent.name == "accelerate"]
RECIPES = [DEBUG, *(path for path in YAMLS if path not in HARDWARE)]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_recipe_can_be_read(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, _ = load_recipe(recipe_parser("pretrain"), ["--config", str(path)])
    assert recipe.training.output_dir, "training.output_dir is missing"
    assert recipe.data.events or recipe.data.prepared
    assert recipe.adapter is None or recipe.model.base, "an adapter needs model.base"
    assert list(tmp_path.iterdir()) == []  # reading writes nothing


@pytest.mark.parametrize("path", HARDWARE, ids=name)
def test_hardware_configuration_can_be_read(path: Path) -> None:
    assert load_config_from_file(str(path)).num_processes >= 1


def run_debug(folder: Path, events: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the debug recipe from events to metrics in a folder of its own."""
    folder.mkdir()
    shutil.copy(events, folder / "events.csv")
    monkeypatch.chdir(folder)
    for verb in ("prepare", "pretrain", "evaluate"):
        assert main([verb, "--config", str(DEBUG)]) == 0
    return json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))


def test_debug_recipe_gives_the_same_metrics_twice(
    tmp_path: Path, events_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (run_debug(tmp_path / name, events_csv, monkeypatch) for name in ("first", "second"))
    assert first == second
    assert len(first["models"]) == 6
    weights = [(tmp_path / name / "run/model/model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]
