"""DuckDB: files as a relation whose work spills to disk, relations held for several passes, its errors."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from recbert.events.files import DEFAULT_SEPARATORS, find_files, format_of, scan_files

#: The row of the source: DuckDB has no order of rows that could break ties.
ROW = "recbert_row"
_CONNECTION = "recbert_connection"
_connections: dict[int, Any] = {}
_HELD_PREFIX = "recbert_events_"
_numbers = itertools.count()


@contextlib.contextmanager
def open_spilling(
    source: str | os.PathLike[str],
    columns: Sequence[str],
    separator: str | None,
    memory_limit: str,
    folder: str | os.PathLike[str],
) -> Iterator[Any]:
    """Event files as a DuckDB relation, with the row of the source in the column `ROW`.

    Everything that is computed from it spills to disk, and ends with the context.

    Args:
        source: a path, glob or folder, as `read_events` takes it.
        columns: the columns needed; fields of CSV and JSON Lines stay text.
        separator: of CSV files; comma (tab for .tsv) when None.
        memory_limit: what DuckDB may use of memory, such as "4GB"; beyond it, rows go to disk.
        folder: where to.

    Raises:
        FileNotFoundError: if no file is there.
        ValueError: for unreadable files, an absent column, a memory limit that DuckDB does not understand, or
            if DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError as error:
        raise ValueError("the engine duckdb needs DuckDB: pip install 'recbert[duckdb]'") from error

    scan_files(source, columns, separator)  # for its checks and their messages
    with duckdb.connect(config={"temp_directory": os.fspath(folder)}) as connection:
        try:
            connection.execute(f"set memory_limit = {_quote(memory_limit)}")
        except duckdb.Error as error:
            raise ValueError(
                f"memory_limit={memory_limit!r} is no amount of memory: write for example '4GB'"
            ) from error
        number = next(_numbers)
        connection.execute(f"set variable {_CONNECTION} = {number}")
        _connections[number] = connection
        wanted = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        reader = _reader(find_files(source), columns, separator)
        try:
            yield connection.sql(f"select {wanted}, row_number() over () - 1 as {ROW} from {reader}")
        finally:
            del _connections[number]


def _reader(files: list[Path], columns: Sequence[str], separator: str | None) -> str:
    """The SQL that reads files as `scan_files` does."""
    names = f"[{', '.join(_quote(str(file)) for file in files)}]"
    kind = format_of(files[0])
    if kind == "parquet":
        return f"read_parquet({names})"
    if kind == "jsonl":
        fields = ", ".join(f"{_quote(name)}: 'VARCHAR'" for name in columns)
        return f"read_json({names}, format = 'newline_delimited', columns = {{{fields}}})"
    sep = _quote(separator or DEFAULT_SEPARATORS[kind])
    return f"read_csv({names}, header = true, all_varchar = true, sep = {sep}, quote = '\"', escape = '\"')"


def hold_relation(relation: Any, instead_of: Any = None) -> Any:
    """The same rows, computed once.

    On a connection of `open_spilling` they lie in a table, which spills, and the table of `instead_of` is
    dropped. On a user's they lie in client memory, so that no table of ours is left there.
    """
    name = f"{_HELD_PREFIX}{next(_numbers)}"
    # A relation says nothing of its connection, so that it has to be asked.
    ((number,),) = relation.query(f"{name}_asked", f"select getvariable('{_CONNECTION}')").fetchall()
    if number in _connections:
        relation.query(f"{name}_source", f"create temp table {name} as select * from {name}_source")
        if instead_of is not None and instead_of.alias.startswith(_HELD_PREFIX):
            _connections[number].execute(f"drop table if exists {instead_of.alias}")
        return _connections[number].table(name).set_alias(name)
    # DuckDB before 2.0 cannot hold the rows of a relation itself.
    held = (
        relation.materialize()
        if hasattr(relation, "materialize")
        else query_beside(relation, relation.arrow())
    )
    return held.set_alias(name)


def query_beside(relation: Any, table: Any) -> Any:
    """An Arrow table as a relation on the connection of another."""
    # DuckDB finds the Arrow table by its Python name, `table`; quoted, because it is a word of SQL.
    return relation.query(f"recbert_source_{next(_numbers)}", 'select * from "table"')


def stream_relation(relation: Any, batch_rows: int) -> Iterator[Any]:
    """The rows as Arrow tables, at least one, which may be empty; they are computed while they are read."""
    # The older name, the only one before DuckDB 1.4, warns in newer versions.
    read = getattr(relation, "to_arrow_reader", None) or relation.fetch_record_batch
    with named_errors():
        reader = read(batch_rows)
        yield reader.schema.empty_table()
        for batch in reader:
            yield pa.Table.from_batches([batch])


@contextlib.contextmanager
def named_errors() -> Iterator[None]:
    """Say what to do where DuckDB finds neither memory nor space to spill.

    Raises:
        OSError: if the disk that DuckDB spills to is full, or may not be filled further.
        ValueError: if the memory limit is too small for what cannot be spilled.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        if type(error).__module__ not in ("duckdb", "_duckdb"):
            raise
        first_line = text.strip().splitlines()[0]
        if "offload" in text or "No space left" in text:
            raise OSError(
                f"DuckDB has no space left to spill to ({first_line}): free some on its disk (that of "
                "data.prepared), or raise the memory limit (data.memory_limit)"
            ) from error
        if "Out of Memory" in text:
            raise ValueError(
                f"DuckDB's memory limit is too small ({first_line}): raise it (data.memory_limit)"
            ) from error
        raise


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
