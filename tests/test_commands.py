import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM

from recbert.checkpoint import hash_base, read_info
from recbert.commands.main import VERBS, main
from recbert.recipe import load_recipe, recipe_parser
from recbert.recommender import Recommender
from recbert.sequences import read_prepared
from tests.workspace import ITEMS, World, build_world, run_json, write_events, write_recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def write_histories(path: Path, histories: dict[str, list[str]]) -> Path:
    pq.write_table(pa.table({"user_id": list(histories), "history": list(histories.values())}), path)
    return path


def test_prepared_folder_holds_data_vocabulary_manifest_and_report(world: World) -> None:
    names = {path.name for path in world.prepared.iterdir()}
    assert names >= {"train", "valid", "test", "tokenizer", "manifest.json", "README.md", "report"}
    assert {path.name for path in (world.prepared / "report").iterdir()} == {
        "report.json",
        "report.md",
        "report.png",
    }
    assert not [path for path in world.folder.iterdir() if path.name.startswith(".")]


def test_checkpoints_hold_what_may_be_published(world: World) -> None:
    common = {"tokenizer.json", "tokenizer_config.json", "recbert.json", "recipe.yaml", "README.md"}
    whole = common | {"config.json", "model.safetensors"}
    assert {path.name for path in world.gpt2.iterdir()} - {"generation_config.json"} == whole
    assert {path.name for path in world.bert.iterdir()} == whole
    adapter = {path.name for path in world.lora.iterdir()}
    assert adapter == common | {"adapter_config.json", "adapter_model.safetensors"}
    assert read_info(world.lora).base_hash == hash_base(world.gpt2)
    manifest = json.loads((world.prepared / "manifest.json").read_text(encoding="utf-8"))
    assert read_info(world.gpt2).data_fingerprint == manifest["fingerprint"]
    assert f"{manifest['protocol']}; validation part" in read_info(world.gpt2).protocol
    assert read_info(world.gpt2).metrics


def test_recipe_of_a_checkpoint_is_the_recipe_that_made_it(world: World) -> None:
    for folder, path in ((world.gpt2, world.gpt2_recipe), (world.lora, world.lora_recipe)):
        made_by, _ = load_recipe(recipe_parser("pretrain"), ["--config", str(path)])
        kept, _ = load_recipe(recipe_parser("pretrain"), ["--config", str(folder / "recipe.yaml")])
        assert (folder / "recipe.yaml").read_text(encoding="utf-8") == made_by.text == kept.text
        assert (kept.model, kept.adapter, kept.sequences) == (
            made_by.model,
            made_by.adapter,
            made_by.sequences,
        )


