import shutil
from pathlib import Path

import pytest

from recbert.checkpoint import read_info
from recbert.commands.main import main
from recbert.recommender import Recommender
from tests.workspace import World, build_world, run_json


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("name", ["gpt2", "bert", "lora"])
def test_blend_is_chosen_on_validation_and_evaluated(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    """The circle of items is all rules: an adapter and a masked-item model gain as a next-item one does."""
    model = shutil.copytree(getattr(world, name), tmp_path / name / "model")
    options = [
        "--config",
        str(getattr(world, f"{name}_recipe")),
        "--training.output_dir",
        str(tmp_path / name),
    ]
    unblended = Recommender.from_pretrained(model).recommend(["jam", "pan"], 3)
    assert main(["blend", *options]) == 0
    printed = capfd.readouterr().out
    assert "validation NDCG@10, the model alone: " in printed and "weight across and power down" in printed
    assert read_info(model).blend is not None
    answer = Recommender.from_pretrained(model).recommend(["jam", "pan"], 3)
    assert answer[0][0] == "pot" and answer != unblended

    figures = run_json(capfd, "evaluate", *options, "--json")["models"]
    assert list(figures)[:2] == [name, f"{name} with rules"]
    assert figures[f"{name} with rules"]["ndcg@10"] > figures[name]["ndcg@10"]
    kept = read_info(model).metrics
    assert kept["ndcg@10"] == figures[name]["ndcg@10"]
    assert kept["with rules/ndcg@10"] == figures[f"{name} with rules"]["ndcg@10"]
    assert "| with rules |" in (model / "README.md").read_text(encoding="utf-8")

    assert main(["blend", *options, "--off"]) == 0
    assert read_info(model).blend is None and "with rules/ndcg@10" not in read_info(model).metrics
    assert "rules.safetensors" not in (model / "README.md").read_text(encoding="utf-8")
    assert Recommender.from_pretrained(model).recommend(["jam", "pan"], 3) == unblended


def test_blend_of_another_run_is_refused(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--config", str(world.gpt2_recipe), "--training.output_dir", str(tmp_path)]
    assert main(["blend", *options]) == 2
    assert "train one with this recipe first" in capfd.readouterr().err
    model = shutil.copytree(world.gpt2, tmp_path / "model")
    text = (model / "recbert.json").read_text(encoding="utf-8")
    fingerprint = read_info(model).data_fingerprint
    (model / "recbert.json").write_text(text.replace(fingerprint, "sha256:other"), encoding="utf-8")
    assert main(["blend", *options]) == 2
    assert "was trained on other data than" in capfd.readouterr().err


def test_a_blend_asks_for_new_answers(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(world.gpt2, tmp_path / "run" / "model")
    request = ["recommend", "--checkpoint", str(model), "--histories", str(world.folder / "events.csv")]
    request += ["--output", str(tmp_path / "answers")]
    assert main(request) == 0 and main(request) == 0
    assert (
        main(["blend", "--config", str(world.gpt2_recipe), "--training.output_dir", str(tmp_path / "run")])
        == 0
    )
    assert main(request) == 2
    assert "holds the answers to another request" in capfd.readouterr().err
