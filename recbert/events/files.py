"""Paths, globs and folders of event files -> one polars LazyFrame whose text is not interpreted yet."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from recbert.events.messages import check_columns, nearest

FORMATS = {
    ".csv": "csv",
    ".txt": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
DEFAULT_SEPARATORS = {"csv": ",", "tsv": "\t"}
COMPRESSIONS = (".gz", ".zst")
SEPARATORS = (";", "\t", "|", ",", "::")
UTF8_BOM = b"\xef\xbb\xbf"


def scan_files(source: str | os.PathLike[str], columns: Sequence[str], separator: str | None) -> pl.LazyFrame:
    """The wanted columns of the files, in file and row order; CSV and JSON fields as text.

    Raises:
        FileNotFoundError: if nothing lies at the path, or the glob matches nothing.
        ValueError: if the format is unknown, formats are mixed, a file is empty, not UTF-8, or lacks a
            column.
    """
    files = find_files(source)
    kinds = {format_of(file) for file in files}
    if len(kinds) > 1:
        raise ValueError(
            f"source {str(source)!r} mixes {' and '.join(sorted(kinds))} files: name one kind, e.g. "
            "'folder/*.csv'"
        )
    kind = kinds.pop()
    if separator is not None and kind not in ("csv", "tsv"):
        raise ValueError(
            f"separator={separator!r} is for CSV and TSV files, {files[0].name} is {kind}: leave it out"
        )
    if kind == "parquet":
        return _scan_parquet(files, columns)
    if kind == "jsonl":
        return _scan_jsonl(files, columns)
    return _scan_csv(files, columns, separator or DEFAULT_SEPARATORS[kind])


def find_files(source: str | os.PathLike[str]) -> list[Path]:
    """The files of a path, folder (searched through) or glob, sorted by name; hidden files are left out.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file has a suffix that recbert does not read, or the path is a URL.
    """
    text = os.fspath(source)
    if "://" in text:
        raise ValueError(
            f"source {text!r} is a URL: download it first, or give a DuckDB relation that reads it"
        )
    path = Path(text).expanduser()
    if path.is_dir():
        files = sorted(
            file for file in path.rglob("*") if file.is_file() and _known(file) and not _hidden(file, path)
        )
        if not files:
            raise FileNotFoundError(f"folder {text!r} holds no event files ({', '.join(FORMATS)})")
        return files
    if path.is_file():
        files = [path]
    else:
        files = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
    if not files:
        if glob.has_magic(text):
            raise FileNotFoundError(f"no file matches {text!r}")
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        raise FileNotFoundError(
            f"no file {text!r}" + (f": did you mean '{path.parent / near}'?" if near else "")
        )
    for file in files:
        if not _known(file):
            raise ValueError(
                f"{str(file)!r} has no suffix that says its format: allowed are {', '.join(FORMATS)} "
                f"(CSV also with {' or '.join(COMPRESSIONS)})"
            )
    return files


def _suffix(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes = suffixes[:-1]
    return suffixes[-1] if suffixes else ""


def _known(file: Path) -> bool:
    return _suffix(file) in FORMATS


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def format_of(file: Path) -> str:
    """The format of a file that `find_files` gave: csv, tsv, jsonl or parquet."""
    return FORMATS[_suffix(file)]


def _scan_csv(files: Sequence[Path], columns: Sequence[str], separator: str) -> pl.LazyFrame:
    if len(separator.encode()) != 1:
        raise ValueError(
            f"separator={separator!r} must be one character, e.g. ',', ';', '|' or a tab; a file with "
            "longer ones must be rewritten first"
        )
    for file in files:
        names = _csv_names(file, separator)
        hint = ""
        if len(names) == 1:
            likely = [other for other in SEPARATORS if other != separator and other in names[0]]
            hint = f"; the separator is {separator!r}, pass separator={likely[0]!r}" if likely else ""
        check_columns(names, columns, str(file), hint)
    scans = [
        pl.scan_csv(file, separator=separator, infer_schema=False, glob=False).select(columns)
        for file in files
    ]
    return pl.concat(scans)


def _csv_names(file: Path, separator: str) -> list[str]:
    with file.open("rb") as stream:
        start = stream.read(4096)
    if (
        start[:2] in (b"\xff\xfe", b"\xfe\xff")
        or b"\x00" in start
        and start[:2] != b"\x1f\x8b"
        and start[:4] != (b"\x28\xb5\x2f\xfd")
    ):
        raise ValueError(f"{str(file)!r} is not UTF-8 text (UTF-16 or binary): save it as UTF-8")
    try:
        return pl.scan_csv(file, separator=separator, infer_schema=False, glob=False).collect_schema().names()
    except pl.exceptions.NoDataError:
        raise ValueError(f"{str(file)!r} is empty: a header and at least one event are needed") from None
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"the header of {str(file)!r} cannot be read: {error}") from error


def _scan_parquet(files: Sequence[Path], columns: Sequence[str]) -> pl.LazyFrame:
    scans = []
    for file in files:
        try:
            names = pl.scan_parquet(file, glob=False).collect_schema().names()
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{str(file)!r} is not a readable Parquet file: {error}") from error
        check_columns(names, columns, str(file))
        scans.append(pl.scan_parquet(file, glob=False).select(columns))
    return pl.concat(scans)


def _scan_jsonl(files: Sequence[Path], columns: Sequence[str]) -> pl.LazyFrame:
    # Every field as text: a column may hold numbers in one row and text in the next.
    schema: dict[str, pl.DataType | type[pl.DataType]] = {name: pl.String for name in columns}
    scans = []
    for file in files:
        with file.open("rb") as stream:
            start = stream.read(4096)
        if not start.removeprefix(UTF8_BOM).strip():
            raise ValueError(f"{str(file)!r} is empty: at least one event is needed")
        if start.removeprefix(UTF8_BOM).lstrip().startswith(b"["):
            raise ValueError(f"{str(file)!r} is a JSON array: write one object a line (JSON Lines)")
        content = file.read_bytes().removeprefix(UTF8_BOM) if start.startswith(UTF8_BOM) else file
        try:
            names = pl.scan_ndjson(content, infer_schema_length=None).collect_schema().names()
        except pl.exceptions.PolarsError as error:
            raise ValueError(f"{str(file)!r} is not JSON Lines: {error}") from error
        check_columns(names, columns, str(file))
        scans.append(pl.scan_ndjson(content, schema=schema))
    return pl.concat(scans)
