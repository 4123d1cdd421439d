import json
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


def test_evaluate_prints_one_json_object(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--evaluation.checkpoints", f"[{world.gpt2}, {world.bert}, {world.lora}]", "--json"]
    result = run_json(capfd, "evaluate", "--config", world.lora_recipe, *options)
    models = ["gpt2", "bert", "lora", "popularity", "recent-popularity", "markov", "sequential-rules"]
    assert list(result["models"]) == models
    assert result["targets"] == 24 and result["part"] == "test"
    for figures in result["models"].values():
        low, high = figures["intervals"]["ndcg@10"]
        assert 0 <= low <= figures["ndcg@10"] <= high <= 1
        assert set(figures["by_popularity"]) == {"head", "mid", "tail", "cold"}
    assert result["models"]["markov"]["hit@1"] == 1  # each item is followed by the next one of the circle
    kept = json.loads((world.folder / "lora" / "evaluation.json").read_text(encoding="utf-8"))
    assert kept == result


def test_evaluate_keeps_runs_of_one_name_apart(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(world.gpt2, tmp_path / "gpt2" / "model")
    options = ["--evaluation.checkpoints", f"[{world.gpt2}, {other}, {other}, {world.bert}]", "--json"]
    options += ["--evaluation.part", "valid", "--evaluation.baselines", "[popularity]"]
    result = run_json(capfd, "evaluate", "--config", world.lora_recipe, *options)
    assert list(result["models"]) == [str(world.gpt2), str(other), "bert", "popularity"]
    assert "; validation part; 24 targets" in result["protocol"] and "ties at mid-rank" in result["protocol"]


def test_test_figures_and_baselines_enter_the_card(world: World, tmp_path: Path) -> None:
    copy = shutil.copytree(world.gpt2, tmp_path / "copy")
    choice = ["--evaluation.checkpoints", f"[{copy}]", "--training.output_dir", str(tmp_path)]
    assert main(["evaluate", "--config", str(world.gpt2_recipe), *choice]) == 0
    result = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    info, card = read_info(copy), (copy / "README.md").read_text(encoding="utf-8")
    assert info.protocol == result["protocol"]
    assert info.metrics["ndcg@10"] == result["models"]["copy"]["ndcg@10"]
    assert info.metrics["popularity/ndcg@10"] == result["models"]["popularity"]["ndcg@10"]
    assert card.count("## Results") == 1
    assert "| popularity |" in card
    assert "validation part" not in card
    assert Recommender.from_pretrained(copy).recommend(["item 1"], 1)


def test_evaluation_without_the_seen_filter_is_the_checkpoints_setting(world: World, tmp_path: Path) -> None:
    choice = ["--evaluation.filter_seen", "false", "--training.output_dir", str(tmp_path / "run")]
    assert main(["pretrain", "--config", str(world.gpt2_recipe), *choice]) == 0
    info = read_info(tmp_path / "run" / "model")
    assert not info.filter_seen
    assert "items of the history are kept" in info.protocol


def test_repeats_may_be_allowed(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    options = ["--evaluation.allow_repeats", "true", "--evaluation.part", "valid", "--json"]
    result = run_json(capfd, "evaluate", "--config", world.gpt2_recipe, *options)
    assert "filtered unless they are the target" in result["protocol"]


def test_evaluate_prints_the_table_and_its_protocol(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--config", str(world.gpt2_recipe), "--evaluation.part", "valid"]) == 0
    output = capfd.readouterr().out
    for text in ("| gpt2 |", "| sequential-rules |", "Protocol: leave-one-out", "| ndcg@10 by popularity |"):
        assert text in output
    assert (world.folder / "gpt2" / "evaluation.md").read_text(encoding="utf-8") == output


def test_each_look_at_the_test_part_is_logged(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world.folder / "gpt2", tmp_path / "run")
    options = ["--training.output_dir", tmp_path / "run", "--evaluation.baselines", "[popularity]", "--json"]
    log = tmp_path / "run" / "looks.jsonl"
    log.unlink(missing_ok=True)
    run_json(
        capfd, "evaluate", "--config", world.gpt2_recipe, *options, "--evaluation.part", "valid"
    )  # no look
    assert not log.exists()
    elsewhere = ["--training.output_dir", tmp_path / "other"]
    elsewhere += ["--evaluation.checkpoints", f"[{tmp_path / 'run' / 'model'}]"]
    results = [
        run_json(capfd, "evaluate", "--config", world.gpt2_recipe, *options, *more)
        for more in ([], elsewhere)
    ]
    assert [result["look"] for result in results] == [1, 1]  # of each folder
    looks = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert len(looks) == 2 and looks[0]["data_fingerprint"] == results[0]["data_fingerprint"]
    assert looks[0]["figures"]["run"]["ndcg@10"] == results[0]["models"]["run"]["ndcg@10"]
    assert looks[0]["checkpoints"] == looks[1]["checkpoints"]
    assert looks[0]["checkpoints"]["run"].startswith("sha256:") and looks[0]["time"].endswith("+00:00")
    assert main(["evaluate", "--config", str(world.gpt2_recipe), *map(str, options[:-1])]) == 0
    assert "Look number 3 at the test part" in capfd.readouterr().out


def test_training_never_opens_the_test_part(world: World, tmp_path: Path) -> None:
    """The same weights come out with the test part as it is, damaged, and gone."""
    weights = []
    for name in ("whole", "damaged", "gone"):
        prepared = shutil.copytree(world.prepared, tmp_path / name)
        if name == "damaged":
            for file in (prepared / "test").iterdir():
                file.write_bytes(b"not to be read")
        if name == "gone":
            shutil.rmtree(prepared / "test")
        run = tmp_path / f"run-{name}"
        options = ["--data.prepared", str(prepared), "--training.output_dir", str(run)]
        assert main(["pretrain", "--config", str(world.gpt2_recipe), *options]) == 0
        weights.append((run / "model" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] == weights[2]
