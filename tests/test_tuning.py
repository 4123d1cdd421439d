import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbert.commands.main import main
from recbert.tuning import Measured, Range, Study, Value, read_space
from recbert.tuning import study as study_module
from tests.workspace import World, build_world, write_recipe

needs_optuna = pytest.mark.skipif(
    importlib.util.find_spec("optuna") is None, reason="needs the extra recbert[tune]"
)

SPACE: dict[str, Any] = {"x": {"low": 0.001, "high": 1, "log": True}, "kind": ["a", "b"]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def open_study(path: Path | str, name: str = "s", seed: int = 0, **changed: Any) -> Study:
    space = read_space({**SPACE, **changed.pop("space", {})})
    return Study(path, name, space, conditions={"data": "d", **changed}, seed=seed)


def climb(number: int, values: dict[str, Value], report: Measured) -> None:
    """Three evaluations that rise to x."""
    assert isinstance(values["x"], float)
    for share in (0.5, 1.0, 0.9):
        report(share * values["x"])


def test_space_is_read() -> None:
    space = read_space({**SPACE, "n": {"low": 1, "high": 8, "int": True}, "t": {"low": "1e-4", "high": 1}})
    assert space["x"] == Range(0.001, 1, log=True) and space["kind"] == ["a", "b"]
    assert space["n"] == Range(1, 8, whole=True) and space["t"] == Range(0.0001, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [[1]],
        {"low": 1},
        {"low": 2, "high": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": "a", "high": 1},
    ]
    + [
        {"low": 0.5, "high": 2, "int": True},
        {"low": 0, "high": 1, "step": 1},
        {"low": 0, "high": 1, "log": 3},
    ],
)
def test_wrong_dimensions_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=r"tune\.space\.training\.seed"):
        read_space({"training.seed": wrong})


def test_an_empty_space_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tune\.space is empty"):
        read_space({})


def test_without_optuna_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_module, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'recbert\[tune\]'"):
        open_study(tmp_path / "journal")


@needs_optuna
def test_a_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    open_study(tmp_path / "whole").run(12, climb)
    whole = open_study(tmp_path / "whole").summaries()
    open_study(tmp_path / "parts").run(5, climb)
    open_study(tmp_path / "parts").run(12, climb)
    parts = open_study(tmp_path / "parts")
    assert [summary.values for summary in parts.summaries()] == [summary.values for summary in whole]
    assert [summary.number for summary in whole] == list(range(12))
    assert all(summary.evaluations == 3 and summary.minutes is not None for summary in whole)
    best = parts.best()
    assert best.best == best.values["x"] == max(summary.values["x"] for summary in whole)  # type: ignore[type-var]


@needs_optuna
def test_another_seed_draws_other_values(tmp_path: Path) -> None:
    drawn = []
    for seed in (0, 1):
        study = open_study(tmp_path / "journal", f"seed{seed}", seed)
        study.run(3, climb)
        drawn.append([summary.values["x"] for summary in study.summaries()])
    assert len({*drawn[0], *drawn[1]}) == 6


@needs_optuna
def test_failures_end_a_trial_and_not_the_study(tmp_path: Path) -> None:
    def fail_first(number: int, values: dict[str, Value], report: Measured) -> None:
        if number == 0:
            raise ValueError("the loss is NaN")
        climb(number, values, report)

    study = open_study(tmp_path / "journal")
    study.run(3, fail_first)
    assert [summary.outcome for summary in study.summaries()] == ["failed", "done", "done"]
    assert study.summaries()[0].reason == "the loss is NaN"
    with pytest.raises(ValueError, match="no trial .* ran to its end: no evaluation"):
        only = open_study(tmp_path / "journal", "none")
        only.run(2, lambda number, values, report: _raise("no evaluation"))
        only.best()


def _raise(message: str) -> None:
    raise ValueError(message)


