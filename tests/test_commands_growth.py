"""From events with new items to adapters that bring them along: prepare, finetune, recommend."""

import contextlib
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from peft import AutoPeftModel
from safetensors import safe_open

from recbert.checkpoint import read_info
from recbert.commands.main import main
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer
from tests.workspace import ITEMS, World, build_world, write_recipe

NEW = ["brand new", "new [MASK]"]
HISTORY = ["a cup", "brand new", "jam"]
# Programs that call peft directly meet the warning that recbert.adapters hushes.
HUSHED = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
MASKED = {"name": "masked-item", "mask_rate": 0.3}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The small world, a later month in which two new items appear, and adapters for both bases."""
    world = build_world(tmp_path_factory.mktemp("world"))
    write_later_month(world.folder / "later.csv")
    assert main(["prepare", "--config", str(recipe(world, "gpt2", {}))]) == 0
    for base in ("gpt2", "bert"):
        assert main(["finetune", "--config", str(recipe(world, base, {"r": 2}))]) == 0
    return world


def write_later_month(path: Path) -> None:
    """Users who walk on from where the first month ended; the new items are taken often, one other once."""
    circle = [*ITEMS[:8], *NEW]
    rows = [
        (f"v{user}", circle[(user + step) % len(circle)], 10_000 + 1000 * step + user)
        for step in range(6)
        for user in range(20)
    ]
    rows.append(("v0", "seen once", 10_500))
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(path)


def recipe(world: World, base: str, adapter: dict[str, Any] | None, **sections: dict[str, Any]) -> Path:
    """The recipe of one adapter, or of a whole fine-tuning."""
    data = {
        "events": str(world.folder / "later.csv"),
        "prepared": str(world.folder / "later"),
        "vocabulary": str(world.gpt2),
        "new_items": 5,
    }
    parts: dict[str, dict[str, Any]] = {
        "data": data,
        "model": {
            "base": str(world.folder / base / "model"),
            **({"family": "bert"} if base == "bert" else {}),
        },
        "objective": MASKED if base == "bert" else {},
        **({} if adapter is None else {"adapter": adapter}),
    }
    for name, values in sections.items():
        parts[name] = {**parts.get(name, {}), **values}
    path = world.folder / f"later-{base}-{'whole' if adapter is None else 'lora'}.yaml"
    return write_recipe(path, path.stem, **parts)


def adapter_of(world: World, base: str) -> Path:
    return world.folder / f"later-{base}-lora" / "model"


def test_new_items_stand_behind_the_old_ones(world: World) -> None:
    assert ItemTokenizer.from_pretrained(world.folder / "later" / "tokenizer").item_ids == [
        *sorted(ITEMS),
        *NEW,
    ]


@pytest.mark.parametrize("base", ["gpt2", "bert"])
def test_an_adapter_brings_its_items_and_leaves_the_base_alone(world: World, base: str) -> None:
    info = read_info(adapter_of(world, base))
    assert (info.own_items, info.untrained_items, len(info.popularity)) == (2, 0, len(ITEMS) + 2)
    with safe_open(adapter_of(world, base) / "adapter_model.safetensors", "pt") as stored:
        rows = [stored.get_tensor(name) for name in stored.keys() if "token" in name]  # noqa: SIM118
    assert [tuple(row.shape) for row in rows] == [(2, 8)]
    assert Recommender.from_pretrained(world.folder / base / "model").tokenizer.num_items == len(ITEMS)
    adapted = Recommender.from_pretrained(adapter_of(world, base))
    answer = adapted.recommend(HISTORY, 99, filter_seen=False)
    assert {item for item, _ in answer} == {*ITEMS, *NEW}
    assert adapted.unknown_items(HISTORY) == []


@HUSHED
@pytest.mark.parametrize("base", ["gpt2", "bert"])
def test_program_of_the_card_brings_them_too(world: World, base: str) -> None:
    card = (adapter_of(world, base) / "README.md").read_text(encoding="utf-8")
    (program,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        if "import recbert" not in block
    )
    assert len(program.splitlines()) <= 20
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        patch.setattr(sys, "argv", ["snippet.py", str(adapter_of(world, base)), *HISTORY])
        exec(compile(program, "snippet.py", "exec"), {"__name__": "__main__"})
    answer = [line.rpartition(" ") for line in printed.getvalue().splitlines()]
    expected = Recommender.from_pretrained(adapter_of(world, base)).recommend(HISTORY, 10)
    assert [item for item, _, _ in answer] == [item for item, _ in expected]
    assert [float(score) for _, _, score in answer] == pytest.approx(
        [score for _, score in expected], abs=1e-5
    )


@HUSHED
def test_peft_alone_loads_the_adapter_with_its_items(world: World) -> None:
    adapted = Recommender.from_pretrained(adapter_of(world, "gpt2"))
    tokens = adapted.tokenizer.encode(HISTORY)
    with torch.no_grad():
        logits = AutoPeftModel.from_pretrained(adapter_of(world, "gpt2"))(torch.tensor([tokens])).logits[
            0, -1
        ]
    expected = dict(adapted.recommend(HISTORY, 99, filter_seen=False))
    found = dict(zip(adapted.tokenizer.item_ids, logits[69:].tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)


def test_finetuning_without_an_adapter_grows_the_whole(world: World) -> None:
    titles = {"item_id": [*ITEMS, *NEW], "title": ["thing"] * len(ITEMS) + ["thing", None]}
    pl.DataFrame(titles).write_parquet(world.folder / "items.parquet")
    near = {"model": {"new_rows": "neighbours"}, "data": {"items": str(world.folder / "items.parquet")}}
    assert main(["finetune", "--config", str(recipe(world, "gpt2", None, **near))]) == 0
    folder = world.folder / "later-gpt2-whole" / "model"
    assert read_info(folder).own_items == 0
    assert "zz" not in (whole := Recommender.from_pretrained(folder)).tokenizer
    assert whole.tokenizer.item_ids == [*sorted(ITEMS), *NEW]


def test_an_adapter_trains_the_rows_that_add_items_made(world: World) -> None:
    grown = Recommender.from_pretrained(world.gpt2)
    grown.add_items(NEW)
    grown.save_pretrained(world.folder / "grown" / "model")
    assert main(["finetune", "--config", str(recipe(world, "grown", {"r": 2}))]) == 0
    info = read_info(adapter_of(world, "grown"))
    assert (info.own_items, info.untrained_items) == (0, 0)
    with safe_open(adapter_of(world, "grown") / "adapter_model.safetensors", "pt") as stored:
        assert any("token" in name for name in stored.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("command", "options", "expected"),
    [
        ("prepare", ["--data.vocabulary", "null"], "data.vocabulary is null"),
        ("finetune", ["--model.new_rows", "neighbours"], "data.items is null"),
        ("finetune", ["--model.shard_items", "true", "--adapter", "null"], "recbert add-items"),
        ("finetune", ["--model.tie_items", "false"], "an adapter does not bring a second one"),
        ("finetune", ["--adapter.r", "9"], "is 8 wide"),
        ("finetune", ["--adapter.modules_to_save", "[norm]"], "is no module of this model; it has"),
        ("finetune", ["--adapter.target_modules", "[c_atn]"], "its layers are c_attn"),
    ],
)
def test_what_does_not_go_together_is_refused_first(
    world: World, capfd: pytest.CaptureFixture[str], command: str, options: list[str], expected: str
) -> None:
    out = ["--training.output_dir", str(world.folder / "refused")]
    assert main([command, "--config", str(recipe(world, "gpt2", {"r": 2})), *options, *out]) == 2
    assert expected in capfd.readouterr().err
    assert not (world.folder / "refused").exists()


def test_only_what_went_on_is_trained_and_the_protocol_says_so(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    counts = {}
    for replay in ("0.0", "0.5"):
        prepared = world.folder / f"active-{replay}"
        options = ["--data.prepared", str(prepared), "--split.since", "13000", "--split.replay", replay]
        options += ["--data.events", str(world.folder / "*.csv")]
        assert main(["prepare", "--config", str(recipe(world, "gpt2", {})), *options]) == 0
        manifest = json.loads((prepared / "manifest.json").read_text(encoding="utf-8"))
        counts[replay] = manifest["counts"]["train"]["users"]
        assert "; trained on histories that go on from 1970-01-01T03:36:40Z" in manifest["protocol"]
    assert counts == {"0.0": 20, "0.5": 32}  # of twenty later users and twenty-four earlier ones
    assert main(["prepare", "--config", str(recipe(world, "gpt2", {})), "--split.replay", "0.5"]) == 2
    assert "split.since is null" in capfd.readouterr().err


def test_denied_items_stay_denied_after_finetuning(world: World) -> None:
    base = world.folder / "denying" / "model"
    shutil.copytree(world.gpt2, base)
    assert main(["deny", "--checkpoint", str(base), "--items", "jam"]) == 0
    for adapter in ({"r": 2}, None):
        assert main(["finetune", "--config", str(config := recipe(world, "denying", adapter))]) == 0
        assert read_info(world.folder / config.stem / "model").deny_list == ["jam"]


def test_another_vocabulary_is_refused(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    other = {"data": {"vocabulary": None, "new_items": None, "prepared": str(world.folder / "other")}}
    config = recipe(world, "gpt2", {"r": 2}, **other)
    assert main(["prepare", "--config", str(config)]) == 0
    assert main(["finetune", "--config", str(config)]) == 2
    assert "data.new_items to let new ones in" in capfd.readouterr().err
