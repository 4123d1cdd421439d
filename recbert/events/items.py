"""The item table: titles for display, and the words that describe an item."""

from pathlib import Path
from typing import Any

import polars as pl

from recbert.events.columns import CATEGORIES, ITEM_ID, TITLE
from recbert.events.engine import collect, open_frame


def read_titles(path: str | Path) -> dict[str, str]:
    """Read the titles of items.

    Args:
        path: CSV or Parquet table with the columns `item_id` and `title`.

    Returns:
        Title by item id; items without a title are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, or the file is damaged or not UTF-8.
    """
    table = _read_table(Path(path))
    missing = {ITEM_ID, TITLE} - set(table.columns)
    if missing:
        raise ValueError(f"{path} has no column {sorted(missing)}: its columns are {table.columns}")
    rows = table.select(pl.col(ITEM_ID).cast(pl.String), pl.col(TITLE).cast(pl.String)).drop_nulls()
    return dict(zip(rows[ITEM_ID].to_list(), rows[TITLE].to_list(), strict=True))


def read_words(items: Any) -> dict[str, str]:
    """Read what describes items in words: their titles and categories.

    Args:
        items: path of a CSV or Parquet table, or a table of any kind that `read_events` takes, with a column
            `item_id` and, if there are any, `title` and `categories` (text, or lists of it).

    Returns:
        Title and categories in one string by item id, in the order of the table; empty without any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `item_id` is missing, null or there twice, or the file is damaged or not UTF-8.
    """
    if isinstance(items, (str, Path)):
        name, table = str(items), _read_table(Path(items))
    else:
        name, table = "items", collect(open_frame(items, argument="items")[0]).to_polars()
    if ITEM_ID not in table.columns:
        raise ValueError(f"{name} has no column {ITEM_ID!r}: its columns are {table.columns}")
    ids = table[ITEM_ID].cast(pl.String)
    if ids.null_count() or (ids == "").any():
        raise ValueError(f"{name} has rows without an {ITEM_ID}: fill or drop them")
    if (doubled := ids.filter(ids.is_duplicated()).unique(maintain_order=True)).len():
        raise ValueError(
            f"{name} holds {doubled.head(5).to_list()} more than once: keep one row for each item"
        )
    parts = [_as_text(table, column) for column in (TITLE, CATEGORIES) if column in table.columns]
    if not parts:
        return dict.fromkeys(ids, "")
    words = table.select(pl.concat_str(parts, separator=" ", ignore_nulls=True)).to_series()
    return dict(zip(ids, words, strict=True))


def _as_text(table: pl.DataFrame, column: str) -> pl.Expr:
    """Give a column as text, the parts of lists joined."""
    values = pl.col(column)
    if isinstance(table.schema[column], pl.List):
        return values.cast(pl.List(pl.String)).list.join(" ")
    return values.cast(pl.String)


def _read_table(path: Path) -> pl.DataFrame:
    """Read a CSV or Parquet file; ids and all else in CSV stay text."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a table with the columns {ITEM_ID} and {TITLE}")
    try:
        return pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} cannot be read ({error}): give a Parquet file or CSV in UTF-8") from error
