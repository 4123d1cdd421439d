"""Reading: every source gives the same events; every bad one gives one clear message."""

import datetime
import gzip
import subprocess
import sys
from pathlib import Path

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from recbert.events import ITEM_ID, ORDER, TIMESTAMP, USER_ID, read_events, stream_sorted
from tests.conftest import TWELVE_EVENTS

COLUMNS = {"event_type": "event_type", "value": "value"}
ISO_TEXTS = {
    "2020-01-01": 1577836800.0,
    "2020-02-29T12:30:15.25+01:00": 1582975815.25,
    "1999-12-31 23:59:59.999999Z": 946684799.999999,
    "2000-02-29T00:00-0530": 951802200.0,
    " 2024-12-31T23:59:59+09 ": 1735657199.0,
    "1970-01-01T00:00:00Z": 0.0,
    "2100-03-01": 4107542400.0,
}
NOT_ISO_TEXTS = [
    "2019-02-29",
    "2100-02-29",
    "2024-13-01",
    "2024-00-10",
    "2024-01-01T24:00",
    "20240101",
    "soon",
]


@pytest.fixture
def table() -> pl.DataFrame:
    return pl.read_csv(TWELVE_EVENTS.encode())


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def relation(table: pl.DataFrame) -> duckdb.DuckDBPyRelation:
    return duckdb.connect().from_arrow(table.to_arrow())


def test_csv(events_csv: Path, events: pl.DataFrame) -> None:
    read = read_events(events_csv, **COLUMNS)
    assert isinstance(read, pl.LazyFrame)
    assert read.collect().select(sorted(events.columns)).equals(events.select(sorted(events.columns)))
    assert read.collect_schema() == {
        USER_ID: pl.String, ITEM_ID: pl.String, TIMESTAMP: pl.Float64, ORDER: pl.Int64,
        "event_type": pl.String, "value": pl.Float64,
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["tsv", "semicolon", "gz", "bom", "jsonl", "jsonl-bom", "parquet", "glob", "folder"]
)
def test_files_read_alike(tmp_path: Path, events_csv: Path, table: pl.DataFrame, kind: str) -> None:
    separator = None
    folder = tmp_path / "more"
    folder.mkdir()
    source: Path | str = folder
    if kind == "tsv":
        source = write(folder / "a.tsv", TWELVE_EVENTS.replace(",", "\t"))
    elif kind == "semicolon":
        source, separator = write(folder / "a.csv", TWELVE_EVENTS.replace(",", ";")), ";"
    elif kind == "gz":
        source = folder / "a.csv.gz"
        source.write_bytes(gzip.compress(TWELVE_EVENTS.encode()))
    elif kind == "bom":
        source = write(folder / "a.csv", TWELVE_EVENTS, "utf-8-sig")
    elif kind.startswith("jsonl"):
        source = folder / "a.jsonl"
        table.write_ndjson(source)
        if kind == "jsonl-bom":
            source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    elif kind == "parquet":
        source = folder / "a.parquet"
        table.write_parquet(source)
    else:
        table[:5].write_csv(folder / "part-1.csv")
        table[5:].write_csv(folder / "part-2.csv")
        write(folder / "README.md", "not events")
        write(folder / ".hidden.csv", "not events")
        source = str(folder / "part-*.csv") if kind == "glob" else folder
    expected = read_events(events_csv, **COLUMNS).collect()
    assert read_events(source, separator=separator, **COLUMNS).collect().equals(expected)


def test_tables_come_back_as_the_kind_given(events_csv: Path, table: pl.DataFrame) -> None:
    expected = read_events(events_csv, **COLUMNS).collect()
    from_polars = read_events(table, **COLUMNS)
    assert isinstance(from_polars, pl.DataFrame) and from_polars.equals(expected)
    from_lazy = read_events(table.lazy(), **COLUMNS)
    assert isinstance(from_lazy, pl.LazyFrame) and from_lazy.collect().equals(expected)
    from_pandas = read_events(table.to_pandas(), **COLUMNS)
    assert isinstance(from_pandas, pd.DataFrame) and pl.from_pandas(from_pandas).equals(expected)
    from_arrow = read_events(table.to_arrow(), **COLUMNS)
    assert isinstance(from_arrow, pa.Table) and pl.DataFrame(from_arrow).equals(expected)
    from_dataset = read_events(datasets.Dataset.from_list(table.to_dicts()), **COLUMNS)
    assert isinstance(from_dataset, datasets.Dataset)
    assert pl.DataFrame(from_dataset.with_format("arrow")[:]).equals(expected)
    shuffled = datasets.Dataset.from_list(table.to_dicts()).select([3, 1])
    assert read_events(shuffled)["item_id"] == ["jam", "cup"]


def test_duckdb_gives_the_rows_of_polars(table: pl.DataFrame) -> None:
    numbered = table.with_row_index("row")
    answer = read_events(relation(numbered), order="row", **COLUMNS)
    assert isinstance(answer, duckdb.DuckDBPyRelation)
    assert answer.pl().sort(ORDER).equals(read_events(numbered, order="row", **COLUMNS))
    assert ORDER not in read_events(relation(table)).columns


