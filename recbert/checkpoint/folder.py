"""Folders that appear whole or not at all, and the hashes that identify what is in them."""

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20


@contextlib.contextmanager
def write_folder(target: str | Path, *, overwrite: bool = True, marker: str | None = None) -> Iterator[Path]:
    """Give a temporary folder that becomes `target` when the block ends without an error.

    The temporary folder stands beside `target`, so that the last step is a rename on one file system. After
    any error, a full disk or Ctrl-C included, `target` is what it was before.

    Args:
        target: the folder to write.
        overwrite: whether an existing folder may be replaced.
        marker: file by which a folder of the same kind is known; a folder without it may hold anything, such
            as the source data, and is not replaced unless it is empty.

    Yields:
        The folder to write into.

    Raises:
        FileExistsError: `target` is a file, or exists and `overwrite` is false, or is a folder with other
            things in it.
    """
    target = Path(target)
    if target.exists() and not (target.is_dir() and overwrite):
        raise FileExistsError(f"{target} exists: name another folder, or remove it first")
    if marker is not None and target.is_dir() and not (target / marker).exists():
        if others := sorted(path.name for path in target.iterdir()):
            raise FileExistsError(
                f"{target} holds other things ({', '.join(others[:3])}) and would be replaced as a whole: "
                "name a new or an empty folder"
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    draft.chmod(0o755)  # mkdtemp makes folders that only their owner may read
    try:
        yield draft
        _replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace(draft: Path, target: Path) -> None:
    """Rename `draft` onto `target`; what stood there goes only after the new folder stands."""
    if not target.exists():
        draft.rename(target)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    target.rename(old / target.name)
    try:
        draft.rename(target)
    except BaseException:  # Ctrl-C here would otherwise lose both folders
        if not target.exists():
            (old / target.name).rename(target)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def write_file(path: str | Path) -> Iterator[Path]:
    """Give a file to write in place of another, which takes its place at the end: whole or not at all.

    Whoever has the old file open or mapped keeps it.

    Args:
        path: the file to write; its folder must exist.
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.draft")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 text file that appears whole or not at all.

    Args:
        path: the file to write; its folder must exist.
        text: its content.
    """
    with write_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def hash_file(path: str | Path) -> str:
    """Give the SHA-256 of a file as `sha256:<64 hexadecimal digits>`.

    Args:
        path: the file to read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"
