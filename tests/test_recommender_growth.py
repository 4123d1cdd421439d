"""A catalogue that grows under a Recommender, and `recbert add-items`."""

import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from recbert.adapters import add_lora
from recbert.baselines import ItemLinks
from recbert.checkpoint import Blend, read_info
from recbert.checkpoint.saving import write_checkpoint
from recbert.commands.main import main
from recbert.recommender import Recommender, save_blend
from recbert.tokenizer import FIRST_ITEM_ID
from tests.test_recommender import HISTORY, ITEMS, POPULARITY, save

NEW = ["a new one", "%", "zz"]
TITLES = {item: f"title of {item}" for item in ITEMS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


@pytest.mark.parametrize(
    ("family", "objective"), [("gpt2", "next-item"), ("bert", "masked-item"), ("gru", "next-item")]
)
def test_old_scores_stay_to_the_last_bit(tmp_path: Path, family: str, objective: str) -> None:
    grown = Recommender.from_pretrained(save(tmp_path / "model", family, objective))
    histories = [np.asarray(grown.tokenizer.encode(items)) for items in (HISTORY, ["l"], ["b"] * 5)]
    before = grown.scorer.scores(histories)
    grown.add_items(NEW)
    after = grown.scorer.scores(histories)
    assert after.shape == (3, len(ITEMS) + len(NEW))
    assert torch.equal(after[:, : len(ITEMS)], before)


def test_new_items_are_recommended_and_known_at_once(folder: Path) -> None:
    grown = Recommender.from_pretrained(folder)
    grown.add_items(NEW)
    answer = [item for item, _ in grown.recommend(HISTORY, 99)]
    assert set(NEW) < set(answer) and len(answer) == len(ITEMS) + len(NEW) - len(HISTORY)
    assert grown.unknown_items([*NEW, "other"]) == ["other"]
    assert dict(grown.recommend(["zz"], 99)).keys() >= {"%", "a"}
    assert grown.info.untrained_items == 3


def test_grown_checkpoint_is_saved_in_place_and_loads_everywhere(folder: Path) -> None:
    (folder / "recipe.yaml").write_text("model: {}\n", encoding="utf-8")
    grown = Recommender.from_pretrained(folder)
    grown.add_items(NEW[:1])
    grown.add_items(NEW[1:])
    grown.save_pretrained(folder)
    again = Recommender.from_pretrained(folder)
    assert again.recommend(HISTORY, 99) == grown.recommend(HISTORY, 99)
    assert again.tokenizer.item_ids == [*ITEMS, *NEW]
    assert list(again.info.popularity) == [*POPULARITY, 0, 0, 0]
    assert read_info(folder).untrained_items == 3
    assert (folder / "recipe.yaml").read_text(encoding="utf-8") == "model: {}\n"
    text = AutoTokenizer.from_pretrained(folder)("a zz %25")["input_ids"]
    assert text == again.tokenizer.encode(["a", "zz", "%"])
    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(folder)(torch.tensor([text])).logits[0, -1]
    scores = again.scorer.scores([np.asarray(text)])[0]
    torch.testing.assert_close(logits[FIRST_ITEM_ID:], scores, atol=1e-5, rtol=1e-5)


def test_new_items_begin_near_those_with_the_same_words(folder: Path) -> None:
    grown = Recommender.from_pretrained(folder, titles={**TITLES, "b": "red tea pot", "c": "red tea cup"})
    grown.add_items({"zz": "blue tea pot", "yy": "unheard"}, start="neighbours", neighbours=1)
    scores = dict(grown.recommend(HISTORY, 99, filter_seen=False))
    assert scores["zz"] == pytest.approx(scores["b"])
    assert scores["yy"] == pytest.approx(np.mean([scores[item] for item in ITEMS]), abs=1e-5)


def test_tables_bring_titles_and_categories(tmp_path: Path, folder: Path) -> None:
    old = pl.DataFrame(
        {"item_id": ITEMS, "title": [None] * 11 + ["Tea"], "categories": [["x"]] * 11 + [["Pot"]]}
    )
    new = pl.DataFrame({"item_id": ["zz"], "title": ["a pot"], "categories": [None]})
    new.write_parquet(tmp_path / "new.parquet")
    for items in (new, new.to_pandas(), tmp_path / "new.parquet", str(tmp_path / "new.parquet")):
        grown = Recommender.from_pretrained(folder)
        grown.add_items(items, start="neighbours", neighbours=5, known=old)
        scores = dict(grown.recommend(HISTORY, 99, filter_seen=False))
        assert scores["zz"] == pytest.approx(scores["l"])


def test_a_blend_grows_along(folder: Path) -> None:
    starts = np.append(0, np.full(len(ITEMS), 1)).astype(np.int64)
    save_blend(folder, Blend(3, 0.5, 0.7), ItemLinks(starts, np.array([4]), np.array([1.0])))
    grown = Recommender.from_pretrained(folder)
    grown.add_items(NEW)
    grown.save_pretrained(folder)
    again = Recommender.from_pretrained(folder)
    assert again.recommend(["a", "zz"], 99) == grown.recommend(["a", "zz"], 99)
    assert again.blended is not None and len(again.blended.links.starts) == len(ITEMS) + 4


@pytest.mark.parametrize(
    ("items", "options", "expected"),
    [
        ([], {}, "empty"),
        (["zz", "a", "b"], {}, "2 of 3 items are in the catalogue already, such as .'a', 'b'"),
        (["zz", "yy", "zz"], {}, "'zz' more than once"),
        (["zz", ""], {}, "non-empty strings"),
        (["zz", 3], {}, "non-empty strings"),
        (["zz"], {"start": "median"}, "choose one of mean, neighbours"),
        (["zz"], {"neighbours": 0}, "at least 1"),
        (["zz"], {"start": "neighbours", "known": TITLES}, "no new item has a title"),
        ({"zz": "tea"}, {"start": "neighbours"}, "nothing is known about the old items"),
        (pl.DataFrame({"id": ["zz"]}), {}, "no column 'item_id'"),
        (pl.DataFrame({"item_id": ["zz", "zz", None]}), {}, "without an item_id"),
        (pl.DataFrame({"item_id": ["zz", "zz"]}), {}, "more than once"),
        ("nowhere.parquet", {}, "does not exist"),
    ],
)
def test_what_cannot_be_added_is_refused_and_changes_nothing(
    folder: Path, items: object, options: dict[str, object], expected: str
) -> None:
    recommender = Recommender.from_pretrained(folder)
    before = recommender.recommend(HISTORY, 99)
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        recommender.add_items(items, **options)
    assert recommender.recommend(HISTORY, 99) == before and recommender.info.untrained_items == 0


def test_an_adapted_model_does_not_grow(folder: Path) -> None:
    recommender = Recommender.from_pretrained(folder)
    recommender.model = add_lora(recommender.model, r=2)
    with pytest.raises(ValueError, match="load its base alone"):
        recommender.add_items(NEW)


def test_an_interrupted_growth_leaves_the_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def stop(*arguments: object, **options: object) -> None:
        write_checkpoint(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr("recbert.recommender.recommender.write_checkpoint", stop)
    grown = Recommender.from_pretrained(folder)
    grown.add_items(NEW)
    with pytest.raises(KeyboardInterrupt):
        grown.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_command_grows_a_checkpoint(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    pl.DataFrame({"item_id": NEW, "title": ["x", "y", "z"]}).write_csv(tmp_path / "new.csv")
    command = ["add-items", "--checkpoint", str(folder), "--items", str(tmp_path / "new.csv"), "--output"]
    with caplog.at_level(logging.INFO):
        assert main([*command, str(tmp_path / "grown")]) == 0
    assert "15 items, of 12 before" in caplog.text
    capfd.readouterr()
    ask = ["recommend", "--checkpoint", str(tmp_path / "grown"), "--history", "zz", "--k", "15", "--json"]
    assert main(ask) == 0
    answered = json.loads(capfd.readouterr().out)
    assert {entry["item_id"] for entry in answered["recommendations"]} == {*ITEMS, "%", "a new one"}
    assert main([*command[:4], str(tmp_path / "nowhere.csv"), "--output", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()
