"""The item table: titles for display."""

from pathlib import Path

import polars as pl

from recbert.events.columns import ITEM_ID, TITLE


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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: give a table with the columns {ITEM_ID} and {TITLE}")
    try:
        table = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} cannot be read ({error}): give a Parquet file or CSV in UTF-8") from error
    missing = {ITEM_ID, TITLE} - set(table.columns)
    if missing:
        raise ValueError(f"{path} has no column {sorted(missing)}: its columns are {table.columns}")
    rows = table.select(pl.col(ITEM_ID).cast(pl.String), pl.col(TITLE).cast(pl.String)).drop_nulls()
    return dict(zip(rows[ITEM_ID].to_list(), rows[TITLE].to_list(), strict=True))