def test_hub_dataset(monkeypatch: pytest.MonkeyPatch, table: pl.DataFrame) -> None:
    asked = []

    def load(name: str) -> datasets.DatasetDict:
        asked.append(name)
        data = datasets.Dataset.from_list(table.to_dicts())
        return datasets.DatasetDict(train=data, test=data.select(range(2)))

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_events("hub:ann/shop@test").collect().height == 2
    assert read_events("hf://datasets/ann/shop@train").collect().height == 12
    assert asked == ["ann/shop", "ann/shop"]
    with pytest.raises(ValueError, match=r"has the splits train, test: name one, hub:ann/shop@train"):
        read_events("hub:ann/shop")
    with pytest.raises(ValueError, match="has no split 'valid'"):
        read_events("hub:ann/shop@valid")
    with pytest.raises(ValueError, match="hub:owner/name"):
        read_events("hub:shop")


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_iso_text(engine: str) -> None:
    texts = [*ISO_TEXTS, *NOT_ISO_TEXTS, None, ""]
    table = pl.DataFrame({USER_ID: ["a"] * len(texts), ITEM_ID: ["x"] * len(texts), TIMESTAMP: texts,
                          ORDER: range(len(texts))})  # fmt: skip
    source = relation(table) if engine == "duckdb" else table
    read = read_events(source, time_unit="iso", order=ORDER, keep_invalid=True)
    read = (read.pl() if engine == "duckdb" else read).sort(ORDER)
    assert read[TIMESTAMP].to_list() == [*ISO_TEXTS.values(), *[None] * (len(NOT_ISO_TEXTS) + 2)]


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_datetimes_need_no_unit(engine: str) -> None:
    time = datetime.datetime(2020, 1, 1, 12, 0, 3, 250_000, tzinfo=datetime.UTC)
    naive = time.replace(tzinfo=None)
    table = pl.DataFrame({USER_ID: ["a"], ITEM_ID: ["x"], "naive": [naive], "aware": [time],
                          "date": [naive.date()]})  # fmt: skip
    table = table.with_columns(pl.col("aware").dt.convert_time_zone("Asia/Kolkata"))
    for column in ("naive", "aware", "date"):
        source: object = table
        if engine == "duckdb":
            connection = duckdb.connect()
            connection.execute("set timezone = 'Asia/Tokyo'")
            source = connection.from_arrow(table.to_arrow())
        read = read_events(source, time=column)
        seconds = (read.pl() if engine == "duckdb" else read)[TIMESTAMP][0]
        assert seconds == (1577836800.0 if column == "date" else time.timestamp())


def test_time_units_keep_the_fraction() -> None:
    table = pl.DataFrame({USER_ID: ["a"], ITEM_ID: ["x"], "ms": [1577836800123], "us": ["1577836800123456"]})
    assert read_events(table, time="ms", time_unit="ms")[TIMESTAMP].to_list() == [1577836800.123]
    assert read_events(table, time="us", time_unit="us")[TIMESTAMP].to_list() == [1577836800.123456]


def test_ids_stay_as_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'user_id,item_id,timestamp\n007,"a, b ",1\n7,🎬é,2\n07,NaN,3\n')
    read = read_events(path).collect()
    assert read[USER_ID].to_list() == ["007", "7", "07"]
    assert read[ITEM_ID].to_list() == ["a, b ", "🎬é", "NaN"]
    lines = write(tmp_path / "a.jsonl", '{"user_id":1,"item_id":"x","timestamp":1}\n'
                                        '{"user_id":"b","item_id":2,"timestamp":"2"}\n')  # fmt: skip
    assert read_events(lines).collect()[USER_ID].to_list() == ["1", "b"]
    floats = pd.DataFrame({USER_ID: [1.0, 2.0], ITEM_ID: [3, 4], TIMESTAMP: [1, 2]})
    assert list(read_events(floats)[USER_ID]) == ["1", "2"]


