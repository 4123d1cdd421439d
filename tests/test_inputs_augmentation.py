"""Training sequences changed at random: what stays true of them, and that chance depends on the row alone."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from recbert.inputs import Augmentation, Draw, TrainBatch, TrainRows, build_query
from recbert.objectives import MaskedItem, NextItem
from recbert.tokenizer import ItemTokenizer

MASK, BOS = 2, 3
ITEMS = ItemTokenizer.from_items([f"{number:02}" for number in range(60)])
LENGTHS = [1, 2, 3, 5, 8, 20, 40]


def _part(kind: str) -> list[dict[str, Any]]:
    """Rows of items 69, 70, 71, ...: everything is a target, or the last event alone."""
    return [
        {
            "input_ids": list(range(69, 69 + length)),
            "is_target": [kind == "all" or place == length - 1 for place in range(length)],
        }
        for length in LENGTHS * 20
    ]


def _batch(kind: str = "all", epoch: int = 0, seed: int = 0) -> TrainBatch:
    rows = TrainRows(_part(kind), least=1, seed=seed)
    return rows.__getitems__(Draw(np.arange(len(rows)), epoch))


def _split(batch: TrainBatch) -> list[tuple[list[int], list[bool]]]:
    ends = np.cumsum(batch.lengths)[:-1]
    return [
        (tokens.tolist(), marks.tolist())
        for tokens, marks in zip(np.split(batch.tokens, ends), np.split(batch.is_target, ends), strict=True)
    ]


@pytest.mark.parametrize("kind", ["all", "last"])
def test_a_crop_is_a_part_that_ends_at_a_target(kind: str) -> None:
    given = _batch(kind)
    before, after = _split(given), _split(Augmentation(crop=1.0).rearrange(given))
    assert _split(given) == before  # the batch that was given stays as it was
    for (tokens, _), (kept, marks) in zip(before, after, strict=True):
        assert kept == list(range(kept[0], kept[0] + len(kept)))
        assert set(kept) <= set(tokens)
        assert marks[-1] and (len(kept) > 1 or len(tokens) == 1)
        assert marks[0] == (kind == "all" and kept[0] == 69) or len(tokens) == 1
        if kind == "last":
            assert kept[-1] == tokens[-1]
    longest = [kept for (tokens, _), (kept, _) in zip(before, after, strict=True) if len(tokens) == 40]
    assert len({(kept[0], kept[-1]) for kept in longest}) > 10
    half = _split(Augmentation(crop=0.5).rearrange(given))
    changed = [kept != row for row, kept in zip(before, half, strict=True) if len(row[0]) == 40]
    assert 0.2 < np.mean(changed) < 0.8


def test_reordering_moves_two_to_five_neighbours_and_never_the_last() -> None:
    given = _batch()
    sizes = set()
    for (tokens, marks), (moved, same) in zip(
        _split(given), _split(Augmentation(reorder=1.0).rearrange(given)), strict=True
    ):
        assert sorted(moved) == tokens and same == marks and moved[-1] == tokens[-1]
        places = [place for place, pair in enumerate(zip(tokens, moved, strict=True)) if pair[0] != pair[1]]
        if places:
            sizes.add(places[-1] - places[0] + 1)
    assert sizes == {2, 3, 4, 5}


@pytest.mark.parametrize("start_token", [False, True])
def test_masked_inputs_stay_labels(start_token: bool) -> None:
    plain = NextItem(ITEMS, 30, start_token=start_token).collate(_batch())
    changed = NextItem(ITEMS, 30, start_token=start_token, augmentation=Augmentation(mask=0.3)).collate(
        _batch()
    )
    assert changed["labels"].equal(plain["labels"])
    hidden = changed["input_ids"] != plain["input_ids"]
    assert (changed["input_ids"][hidden] == MASK).all()
    items = plain["input_ids"] >= 69
    assert hidden[items].float().mean().item() == pytest.approx(0.3, abs=0.05)
    assert not hidden[~items].any()


@pytest.mark.parametrize("kind", ["all", "last"])
def test_a_horizon_predicts_one_of_the_next_events(kind: str) -> None:
    batch = NextItem(ITEMS, 30, horizon=4).collate(_batch(kind))
    plain = NextItem(ITEMS, 30).collate(_batch(kind))
    assert batch["input_ids"].equal(plain["input_ids"])
    asked = plain["labels"] != -100
    assert (batch["labels"] != -100).equal(asked)
    steps = (batch["labels"] - plain["labels"])[asked]
    assert set(steps.unique().tolist()) == ({0, 1, 2, 3} if kind == "all" else {0})
    far = steps[plain["labels"][asked] < 80]
    if kind == "all":
        counts = np.bincount((batch["labels"] - plain["labels"])[-1][asked[-1]], minlength=4)
        assert counts.sum() == 30 and (counts > 0).all() and (far >= 0).all()


OBJECTIVES = {
    "next-item": NextItem(
        ITEMS, 10, start_token=True, horizon=3, augmentation=Augmentation(crop=0.6, mask=0.3, reorder=0.6)
    ),
    "masked-item": MaskedItem(ITEMS, 30, mask_rate=0.5, augmentation=Augmentation(crop=0.6, reorder=0.6)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_chance_depends_on_seed_epoch_and_row_only(name: str) -> None:
    def row(number: int, epoch: int, seed: int = 0, beside: tuple[int, ...] = ()) -> list[list[int]]:
        rows = TrainRows(_part("all"), least=1, seed=seed)
        batch = OBJECTIVES[name].collate(rows.__getitems__(Draw(np.array([number, *beside]), epoch)))
        length = int(batch["attention_mask"][0].sum())
        return [batch["input_ids"][0, :length].tolist(), batch["labels"][0, : length + 1].tolist()]

    for number in (3, 5, 6):
        alone = row(number, 0)
        together = row(number, 0, beside=(6, 0, 13))
        assert [part[: len(other)] for part, other in zip(together, alone, strict=True)] == alone
        different = [alone, row(number, 1), row(number, 0, seed=1), row(number + 7, 0)]
        if number != 3:
            assert all(different.count(entry) == 1 for entry in different)


def test_nothing_is_changed_by_default() -> None:
    batch = _batch()
    assert Augmentation().rearrange(batch) is batch
    assert not Augmentation().hidden(batch).any()
    assert dataclasses.asdict(Augmentation()) == {"crop": 0.0, "mask": 0.0, "reorder": 0.0}


def test_query_stays_the_last_position_of_training() -> None:
    """The labelled last position of a cropped row has exactly the input that a query of its events has."""
    objective = NextItem(ITEMS, 10, start_token=True, augmentation=Augmentation(crop=1.0))
    batch = objective.collate(_batch("last"))
    for tokens, mask, labels in zip(*batch.values(), strict=True):
        length = int(mask.sum())
        history = tokens[1:length].numpy()
        if len(history):
            query = build_query([history], objective.input_format)
            assert query.input_ids[0].tolist() == tokens[:length].tolist()
            assert labels[length] == history[-1] + 1


@pytest.mark.parametrize("values", [{"crop": -0.1}, {"mask": 1.0}, {"reorder": 1.5}])
def test_shares_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"augmentation.{next(iter(values))} is .*: it must be from 0 to 1"):
        Augmentation(**values)
    with pytest.raises(ValueError, match="horizon is 0"):
        NextItem(ITEMS, horizon=0)
    with pytest.raises(ValueError, match="masked-item training masks events already"):
        MaskedItem(ITEMS, augmentation=Augmentation(mask=0.1))
