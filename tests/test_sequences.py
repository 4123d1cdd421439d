"""Rows hold what the events say: windows, flags, columns beside the tokens, and the way through a folder."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import polars as pl
import pytest
import yaml

from recbert.sequences import build_sequences, fingerprint_data, read_prepared, write_prepared
from recbert.sequences.windows import Windows, cut_windows, gather_blocks
from recbert.splits import split_events
from recbert.tokenizer import ItemTokenizer

# user_id, item_id, timestamp, event_type, value: twelve events in no order.
TWELVE = [
    ("ann", "A", 10.0, "view", 1.0),
    ("bob", "B", 11.5, "view", None),
    ("ann", "B", 20.25, "buy", 5.0),
    ("cy", "A", 5.0, "view", 2.0),
    ("ann", "C d", 30.0, "view", 3.0),
    ("bob", "C d", 12.0, "buy", 4.0),
    ("ann", "A", 40.0, "view", 1.0),
    ("bob", "A", 13.0, None, 4.5),
    ("ann", "🎬", 50.0, "buy", 5.0),
    ("bob", "🎬", 60.0, "view", 0.5),
    ("ann", "B", 70.0, "view", 2.0),
    ("cy", "B", 80.0, "view", 1.5),
]


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    frame = pl.DataFrame(
        TWELVE, schema=["user_id", "item_id", "timestamp", "event_type", "value"], orient="row"
    )
    return frame.with_columns(order=pl.int_range(pl.len()))


@pytest.fixture(scope="module")
def tokenizer(events: pl.DataFrame) -> ItemTokenizer:
    return ItemTokenizer.from_items(events)


def test_rows_of_a_split(events: pl.DataFrame, tokenizer: ItemTokenizer) -> None:
    data = build_sequences(*split_events(events, "leave-one-out"), tokenizer=tokenizer)
    assert list(data) == ["train", "valid", "test"]
    assert [row["user_id"] for row in data["train"]] == ["ann", "bob", "cy"]
    test = {row["user_id"]: row for row in data["test"]}
    assert list(test) == ["ann", "bob"]  # cy has too few events to be asked for
    assert tokenizer.decode(test["ann"]["input_ids"]) == ["A", "B", "C d", "A", "🎬", "B"]
    assert test["ann"]["timestamps"] == [10.0, 20.25, 30.0, 40.0, 50.0, 70.0]
    assert test["ann"]["is_target"] == [False] * 5 + [True]
    assert test["bob"]["event_type"] == ["view", "buy", None, "view"]
    assert np.isnan(test["bob"]["value"][0]) and test["bob"]["value"][1:] == [4.0, 4.5, 0.5]
    train = {row["user_id"]: row for row in data["train"]}
    assert tokenizer.decode(train["ann"]["input_ids"]) == ["A", "B", "C d", "A"]
    assert train["cy"]["is_target"] == [True, True]
    kinds = {
        name: str(column.feature.dtype) for name, column in data["test"].features.items() if name != "user_id"
    }
    assert kinds == {
        "input_ids": "int32",
        "timestamps": "float64",
        "event_type": "string",
        "value": "float32",
        "is_target": "bool",
    }


def test_optional_columns_and_parts(events: pl.DataFrame, tokenizer: ItemTokenizer) -> None:
    bare = events.select("user_id", "item_id", "timestamp")
    data = build_sequences(bare, tokenizer=tokenizer)
    assert list(data) == ["train"]
    assert data["train"].column_names == ["user_id", "input_ids", "timestamps", "is_target"]
    assert all(all(row["is_target"]) for row in data["train"])
    train, valid, _ = split_events(bare, "leave-n-out", n_valid=0)
    assert len(build_sequences(train, valid, tokenizer=tokenizer)["valid"]) == 0


def test_every_kind_of_frame_gives_the_same(events: pl.DataFrame, tokenizer: ItemTokenizer) -> None:
    import duckdb

    wanted = build_sequences(*split_events(events), tokenizer=tokenizer)
    for given in (events.lazy(), events.to_pandas(), duckdb.connect().from_arrow(events.to_arrow())):
        data = build_sequences(*split_events(given), tokenizer=ItemTokenizer.from_items(given))
        assert fingerprint_data(data, tokenizer) == fingerprint_data(wanted, tokenizer)


def test_unknown_items_are_kept_as_unknown(events: pl.DataFrame) -> None:
    few = ItemTokenizer.from_items(["A", "B"])
    data = build_sequences(*split_events(events, "leave-one-out"), tokenizer=few)
    bob = data["test"][1]
    assert bob["input_ids"] == [70, 1, 69, 1] and bob["is_target"][-1]


def make_train(lengths: list[int]) -> pl.DataFrame:
    """One user a length; item and time of an event are its place."""
    rows = [(f"u{u:03d}", str(place), float(place)) for u, n in enumerate(lengths) for place in range(n)]
    random.Random(0).shuffle(rows)
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


@pytest.mark.parametrize("max_length", [1, 3, 8])
def test_last_windows(max_length: int, caplog: pytest.LogCaptureFixture) -> None:
    train = make_train([1, 2, 4, 9, 20])
    tokenizer = ItemTokenizer.from_items(train)
    data = build_sequences(train, tokenizer=tokenizer, max_length=max_length)["train"]
    assert f"{36 - sum(map(len, data['input_ids']))} of 36 training events lie before" in caplog.text
    for row, length in zip(data, [1, 2, 4, 9, 20], strict=True):
        assert row["timestamps"] == list(range(length))[-max_length - 1 :]
        assert tokenizer.decode(row["input_ids"]) == [str(int(time)) for time in row["timestamps"]]
        # The first event of a cut window has nothing that it could be predicted from.
        assert row["is_target"] == [length <= max_length + 1] + [True] * (len(row["timestamps"]) - 1)


@pytest.mark.parametrize(("max_length", "stride"), [(1, None), (3, None), (3, 1), (5, 2), (8, 8), (30, None)])
def test_sliding_windows(max_length: int, stride: int | None) -> None:
    lengths = [1, 2, 4, 5, 9, 20, 21]
    train = make_train(lengths)
    tokenizer = ItemTokenizer.from_items(train)
    data = build_sequences(
        train, tokenizer=tokenizer, max_length=max_length, windows="sliding", stride=stride
    )["train"]
    asked: dict[str, list[float]] = {}
    last: dict[str, float] = {}
    for row in data:
        times = row["timestamps"]
        assert len(times) <= max_length + 1 and times == list(np.arange(times[0], times[-1] + 1))
        targets = [time for time, flag in zip(times, row["is_target"], strict=True) if flag]
        asked.setdefault(row["user_id"], []).extend(targets)
        assert targets and targets[-1] == times[-1]
        # A target has an earlier event in its window, unless it has none at all.
        assert row["is_target"][0] == (times[0] == 0)
        if row["user_id"] in last and stride is None and times[0] > 0:
            assert times[0] == last[row["user_id"]]  # windows overlap by one event
        last[row["user_id"]] = times[-1]
    assert asked == {f"u{u:03d}": list(range(n)) for u, n in enumerate(lengths)}


def test_prefix_windows() -> None:
    train = make_train([1, 2, 5])
    tokenizer = ItemTokenizer.from_items(train)
    data = build_sequences(train, tokenizer=tokenizer, max_length=2, windows="prefix")["train"]
    rows = [(row["user_id"], row["timestamps"], row["is_target"]) for row in data]
    no, yes = False, True
    assert rows == [
        ("u000", [0], [yes]),
        ("u001", [0], [yes]),
        ("u001", [0, 1], [no, yes]),
        ("u002", [0], [yes]),
        ("u002", [0, 1], [no, yes]),
        ("u002", [0, 1, 2], [no, no, yes]),
        ("u002", [1, 2, 3], [no, no, yes]),
        ("u002", [2, 3, 4], [no, no, yes]),
    ]


def test_evaluation_rows_are_never_cut() -> None:
    events = make_train([50, 60])
    train, valid, test = split_events(events, "leave-n-out", n_test=2)
    data = build_sequences(train, valid, test, tokenizer=ItemTokenizer.from_items(events), max_length=3)
    assert [len(row["input_ids"]) for row in data["test"]] == [50, 60]
    assert [sum(row["is_target"]) for row in data["test"]] == [2, 2]
    assert [len(row["input_ids"]) for row in data["train"]] == [4, 4]


@pytest.mark.parametrize("kind", ["last", "sliding", "prefix"])
@pytest.mark.parametrize("cut", [(0.5, 0.7), (0.8, 0.9)])
def test_no_training_window_holds_an_event_at_or_after_the_cut(kind: Any, cut: tuple[float, float]) -> None:
    draw = random.Random(1)
    rows = [
        (f"u{draw.randint(0, 20)}", str(draw.randint(0, 9)), float(draw.randint(0, 60))) for _ in range(500)
    ]
    events = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    first = sorted(events["timestamp"])[int(cut[0] * 500)]
    data = build_sequences(
        *split_events(events, cuts=cut),
        tokenizer=ItemTokenizer.from_items(events),
        max_length=7,
        windows=kind,
    )
    assert max(max(row["timestamps"]) for row in data["train"]) < first
    for row in data["valid"]:
        assert row["timestamps"] == sorted(row["timestamps"]) and row["is_target"][-1]


def test_blocks_change_nothing() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 50)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    windows = cut_windows(bounds, "sliding", 6, 4)
    whole = [np.arange(a, b) for a, b in zip(windows.start, windows.stop, strict=True)]
    for size in (1, 7, 100, 10**6):
        rows, seen = [], 0
        for block, offsets, found in gather_blocks(windows, size):
            assert block.start == seen and offsets[-1] <= max(size, 6)
            seen = block.stop
            rows += [found[a:b] for a, b in zip(offsets[:-1], offsets[1:], strict=True)]
        assert [list(row) for row in rows] == [list(row) for row in whole]
    nothing = np.array([], dtype=np.int64)
    assert list(gather_blocks(Windows(nothing, nothing, nothing))) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, "max_length is 0; give at least 1"),
        ({"windows": "random"}, "windows is 'random'; allowed are 'last', 'sliding', 'prefix'"),
        ({"stride": 3}, "stride is 3, but windows='last' has none"),
        ({"windows": "sliding", "stride": 201}, r"stride is 201; give 1 to max_length \(200\)"),
        ({"tokenizer": ItemTokenizer.from_items(["A"])}, "a single item"),
    ],
)
def test_bad_options(
    events: pl.DataFrame, tokenizer: ItemTokenizer, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_sequences(events, **{"tokenizer": tokenizer, **options})


def test_bad_parts(events: pl.DataFrame, tokenizer: ItemTokenizer) -> None:
    with pytest.raises(ValueError, match="train has no events"):
        build_sequences(events.head(0), tokenizer=tokenizer)
    with pytest.raises(ValueError, match="test has no column 'is_target'"):
        build_sequences(events, None, events, tokenizer=tokenizer)


def test_prepared_data_comes_back(events: pl.DataFrame, tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    data = build_sequences(*split_events(events, "leave-one-out"), tokenizer=tokenizer)
    folder = tmp_path / "prepared"
    for _ in range(2):  # the second time over the first
        write_prepared(folder, data, tokenizer, {"protocol": "leave-one-out", "cuts": None})
    again, same, manifest = read_prepared(folder)
    assert same.item_ids == tokenizer.item_ids
    assert {name: list(part) for name, part in again.items()}.keys() == data.keys()
    for name, part in data.items():
        np.testing.assert_equal(list(again[name]), list(part))
        assert again[name].features == part.features
    assert manifest["protocol"] == "leave-one-out" and manifest["cuts"] is None
    assert manifest["fingerprint"] == fingerprint_data(again, same) and len(manifest["fingerprint"]) == 71
    assert manifest["counts"]["test"] == {
        "rows": 2,
        "users": 2,
        "events": 10,
        "targets": 2,
        "cold_targets": 0,
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prepared"]
    card = (folder / "README.md").read_text(encoding="utf-8")
    header = yaml.safe_load(card.split("---")[1])
    assert "recbert" in header["tags"] and header["size_categories"] == ["n<1K"]
    assert "| test | 2 | 2 | 10 | 2 | 0 |" in card and manifest["fingerprint"] in card
    code = card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(folder))
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "A B C%20d A"


def test_fingerprint_knows_content_not_storage(events: pl.DataFrame, tokenizer: ItemTokenizer) -> None:
    data = build_sequences(*split_events(events, "leave-one-out"), tokenizer=tokenizer)
    print_ = fingerprint_data(data, tokenizer)
    pieces = datasets.DatasetDict(
        {
            name: datasets.concatenate_datasets([p.select([i]) for i in range(len(p))])
            for name, p in data.items()
        }
    )
    assert fingerprint_data(pieces, tokenizer) == print_
    turned = datasets.DatasetDict({**data, "train": data["train"].select([1, 0, 2])})
    assert fingerprint_data(turned, tokenizer) != print_
    other = build_sequences(*split_events(events.with_columns(pl.col("value") + 1)), tokenizer=tokenizer)
    assert fingerprint_data(other, tokenizer) != print_
    assert fingerprint_data(data, ItemTokenizer.from_items(["A", "B", "C", "D"])) != print_


def test_bad_folders(events: pl.DataFrame, tokenizer: ItemTokenizer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no prepared data"):
        read_prepared(tmp_path)
    data = build_sequences(events, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="manifest has no 'protocol'"):
        write_prepared(tmp_path / "x", data, tokenizer, {})
    with pytest.raises(TypeError):
        write_prepared(tmp_path / "x", data, tokenizer, {"protocol": "p", "odd": object()})
    assert list(tmp_path.iterdir()) == []
    write_prepared(tmp_path / "x", data, tokenizer, {"protocol": "p"})
    (tmp_path / "x" / "manifest.json").write_text('{"format_version": 2}')
    with pytest.raises(ValueError, match="format version 2"):
        read_prepared(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        read_prepared(tmp_path / "x")
