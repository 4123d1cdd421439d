"""The checkpoint room: recbert.json, folders that appear whole or not at all, hashes."""

import errno
import json
from pathlib import Path

import pytest

from recbert.checkpoint import (
    Blend,
    CheckpointInfo,
    InputFormat,
    find_file,
    hash_base,
    hash_file,
    read_info,
    write_folder,
    write_info,
    write_text,
)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "films"
    with write_folder(target) as draft:
        (draft / "a.txt").write_text("a")
        assert not target.exists()
        assert draft.parent == target.parent
    assert _names(target) == ["a.txt"]
    assert _names(target.parent) == ["films"]
    assert target.stat().st_mode & 0o777 == 0o755


def test_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    for name in ("old.txt", "new.txt"):
        with write_folder(tmp_path / "films") as draft:
            (draft / name).touch()
    assert _names(tmp_path / "films") == ["new.txt"]
    assert _names(tmp_path) == ["films"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failure_leaves_the_old_folder_and_no_draft(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "films"
    with write_folder(target) as draft:
        (draft / "a.txt").write_text("old")
    with pytest.raises(type(error)), write_folder(target) as draft:
        (draft / "a.txt").write_text("half")
        raise error
    assert (target / "a.txt").read_text() == "old"
    assert _names(tmp_path) == ["films"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
def test_interrupted_replacement_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target = tmp_path / "films"
    with write_folder(target) as draft:
        (draft / "a.txt").write_text("old")
    rename = Path.rename
    drafts: list[Path] = []

    def fail_for_the_draft(self: Path, to: Path) -> Path:
        if self in drafts:
            raise error
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_for_the_draft)
    with pytest.raises(type(error)), write_folder(target) as draft:
        drafts.append(draft)
    assert (target / "a.txt").read_text() == "old"
    assert _names(tmp_path) == ["films"]


def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "data"
    target.mkdir()
    for name in ("a.txt", "b.txt"):  # an empty folder, then one that holds the marker
        with write_folder(target, marker="made.json") as draft:
            (draft / "made.json").touch()
            (draft / name).touch()
    assert _names(target) == ["b.txt", "made.json"]
    (target / "made.json").unlink()
    with pytest.raises(FileExistsError, match="other things"), write_folder(target, marker="made.json"):
        pass
    assert _names(target) == ["b.txt"] and _names(tmp_path) == ["data"]


def test_folder_is_not_replaced_against_the_callers_will(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "file").touch()
    with (
        pytest.raises(FileExistsError, match="films exists"),
        write_folder(tmp_path / "films", overwrite=False),
    ):
        pass
    with pytest.raises(FileExistsError, match="file exists"), write_folder(tmp_path / "file"):
        pass
    assert _names(tmp_path) == ["file", "films"]


def test_text_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.md", "grüße 🎬")
    assert (tmp_path / "a.md").read_bytes() == "grüße 🎬".encode()

    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.md", "half")
    assert _names(tmp_path) == ["a.md"]


def test_input_format_knows_the_added_token() -> None:
    assert InputFormat("next-item", 10).history_length == 10
    assert InputFormat("masked-item", 10).history_length == 9
    assert InputFormat("masked-item", 10).append_mask
    assert InputFormat("next-item", 10, starts_with_bos=True).history_length == 9


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "nextitem", "max_length": 9}, "objective is 'nextitem': it must be"),
        ({"objective": "next-item", "max_length": 1}, "max_length is 1: it must be at least 2"),
        ({"objective": "next-item", "max_length": 9, "anchoring": "middle"}, "install a newer recbert"),
        ({"objective": "next-item", "max_length": 9, "time_encoding": "log"}, "install a newer recbert"),
        ({"objective": "masked-item", "max_length": 9, "starts_with_bos": True}, "use 'next-item'"),
    ],
)
def test_input_format_refuses_what_it_cannot_read(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputFormat(**values)  # type: ignore[arg-type]  # wrong on purpose


def test_info_survives_the_file(tmp_path: Path) -> None:
    info = CheckpointInfo(
        input=InputFormat("masked-item", 20),
        popularity=[3, 0, 1],
        filter_seen=False,
        deny_list=["a b", "ü"],
        protocol="temporal",
        base_hash="sha256:0",
        metrics={"ndcg@10": 0.25},
        data_fingerprint="sha256:1",
        blend=Blend(window=5, weight=0.9, power=0.7),
    )
    write_info(tmp_path, info)
    assert read_info(tmp_path) == info
    assert _names(tmp_path) == ["recbert.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version 2, this recbert reads 1"),
        ({"popularity": None}, r"lacks \['popularity'\]"),
        ({"mixture": 0.5}, r"unknown keys \['mixture'\]"),
        ({"blend": 0.5}, "has 0.5 for Blend"),
        ({"blend": {"window": 5, "weight": 0.5}}, r"lacks \['power'\]"),
        ({"input": {"objective": "next-item"}}, r"lacks \['max_length'\]"),
        ({"input": {"objective": "next-item", "max_length": 9, "x": 1}}, r"unknown keys \['x'\]"),
    ],
)
def test_damaged_info_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_info(tmp_path, CheckpointInfo(InputFormat("next-item", 9), [1]))
    content = json.loads((tmp_path / "recbert.json").read_text()) | change
    content = {name: value for name, value in content.items() if name != "popularity" or value is not None}
    (tmp_path / "recbert.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_info(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [(b"{", "not valid JSON"), (b"\xff", "not valid JSON"), (b"[]", "no JSON object")]
)
def test_unreadable_info_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "recbert.json").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        read_info(tmp_path)


def test_missing_checkpoints_are_named(tmp_path: Path) -> None:
    assert find_file(tmp_path, "recbert.json") is None
    with pytest.raises(FileNotFoundError, match="has no recbert.json"):
        read_info(tmp_path)
    with pytest.raises(FileNotFoundError, match="has no recbert.json"):
        read_info("nobody/nothing")  # offline, and not in the cache
    for name in (str(tmp_path / "absent"), "absent folder"):
        with pytest.raises(FileNotFoundError, match="neither a folder here nor a repository"):
            read_info(name)


def test_base_hash_covers_weights_and_vocabulary(tmp_path: Path) -> None:
    assert hash_file(_write(tmp_path / "x", "abc")) == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(FileNotFoundError, match="needs model.safetensors and tokenizer.json"):
        hash_base(tmp_path)
    hashes = []
    for weights, vocabulary in (("w", "t"), ("w", "t"), ("v", "t"), ("w", "s")):
        _write(tmp_path / "model.safetensors", weights)
        _write(tmp_path / "tokenizer.json", vocabulary)
        hashes.append(hash_base(tmp_path))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
