"""Expressions that turn raw columns into canonical ones; what cannot be parsed becomes null, never an error.

Lazy engines have no try-cast, so every text is checked by a pattern before it is cast. The same expressions
run on polars, DuckDB and Spark.
"""

from __future__ import annotations

import datetime

import narwhals as nw

from recbert.events.engine import Frame

NUMBER = r"^-?(\d{1,40}(\.\d*)?|\.\d+)([eE][+-]?\d{1,2})?$"
INTEGER = r"^-?\d{1,18}$"
ISO_DATE = r"^\d{4}-\d{2}-\d{2}"
ISO = ISO_DATE + r"([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?\s?(Z|z|[+-]\d{2}(:?\d{2})?)?)?$"
UNITS_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}
TIME_UNITS = ("s", "ms", "us", "iso")

_DAYS_TO_1970 = 719_468
_PARTS = ("year", "month", "day", "hour", "minute", "second")
_DATE_PARTS = (("iso_year", 0, 4), ("iso_month", 5, 2), ("iso_day", 8, 2))
_EMPTY = nw.lit(None, dtype=nw.String)


def is_datetime(dtype: nw.dtypes.DType) -> bool:
    """Whether a column holds dates or datetimes, which need no time unit."""
    return dtype in (nw.Datetime, nw.Date)


def is_identifier(dtype: nw.dtypes.DType) -> bool:
    """Whether a column can hold ids: text, categories or numbers (whole ones; checked when read)."""
    return dtype in (nw.String, nw.Categorical, nw.Enum) or dtype.is_integer() or dtype.is_float()


def parse_id(name: str, dtype: nw.dtypes.DType) -> nw.Expr:
    """Text of an id; null where it is missing, blank, NaN or fractional; 7.0 among floats is the id "7"."""
    column = nw.col(name)
    if dtype.is_float():
        # A column of whole numbers turns into floats where one is missing.
        column = _whole(column).cast(nw.Int64)
    column = column.cast(nw.String)
    return nw.when(column.str.strip_chars() != "").then(column).otherwise(_EMPTY)


def is_given(name: str, dtype: nw.dtypes.DType) -> nw.Expr:
    """Whether the source has something in this field: not null, not NaN, not blank text."""
    column = nw.col(name)
    given = ~column.is_null()
    if dtype.is_float():
        given = given & ~column.is_nan().fill_null(False)
    if dtype == nw.String:
        given = given & (column.str.strip_chars() != "").fill_null(False)
    return given


def parse_number(name: str, dtype: nw.dtypes.DType) -> nw.Expr:
    """Float64 of a number or of its text; null where it is missing, NaN, infinite or something else."""
    column = nw.col(name)
    if dtype == nw.String:
        text = column.str.strip_chars()
        column = nw.when(text.str.contains(NUMBER)).then(text).otherwise(_EMPTY)
    number = column.cast(nw.Float64)
    return nw.when(number.is_finite()).then(number).otherwise(nw.lit(None, dtype=nw.Float64))


def parse_order(name: str, dtype: nw.dtypes.DType) -> nw.Expr:
    """Int64 of a whole number or of the text of one; null where it is something else."""
    column = nw.col(name)
    if dtype == nw.String:
        text = column.str.strip_chars()
        column = nw.when(text.str.contains(INTEGER)).then(text).otherwise(_EMPTY)
    elif dtype.is_float():
        column = _whole(column)
    return column.cast(nw.Int64)


def parse_label(name: str) -> nw.Expr:
    """Text of a label such as the event type; null where it is missing or blank."""
    text = nw.col(name).cast(nw.String)
    return nw.when(text.str.strip_chars() != "").then(text).otherwise(_EMPTY)


def add_time(frame: Frame, name: str, time_unit: str, output: str) -> Frame:
    """The frame with epoch seconds (Float64, the fraction kept); null where the time cannot be read."""
    dtype = frame.collect_schema()[name]
    if is_datetime(dtype):
        # Its text carries the offset, whatever time zone the engine shows it in.
        return add_iso_time(frame, nw.col(name).cast(nw.String), output)
    if time_unit == "iso":
        return add_iso_time(frame, nw.col(name), output)
    return frame.with_columns((parse_number(name, dtype) / UNITS_PER_SECOND[time_unit]).alias(output))


