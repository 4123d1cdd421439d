"""Event tables on the Hub, read through `datasets`."""

from __future__ import annotations

from typing import Any

import polars as pl
import pyarrow as pa

PREFIXES = ("hub:", "hf://datasets/")


def is_hub_source(source: Any) -> bool:
    """Whether a source is the name of a dataset on the Hub."""
    return isinstance(source, str) and source.startswith(PREFIXES)


def read_hub_table(source: str) -> pl.DataFrame:
    """The table of one split of a Hub dataset, given as "hub:owner/name", with "@split" where it has several.

    Raises:
        FileNotFoundError: if the Hub has no such dataset, or it cannot be reached.
        ValueError: if the name is incomplete, or the split is absent or not named.
    """
    # Here, because `datasets` takes a second to import and only this source needs it.
    from datasets import DatasetDict, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name = source
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    name, _, split = name.partition("@")
    if name.count("/") != 1 or not all(name.split("/")):
        raise ValueError(f"source {source!r} must read hub:owner/name or hub:owner/name@split")
    try:
        data = load_dataset(name)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"the Hub dataset {name!r} cannot be loaded ({error}): check its name and access"
        ) from error
    if not isinstance(data, DatasetDict):
        raise ValueError(
            f"the Hub dataset {name!r} gives a {type(data).__name__}: load it yourself and pass one split"
        )
    splits = list(data)
    if not split and len(splits) > 1:
        raise ValueError(
            f"the Hub dataset {name!r} has the splits {', '.join(splits)}: name one, {source}@{splits[0]}"
        )
    split = split or splits[0]
    if split not in splits:
        raise ValueError(
            f"the Hub dataset {name!r} has no split {split!r}; its splits are {', '.join(splits)}"
        )
    table: pa.Table = data[split].with_format("arrow")[:]
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
