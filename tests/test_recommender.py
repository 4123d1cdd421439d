import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from recbert.adapters import add_lora, save_adapter
from recbert.checkpoint import CheckpointInfo, InputFormat, hash_base, read_info, write_info
from recbert.models import build_model
from recbert.recommender import Recommender
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

ITEMS = sorted(["a", "b", "c", "d e", "50%", "f", "g", "h", "i", "j", "k", "l"])
POPULARITY = [9, 2, 7, 1, 8, 3, 6, 5, 4, 12, 10, 11]
HISTORY = ["a", "f", "d e"]


def save(folder: Path, family: str = "gpt2", objective: str = "next-item", **changes: object) -> Path:
    """Write a checkpoint with random weights and no dropout; `changes` are made to its `recbert.json`."""
    tokenizer = ItemTokenizer.from_items(ITEMS)
    model = build_model(
        family, tokenizer, objective=objective, hidden_size=8, num_hidden_layers=1, dropout=0.0, max_length=6
    )
    _spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    info = CheckpointInfo(InputFormat(objective, max_length=6), POPULARITY)
    write_info(folder, dataclasses.replace(info, **changes))
    return folder


def _spread(model: PreTrainedModel) -> None:
    """Make random weights large enough that scores differ clearly."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.5)


@pytest.fixture
def gpt2(tmp_path: Path) -> Recommender:
    return Recommender.from_pretrained(save(tmp_path / "gpt2"))


def ids(answer: list[tuple[str, float]]) -> list[str]:
    return [item for item, _ in answer]


@pytest.mark.parametrize(
    ("family", "objective"),
    [("gpt2", "next-item"), ("bert", "masked-item"), ("gru", "next-item"), ("llama", "next-item")],
)
def test_answers_are_the_models_own_logits(tmp_path: Path, family: str, objective: str) -> None:
    recommender = Recommender.from_pretrained(save(tmp_path / "model", family, objective))
    tokens = recommender.tokenizer.encode(HISTORY) + ([2] if objective == "masked-item" else [])
    with torch.no_grad():
        logits = recommender.model(input_ids=torch.tensor([tokens])).logits[0, -1, FIRST_ITEM_ID:]
    expected = dict(zip(ITEMS, logits.tolist(), strict=True))
    answer = recommender.recommend(HISTORY, len(ITEMS), filter_seen=False)
    assert dict(answer) == pytest.approx(expected, abs=1e-5)
    assert [score for _, score in answer] == sorted(expected.values(), reverse=True) or np.allclose(
        [score for _, score in answer], sorted(expected.values(), reverse=True), atol=1e-5
    )


@pytest.mark.parametrize(("family", "objective"), [("gpt2", "next-item"), ("bert", "masked-item")])
def test_batch_gives_what_single_histories_give(tmp_path: Path, family: str, objective: str) -> None:
    recommender = Recommender.from_pretrained(save(tmp_path / "model", family, objective))
    batch = [HISTORY, ["k"], [], ["unknown"], ITEMS[:11], ["b", "unknown", "c"]]
    for history, together in zip(batch, recommender.recommend(batch, 4), strict=True):
        alone = recommender.recommend(history, 4)
        assert ids(together) == ids(alone)
        assert [score for _, score in together] == pytest.approx([score for _, score in alone], abs=1e-4)


def test_seen_items_are_left_out_unless_told_otherwise(tmp_path: Path, gpt2: Recommender) -> None:
    everything = gpt2.recommend(HISTORY, 99, filter_seen=False)
    assert sorted(ids(everything)) == ITEMS
    unseen = [pair for pair in everything if pair[0] not in HISTORY]
    assert gpt2.recommend(HISTORY, 99) == unseen
    long = ITEMS[:10]  # longer than the model sees: the filter covers all of it
    assert set(ids(gpt2.recommend(long, 99))) == set(ITEMS[10:])
    repeats = Recommender.from_pretrained(save(tmp_path / "repeats", filter_seen=False))
    assert len(repeats.recommend(HISTORY, 99)) == len(ITEMS)
    assert len(repeats.recommend(HISTORY, 99, filter_seen=True)) == len(ITEMS) - len(HISTORY)


def test_exclude_candidates_and_deny_list(tmp_path: Path, gpt2: Recommender) -> None:
    ranked = ids(gpt2.recommend(HISTORY, 99))
    assert ids(gpt2.recommend(HISTORY, 99, exclude=ranked[:2])) == ranked[2:]
    wanted = [ranked[5], ranked[1], HISTORY[0]]
    assert ids(gpt2.recommend(HISTORY, 99, candidates=wanted)) == [ranked[1], ranked[5]]
    assert ids(gpt2.recommend(HISTORY, 99, candidates=wanted, exclude=[ranked[1]])) == [ranked[5]]
    assert gpt2.recommend(HISTORY, 3, candidates=[]) == []
    assert set(ids(gpt2.recommend(HISTORY, 99, candidates=wanted, filter_seen=False))) == set(wanted)
    denied = Recommender.from_pretrained(save(tmp_path / "denied", deny_list=["g", "not in the catalogue"]))
    assert "g" not in ids(denied.recommend(HISTORY, 99))


def test_unknown_items_are_skipped_and_reported(gpt2: Recommender, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "recbert"):
        answer = gpt2.recommend(["new", *HISTORY, "newer"], 5)
    assert answer == gpt2.recommend(HISTORY, 5)
    assert "2 unknown items are skipped, for example ['new', 'newer']" in caplog.text
    assert gpt2.unknown_items(["new", "a"]) == ["new"]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "recbert"):
        gpt2.recommend(HISTORY, 5, candidates=["a", "nowhere"], exclude=["nothing"])
    assert "['nowhere']" in caplog.text and "['nothing']" in caplog.text


@pytest.mark.parametrize("history", [[], ["new", "newer"]])
def test_popularity_answers_what_the_model_cannot(
    gpt2: Recommender, caplog: pytest.LogCaptureFixture, history: list[str]
) -> None:
    with caplog.at_level(logging.WARNING, "recbert"):
        answer = gpt2.recommend(history, 3)
    assert "1 of 1 histories have no known item and are answered by popularity" in caplog.text
    best = np.argsort(POPULARITY)[::-1][:3]
    assert ids(answer) == [ITEMS[i] for i in best]
    shares = [POPULARITY[i] / sum(POPULARITY) for i in best]
    assert [score for _, score in answer] == pytest.approx(shares)
    with pytest.raises(ValueError, match="no item that the checkpoint knows"):
        gpt2.recommend(history, 3, strict=True)


def test_items_with_equal_scores_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    even = Recommender.from_pretrained(save(tmp_path / "even", popularity=[1] * len(ITEMS)))
    assert ids(even.recommend([], 5)) == ITEMS[:5]


def test_permuting_item_ids_permutes_the_answers(tmp_path: Path) -> None:
    """The same events under other names: the token of an item follows its new place in the order of ids."""
    plain = Recommender.from_pretrained(save(tmp_path / "plain"))
    order = np.random.default_rng(0).permutation(len(ITEMS))
    renamed = {ITEMS[old]: ITEMS[new] for old, new in enumerate(order)}
    folder = tmp_path / "renamed"
    shutil.copytree(tmp_path / "plain", folder)
    weight = plain.model.get_input_embeddings().weight
    rows = weight.detach().clone()
    rows[FIRST_ITEM_ID + torch.from_numpy(order)] = weight.detach()[FIRST_ITEM_ID:]
    with torch.no_grad():
        weight.copy_(rows)
    plain.model.save_pretrained(folder)
    permuted = Recommender.from_pretrained(folder)
    answer = permuted.recommend([renamed[item] for item in HISTORY], 99)
    expected = Recommender.from_pretrained(tmp_path / "plain").recommend(HISTORY, 99)
    assert ids(answer) == [renamed[item] for item in ids(expected)]
    assert [score for _, score in answer] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_vectors_times_items_are_the_scores(gpt2: Recommender) -> None:
    vectors = gpt2.encode([HISTORY, ["k"]])
    weight, bias = gpt2.scorer.item_vectors()
    assert vectors.shape == (2, 8) and bias is None
    scores = (vectors @ weight.T)[0].tolist()
    expected = dict(gpt2.recommend(HISTORY, 99, filter_seen=False))
    assert dict(zip(ITEMS, scores, strict=True)) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="no item that the checkpoint knows"):
        gpt2.encode([HISTORY, ["new"]])


@pytest.mark.parametrize(
    "history",
    ["a", [1, 2], ["a", 1], ["a", ["b"]], [["a"], "b"], [["a"], [1]], [None], [{"a": "b"}], ["a", None]],
)
def test_histories_of_other_types_are_refused(gpt2: Recommender, history: object) -> None:
    with pytest.raises(ValueError, match="give a list of item ids as strings"):
        gpt2.recommend(history)


def test_other_sequences_are_histories_too(gpt2: Recommender) -> None:
    expected = gpt2.recommend(HISTORY, 3)
    assert gpt2.recommend(tuple(HISTORY), 3) == gpt2.recommend(np.array(HISTORY), 3) == expected
    assert gpt2.recommend((tuple(HISTORY),), 3) == [expected]


def test_wrong_arguments_are_refused(gpt2: Recommender) -> None:
    with pytest.raises(ValueError, match="k is 0"):
        gpt2.recommend(HISTORY, 0)
    for name in ("exclude", "candidates"):
        with pytest.raises(ValueError, match="is one string"):
            gpt2.recommend(HISTORY, **{name: "abc"})


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter with weights that matter, on the base `tmp_path/base`."""
    base = save(tmp_path / "base")
    model = add_lora(Recommender.from_pretrained(base).model, r=2)
    _spread_adapter(model)
    folder = tmp_path / "adapter"
    save_adapter(model, folder)
    ItemTokenizer.from_items(ITEMS).save_pretrained(folder)
    write_info(folder, dataclasses.replace(read_info(base), base_hash=hash_base(base)))
    return folder