def add_iso_time(frame: Frame, text: nw.Expr, output: str) -> Frame:
    """The frame with epoch seconds (Float64) of ISO 8601 text; null where it is none.

    Understood: `2024-02-29`, then optionally `T` or a space, `hh:mm`, `:ss`, a fraction, and `Z`, `+hh`,
    `+hhmm` or `+hh:mm`. Text without an offset is UTC. Dates are checked (no 30 February).
    """
    # Column by column: engines compute an expression that is used five times five times.
    text = text.str.strip_chars()
    frame = frame.with_columns(nw.when(text.str.contains(ISO)).then(text).otherwise(_EMPTY).alias("iso_text"))
    date, clock = nw.col("iso_text"), nw.col("iso_clock")
    has_clock = nw.when(date.str.len_chars() > 10).then(date).otherwise(_EMPTY)
    frame = frame.with_columns(
        *(_digits(date, start, width).alias(part) for part, start, width in _DATE_PARTS),
        has_clock.alias("iso_clock"),
    )
    # The pattern fixes what can stand where, so that single characters tell the forms apart.
    with_second = nw.when(clock.str.slice(16, 1) == ":").then(clock).otherwise(_EMPTY)
    with_fraction = nw.when(clock.str.slice(19, 1).is_in([".", ","])).then(clock).otherwise(_EMPTY)
    digits = with_fraction.str.slice(20, 9).str.replace_all(r"[^0-9].*$", "")
    fraction = nw.concat_str(nw.lit("0."), digits).cast(nw.Float64).fill_null(0.0)
    frame = frame.with_columns(
        _digits(clock, 11).fill_null(0).alias("iso_hour"),
        _digits(clock, 14).fill_null(0).alias("iso_minute"),
        _digits(with_second, 17).fill_null(0).alias("iso_second"),
        fraction.alias("iso_fraction"),
        _offset_seconds(clock).fill_null(0).alias("iso_offset"),
    )
    year, month, day, hour, minute, second = (nw.col(f"iso_{part}") for part in _PARTS)
    valid = (month >= 1) & (month <= 12) & (day >= 1) & (day <= _month_length(year, month))
    valid = valid & (hour < 24) & (minute < 60) & (second < 60)
    clock_seconds = hour * 3600 + minute * 60 + second - nw.col("iso_offset")
    whole = (_days_since_1970(year, month, day) * 86_400 + clock_seconds).cast(nw.Float64)
    missing = nw.lit(None, dtype=nw.Float64)
    seconds = nw.when(valid).then(whole + nw.col("iso_fraction")).otherwise(missing)
    helpers = ["iso_text", "iso_clock", "iso_fraction", "iso_offset", *(f"iso_{part}" for part in _PARTS)]
    return frame.with_columns(seconds.alias(output)).drop(*helpers)


def _whole(column: nw.Expr) -> nw.Expr:
    whole = column.is_finite() & (column == column.floor())
    return nw.when(whole).then(column).otherwise(nw.lit(None, dtype=nw.Float64))


def _digits(text: nw.Expr, start: int, width: int = 2) -> nw.Expr:
    return text.str.slice(start, width).cast(nw.Int64)


def _offset_seconds(clock: nw.Expr) -> nw.Expr:
    """Seconds east of UTC of a date with a clock; null where it ends in no +hh:mm, +hhmm or +hh."""
    found = []
    for length, minute_place in ((6, 4), (5, 3), (3, None)):
        sign = clock.str.slice(-length, 1)
        text = nw.when(sign.is_in(["+", "-"])).then(clock.str.slice(-length, length)).otherwise(_EMPTY)
        seconds = _digits(text, 1) * 3600
        if minute_place is not None:
            seconds = seconds + _digits(text, minute_place) * 60
        found.append(nw.when(sign == "-").then(-seconds).otherwise(seconds))
    return nw.coalesce(*found)


def _month_length(year: nw.Expr, month: nw.Expr) -> nw.Expr:
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    february = nw.when(leap).then(nw.lit(29)).otherwise(nw.lit(28))
    long_or_short = nw.when(month.is_in([4, 6, 9, 11])).then(nw.lit(30)).otherwise(nw.lit(31))
    return nw.when(month == 2).then(february).otherwise(long_or_short)


def _days_since_1970(year: nw.Expr, month: nw.Expr, day: nw.Expr) -> nw.Expr:
    """Days of the proleptic Gregorian calendar, counted in years that begin on 1 March."""
    started = nw.when(month > 2).then(nw.lit(0)).otherwise(nw.lit(1))
    march_year = year - started + 400  # + 400: keeps the division of year 0 positive
    march_month = nw.when(month > 2).then(month - 3).otherwise(month + 9)
    day_of_year = (march_month * 153 + 2) // 5 + day - 1
    days = march_year * 365 + march_year // 4 - march_year // 100 + march_year // 400 + day_of_year
    return days - _DAYS_TO_1970 - 146_097


def parse_moment(moment: str | float, argument: str) -> float:
    """Epoch seconds of a date that a user gives: ISO 8601 text (UTC without an offset), or epoch seconds.

    >>> parse_moment("2020-01-01", "start")
    1577836800.0

    Raises:
        ValueError: if the text is no ISO 8601 date.
    """
    if not isinstance(moment, str):
        return float(moment)
    try:
        parsed = datetime.datetime.fromisoformat(moment.strip())
    except ValueError:
        raise ValueError(
            f"{argument}={moment!r} must be an ISO 8601 date such as '2024-01-31', "
            "or a number of epoch seconds"
        ) from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()
