"""Whatever kind of table comes in -> one lazy narwhals frame on its engine, and the way back.

DuckDB relations and Spark frames stay where they are. Polars frames, pandas and Arrow tables and `datasets`
go through polars and come back as the kind that was given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import narwhals as nw
import polars as pl
import pyarrow as pa
from narwhals.exceptions import NarwhalsError

from recbert.events.columns import (
    EVENT_TYPE,
    ITEM_ID,
    ORDER,
    REQUIRED_COLUMNS,
    TIMESTAMP,
    USER_ID,
    VALUE,
)
from recbert.events.duckdb_tables import hold_relation, named_errors, query_beside
from recbert.events.messages import check_columns

Frame = nw.LazyFrame[Any]
Restore = Callable[[Frame], Any]


def open_frame(
    events: Any, *, argument: str = "events", columns: Sequence[str] | None = None
) -> tuple[Frame, Restore]:
    """A lazy narwhals frame over the table, and the function that gives its result the kind that came in.

    Args:
        events: polars DataFrame or LazyFrame, pandas DataFrame, pyarrow Table, `datasets.Dataset`, DuckDB
            relation or Spark DataFrame.
        argument: name of the argument, for messages.
        columns: the columns needed; all when None.

    Raises:
        ValueError: if the kind is unknown, a column is absent, or a pandas object column mixes types.
    """
    if _is_dataset(events):
        return _open_dataset(events, argument, columns)
    try:
        frame = nw.from_native(events)
    except TypeError:
        raise ValueError(
            f"{argument} is a {type(events).__module__}.{type(events).__qualname__}: "
            "give a path, a polars, pandas or pyarrow table, a datasets.Dataset, a DuckDB relation "
            "or a Spark DataFrame"
        ) from None
    names = frame.collect_schema().names()
    if columns is not None:
        check_columns(names, columns, argument)
        frame = frame.select(*columns)
    native = nw.to_native(frame)
    if isinstance(native, pl.DataFrame):
        return as_frame(native.lazy()), lambda result: collect(result).to_polars()
    if frame.implementation.is_pandas():
        return as_frame(
            _from_pandas(native, argument).lazy()
        ), lambda result: collect(result).to_polars().to_pandas()
    if isinstance(native, pa.Table):
        return as_frame(_from_arrow(native).lazy()), lambda result: collect(result).to_arrow()
    if isinstance(frame, nw.LazyFrame):
        return frame, nw.to_native
    raise ValueError(
        f"{argument} lives on {frame.implementation}: convert it to polars, pandas or pyarrow first"
    )


def require_events(frame: Frame, argument: str = "events") -> None:
    """Check that a frame is a canonical event table.

    Raises:
        ValueError: if a required column is absent or has another type than `read_events` gives it.
    """
    schema = frame.collect_schema()
    check_columns(
        schema.names(), REQUIRED_COLUMNS, argument, hint="; pass the table through read_events first"
    )
    for name in (USER_ID, ITEM_ID, EVENT_TYPE):
        if name in schema and schema[name] != nw.String:
            raise ValueError(
                f"column '{name}' of {argument} is {schema[name]}, not text: call read_events first"
            )
    for name in (TIMESTAMP, ORDER, VALUE):
        if name in schema and not schema[name].is_numeric():
            raise ValueError(
                f"column '{name}' of {argument} is {schema[name]}, not a number: call read_events first"
            )


def tie_breaker(frame: Frame) -> str:
    """Name of the column that orders events of one user at one time: `order`, else the item id."""
    return ORDER if ORDER in frame.collect_schema().names() else ITEM_ID


def collect(frame: Frame) -> nw.DataFrame[Any]:
    """Run the pipeline; the result is a polars frame, or an Arrow table for other engines.

    Raises:
        OSError: if DuckDB has no space left to spill to.
        ValueError: if polars cannot read the source (bad encoding, ragged rows, a damaged file), or DuckDB's
            memory limit is too small.
    """
    try:
        with named_errors():
            return frame.collect()
    except (pl.exceptions.PolarsError, NarwhalsError, UnicodeDecodeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the event table cannot be read ({first_line}): check its separator, encoding (UTF-8) "
            "and that every row has the columns of the header"
        ) from error


def rows(frame: Frame) -> list[dict[str, Any]]:
    """The rows as dictionaries of plain Python values (small results only)."""
    answer: list[dict[str, Any]] = collect(frame).to_arrow().to_pylist()
    return answer


def single(frame: Frame) -> dict[str, Any]:
    """The only row of an aggregate."""
    return rows(frame)[0]


def materialise(frame: Frame, instead_of: Frame | None = None) -> Frame:
    """The same rows, computed once and held (a checkpoint on Spark), still on their engine.

    Steps that need several passes (counts, examples, k-core rounds) would otherwise run everything before
    them again and again. What was held for `instead_of` may be given up.
    """
    native = nw.to_native(frame)
    if isinstance(native, pl.LazyFrame):
        return as_frame(collect(frame).to_polars().lazy())
    if frame.implementation.is_duckdb():
        old = None if instead_of is None else nw.to_native(instead_of)
        with named_errors():
            return as_frame(hold_relation(native, old))
    checkpoint = getattr(native, "localCheckpoint", None)
    return frame if checkpoint is None else as_frame(checkpoint())


def place_beside(frame: Frame, table: pa.Table) -> Frame:
    """A small Arrow table on the engine (and connection) of another frame, so that the two can be joined."""
    native = nw.to_native(frame)
    if frame.implementation.is_duckdb():
        return as_frame(hold_relation(query_beside(native, table)))
    if frame.implementation.is_polars():
        return as_frame(_from_arrow(table).lazy())
    return as_frame(native.sparkSession.createDataFrame(table))


def as_frame(native: Any) -> Frame:
    """A native table as the lazy frame that every step works on."""
    frame: Frame = nw.from_native(native).lazy()
    return frame


def _is_dataset(events: Any) -> bool:
    return type(events).__module__.partition(".")[0] == "datasets" and "datasets" in sys.modules


def _open_dataset(events: Any, argument: str, columns: Sequence[str] | None) -> tuple[Frame, Restore]:
    if type(events).__name__ != "Dataset":
        raise ValueError(
            f"{argument} is a datasets.{type(events).__name__}: give one split of it, a datasets.Dataset"
        )
    if columns is not None:
        check_columns(events.column_names, columns, argument)
        events = events.select_columns(list(columns))
    table = events.with_format("arrow")[:]
    kind = type(events)
    return as_frame(_from_arrow(table).lazy()), lambda result: kind(collect(result).to_arrow())


def _from_arrow(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _from_pandas(table: Any, argument: str) -> pl.DataFrame:
    for name in table.columns:
        if table[name].dtype == object:
            kinds = {type(value).__name__: value for value in table[name].dropna()}
            if len(kinds) > 1:
                shown = ", ".join(f"{kind} {value!r}" for kind, value in sorted(kinds.items()))
                raise ValueError(
                    f"column '{name}' of {argument} mixes types ({shown}): make it one, e.g. "
                    f"frame['{name}'] = frame['{name}'].astype(str)"
                )
    return pl.from_pandas(table, include_index=False)
