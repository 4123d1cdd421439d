"""A checkpoint whose vocabulary and popularity are memory-mapped recommends like any other."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

from recbert.checkpoint import (
    POPULARITY_FILE,
    CheckpointInfo,
    InputFormat,
    hash_base,
    info,
    read_info,
    snippet,
    write_info,
)
from recbert.recommender import Recommender
from recbert.tokenizer import INDEX_FILE, ItemTokenizer, items
from tests.conftest import TWELVE_ITEMS

HISTORY = ["jam", "never seen", "cup"]


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the five items of the tests count as a large catalogue."""
    for module in (items, info, snippet):
        monkeypatch.setattr(module, "MAPPED_FROM", 3)


def checkpoint_info(objective: str) -> CheckpointInfo:
    name, _, started = objective.partition(" ")
    input_format = InputFormat(name, 4, starts_with_bos=bool(started))  # type: ignore[arg-type]
    return CheckpointInfo(input_format, [5, 1, 4, 2, 3], deny_list=["pot"])


@pytest.mark.usefixtures("mapped")
def test_popularity_stands_in_a_file_of_its_own(tmp_path: Path) -> None:
    written = checkpoint_info("next-item")
    write_info(tmp_path, written)
    found = read_info(tmp_path)
    assert isinstance(found.popularity, np.ndarray) and found.popularity.tolist() == written.popularity
    assert dataclasses.replace(found, popularity=written.popularity) == written
    write_info(tmp_path, dataclasses.replace(found, protocol="new"))  # over the file that is mapped
    assert read_info(tmp_path).popularity.tolist() == found.popularity.tolist() == written.popularity  # type: ignore[union-attr]
    (tmp_path / POPULARITY_FILE).write_bytes(b"x")
    with pytest.raises(ValueError, match="is damaged"):
        read_info(tmp_path)
    (tmp_path / POPULARITY_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {POPULARITY_FILE}"):
        read_info(tmp_path)


@pytest.mark.usefixtures("mapped")
@pytest.mark.parametrize("objective", ["next-item", "next-item behind [BOS]", "masked-item"])
def test_a_large_checkpoint_recommends_with_and_without_recbert(
    objective: str,
    tmp_path: Path,
    tiny_gpt2: PreTrainedModel,
    tiny_bert: PreTrainedModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny_bert if objective == "masked-item" else tiny_gpt2
    model.save_pretrained(tmp_path)
    ItemTokenizer.from_items(TWELVE_ITEMS).save_pretrained(tmp_path)
    write_info(tmp_path, checkpoint_info(objective))
    assert (tmp_path / INDEX_FILE).is_file() and not (tmp_path / "tokenizer.json").exists()
    assert hash_base(tmp_path).startswith("sha256:")
    answer = Recommender.from_pretrained(tmp_path).recommend(HISTORY, k=3)
    monkeypatch.setattr(items, "MAPPED_FROM", 100)
    small = Recommender(model, ItemTokenizer.from_items(TWELVE_ITEMS), checkpoint_info(objective))
    assert answer == small.recommend(HISTORY, k=3)

    monkeypatch.setattr(sys, "argv", ["snippet.py", str(tmp_path), *HISTORY])
    source = snippet.build_snippet(checkpoint_info(objective), model.config.to_dict(), None)
    assert len(source.splitlines()) <= 20
    exec(source, {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()][: len(answer)]
    assert [item for item, _ in printed] == [item for item, _ in answer]
    assert [float(score) for _, score in printed] == pytest.approx([score for _, score in answer], abs=1e-5)


def test_the_longest_program_of_a_card_has_twenty_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snippet, "MAPPED_FROM", 3)
    recurrent = {"model_type": "recbert-recurrent"}
    source = snippet.build_snippet(checkpoint_info("next-item"), recurrent, "owner/base")
    compile(source, "snippet", "exec")
    assert len(source.splitlines()) <= 20
