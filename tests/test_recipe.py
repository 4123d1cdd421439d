from pathlib import Path
from typing import Any

import pytest
import yaml

from recbert.recipe import load_recipe, recipe_parser
from recbert.recipe.messages import valid_names

MINIMAL: dict[str, Any] = {"data": {"prepared": "prepared"}, "training": {"output_dir": "run"}}


def load(tmp_path: Path, sections: dict[str, Any] | None = None, *options: str) -> Any:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **(sections or {})}), encoding="utf-8")
    return load_recipe(recipe_parser("pretrain"), ["--config", str(path), *options])[0]


def message(tmp_path: Path, sections: dict[str, Any] | None = None, *options: str) -> str:
    with pytest.raises(ValueError) as caught:
        load(tmp_path, sections, *options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_of_the_sections(tmp_path: Path) -> None:
    recipe = load(tmp_path)
    assert (recipe.model.family, recipe.sequences.max_length, recipe.adapter) == ("gpt2", 200, None)
    assert recipe.training.metric_for_best_model == "ndcg@10"
    assert recipe.training.output_dir == "run"


def test_command_line_overrides_the_file(tmp_path: Path) -> None:
    model = {"model": {"hidden_size": 32, "dropout": 0.3}, "adapter": {"r": 2}}
    options = ["--model.hidden_size", "16", "--training.learning_rate", "1e-4", "--adapter.alpha=4"]
    options += ["--split.cuts", "[2015-01-01, 0.9]", "--split.cohort.keep", "rest"]
    recipe = load(tmp_path, model, *options)
    assert (recipe.model.hidden_size, recipe.model.dropout) == (16, 0.3)
    assert recipe.training.learning_rate == 1e-4
    assert (recipe.adapter.r, recipe.adapter.alpha) == (2, 4)
    assert recipe.split.cuts == ("2015-01-01", 0.9)
    assert (recipe.split.cohort.keep, recipe.split.cohort.fraction) == ("rest", 0.8)
    assert load(tmp_path, model, "--adapter", "null").adapter is None


def test_text_gives_the_same_recipe_again(tmp_path: Path) -> None:
    sections = {
        "split": {"method": "temporal", "cuts": ["2015-01-01", 0.9], "cohort": {"keep": "first"}},
        "data": {"prepared": "ünï", "clean": {"keep_event_types": ["buy"], "min_item_count": 5}},
        "adapter": {"r": 4, "target_modules": ["c_attn"]},
    }
    options = ["--training.lr_scheduler_type", "cosine", "--training.report_to", "none"]
    recipe = load(tmp_path, sections, *options, "--training.num_train_epochs", "3")
    (tmp_path / "again.yaml").write_text(recipe.text, encoding="utf-8")
    again, _ = load_recipe(recipe_parser("pretrain"), ["--config", str(tmp_path / "again.yaml")])
    assert again.text == recipe.text
    assert again.training.to_dict() == recipe.training.to_dict()
    for name in ("data", "split", "sequences", "model", "objective", "adapter", "evaluation"):
        assert getattr(again, name) == getattr(recipe, name)
    written = yaml.safe_load(recipe.text)["training"]
    assert written == {
        "output_dir": "run",
        "lr_scheduler_type": "cosine",
        "report_to": "none",
        "num_train_epochs": 3,
    }


UNKNOWN = [
    ({"modle": {"hidden_size": 8}}, "'modle.hidden_size': did you mean 'model.hidden_size'?"),
    ({"modle": 8}, "'modle': did you mean 'model'?"),
    ({"model": {"hiden_size": 8}}, "'model.hiden_size': did you mean 'model.hidden_size'?"),
    ({"training": {"learning_rat": 1}}, "'training.learning_rat': did you mean 'training.learning_rate'?"),
    (
        {"data": {"prepared": "x", "clean": {"min_item_cuont": 1}}},
        "'data.clean.min_item_cuont': did you mean 'data.clean.min_item_count'?",
    ),
    ({"adapter": {"alhpa": 1}}, "'adapter.alhpa': did you mean 'adapter.alpha'?"),
    ({"split": {"cohort": {"kep": "first"}}}, "'split.cohort.kep': did you mean 'split.cohort.keep'?"),
    ({"objective": {"xyz": 1}}, "'objective.xyz': allowed are "),
    ({"zzzzzzzz": 1}, "'zzzzzzzz': allowed are adapter, "),
]


@pytest.mark.parametrize(("sections", "expected"), UNKNOWN)
def test_unknown_key_in_the_file(tmp_path: Path, sections: dict[str, Any], expected: str) -> None:
    assert f"the recipe has the unknown key {expected}" in message(tmp_path, sections)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--model.hiden_size", "'model.hiden_size': did you mean 'model.hidden_size'?"),
        ("--model.hiden_size=3", "'model.hiden_size': did you mean 'model.hidden_size'?"),
        ("--data.clean.min_user", "'data.clean.min_user': did you mean 'data.clean.min_user_count'?"),
        ("--adapter.rank", "'adapter.rank': "),
        ("--split.cohort.kep", "'split.cohort.kep': did you mean 'split.cohort.keep'?"),
        ("--traning", "'traning': did you mean 'training'?"),
        ("--conf", "'conf': did you mean 'config'?"),  # no abbreviations
    ],
)
def test_unknown_option_on_the_command_line(tmp_path: Path, option: str, expected: str) -> None:
    arguments = [option] if "=" in option else [option, "1"]
    assert f"the recipe has the unknown key {expected}" in message(tmp_path, None, *arguments)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"model": {"hidden_size": "big"}}, "model.hidden_size is 'big': it must be a whole number"),
        ({"model": {"dropout": [1]}}, "model.dropout is '[1]': it must be a number"),
        ({"model": 3}, "model is 3: it must hold names and values"),
        ({"training": None}, "training is None: it must hold names and values"),
        ({"data": {"prepared": "x", "clean": 3}}, "data.clean is 3: it must hold names and values"),
        ({"adapter": 3}, "adapter is '3': it must be a section of names and values or null"),
        ({"data": {"prepared": "x", "separator": [1]}}, "data.separator is '[1]': it must be text or null"),
        ({"split": {"method": "temporl"}}, "split.method is 'temporl': it must be one of 'temporal', "),
        ({"split": {"cuts": [0.8]}}, "split.cuts is '[0.8]': it must be a list of 2 values"),
        (
            {"evaluation": {"baselines": ["best"]}},
            "evaluation.baselines is 'best': it must be one of 'popularity'",
        ),
        ({"data": {}}, "data.prepared"),
        ({"training": {"push_to_hub": True}}, "recbert push"),
        ({"training": {"early_stopping_patience": -1}}, "early_stopping_patience is -1"),
    ],
)
def test_wrong_values(tmp_path: Path, sections: dict[str, Any], expected: str) -> None:
    assert expected in message(tmp_path, sections)


def test_wrong_files_and_arguments(tmp_path: Path) -> None:
    assert "stray" in message(tmp_path, None, "stray")
    assert "absent.yaml" in message(tmp_path, None, "--config", str(tmp_path / "absent.yaml"))
    (tmp_path / "broken.yaml").write_text("data: [1\nmodel: 2", encoding="utf-8")
    assert "line 2" in message(tmp_path, None, "--config", str(tmp_path / "broken.yaml"))


def test_every_name_of_a_recipe_is_known_to_the_suggestions() -> None:
    names = set(valid_names())
    parsed = set(recipe_parser("pretrain").get_defaults().keys(branches=True))
    assert parsed <= names
    assert {"adapter.r", "split.cohort.fraction", "data.clean.min_item_count"} <= names