def _spread_adapter(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.5)


def test_adapter_brings_its_base(tmp_path: Path, adapter: Path) -> None:
    adapted = Recommender.from_pretrained(adapter).recommend(HISTORY, 99)
    assert adapted != Recommender.from_pretrained(tmp_path / "base").recommend(HISTORY, 99)
    moved = tmp_path / "moved"
    (tmp_path / "base").rename(moved)
    with pytest.raises(FileNotFoundError, match="name it as base"):
        Recommender.from_pretrained(adapter)
    assert Recommender.from_pretrained(adapter, base=moved).recommend(HISTORY, 99) == adapted


def test_adapter_on_another_base_is_refused(tmp_path: Path, adapter: Path) -> None:
    other = save(tmp_path / "other")
    with pytest.raises(ValueError, match="was trained on another base than .*other"):
        Recommender.from_pretrained(adapter, base=other)
    with pytest.raises(ValueError, match="leave base out"):
        Recommender.from_pretrained(other, base=other)


def _truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])


def _grow_vocabulary(folder: Path) -> None:
    ItemTokenizer.from_items([*ITEMS, "new"]).save_pretrained(folder)
    write_info(folder, dataclasses.replace(read_info(folder), popularity=[1] * (len(ITEMS) + 1)))


def _lengthen(folder: Path) -> None:
    write_info(folder, dataclasses.replace(read_info(folder), input=InputFormat("next-item", 999)))