@needs_optuna
def test_an_interrupted_trial_is_queued_again(tmp_path: Path) -> None:
    def interrupt(number: int, values: dict[str, Value], report: Measured) -> None:
        if number == 2:
            raise KeyboardInterrupt
        climb(number, values, report)

    open_study(tmp_path / "whole").run(4, climb)
    study = open_study(tmp_path / "journal")
    with pytest.raises(KeyboardInterrupt):
        study.run(4, interrupt)
    assert len(study.summaries()) == 2
    again = open_study(tmp_path / "journal")
    again.run(4, climb)
    whole = open_study(tmp_path / "whole").summaries()
    assert again.summaries()[2].values == whole[2].values and len(again.summaries()) == 4


@needs_optuna
def test_trials_of_a_killed_process_are_queued_again(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from tests.test_tuning import open_study\n"
        "open_study(sys.argv[1]).run(1, lambda *given: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "journal")], check=False)
    study = open_study(tmp_path / "journal")
    assert study.summaries() == []
    study.run(1, climb)
    (only,) = study.summaries()
    open_study(tmp_path / "whole").run(1, climb)
    assert only.values == open_study(tmp_path / "whole").summaries()[0].values


@needs_optuna
def test_a_running_trial_of_another_process_counts(tmp_path: Path) -> None:
    def meanwhile(number: int, values: dict[str, Value], report: Measured) -> None:
        other = open_study(tmp_path / "journal")
        assert [summary.outcome for summary in other.summaries()][number:] == ["running"]
        if number == 0:
            other.run(1, climb)  # that one runs here already
        climb(number, values, report)

    open_study(tmp_path / "journal").run(2, meanwhile)
    assert len(open_study(tmp_path / "journal").summaries()) == 2


@needs_optuna
@pytest.mark.parametrize("pruner", ["median", "asha", "none"])
def test_pruning_stops_what_is_behind(tmp_path: Path, pruner: Any) -> None:
    def go(number: int, values: dict[str, Value], report: Measured) -> None:
        for epoch in range(1, 9):
            if report(epoch / 10 if number < 6 else 0.0):
                return

    study = Study(tmp_path / "journal", "s", read_space(SPACE), conditions={}, pruner=pruner)
    study.run(8, go)
    outcomes = [summary.outcome for summary in study.summaries()]
    assert outcomes[6:] == (["done"] * 2 if pruner == "none" else ["pruned"] * 2)
    assert (study.summaries()[7].evaluations < 8) == (pruner != "none")


@needs_optuna
def test_a_low_metric_may_be_the_good_one(tmp_path: Path) -> None:
    study = Study(tmp_path / "journal", "s", read_space(SPACE), conditions={}, maximise=False)
    study.run(3, climb)
    lowest = min(float(str(summary.values["x"])) for summary in study.summaries())
    assert study.best().values["x"] == lowest and study.best().best == lowest / 2


@needs_optuna
def test_a_database_is_a_storage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    open_study(url).run(2, climb)
    open_study(tmp_path / "journal").run(2, climb)
    values = [summary.values for summary in open_study(url).summaries()]
    assert values == [summary.values for summary in open_study(tmp_path / "journal").summaries()]
    with pytest.raises(ValueError, match=r"tune\.storage is 'nosql://x', which cannot be opened"):
        open_study("nosql://x")


@needs_optuna
@pytest.mark.parametrize(("changed", "key"), [({"data": "e"}, "data"), ({"space": {"y": [1]}}, "space")])
def test_a_study_keeps_its_conditions(tmp_path: Path, changed: dict[str, Any], key: str) -> None:
    open_study(tmp_path / "journal")
    with pytest.raises(ValueError, match=f"begun with {key} .*: give tune.study another name"):
        open_study(tmp_path / "journal", **changed)


TUNE = {
    "space": {
        "training.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
        "model.hidden_size": [8, 10],
    },
    "trials": 3,
}


@needs_optuna
def test_tune_writes_the_best_recipe(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (world.prepared / "test").rename(tmp_path / "test")  # only the validation part may be seen
    try:
        recipe = write_recipe(world.folder / "tune.yaml", "tuned", tune=TUNE)
        assert main(["tune", "--config", str(recipe)]) == 0
        output = capfd.readouterr().out
        run = world.folder / "tuned"
        assert list(run.glob("*/*")) == []  # trials keep no checkpoints
        assert sorted(path.name for path in run.iterdir() if path.is_file()) == [
            "best.yaml",
            "study.journal",
            "trials.md",
        ]
        assert "| trial | validation ndcg@10 | evaluations | minutes | model.hidden_size |" in output
        table = (run / "trials.md").read_text(encoding="utf-8")
        assert table.count("| done |") == 3 and table in output
        text = (run / "best.yaml").read_text(encoding="utf-8")
        best = yaml.safe_load(text)
        assert "tune" not in best and best["training"]["output_dir"] == str(run / "best")
        assert main(["pretrain", "--config", str(run / "best.yaml")]) == 0
        capfd.readouterr()
        info = json.loads((run / "best" / "model" / "recbert.json").read_text(encoding="utf-8"))
        # The kept epoch of the full training is the best evaluation of the trial.
        assert f"validation ndcg@10 {info['metrics']['ndcg@10']:.4f}" in text.partition("\n")[0]
        assert main(["tune", "--config", str(recipe)]) == 0  # nothing is left to do
        assert capfd.readouterr().out.startswith(table)
    finally:
        (tmp_path / "test").rename(world.prepared / "test")


@needs_optuna
def test_a_diverged_trial_fails(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tune = {"space": {"training.learning_rate": [1e-2, 1e30]}, "trials": 4}
    recipe = write_recipe(world.folder / "nan.yaml", str(tmp_path / "run"), tune=tune)
    assert main(["tune", "--config", str(recipe)]) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if "| 1e+30 |" in line]
    assert rows and all("| failed: " in row for row in rows)


@needs_optuna
def test_an_adapter_is_tuned_too(world: World, tmp_path: Path) -> None:
    options = [
        "--tune.space",
        "{adapter.r: [1, 2]}",
        "--tune.trials",
        "1",
        "--training.output_dir",
        str(tmp_path),
    ]
    assert main(["tune", "--config", str(world.lora_recipe), *options]) == 0
    best = yaml.safe_load((tmp_path / "best.yaml").read_text(encoding="utf-8"))
    assert best["adapter"]["r"] in (1, 2) and best["model"]["base"]


@pytest.mark.parametrize(
    ("space", "text"),
    [
        ("{training.learning_rat: [1e-3]}", "did you mean 'training.learning_rate'?"),
        ("{sequences.max_length: [5, 6]}", "the prepared data depends on sequences"),
        ("{evaluation.filter_seen: [true, false]}", "only be compared where it is the same"),
        ("{training.output_dir: [a, b]}", "only be compared where it is the same"),
        ("{model.hidden_size: [8, wide]}", "model.hidden_size is"),
        ("{model.hidden_size: {low: 8}}", "tune.space.model.hidden_size is"),
        ("{}", "tune.space is empty"),
    ],
)
def test_wrong_spaces_are_refused_before_the_first_trial(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], space: str, text: str
) -> None:
    options = ["--tune.space", space, "--training.output_dir", str(tmp_path / "run")]
    assert main(["tune", "--config", str(world.gpt2_recipe), *options]) == 2
    assert text in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_tuning_needs_an_evaluation(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--tune.space", "{model.dropout: [0.1]}", "--training.eval_strategy", "no"]
    options += ["--training.load_best_model_at_end", "false"]
    assert main(["tune", "--config", str(world.gpt2_recipe), *options]) == 2
    assert "training.eval_strategy is 'no'" in capfd.readouterr().err
