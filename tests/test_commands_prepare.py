"""`recbert prepare` on every engine: the same bytes, spilling to disk, and nothing left where it fails."""

import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

import recbert.events.plots
import recbert.sequences.shards
from recbert.commands.main import main
from recbert.sequences import read_prepared


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than everything else here."""
    monkeypatch.setattr(recbert.events.plots, "draw_page", lambda _: b"")


CLEANINGS: dict[str, dict[str, Any]] = {
    "duplicates": {"drop_invalid": True, "drop_duplicates": True},
    "core": {"drop_invalid": True, "drop_repeats": True, "min_user_count": 12, "min_item_count": 15},
    "fills": {"impute_time": "median", "impute_value": "neighbours", "drop_invalid": True},
    "filters": {"drop_invalid": True, "keep_event_types": ["a"], "start": 5, "max_events_per_user": 40},
    "sessions": {"drop_invalid": True, "session_gap_minutes": 0.1},
}
SPLITS: dict[str, dict[str, Any]] = {
    "temporal": {"method": "temporal", "target": "all"},
    "leave-one-out": {"method": "leave-one-out"},
    "users": {"method": "users"},
    "cohort": {"method": "leave-one-out", "cohort": {"keep": "rest", "fraction": 0.3}},
}


def write_events(path: Path, rows: int = 2000, users: int = 50) -> Path:
    """Random events with many ties in time, copies, repeats, and nothing in every column now and then."""
    draw = random.Random(0)
    columns: dict[str, list[Any]] = {"user_id": [], "item_id": [], "timestamp": [], "kind": [], "stars": []}
    for _ in range(rows):
        event = {
            "user_id": draw.choice([f"ü {draw.randrange(users)}"] * 50 + [None]),
            "item_id": draw.choice([f"i{int(draw.random() ** 2 * 60)}"] * 50 + [None]),
            "timestamp": draw.choice([float(draw.randrange(90))] * 50 + [None]),
            "kind": draw.choice(["a", "b", None]),
            "stars": draw.choice([1.0, 2.5, None]),
        }
        for _ in range(draw.choice([1, 1, 1, 2])):
            for name, value in event.items():
                columns[name].append(value)
    pl.DataFrame(columns).write_parquet(path)
    return path


def prepare(folder: Path, events: Path, **sections: dict[str, Any]) -> int:
    """Run the command on a recipe; the prepared data goes to `folder`."""
    data = {"events": str(events), "prepared": str(folder), "event_type": "kind", "value": "stars"}
    recipe: dict[str, Any] = {**sections, "data": {**data, **sections["data"]}}
    recipe.setdefault("training", {"output_dir": str(folder.parent / "run")})
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return main(["prepare", "--config", str(path)])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that depends on the events alone, by name."""
    own = {"state.json", "manifest.json", "README.md", "report.png"}
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in own)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in files}
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {**found, "counts": json.dumps([manifest["counts"], manifest["fingerprint"]]).encode()}


