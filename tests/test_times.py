"""Time in model inputs: the same in training, in a query and in a card's program."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from recbert.backends import TorchScorer
from recbert.checkpoint import CheckpointInfo, InputFormat, TimeEncoding, write_info
from recbert.checkpoint.snippet import build_snippet
from recbert.inputs import Draw, Moments, TargetRows, TrainRows, build_query, request_times
from recbert.inputs import times as input_times
from recbert.models import build_model, check_fits
from recbert.models.families import FAMILIES, supported_families
from recbert.objectives import MaskedItem, NextItem
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer
from recbert.tokenizer.times import FIRST_GAP_ID, UNKNOWN_TIME_ID
from recbert.training import RecTrainer, RecTrainingArguments

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


def test_a_checkpoint_without_time_ignores_it(tmp_path: Path) -> None:
    model = build_model("gpt2", TOKENIZER, hidden_size=8, max_length=LENGTH)
    recommender = Recommender(model, TOKENIZER, CheckpointInfo(InputFormat("next-item", LENGTH), [1] * 12))
    history = ["item 01", "item 05"]
    assert recommender.recommend(history, timestamps=[1.0], at=5) == recommender.recommend(history)


def test_times_of_requests_are_read_and_checked() -> None:
    model = _model("gpt2", "next-item", "gaps")
    info = CheckpointInfo(InputFormat("next-item", LENGTH, time_encoding="gaps"), [1] * 12)
    recommender = Recommender(model, TOKENIZER, info)
    history = ["item 01", "item 05"]
    seconds = [1_600_000_000.0, 1_600_000_100.0]
    dates = [datetime.fromtimestamp(second, UTC) for second in seconds]
    at = datetime(2020, 9, 13, 14, 0)  # no zone: UTC
    expected = recommender.recommend(history, timestamps=seconds, at=1_600_005_600)
    assert recommender.recommend(history, timestamps=dates, at=at) == expected
    batch = recommender.recommend([history, history], timestamps=[seconds, dates], at=[at, at])
    assert [item for item, _ in batch[1]] == [item for item, _ in expected]
    now = recommender.recommend(history, timestamps=seconds)
    assert now == recommender.recommend(history, timestamps=seconds, at=time.time())
    vectors = recommender.encode([history], timestamps=[seconds], at=at)
    assert not torch.allclose(vectors, recommender.encode([history]))
    for wrong, message in (
        ({"timestamps": seconds[:1]}, "one time for each event"),
        ({"timestamps": ["noon", "one"]}, "epoch seconds or datetimes"),
        ({"timestamps": seconds, "at": [1.0, 2.0]}, "one each"),
        ({"timestamps": [np.inf, 1.0]}, "infinite"),
    ):
        with pytest.raises(ValueError, match=message):
            recommender.recommend(history, **wrong)


def test_a_tenth_of_the_training_rows_goes_without_times() -> None:
    rows = [
        {"input_ids": [69, 70, 71], "timestamps": [0.0, 1e6, 2e6], "is_target": [True] * 3}
        for _ in range(2000)
    ]
    rows = TrainRows(rows, least=2, seed=0, with_times=True)
    share = []
    for epoch in (0, 1):
        batch = rows.__getitems__(Draw(np.arange(2000), epoch))
        types = _objective("next-item", "gaps").collate(batch)["token_type_ids"].numpy()
        share.append((types == UNKNOWN_TIME_ID).all(1))
        assert ((types == FIRST_GAP_ID + 19).all(1) | share[-1]).all()
    assert 0.08 < share[0].mean() < 0.12
    assert (share[0] != share[1]).any()


def test_request_times_of_an_evaluation() -> None:
    part = [
        {"user_id": "a", "input_ids": [69, 70], "timestamps": [10.0, 5000.0], "is_target": [False, True]},
        {"user_id": "b", "input_ids": [69, 70], "timestamps": [6000.0, 9000.0], "is_target": [False, True]},
    ]
    targets = TargetRows(part)
    assert targets.moments(np.array([1])).times[0].tolist() == [6000.0]
    assert targets.request_times.tolist() == [5000.0, 9000.0]
    assert request_times(targets, "window-start", has_window=True).tolist() == [5000.0, 6000.0]
    assert request_times(targets, "window-start", has_window=False).tolist() == [10.0, 6000.0]
    jittered = request_times(targets, "jittered", has_window=True)
    assert (np.abs(jittered - targets.true_times) <= 3600).all()
    assert jittered.tolist() == request_times(targets, "jittered", has_window=True).tolist()
    targets.request_times = jittered
    assert targets.moments(np.array([0])).at[0] == jittered[0] == targets[0].request_time


@pytest.mark.parametrize(
    ("family", "objective", "encoding", "message"),
    [
        ("llama", "next-item", "gaps", "gpt2.*'rotary', which .*llama"),
        ("gpt2", "next-item", "rotary", "llama.*'gaps', which .*gpt2"),
        ("qwen3", "next-item", "rotary-axes", "qwen3_5_text"),
        ("distilbert", "masked-item", "gaps", "bert, roberta"),
        ("gru", "next-item", "gaps", "gpt2"),
    ],
)
def test_a_family_that_takes_no_such_time_is_refused(
    family: str, objective: str, encoding: TimeEncoding, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(family, TOKENIZER, objective=objective, time_encoding=encoding)


def test_times_that_tell_nothing_are_refused(tmp_path: Path) -> None:
    for times, message in (([5.0] * 3, "all the same"), ([np.nan] * 3, "all missing")):
        rows = [{"input_ids": [69, 70, 71], "timestamps": times, "is_target": [True] * 3}]
        with pytest.raises(ValueError, match=f"{message}: leave time out"):
            RecTrainer(
                _model("gpt2", "next-item", "gaps"),
                RecTrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none"),
                objective=_objective("next-item", "gaps"),
                data={"train": rows},
            )
    with pytest.raises(ValueError, match="no column 'timestamps'"):
        TrainRows([{"input_ids": [69], "is_target": [True]}], least=1, seed=0, with_times=True)
    with pytest.raises(ValueError, match="token types"):
        bert = build_model("bert", TOKENIZER, objective="masked-item", max_length=LENGTH)
        check_fits(bert, TOKENIZER, LENGTH, "gaps")
