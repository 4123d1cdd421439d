"""Histories of many users from files, and answers written in shards that a second run does not repeat."""

import argparse
import dataclasses
import glob
import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from recbert.checkpoint import RULES_FILE, find_file, hash_file, read_info, write_file, write_text
from recbert.events import ITEM_ID, TIMESTAMP, USER_ID, read_events, stream_sorted

HISTORY = "history"
TIMESTAMPS = "timestamps"


class UserHistory(NamedTuple):
    """The history of one user.

    Attributes:
        user: the user's id.
        items: item ids from the earliest.
        times: epoch seconds of each; None if unknown.
    """

    user: str
    items: list[str]
    times: list[float] | None


Histories = list[UserHistory]
Shard = tuple[Path, Histories]


COLUMNS = ("user", "item", "time", "time_unit")
"""Options that say how the columns of event files are called."""


def add_column_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `COLUMNS` to a command line."""
    parser.add_argument("--user", default=USER_ID, help="column of user ids (user_id)")
    parser.add_argument("--item", default=ITEM_ID, help="column of item ids (item_id)")
    parser.add_argument("--time", default=TIMESTAMP, help="column of event times (timestamp)")
    parser.add_argument("--time-unit", default="s", choices=("s", "ms", "us", "iso"))


def read_histories(
    pattern: str, user: str = USER_ID, item: str = ITEM_ID, time: str = TIMESTAMP, time_unit: str = "s"
) -> Histories:
    """Read histories of many users.

    Args:
        pattern: event files, or Parquet files with one row a user, the user column and a list column
            `history`, maybe with the times (epoch seconds) in another, `timestamps`; a path, a glob or a
            folder.
        user: column of user ids.
        item: column of item ids of event files.
        time: column of times of event files.
        time_unit: what numbers in it count, or `iso`.

    Returns:
        The histories, sorted by user.

    Raises:
        FileNotFoundError: the pattern matches no file.
        ValueError: a column is missing.
    """
    paths = sorted(glob.glob(f"{pattern}/*.parquet" if Path(pattern).is_dir() else pattern))
    if paths and paths[0].endswith(".parquet") and HISTORY in pq.read_schema(paths[0]).names:
        return sorted((row for path in paths for row in _read_lists(path, user)), key=lambda row: row.user)
    events = read_events(pattern, user=user, item=item, time=time, time_unit=time_unit)
    histories: dict[str, tuple[list[str], list[float]]] = {}
    for table in stream_sorted(events):
        columns = (table[name].to_pylist() for name in (USER_ID, ITEM_ID, TIMESTAMP))
        for name, event, when in zip(*columns, strict=True):
            items, times = histories.setdefault(name, ([], []))
            items.append(event)
            times.append(when)
    return [UserHistory(name, *columns) for name, columns in histories.items()]


def _read_lists(path: str, user_column: str) -> Iterator[UserHistory]:
    """Read a file with one history a row; a missing one is empty."""
    names = set(pq.read_schema(path).names)
    missing = {user_column, HISTORY} - names
    if missing:
        raise ValueError(
            f"{path} has no column {sorted(missing)}: files of histories need {user_column} and {HISTORY}"
        )
    wanted = [user_column, HISTORY, *({TIMESTAMPS} & names)]
    table = pq.read_table(path, columns=wanted)
    users, histories = table[user_column].to_pylist(), table[HISTORY].to_pylist()
    times = table[TIMESTAMPS].to_pylist() if TIMESTAMPS in wanted else [None] * len(users)
    for user, items, row in zip(users, histories, times, strict=True):
        yield UserHistory(str(user), [str(item) for item in items or []], row)


def times_of(histories: Histories) -> list[list[float]] | None:
    """Give the times of histories; None where a file has none.

    Args:
        histories: from the same files.
    """
    times = [[] if row.times is None else row.times for row in histories]
    return None if any(row.times is None and row.items for row in histories) else times


def add_time_option(parser: argparse.ArgumentParser) -> None:
    """Add `--at` to a command line."""
    parser.add_argument(
        "--at",
        type=parse_time,
        metavar="TIME",
        help="when the items are asked for, epoch seconds or ISO 8601 (now); for checkpoints that know time",
    )


def parse_time(text: str) -> float:
    """Read epoch seconds or an ISO 8601 time, UTC where it names no zone.

    Args:
        text: what a command line names.
    """
    try:
        return float(text)
    except ValueError:
        when = datetime.fromisoformat(text)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def missing_shards(histories: Histories, output: Path, size: int, request: dict[str, Any]) -> Iterator[Shard]:
    """Give the shards that an earlier run of the same request has not written.

    Args:
        histories: all histories.
        output: the folder of the shards.
        size: users in a shard.
        request: everything that the content depends on, its `checkpoint` among it; kept in `request.json`.

    Yields:
        The file to write with `write_shard`, and its histories.

    Raises:
        ValueError: the folder holds the shards of another request, or the size is not positive.
    """
    if size < 1:
        raise ValueError(f"shard-size is {size}: it must be at least 1")
    output.mkdir(parents=True, exist_ok=True)
    full = {
        **request,
        **_hash_checkpoint(request["checkpoint"]),
        "users": len(histories),
        "histories_hash": _hash_histories(histories),
    }
    kept, text = output / "request.json", json.dumps(full, indent=1, ensure_ascii=False)
    if kept.exists() and kept.read_text(encoding="utf-8") != text:
        raise ValueError(f"{output} holds the answers to another request: name another folder or remove it")
    write_text(kept, text)
    for number, start in enumerate(range(0, len(histories), size)):
        path = output / f"part-{number:05d}.parquet"
        if not path.exists():
            yield path, histories[start : start + size]


def _hash_histories(histories: Histories) -> str:
    """Identify what is asked: newer histories must not complete the shards of older ones."""
    digest = hashlib.sha256()
    for history in histories:
        digest.update(json.dumps(history).encode())
    return f"sha256:{digest.hexdigest()}"


def _hash_checkpoint(checkpoint: str) -> dict[str, Any]:
    """Identify what answers: a retrained or blended checkpoint must not complete the shards of another."""
    names = ("adapter_model.safetensors", "model.safetensors", RULES_FILE)
    adapter, model, rules = (
        path and hash_file(path) for path in (find_file(checkpoint, name) for name in names)
    )
    blend = read_info(checkpoint).blend
    weights = {"weights": adapter or model}
    return weights if blend is None else {**weights, "rules": rules, "blend": dataclasses.asdict(blend)}


def write_shard(path: Path, columns: dict[str, Any]) -> None:
    """Write a shard whole or not at all.

    Args:
        path: the shard's file.
        columns: values by column name.
    """
    with write_file(path) as draft:
        pq.write_table(pa.table(columns), draft)