@pytest.mark.parametrize(
    ("cleaning", "split"),
    [
        ("duplicates", "temporal"),
        ("duplicates", "cohort"),
        ("core", "leave-one-out"),
        ("fills", "users"),
        ("filters", "leave-one-out"),
        ("sessions", "temporal"),
    ],
)
def test_duckdb_writes_the_bytes_of_polars(tmp_path: Path, cleaning: str, split: str) -> None:
    events = write_events(tmp_path / "events.parquet")
    written = {}
    for engine in ("polars", "duckdb"):
        data = {"engine": engine, "clean": CLEANINGS[cleaning]}
        sections = {"split": SPLITS[split], "sequences": {"max_length": 10, "windows": "sliding"}}
        assert prepare(tmp_path / engine, events, data=data, **sections) == 0
        written[engine] = contents(tmp_path / engine)
    assert {"train/data-00000-of-00001.arrow", "report/report.json"} < set(written["polars"])
    assert written["duckdb"] == written["polars"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parts"])
def test_duckdb_reads_the_files_that_polars_reads(tmp_path: Path, ending: str) -> None:
    table = pl.read_parquet(write_events(tmp_path / "events.parquet", rows=300)).drop_nulls()
    table = table.with_columns(pl.concat_str(pl.lit('a"b,\n'), "item_id").alias("item_id"))
    source = tmp_path / f"table.{ending}"
    if ending == "parts":
        source.mkdir()
        for place in range(3):
            table[place * 100 : place * 100 + 100].write_parquet(source / f"{place}.parquet")
    elif ending == "jsonl":
        table.write_ndjson(source)
    else:
        table.write_csv(source, separator="\t" if ending == "tsv" else ",")
    for engine in ("polars", "duckdb"):
        split = {"method": "leave-one-out"}
        assert prepare(tmp_path / engine, source, data={"engine": engine}, split=split) == 0
    assert contents(tmp_path / "duckdb") == contents(tmp_path / "polars")


def test_shards_do_not_depend_on_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blocks and small shards hold the rows of large ones."""
    events = write_events(tmp_path / "events.parquet")
    sections = {"data": {"clean": CLEANINGS["duplicates"]}, "split": SPLITS["leave-one-out"]}
    assert prepare(tmp_path / "large", events, **sections) == 0
    monkeypatch.setattr(recbert.sequences.storage, "SHARD_BYTES", 1)
    monkeypatch.setattr(recbert.sequences.shards, "BATCH_ROWS", 7)
    monkeypatch.setattr(recbert.events.leaving, "BATCH_ROWS", 100)
    written = {}
    for engine in ("polars", "duckdb"):
        sections["data"]["engine"] = engine
        assert prepare(tmp_path / engine, events, **sections) == 0
        written[engine] = contents(tmp_path / engine)
    assert written["duckdb"] == written["polars"]
    assert len(list((tmp_path / "polars" / "train").glob("*.arrow"))) == 8
    large, _, manifest = read_prepared(tmp_path / "large")
    small, _, other = read_prepared(tmp_path / "duckdb")
    assert other["fingerprint"] == manifest["fingerprint"]
    assert small["test"]["input_ids"][:] == large["test"]["input_ids"][:]


@pytest.mark.parametrize("space", ["", "1KB"], ids=["spills", "no space"])
def test_duckdb_in_little_memory(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, space: str
) -> None:
    """It spills beside the prepared data, and says so where it cannot; no spilled file is left."""
    events = write_events(tmp_path / "events.parquet", rows=60_000, users=3000)
    connect = duckdb.connect

    def connect_small(config: dict[str, str]) -> duckdb.DuckDBPyConnection:
        connection = connect(config={**config, "threads": "1"})
        assert Path(config["temp_directory"]).parent == tmp_path / "out"
        if space:
            connection.execute(f"set max_temp_directory_size = '{space}'")
        return connection

    monkeypatch.setattr(duckdb, "connect", connect_small)
    (tmp_path / "out").mkdir()
    data = {"engine": "duckdb", "memory_limit": "16MB", "clean": CLEANINGS["duplicates"]}
    code = prepare(tmp_path / "out" / "prepared", events, data=data, split=SPLITS["leave-one-out"])
    left = {path.name for path in (tmp_path / "out").iterdir()}
    if space:
        assert code == 2 and left == {"prepared.json"}
        assert "DuckDB has no space left to spill to" in capfd.readouterr().err
    else:
        assert code == 0 and left == {"prepared.json", "prepared"}


@pytest.mark.parametrize(
    ("limit", "message"),
    [("lots", "memory_limit='lots' is no amount of memory"), ("1KB", "memory limit is too small")],
)
def test_memory_limits_that_do_not_work(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], limit: str, message: str
) -> None:
    events = write_events(tmp_path / "events.parquet", rows=2000)
    data = {"engine": "duckdb", "memory_limit": limit, "clean": CLEANINGS["duplicates"]}
    assert prepare(tmp_path / "prepared", events, data=data, split=SPLITS["leave-one-out"]) == 2
    assert message in capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"events.parquet", "prepared.json"}


@pytest.fixture(scope="module")
def spark() -> Any:
    """A local Spark session, where PySpark and Java are installed; `recbert prepare` finds it by itself."""
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    settings = {
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.adaptive.enabled": "false",  # would make one range of so few rows
        "spark.sql.shuffle.partitions": "3",
        "spark.ui.enabled": "false",
    }
    builder = sql.SparkSession.builder.master("local[2]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        session = builder.getOrCreate()
        yield session
        session.stop()


# PySpark 4 calls pandas 3 new to it; no pandas table is made here.
@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("cleaning", "split"),
    [("duplicates", "leave-one-out"), ("core", "temporal"), ("fills", "users"), ("sessions", "cohort")],
)
def test_spark_writes_the_bytes_of_polars(spark: Any, tmp_path: Path, cleaning: str, split: str) -> None:
    events = write_events(tmp_path / "events.parquet")
    table = pl.read_parquet(events).with_row_index("row").sample(fraction=1.0, shuffle=True, seed=1)
    table.write_parquet(events)
    written = {}
    for engine in ("polars", "spark"):
        data = {"engine": engine, "order": "row", "clean": CLEANINGS[cleaning]}
        sections = {"split": SPLITS[split], "sequences": {"max_length": 10, "windows": "sliding"}}
        assert prepare(tmp_path / engine, events, data=data, **sections) == 0
        written[engine] = contents(tmp_path / engine)
    assert written["spark"] == written["polars"]


def test_spark_says_what_it_needs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    events = write_events(tmp_path / "events.parquet", rows=10)
    assert prepare(tmp_path / "out", events, data={"engine": "spark"}, split=SPLITS["users"]) == 2
    assert "pip install 'recbert[spark]'" in capfd.readouterr().err
