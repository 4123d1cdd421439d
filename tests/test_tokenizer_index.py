"""The memory-mapped index of a large vocabulary answers as the tokenizer of a small one does."""

import random
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from recbert.tokenizer import INDEX_FILE, ItemIndex, ItemTokenizer, index, items

LETTERS = "ab7 %[]\t\u3000é🎬\x00"


@pytest.fixture
def random_ids() -> list[str]:
    """Distinct ids of any spelling, some beginning with others, in no order."""
    draw = random.Random(3)
    ids = {"".join(draw.choices(LETTERS, k=draw.randint(1, 9))) for _ in range(3000)}
    return draw.sample(sorted({*ids, "x" * 5000, "[MASK]"}), len(ids) + 2)


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every vocabulary of more than three items be a mapped one."""
    monkeypatch.setattr(items, "MAPPED_FROM", 3)


def test_index_equals_a_dictionary(random_ids: list[str], tmp_path: Path) -> None:
    ItemIndex.build(random_ids).save(tmp_path / INDEX_FILE)
    stored = ItemIndex.load(tmp_path / INDEX_FILE)
    table = {item: place for place, item in enumerate(random_ids)}
    asked = random.Random(5).choices([*random_ids, "", "absent", "\ud800", "xxx", "é" * 40], k=5000)
    assert stored.find(asked).tolist() == [table.get(item, -1) for item in asked]
    assert stored.find([]).tolist() == []
    assert [item in stored for item in asked[:200]] == [item in table for item in asked[:200]]
    assert 3 not in stored
    assert list(stored) == random_ids and len(stored) == len(random_ids)
    assert [stored[0], stored[7], stored[-1]] == [random_ids[0], random_ids[7], random_ids[-1]]
    assert (stored[5:900], stored[900:5:-7], stored[9:2]) == (random_ids[5:900], random_ids[900:5:-7], [])
    assert (stored[2:2], stored[-2:]) == ([], random_ids[-2:])
    with pytest.raises(IndexError):
        stored[len(random_ids)]


def test_ids_are_decoded_across_blocks(random_ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_BLOCK", 7)
    monkeypatch.setattr(index, "_HASH_BLOCK", 11)
    built = ItemIndex.build(random_ids)
    assert list(built) == random_ids
    assert built.find(random_ids).tolist() == list(range(len(random_ids)))


def test_equal_hashes_are_told_apart(random_ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_hash", lambda text, ends: (ends % 5).astype(np.int64))
    known, unknown = random_ids[:200], random_ids[200:300]
    built = ItemIndex.build(known)
    monkeypatch.setattr(index, "_hash", lambda text, ends: np.full(len(ends), 3))
    in_bucket = {item for place, item in enumerate(known) if built._hashes[built._places == place][0] == 3}
    assert len(in_bucket) > 20
    found = built.find([*known, *unknown])
    assert {known[place] for place in found if place >= 0} == in_bucket
    assert [known[place] if place >= 0 else None for place in found[:200]] == [
        item if item in in_bucket else None for item in known
    ]


def test_comparison(random_ids: list[str]) -> None:
    built = ItemIndex.build(random_ids)
    assert built == ItemIndex.build(random_ids) and built == random_ids and random_ids == built
    assert built != ItemIndex.build(random_ids[:-1]) and built != random_ids[:-1] and built != 3
    swapped = [random_ids[1], random_ids[0], *random_ids[2:]]
    assert built != ItemIndex.build(swapped) and built != swapped


@pytest.mark.usefixtures("mapped")
def test_a_large_vocabulary_behaves_like_a_small_one(
    random_ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = ItemTokenizer.from_items(random_ids)
    large.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [INDEX_FILE]
    again = ItemTokenizer.from_pretrained(tmp_path)
    monkeypatch.setattr(items, "MAPPED_FROM", 10**6)
    small = ItemTokenizer.from_items(random_ids)
    assert isinstance(again.item_ids, ItemIndex) and isinstance(small.item_ids, list)
    asked = [*random_ids[:300], "absent", *random_ids[300:600]]
    for tokenizer in (large, again):
        assert tokenizer.encode(asked) == small.encode(asked)
        assert tokenizer.decode(range(len(tokenizer))) == small.decode(range(len(small)))
        assert (len(tokenizer), tokenizer.num_items) == (len(small), small.num_items)
        assert random_ids[0] in tokenizer and "absent" not in tokenizer
        assert tokenizer.item_ids == small.item_ids


@pytest.mark.usefixtures("mapped")
def test_the_stock_tokenizer_of_a_large_vocabulary_can_be_had(random_ids: list[str], tmp_path: Path) -> None:
    tokenizer = ItemTokenizer.from_items(random_ids)
    tokenizer.hf.save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path)
    assert len(plain) == len(tokenizer)
    assert ItemTokenizer.from_pretrained(tmp_path).encode(random_ids) == tokenizer.encode(random_ids)


def test_an_earlier_vocabulary_of_the_other_form_is_replaced(
    random_ids: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bound, count in ((3, 100), (10**6, 50), (3, 70)):
        monkeypatch.setattr(items, "MAPPED_FROM", bound)
        ItemTokenizer.from_items(random_ids[:count]).save_pretrained(tmp_path)
        assert ItemTokenizer.from_pretrained(tmp_path).num_items == count


def test_damaged_files(random_ids: list[str], tmp_path: Path) -> None:
    path = tmp_path / INDEX_FILE
    path.write_bytes(b"no index")
    with pytest.raises(ValueError, match="is no item index"):
        ItemTokenizer.from_pretrained(tmp_path)
    built = ItemIndex.build(random_ids)
    ItemIndex(built._text[:-1].copy(), built._ends, built._hashes, built._places).save(path)
    with pytest.raises(ValueError, match="is damaged"):
        ItemTokenizer.from_pretrained(tmp_path)