def test_missing_file(tmp_path: Path, events_csv: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file .*event\.csv.*did you mean .*events\.csv"):
        read_events(tmp_path / "event.csv")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        read_events(str(tmp_path / "*.parquet"))
    (tmp_path / "void").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no event files"):
        read_events(tmp_path / "void")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", TWELVE_EVENTS.replace(",", ";").encode(), "pass separator=';'"),
        ("a.tsv", TWELVE_EVENTS.encode(), "pass separator=','"),
        ("a.csv", TWELVE_EVENTS.replace("user_id", "userId").encode(), "did you mean 'userId'"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"user_id,item_id,timestamp\n", "holds no events"),
        ("a.csv", TWELVE_EVENTS.encode("utf-16"), "not UTF-8"),
        ("a.csv", "user_id,item_id,timestamp\nann,caf\u00e9,1\n".encode("latin-1"), "cannot be read.*UTF-8"),
        ("a.csv", b"user_id,item_id,timestamp\na,b,1,2,3\n", "cannot be read"),
        ("a.csv", b"user_id,item_id,timestamp\na,b,soon\na,c,1\n", "of 2: 1 with unreadable time .*'soon'"),
        ("a.csv", b"user_id,item_id,timestamp\na,b,-5\n", "1 with negative time .*'-5'"),
        ("a.csv", b"user_id,item_id,timestamp\na,b,2020-01-01\n", "pass time_unit='iso'"),
        ("a.csv", b"user_id,item_id,timestamp\na,b,1600000000000\n", "did you mean time_unit='ms'"),
        ("a.csv", b"user_id,item_id,timestamp\na,b,1600000000000000\n", "did you mean time_unit='us'"),
        ("a.csv", b"user_id,item_id,timestamp\n,b,1\na, ,1\na,b,\n",
         "1 with missing user.*1 with missing item.*1 with missing time"),
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"[1]", "JSON array"),
        ("a.jsonl", b"{{", "not JSON Lines"),
        ("a.jsonl", b'{"user":1,"item_id":2,"timestamp":3}\n', "'user_id' .*did you mean 'user'"),
        ("a.parquet", b"PAR1 not really", "not a readable Parquet file"),
        ("a.xlsx", b"PK", "has no suffix that says its format"),
    ],
)  # fmt: skip
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_events(path)
    assert "\n" not in str(caught.value)


def test_bad_tables(table: pl.DataFrame, caplog: pytest.LogCaptureFixture) -> None:
    pandas = table.to_pandas()
    nan = pandas.assign(user_id=[1.0, float("nan"), *[2.0] * 10])
    with pytest.raises(ValueError, match="1 with missing user"):
        read_events(nan)
    kept = read_events(nan, keep_invalid=True)
    assert "1 with missing user" in caplog.text
    assert kept[USER_ID].isna().sum() == 1 and kept[USER_ID][0] == "1"
    mixed = pandas.assign(item_id=pd.Series([1, "b", *["c"] * 10], dtype=object))
    with pytest.raises(ValueError, match=r"column 'item_id' of source mixes types \(int 1, str 'c'\)"):
        read_events(mixed)
    with pytest.raises(ValueError, match="1 with fractional user"):
        read_events(pandas.assign(user_id=[1.5, *[2.0] * 11]))
    with pytest.raises(ValueError, match="holds numbers.*pass time_unit='s'"):
        read_events(table, time_unit="iso")
    with pytest.raises(ValueError, match="must be one of s, ms, us, iso"):
        read_events(table, time_unit="ns")
    with pytest.raises(ValueError, match="unreadable value"):
        read_events(table, value="event_type")
    with pytest.raises(ValueError, match="holds no events"):
        read_events(table[:0])
    with pytest.raises(ValueError, match="did you mean 'item_id'"):
        read_events(table, item="itemid")
    with pytest.raises(ValueError, match="named for two purposes"):
        read_events(table, item="user_id")
    with pytest.raises(ValueError, match="source is a builtins.list"):
        read_events([1, 2])
    with pytest.raises(ValueError, match="give one split"):
        read_events(datasets.DatasetDict(train=datasets.Dataset.from_list(table.to_dicts())))
    with pytest.raises(ValueError, match="ids must be text or whole numbers"):
        read_events(table.with_columns(user_id=pl.lit(True)))


def test_keep_invalid_refuses_a_wrong_unit() -> None:
    table = pl.DataFrame({USER_ID: ["a", "b"], ITEM_ID: ["x", "y"], TIMESTAMP: ["2020-01-01", "2020-01-02"]})
    with pytest.raises(ValueError, match="time_unit='iso'"):
        read_events(table, keep_invalid=True)


@pytest.mark.parametrize("engine", ["polars", "duckdb", "pandas"])
def test_events_leave_sorted(events: pl.DataFrame, engine: str) -> None:
    events = events.with_columns(pl.lit(5.0).alias(TIMESTAMP), value=pl.col(ORDER).cast(pl.Float64))
    shuffled = events.sample(fraction=1.0, shuffle=True, seed=3)
    source = {"polars": shuffled, "duckdb": relation(shuffled), "pandas": shuffled.to_pandas()}[engine]
    (table,) = stream_sorted(source)
    assert table.column("value").to_pylist() == list(range(12))
    assert table.schema.field(USER_ID).type.value_type == pa.large_string()
    assert table.column(USER_ID).num_chunks == 1
    (by_item,) = stream_sorted(shuffled.drop(ORDER))
    assert by_item.column(ITEM_ID).to_pylist()[:4] == ["cup", "jam", "pot", "tea"]
    with pytest.raises(ValueError, match="1 events have no timestamp"):
        list(stream_sorted(events.with_columns(timestamp=pl.when(pl.col(ORDER) > 0).then(1.0))))
    with pytest.raises(ValueError, match="call read_events first"):
        list(stream_sorted(events.with_columns(timestamp=pl.lit("1"))))


def test_reading_needs_no_torch() -> None:
    code = "import sys, recbert.events; print({'torch', 'peft', 'matplotlib', 'datasets'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
