"""Reading an event table: columns mapped by name, times understood as told, invalid events named."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import narwhals as nw
import polars as pl

from recbert.events import parsing
from recbert.events.columns import EVENT_TYPE, ITEM_ID, ORDER, TIMESTAMP, USER_ID, VALUE
from recbert.events.engine import Frame, Restore, open_frame, rows, single
from recbert.events.files import scan_files
from recbert.events.hub_tables import is_hub_source, read_hub_table
from recbert.events.messages import check_columns

logger = logging.getLogger(__name__)

YEAR_5138 = 1e11
_RAW = "raw_"
_EXAMPLES = 3


def read_events(
    source: Any,
    *,
    user: str = USER_ID,
    item: str = ITEM_ID,
    time: str = TIMESTAMP,
    time_unit: str = "s",
    order: str | None = None,
    event_type: str | None = None,
    value: str | None = None,
    separator: str | None = None,
    keep_invalid: bool = False,
) -> Any:
    """An event table: `user_id, item_id, timestamp, order` and, if named, `event_type, value`.

    Ids become text, times epoch seconds (UTC, float64, the fraction kept). Nothing is guessed: numbers are
    read in `time_unit`, text is a number unless `time_unit="iso"`; columns of a datetime type need no unit.

    Args:
        source: a path, glob or folder of CSV, TSV, JSON Lines or Parquet files; a polars, pandas or pyarrow
            table; a DuckDB relation or Spark DataFrame; a `datasets.Dataset`; a Hub dataset as
            "hub:owner/name" or "hf://datasets/owner/name", with "@split" where it has several.
        user: column of user ids (text or whole numbers).
        item: column of item ids (text or whole numbers).
        time: column of times.
        time_unit: "s", "ms" or "us" since 1970, or "iso" for ISO 8601 text; text without an offset is UTC.
        order: column of whole numbers that breaks ties in time. When None, it is the row of the source;
            DuckDB and Spark have no rows to number, so there ties break by item id.
        event_type: column of event types, e.g. view or purchase.
        value: column of numbers, e.g. ratings.
        separator: of CSV files; comma (tab for .tsv) when None.
        keep_invalid: keep events without user, item or valid time as nulls, to be dropped or imputed by
            `clean_events`, instead of refusing them.

    Returns:
        A polars.LazyFrame for files and Hub datasets, otherwise a table of the kind that was given.

    Raises:
        FileNotFoundError: if no file is there.
        ValueError: for a wrong separator, absent column, empty table, wrong time unit, or invalid events
            (with counts and examples).
    """
    given = {
        USER_ID: user,
        ITEM_ID: item,
        TIMESTAMP: time,
        ORDER: order,
        EVENT_TYPE: event_type,
        VALUE: value,
    }
    mapping = {name: column for name, column in given.items() if column is not None}
    columns = list(mapping.values())
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise ValueError(f"column '{twice[0]}' is named for two purposes in {mapping}: each needs its own")
    frame, restore, label = _open(source, columns, separator)
    parsed = _parse(frame, mapping, time_unit)
    _check(parsed, mapping, label, time_unit, keep_invalid)
    return restore(_canonical(parsed, mapping))


def _open(source: Any, columns: list[str], separator: str | None) -> tuple[Frame, Restore, str]:
    """The wanted columns as a lazy frame, the way back to the kind given, and a name for messages."""
    if is_hub_source(source):
        label = str(source)
        table = read_hub_table(label)
        check_columns(table.columns, columns, label)
        return *open_frame(table.select(columns).lazy()), label
    if isinstance(source, (str, os.PathLike)):
        return *open_frame(scan_files(source, columns, separator)), os.fspath(source)
    if separator is not None:
        raise ValueError(f"separator={separator!r} is for CSV files, but source is a table: leave it out")
    return *open_frame(source, argument="source", columns=columns), "source"


def _parse(frame: Frame, mapping: Mapping[str, str], time_unit: str) -> Frame:
    """The canonical columns beside the raw ones, which are kept for messages under another name."""
    frame = frame.select(**{_RAW + name: nw.col(column) for name, column in mapping.items()})
    schema = frame.collect_schema()
    for name in (USER_ID, ITEM_ID):
        if not parsing.is_identifier(schema[_RAW + name]):
            raise ValueError(
                f"column '{mapping[name]}' is {schema[_RAW + name]}: ids must be text or whole numbers"
            )
    _check_types(schema, mapping, time_unit)
    parsed = {
        USER_ID: parsing.parse_id(_RAW + USER_ID, schema[_RAW + USER_ID]),
        ITEM_ID: parsing.parse_id(_RAW + ITEM_ID, schema[_RAW + ITEM_ID]),
    }
    if ORDER in mapping:
        parsed[ORDER] = parsing.parse_order(_RAW + ORDER, schema[_RAW + ORDER])
    if EVENT_TYPE in mapping:
        parsed[EVENT_TYPE] = parsing.parse_label(_RAW + EVENT_TYPE)
    if VALUE in mapping:
        parsed[VALUE] = parsing.parse_number(_RAW + VALUE, schema[_RAW + VALUE])
    native = nw.to_native(frame)
    if ORDER not in mapping and isinstance(native, pl.LazyFrame):
        numbered = native.with_row_index(_RAW + ORDER)
        frame = nw.from_native(numbered)
        parsed[ORDER] = nw.col(_RAW + ORDER).cast(nw.Int64)
    elif ORDER not in mapping:
        logger.warning(
            "the %s table has no row order: ties in time break by item id; name a column with order=",
            frame.implementation,
        )
    return parsing.add_time(frame.with_columns(**parsed), _RAW + TIMESTAMP, time_unit, TIMESTAMP)


def _check_types(schema: nw.Schema, mapping: Mapping[str, str], time_unit: str) -> None:
    if time_unit not in parsing.TIME_UNITS:
        raise ValueError(f"time_unit={time_unit!r} must be one of {', '.join(parsing.TIME_UNITS)}")
    dtype, column = schema[_RAW + TIMESTAMP], mapping[TIMESTAMP]
    if parsing.is_datetime(dtype):
        return
    if dtype.is_numeric():
        if time_unit == "iso":
            raise ValueError(
                f"column '{column}' holds numbers ({dtype}), not ISO 8601 text: pass time_unit='s', 'ms' "
                "or 'us'"
            )
    elif dtype != nw.String:
        raise ValueError(f"column '{column}' is {dtype}: times must be numbers, ISO 8601 text or datetimes")
    for name in (ORDER, VALUE):
        if name in mapping and not (schema[_RAW + name].is_numeric() or schema[_RAW + name] == nw.String):
            raise ValueError(f"column '{mapping[name]}' is {schema[_RAW + name]}: {name} must be a number")


def _check(parsed: Frame, mapping: Mapping[str, str], label: str, time_unit: str, keep_invalid: bool) -> None:
    """One pass over the table that counts what is wrong, and raises for it."""
    schema = parsed.collect_schema()
    problems = _problems(schema, mapping, time_unit)
    counts = single(
        parsed.select(
            nw.len().alias("events"),
            nw.col(TIMESTAMP).max().alias("latest"),
            nw.col(TIMESTAMP).is_null().cast(nw.Int64).sum().alias("timeless"),
            *(
                problem.fill_null(False).cast(nw.Int64).sum().alias(name)
                for name, problem in problems.items()
            ),
        )
    )
    total = int(counts["events"])
    if not total:
        raise ValueError(f"{label} holds no events: it has the columns, but no rows")
    column = mapping[TIMESTAMP]
    latest = counts["latest"]
    if latest is not None and latest >= YEAR_5138 and not parsing.is_datetime(schema[_RAW + TIMESTAMP]):
        fitting = "ms" if time_unit == "s" and latest < YEAR_5138 * 1e3 else "us"
        raise ValueError(
            f"times in column '{column}' reach {latest:.6g} seconds, beyond the year 5138, when read with "
            f"time_unit={time_unit!r}: did you mean time_unit='{fitting}'?"
        )
    found = {name: int(counts[name] or 0) for name in problems if counts[name]}
    fatal = "unreadable time" in found and found["unreadable time"] == total
    if found and (fatal or not keep_invalid):
        _refuse(parsed, mapping, f"{label} has invalid events, of {total}", problems, found, time_unit)
    if found:
        shown = ", ".join(f"{count:,} with {name}" for name, count in found.items())
        logger.warning("%s: of %s events, kept with nothing in that place: %s", label, f"{total:,}", shown)


def _problems(schema: nw.Schema, mapping: Mapping[str, str], time_unit: str) -> dict[str, nw.Expr]:
    """What can be wrong with an event, by name; each is a boolean expression over the parsed frame."""
    time_given = parsing.is_given(_RAW + TIMESTAMP, schema[_RAW + TIMESTAMP])
    problems = {
        "missing user": ~parsing.is_given(_RAW + USER_ID, schema[_RAW + USER_ID]),
        "missing item": ~parsing.is_given(_RAW + ITEM_ID, schema[_RAW + ITEM_ID]),
        "missing time": ~time_given,
        "unreadable time": time_given & nw.col(TIMESTAMP).is_null(),
        "negative time": nw.col(TIMESTAMP) < 0,
    }
    for name, id_name in (("fractional user", USER_ID), ("fractional item", ITEM_ID)):
        if schema[_RAW + id_name].is_float():
            problems[name] = nw.col(id_name).is_null() & parsing.is_given(_RAW + id_name, nw.Float64())
    if VALUE in mapping:
        given = parsing.is_given(_RAW + VALUE, schema[_RAW + VALUE])
        problems["unreadable value"] = given & nw.col(VALUE).is_null()
    if ORDER in mapping:
        problems["missing or fractional order"] = nw.col(ORDER).is_null()
    return problems


def _refuse(
    parsed: Frame,
    mapping: Mapping[str, str],
    headline: str,
    problems: Mapping[str, nw.Expr],
    found: Mapping[str, int],
    time_unit: str,
) -> None:
    raw = {name: _RAW + name for name in mapping}
    keys = [ORDER] if ORDER in parsed.collect_schema().names() else [USER_ID, ITEM_ID]
    parts = []
    for name, count in found.items():
        wrong = parsed.filter(problems[name].fill_null(False)).sort(*keys).head(_EXAMPLES)
        shown = "; ".join(
            ", ".join(f"{mapping[key]}={row[column]!r}" for key, column in raw.items())
            for row in rows(wrong.select(*raw.values()))
        )
        parts.append(f"{count} with {name} (e.g. {shown})")
    mend = (
        "mend them, or drop them: --data.clean.drop_invalid true for `recbert prepare`, in Python "
        "keep_invalid=True and then clean_events(events, drop_invalid=True)"
    )
    if "unreadable time" in found:
        mend = _time_mend(parsed, mapping[TIMESTAMP], time_unit, problems["unreadable time"]) or mend
    raise ValueError(f"{headline}: {'; '.join(parts)}: {mend}")


def _time_mend(parsed: Frame, column: str, time_unit: str, unreadable: nw.Expr) -> str | None:
    """The time unit that the unreadable times point to."""
    if parsed.collect_schema()[_RAW + TIMESTAMP] != nw.String:
        return None
    text = nw.col(_RAW + TIMESTAMP).str.strip_chars()
    wrong = parsed.filter(unreadable.fill_null(False)).select(
        iso=text.str.contains(parsing.ISO_DATE).cast(nw.Int64).sum(),
        numbers=text.str.contains(parsing.NUMBER).cast(nw.Int64).sum(),
    )
    counts = single(wrong)
    if counts["iso"] and time_unit != "iso":
        return f"column '{column}' seems to hold ISO 8601 text: pass time_unit='iso'"
    if counts["numbers"] and time_unit == "iso":
        return f"column '{column}' seems to hold numbers: pass time_unit='s', 'ms' or 'us'"
    return None


def _canonical(parsed: Frame, mapping: Mapping[str, str]) -> Frame:
    present = parsed.collect_schema().names()
    names = [name for name in (USER_ID, ITEM_ID, TIMESTAMP, ORDER, EVENT_TYPE, VALUE) if name in present]
    missing = nw.lit(None, dtype=nw.Float64)
    # Negative times are invalid like unreadable ones; they are only left here under keep_invalid.
    valid_time = nw.when(nw.col(TIMESTAMP) >= 0).then(nw.col(TIMESTAMP)).otherwise(missing)
    return parsed.with_columns(valid_time.alias(TIMESTAMP)).select(*names)