@pytest.mark.parametrize(
    ("damage", "error", "expected"),
    [
        (lambda folder: shutil.rmtree(folder), FileNotFoundError, "model"),
        (lambda folder: (folder / "tokenizer.json").unlink(), FileNotFoundError, "tokenizer.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), FileNotFoundError, "model.safetensors"),
        (lambda folder: (folder / "recbert.json").unlink(), FileNotFoundError, "recbert.json"),
        (lambda folder: (folder / "recbert.json").write_text("{"), ValueError, "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text("{}"), ValueError, "model"),
        (_truncate, ValueError, "are damaged .*copy the checkpoint again"),
        (_grow_vocabulary, ValueError, "the model only 81 rows"),
        (_lengthen, ValueError, "max_length=999: the model holds at most 6 positions"),
        (
            lambda folder: ItemTokenizer.from_items(ITEMS[1:]).save_pretrained(folder),
            ValueError,
            "counts 12 items and the tokenizer has 11",
        ),
    ],
)
def test_damaged_checkpoints_are_refused(
    tmp_path: Path, damage: Callable[[Path], object], error: type[Exception], expected: str
) -> None:
    folder = save(tmp_path / "model")
    damage(folder)
    with pytest.raises(error, match=expected):
        Recommender.from_pretrained(folder)


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["transformer.ln_f.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lack .*ln_f.weight"):
        Recommender.from_pretrained(folder)


def test_unusable_device_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    with pytest.raises(ValueError, match="device is 'tpu'"):
        Recommender.from_pretrained(folder, device="tpu")
