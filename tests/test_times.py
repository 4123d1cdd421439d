"""Time in model inputs: the same in training, in a query and in a card's program."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from recbert.backends import TorchScorer
from recbert.checkpoint import CheckpointInfo, InputFormat, TimeEncoding, write_info
from recbert.checkpoint.card import build_snippet
from recbert.inputs import Draw, Moments, TrainRows, build_query
from recbert.inputs import times as input_times
from recbert.models import build_model
from recbert.models.families import FAMILIES, supported_families
from recbert.objectives import MaskedItem, NextItem
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer

ITEMS = [f"item {number:02}" for number in range(12)]
TOKENIZER = ItemTokenizer.from_items(ITEMS)
LENGTH = 12
DAY = 86_400.0


def _model(family: str, objective: str, encoding: TimeEncoding) -> PreTrainedModel:
    return build_model(
        family,
        TOKENIZER,
        objective=objective,
        hidden_size=32,
        num_hidden_layers=1,
        dropout=0.0,
        max_length=LENGTH,
        time_encoding=encoding,
    ).eval()


def _objective(name: str, encoding: TimeEncoding, start_token: bool = False) -> NextItem | MaskedItem:
    if name == "next-item":
        return NextItem(TOKENIZER, LENGTH, time_encoding=encoding, start_token=start_token)
    return MaskedItem(TOKENIZER, LENGTH, time_encoding=encoding, last_item_share=1.0)


CASES = [
    ("gpt2", "next-item", "gaps"),
    ("gpt2", "next-item", "clock"),
    ("bert", "next-item", "gaps+clock"),
    ("bert", "masked-item", "gaps"),
    ("llama", "next-item", "rotary"),
    ("modernbert", "masked-item", "rotary"),
    ("qwen3_5_text", "next-item", "rotary-axes"),
]


@pytest.mark.parametrize("start_token", [False, True])
@pytest.mark.parametrize(("family", "name", "encoding"), CASES)
def test_training_shows_what_a_query_shows(
    family: str, name: str, encoding: TimeEncoding, start_token: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_times, "_TIMELESS_SHARE", 0.0)
    if start_token and name == "masked-item":
        pytest.skip("masked-item has no start token")
    objective = _objective(name, encoding, start_token)
    random = np.random.default_rng(0)
    for length in (2, 4, 9):
        tokens, times = random.integers(69, 81, length), 1e9 + random.exponential(DAY, length).cumsum()
        row = {"input_ids": tokens, "timestamps": times, "is_target": [False] * (length - 1) + [True]}
        batch = TrainRows([row], least=1, seed=0, with_times=True).__getitems__(Draw(np.array([0]), 0))
        trained = objective.collate(batch)
        moments = Moments([times[:-1]], times[-1:])
        asked = build_query([tokens[:-1]], objective.input_format, moments).inputs(torch.device("cpu"))
        columns = asked["input_ids"].shape[1]
        for tensor in ("input_ids", "token_type_ids", "position_ids"):
            if tensor in asked and tensor != "position_ids":
                assert torch.equal(trained[tensor][..., -columns:], asked[tensor])
            elif tensor in asked:  # only distances count
                places = trained[tensor][..., -columns:]
                torch.testing.assert_close(places.diff(dim=-1), asked[tensor].diff(dim=-1))
        labels = trained["labels"][0, 1:] if name == "next-item" else trained["labels"][0]
        assert labels[-1] == tokens[-1] and (labels[:-1] == -100).all()


@pytest.mark.parametrize("start_token", [False, True])
@pytest.mark.parametrize(("family", "name", "encoding"), CASES)
def test_program_of_the_card_knows_the_times(
    family: str,
    name: str,
    encoding: TimeEncoding,
    start_token: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if start_token and name == "masked-item":
        pytest.skip("masked-item has no start token")
    model = _model(family, name, encoding)
    for parameter in model.parameters():  # times have to make a difference
        torch.nn.init.normal_(parameter, std=0.3)
    info = CheckpointInfo(
        InputFormat(name, LENGTH, time_encoding=encoding, starts_with_bos=start_token), [1] * 12
    )
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    write_info(tmp_path, info)
    history = ["item 01", "never seen", "item 05", "item 02", "item 08", "item 03", "item 11", "item 04"]
    times = [1e9, 1e9 + 5, 1e9 + 2 * DAY, 1e9 + 1.9 * DAY, *(1e9 + DAY * step for step in (3, 9, 9.5, 40))]
    at = 1e9 + 41.3 * DAY
    program = build_snippet(info, model.config.to_dict())
    assert len(program.splitlines()) <= 19  # an adapter has one more
    pairs = [text for item, when in zip(history, times, strict=True) for text in (item, repr(when))]
    monkeypatch.setattr(sys, "argv", ["snippet.py", str(tmp_path), repr(at), *pairs])
    exec(program, {"__name__": "__main__"})
    printed = [line.rpartition(" ") for line in capsys.readouterr().out.splitlines()]
    recommender = Recommender.from_pretrained(tmp_path)
    expected = recommender.recommend(history, 5, timestamps=times, at=at)
    assert [item for item, _, _ in printed[:5]] == [item for item, _ in expected]
    assert [float(score) for _, _, score in printed[:5]] == pytest.approx(
        [score for _, score in expected], abs=1e-4
    )
    assert recommender.recommend(history, 5) != expected
    assert recommender.recommend(history, 5, timestamps=times, at=at + 400 * DAY + 3600) != expected


ROTARY = [name for name, row in FAMILIES.items() if row.rotary_axes]


@pytest.mark.parametrize("family", ROTARY)
def test_an_early_event_reaches_the_last_score_over_moved_positions(family: str) -> None:
    name = "next-item" if family in supported_families("next-item") else "masked-item"
    encoding: TimeEncoding = "rotary-axes" if FAMILIES[family].rotary_axes == 3 else "rotary"
    model = _model(family, name, encoding)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    times = 1e9 + np.array([0, 7, 500, 3 * DAY, 4 * DAY, 90 * DAY])
    histories = [np.array([first, 70, 71, 72, 73, 74]) for first in (69, 80)]
    input_format = InputFormat(name, LENGTH, time_encoding=encoding)
    scorer = TorchScorer(model, input_format, [1] * 12)

    def score(history: np.ndarray, at: float, early: float = 0.0) -> torch.Tensor:
        moved = times.copy()
        moved[1] += early
        return scorer.scores([history], Moments([moved], np.array([at])))[0]

    at = 1e9 + 91 * DAY
    base = score(histories[0], at)
    for other in (
        score(histories[1], at),
        score(histories[0], at, early=2 * DAY),
        score(histories[0], at + 300 * DAY),
    ):
        assert (base - other).abs().max() > 1e-4
    if name == "masked-item":
        return
    inputs = build_query(histories[:1], input_format, Moments([times], np.array([at]))).inputs(
        torch.device("cpu")
    )
    with torch.no_grad():
        whole = model(**inputs).logits[0, -1]
        first = {key: value if key == "attention_mask" else value[..., :-1] for key, value in inputs.items()}
        start = model(**{**first, "attention_mask": inputs["attention_mask"][:, :-1]}, use_cache=True)
        rest = {key: value if key == "attention_mask" else value[..., -1:] for key, value in inputs.items()}
        step = model(**rest, past_key_values=start.past_key_values).logits[0, -1]
    torch.testing.assert_close(step, whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(base, whole[69:], atol=1e-4, rtol=1e-4)
