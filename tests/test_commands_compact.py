"""Items that leave a checkpoint, for good or from the answers only."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from recbert.adapters import add_lora
from recbert.baselines import ItemLinks
from recbert.checkpoint import Blend, read_info
from recbert.commands.main import main
from recbert.growth import keep_rows
from recbert.models import item_table
from recbert.recommender import Recommender, save_blend
from recbert.tokenizer import FIRST_ITEM_ID
from tests.test_models import PAIRS, tiny
from tests.test_models import tokenizer as tokenizer
from tests.test_recommender import HISTORY, ITEMS, POPULARITY, save

KEPT = [item for item, count in zip(ITEMS, POPULARITY, strict=True) if count >= 4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "model", deny_list=["b", "l"])


def compact(folder: Path, *options: object) -> Path:
    target = folder.parent / "compacted"
    command = ["compact", "--checkpoint", str(folder), "--output", str(target), *map(str, options)]
    assert main(command) == 0
    return target


@pytest.mark.parametrize("tie_items", [True, False])
@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_rows_that_stay_are_what_they_were(objective, family, tie_items, tokenizer, tmp_path):
    model = tiny(family, tokenizer, objective, num_hidden_layers=1, tie_items=tie_items).eval()
    tables = (model.get_input_embeddings().weight, *item_table(model))
    before = [None if table is None else table.detach().clone() for table in tables]
    kept = np.append(np.arange(FIRST_ITEM_ID), [FIRST_ITEM_ID + 1, FIRST_ITEM_ID + 4])
    keep_rows(model, kept)
    model.save_pretrained(tmp_path)
    reloaded = type(model).from_pretrained(tmp_path)
    after = (reloaded.get_input_embeddings().weight, *item_table(reloaded))
    assert model.config.vocab_size == FIRST_ITEM_ID + 2
    assert (after[0] is after[1]) == tie_items
    for new, old in zip(after, before, strict=True):
        assert (new is None and old is None) or torch.equal(new, old[kept])


def test_rare_items_leave_and_the_rest_keeps_its_scores(folder: Path) -> None:
    target = compact(folder, "--min-count", 4)
    old, new = Recommender.from_pretrained(folder), Recommender.from_pretrained(target)
    assert new.tokenizer.item_ids == KEPT
    assert list(new.info.popularity) == [count for count in POPULARITY if count >= 4]
    assert (new.info.generation, new.info.deny_list) == (2, ["b", "l"])
    history = [item for item in HISTORY if item in KEPT]
    expected = dict(old.recommend(history, 99, candidates=KEPT))
    assert dict(new.recommend(history, 99)) == pytest.approx(expected, abs=1e-6)
    old_ids = load_file(target / "generation.safetensors")["old_token_ids"].tolist()
    assert old_ids == [*range(FIRST_ITEM_ID), *old.tokenizer.encode(KEPT)]


def test_events_say_what_was_seen_and_new_items_stay(folder: Path) -> None:
    grown = Recommender.from_pretrained(folder)
    grown.add_items(["new 1", "new 2"])
    grown.save_pretrained(folder)
    rows = [("u", item, day * 86_400) for item in ITEMS for day in range(3 if item > "f" else 1)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(
        folder.parent / "e.csv"
    )
    target = compact(folder, "--events", folder.parent / "e.csv", "--since", "1970-01-02", "--min-count", 2)
    new = Recommender.from_pretrained(target)
    assert new.tokenizer.item_ids == [*[item for item in ITEMS if item > "f"], "new 1", "new 2"]
    assert new.info.untrained_items == 2


def test_rules_among_the_rest_stay(folder: Path) -> None:
    ends = np.arange(len(ITEMS))[::-1].copy()
    links = ItemLinks(np.arange(len(ITEMS) + 1), ends, np.arange(1.0, len(ITEMS) + 1))
    save_blend(folder, Blend(3, 0.5, 0.7), links)
    blended = Recommender.from_pretrained(compact(folder, "--min-count", 4)).blended
    assert blended is not None
    found = {
        (KEPT[source], KEPT[end]): weight
        for source, end, weight in zip(
            blended.links.sources(), blended.links.ends, blended.links.weights, strict=True
        )
    }
    expected = {
        (ITEMS[source], ITEMS[end]): float(source + 1)
        for source, end in enumerate(ends)
        if ITEMS[source] in KEPT and ITEMS[end] in KEPT
    }
    assert found == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "give --min-count N or --since TIME"),
        (["--since", "2020-01-01"], "--since needs --events"),
        (["--min-count", "99"], "none of the 12 items"),
    ],
)
def test_what_would_keep_all_or_nothing_is_refused(
    folder: Path, capfd: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    target = folder.parent / "compacted"
    assert main(["compact", "--checkpoint", str(folder), "--output", str(target), *options]) == 2
    assert expected in capfd.readouterr().err and not target.exists()


def test_denied_items_are_never_recommended_until_allowed(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    deny = ["deny", "--checkpoint", str(folder), "--items"]
    assert main([*deny, "d e", "a", "b"]) == 0
    assert read_info(folder).deny_list == ["l", "d e", "a", "b"]
    answer = {item for item, _ in Recommender.from_pretrained(folder).recommend(["c"], 99)}
    assert answer == set(ITEMS) - {"l", "d e", "a", "b", "c"}
    assert main([*deny, "l", "a", "--allow"]) == 0
    assert read_info(folder).deny_list == ["d e", "b"]
    for items in (["nowhere"], ["c", "--allow"]):
        assert main([*deny, *items]) == 2
    assert "in the catalogue" in (said := capfd.readouterr().err) and "on the deny-list" in said
    assert read_info(folder).deny_list == ["d e", "b"]


def test_an_adapted_model_is_not_compacted(folder: Path) -> None:
    recommender = Recommender.from_pretrained(folder)
    recommender.model = add_lora(recommender.model, r=2)
    with pytest.raises(ValueError, match="load its base alone"):
        recommender.refuse_adapters()