def test_recipe_of_a_checkpoint_tells_how_its_data_was_made(world: World, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    options = ["--data.prepared", str(world.prepared), "--training.output_dir", run, "--sequences.max_length"]
    options += ["5", "--training.max_steps", "1", "--training.report_to", "none"]
    options += ["--training.hub_token", "hf_secret", "--training.use_cpu", "true"]
    assert main(["pretrain", *options]) == 0
    files = {path.name: path.read_bytes() for path in Path(run, "model").iterdir()}
    assert not any(b"hf_secret" in content for content in files.values())
    kept, _ = load_recipe(recipe_parser("pretrain"), ["--config", f"{run}/model/recipe.yaml"])
    made, _ = load_recipe(recipe_parser("pretrain"), ["--config", str(world.gpt2_recipe)])
    assert (kept.data, kept.split, kept.sequences) == (made.data, made.split, made.sequences)


@pytest.mark.parametrize("kind", ["gpt2", "bert", "lora"])
def test_program_of_the_card_recommends(world: World, kind: str) -> None:
    folder = world.folder / kind / "model"
    card = (folder / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(import recbert\n.*?)```", card, re.DOTALL)
    program = program.replace("path/or/hub-id", str(folder)).replace('["item id", "..."]', '["jam"]')
    names: dict[str, Any] = {}
    exec(program.replace("recommender.recommend", "answer = recommender.recommend"), names)
    assert names["answer"] == Recommender.from_pretrained(folder).recommend(["jam"], k=10)


def test_vocabulary_and_cohort_for_a_later_period(world: World, tmp_path: Path) -> None:
    for keep, users in (("first", 18), ("rest", 6)):
        options = ["--data.prepared", str(tmp_path / keep), "--split.cohort.keep", keep]
        options += ["--split.cohort.fraction", "0.75", "--data.vocabulary", str(world.gpt2)]
        assert main(["prepare", "--config", str(world.gpt2_recipe), *options]) == 0
        manifest = json.loads((tmp_path / keep / "manifest.json").read_text(encoding="utf-8"))
        assert manifest["counts"]["train"]["users"] == users
        assert "% of users who joined" in manifest["protocol"]
        assert manifest["items"] == len(ITEMS)


def test_a_cohort_is_chosen_among_the_events_that_have_a_time(tmp_path: Path) -> None:
    text = write_events(tmp_path / "events.csv").read_text(encoding="utf-8")
    (tmp_path / "events.csv").write_text(text + "u0,jam,\n", encoding="utf-8")
    recipe = write_recipe(tmp_path / "r.yaml", "run", split={"cohort": {"keep": "first", "fraction": 0.5}})
    assert main(["prepare", "--config", str(recipe)]) == 2
    assert main(["prepare", "--config", str(recipe), "--data.clean.drop_invalid", "true"]) == 0
    report = json.loads((tmp_path / "prepared" / "report" / "report.json").read_text(encoding="utf-8"))
    assert [(step["name"], step["rows_in"] - step["rows_out"]) for step in report["steps"]] == [
        ("drop_invalid", 1)
    ]
    assert report["statistics"]["users"] == 12


def test_recommend_prints_one_json_object(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["recommend", "--checkpoint", world.gpt2, "--json", "--k", 3]
    result = run_json(capfd, *command, "--history", "jam", "never seen", "pan")
    assert result["answered_by"] == "model" and result["unknown_items"] == ["never seen"]
    expected = Recommender.from_pretrained(world.gpt2).recommend(["jam", "pan"], 3)
    answer = [(row["item_id"], pytest.approx(row["score"])) for row in result["recommendations"]]
    assert answer == expected
    for history in (["never seen"], []):
        result = run_json(capfd, *command, "--history", *history)
        assert result["answered_by"] == "popularity" and len(result["recommendations"]) == 3
    result = run_json(capfd, *command, "--history", "jam", "--candidates", "oat", "rye", "--exclude", "oat")
    assert [row["item_id"] for row in result["recommendations"]] == ["rye"]
    result = run_json(capfd, *command[:-2], "--k", 99, "--history", "jam", "--no-filter-seen")
    assert {row["item_id"] for row in result["recommendations"]} == set(ITEMS)


def test_recommend_shows_titles(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\njam,Plum jam\nrye,Rye bread\n", encoding="utf-8")
    options = ["--history", "jam", "--candidates", "rye", "--items", str(items)]
    assert main(["recommend", "--checkpoint", str(world.lora), *options]) == 0
    output = capfd.readouterr().out
    assert "Plum jam" in output and "Rye bread" in output


def test_answers_to_files_are_sharded_and_resumed(world: World, tmp_path: Path) -> None:
    histories = {"ann": ["jam", "pan"], "bob": ["rye"], "cleo": [], "dan": ["unknown", "fig"], "eve": ["z"]}
    files = write_histories(tmp_path / "histories.parquet", histories)
    command = ["recommend", "--checkpoint", str(world.gpt2), "--histories", str(files), "--shard-size", "2"]
    command += ["--k", "4", "--batch-size", "1", "--output", str(tmp_path / "answers")]
    assert main(command) == 0
    shards = sorted((tmp_path / "answers").glob("part-*.parquet"))
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    assert len(shards) == 3 and [row["user_id"] for row in rows] == list(histories)
    recommender = Recommender.from_pretrained(world.gpt2)
    for row in rows:
        expected = recommender.recommend(histories[row["user_id"]], 4)
        assert row["item_ids"] == [item for item, _ in expected]
        assert row["scores"] == pytest.approx([score for _, score in expected], abs=1e-5)
        assert row["answered_by"] == ("popularity" if row["user_id"] == "cleo" else "model")

    content, times = shards[1].read_bytes(), [shard.stat().st_mtime_ns for shard in shards]
    shards[1].unlink()
    assert main(command) == 0
    assert shards[1].read_bytes() == content
    assert [shards[i].stat().st_mtime_ns for i in (0, 2)] == [times[0], times[2]]
    assert main([*command, "--k", "5"]) == 2  # another request must not be mixed in


def test_histories_may_be_events(world: World, tmp_path: Path) -> None:
    command = ["recommend", "--checkpoint", str(world.gpt2), "--output", str(tmp_path / "answers")]
    assert main([*command, "--histories", str(world.folder / "events.csv")]) == 0
    table = pq.read_table(tmp_path / "answers" / "part-00000.parquet")
    assert len(table) == 24
    expected = Recommender.from_pretrained(world.gpt2).recommend([ITEMS[i] for i in range(6)], 10)
    answer = table.to_pylist()[table["user_id"].to_pylist().index("u0")]
    assert answer["item_ids"] == [item for item, _ in expected]


def test_histories_may_be_a_folder_with_columns_of_other_names(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "clicks"
    folder.mkdir()
    (folder / "a.csv").write_text("who,what,when\nann,pan,2024-01-02\nann,jam,2024-01-01\n")
    command = ["recommend", "--checkpoint", str(world.gpt2), "--output", str(tmp_path / "answers")]
    columns = ["--user", "who", "--item", "what", "--time", "when", "--time-unit", "iso"]
    assert main([*command, "--histories", str(folder), *columns]) == 0
    (row,) = pq.read_table(tmp_path / "answers" / "part-00000.parquet").to_pylist()
    expected = Recommender.from_pretrained(world.gpt2).recommend(["jam", "pan"], 10)
    assert (row["user_id"], row["item_ids"]) == ("ann", [item for item, _ in expected])
    (folder / "a.csv").write_text("who,what,when\nann,pan,2024-01-02\nann,rye,2024-01-01\n")
    assert main([*command, "--histories", str(folder), *columns]) == 2  # as many events, but others


@pytest.mark.parametrize("kind", ["gpt2", "bert", "lora"])
def test_exported_vectors_multiply_to_the_scores(world: World, tmp_path: Path, kind: str) -> None:
    histories = {"ann": ["jam", "pan"], "bob": ["rye", "x,y", "jam"], "cleo": ["unknown"]}
    files = write_histories(tmp_path / "histories.parquet", histories)
    checkpoint = world.folder / kind / "model"
    command = ["encode", "--checkpoint", str(checkpoint), "--histories", str(files)]
    assert main([*command, "--output", str(tmp_path / "vectors")]) == 0
    users = pq.read_table(tmp_path / "vectors" / "part-00000.parquet").to_pydict()
    items = pq.read_table(tmp_path / "vectors" / "items.parquet").to_pydict()
    assert users["user_id"] == ["ann", "bob"]
    scores = torch.tensor(users["vector"]) @ torch.tensor(items["vector"]).T
    scores = scores + torch.tensor(items.get("bias", 0.0))
    recommender = Recommender.from_pretrained(checkpoint)
    for user, row in zip(users["user_id"], scores, strict=True):
        expected = dict(recommender.recommend(histories[user], 99, filter_seen=False))
        assert dict(zip(items["item_id"], row.tolist(), strict=True)) == pytest.approx(expected, abs=1e-5)


def test_finetuning_without_an_adapter_gives_a_whole_checkpoint(world: World, tmp_path: Path) -> None:
    options = ["--adapter", "null", "--training.output_dir", str(tmp_path), "--training.max_steps", "1"]
    assert main(["finetune", "--config", str(world.lora_recipe), *options]) == 0
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert read_info(tmp_path / "model").base_hash is None


def test_finetuning_can_part_the_tables_of_a_base(world: World, tmp_path: Path) -> None:
    options = ["--adapter", "null", "--training.output_dir", str(tmp_path), "--training.max_steps", "1"]
    parted = [*options, "--model.tie_items", "false"]
    assert main(["finetune", "--config", str(world.lora_recipe), *parted]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tables = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert not torch.equal(*tables) and torch.allclose(*tables, atol=0.1)


def test_prefixes_behind_a_start_token_from_events_to_the_card(world: World, tmp_path: Path) -> None:
    """Every event of the training part is a sample, the first one of a user too, and changed at random."""
    options = {
        "data.prepared": tmp_path / "prepared",
        "sequences.windows": "prefix",
        "objective.start_token": "true",
        "objective.anchoring": "right",
        "objective.augmentation.crop": 0.5,
        "objective.augmentation.mask": 0.2,
        "training.output_dir": tmp_path / "run",
    }
    command = [
        "--config",
        world.gpt2_recipe,
        *(part for key in options for part in (f"--{key}", options[key])),
    ]
    for verb in ("prepare", "pretrain"):
        assert main([verb, *map(str, command)]) == 0
    train = read_prepared(tmp_path / "prepared")[0]["train"]
    assert len(train) == 24 * 4  # of six events one is for validation and one for the test
    assert max(map(len, train["input_ids"])) == 4
    checkpoint = tmp_path / "run" / "model"
    info = read_info(checkpoint)
    assert (info.input.starts_with_bos, info.input.anchoring, info.input.history_length) == (True, "right", 4)
    assert sum(info.popularity) == 24 * 4
    assert "## Advice" in (tmp_path / "prepared" / "report" / "report.md").read_text(encoding="utf-8")
    kept = (checkpoint / "recipe.yaml").read_text(encoding="utf-8")
    assert "windows: prefix" in kept and "start_token: true" in kept
    assert len(Recommender.from_pretrained(checkpoint).recommend(["jam", "pan"], 3)) == 3


def test_a_second_run_replaces_the_first(world: World, tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_bytes((world.folder / "events.csv").read_bytes())
    recipe = write_recipe(tmp_path / "recipe.yaml", "run")
    for _ in range(2):
        assert main(["prepare", "--config", str(recipe)]) == 0
        assert main(["pretrain", "--config", str(recipe)]) == 0
    runs = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert runs == ["checkpoint-3", "checkpoint-6", "model"] or runs == ["checkpoint-6", "model"]
    assert main(["pretrain", "--config", str(recipe), "--training.resume_from_checkpoint", "true"]) == 0


def test_doctor_prints_one_json_object(capfd: pytest.CaptureFixture[str]) -> None:
    report = run_json(capfd, "doctor", "--json")
    assert report["self_test"] == "passed"
    assert report["self_test_seconds"] < 20
    assert report["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert report["devices"][0] == "cpu"


def test_help_and_wrong_options(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["--help"]) == 0
    usage = capfd.readouterr().out
    assert all(verb in usage for verb in VERBS)
    assert main(["recomend"]) == 2
    assert "unknown verb 'recomend'" in capfd.readouterr().err
    for verb in VERBS:
        assert main([verb, "--help"]) == 0
        assert main([verb, "--no-such-option"]) == 2
        assert f"recbert {verb}: error: " in capfd.readouterr().err
    assert main(["recommend", "--checkpoint", "x"]) == 2
    assert main(["recommend", "--checkpoint", "x", "--histories", "y"]) == 2
    assert main(["push"]) == 2
