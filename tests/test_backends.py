"""The backends room: scores are the model's own, whatever the batch, and stay when the catalogue grows."""

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM, GPT2LMHeadModel, PreTrainedModel

from recbert.backends import TorchScorer
from recbert.backends import scorer as scorer_module
from recbert.checkpoint import InputFormat
from recbert.models import build_model
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

POPULARITY = [3, 1, 0, 4, 2]
HISTORIES = [np.array(items) for items in ([69, 70, 71, 72, 73], [72], [70, 1, 69, 73], [73, 73])]


def _scorer(model: PreTrainedModel, objective: str, popularity: list[int] | None = None) -> TorchScorer:
    return TorchScorer(model, InputFormat(objective, 4), popularity or POPULARITY)  # type: ignore[arg-type]


def test_scores_are_the_models_own_logits_at_the_last_position(
    tiny_gpt2: GPT2LMHeadModel, tiny_bert: BertForMaskedLM
) -> None:
    torch.nn.init.normal_(tiny_bert.get_output_embeddings().bias)
    for model, objective in ((tiny_gpt2, "next-item"), (tiny_bert, "masked-item")):
        scores = _scorer(model, objective).scores(HISTORIES)
        assert scores.shape == (4, 5)
        assert scores.dtype == torch.float32
        for row, history in zip(scores, HISTORIES, strict=True):
            known = [token for token in history.tolist() if token != 1]
            tokens = known[-4:] if objective == "next-item" else [*known[-3:], 2]
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([tokens])).logits[0, -1]
            torch.testing.assert_close(row, logits[FIRST_ITEM_ID:], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "objective"),
    [
        ("gpt2", "next-item"),
        ("gru", "next-item"),
        ("llama", "next-item"),
        ("bert", "masked-item"),
        ("roberta", "masked-item"),
    ],
)
def test_batch_composition_and_padding_do_not_change_scores(
    family: str, objective: str, tokenizer: ItemTokenizer
) -> None:
    model = build_model(
        family, tokenizer, objective=objective, hidden_size=8, num_hidden_layers=1, dropout=0.0, max_length=4
    ).eval()
    scorer = _scorer(model, objective)
    together = scorer.scores(HISTORIES)
    alone = torch.cat([scorer.scores([history]) for history in HISTORIES])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)
    assert together.std() > 1e-3
    backwards = scorer.scores(HISTORIES[::-1]).flip(0)
    torch.testing.assert_close(together, backwards, rtol=0, atol=1e-4)


def test_history_without_a_known_item_gets_popularity(tiny_gpt2: GPT2LMHeadModel) -> None:
    scorer = _scorer(tiny_gpt2, "next-item")
    scores = scorer.scores([np.array([1]), HISTORIES[0], np.array([], dtype=np.int64)])
    assert scores[0].tolist() == pytest.approx([0.3, 0.1, 0.0, 0.4, 0.2])
    assert torch.equal(scores[2], scores[0])
    assert torch.equal(scores[1], scorer.scores([HISTORIES[0]])[0])
    with pytest.raises(ValueError, match="popularity"):
        scorer.vectors([np.array([1])])
    assert _scorer(tiny_gpt2, "next-item", [0] * 5).scores([np.array([1])]).tolist() == [[0.0] * 5]


def test_vectors_times_item_vectors_are_the_scores(tiny_gpt2: GPT2LMHeadModel) -> None:
    scorer = _scorer(tiny_gpt2, "next-item")
    weight, bias = scorer.item_vectors()
    assert weight.shape == (5, 8)
    assert bias is None
    torch.testing.assert_close(scorer.vectors(HISTORIES) @ weight.T, scorer.scores(HISTORIES))


@pytest.mark.parametrize("objective", ["next-item", "masked-item"])
@pytest.mark.parametrize("new_items", [1, 4_091, 4_092])
def test_growth_leaves_old_scores_bit_identical(
    objective: str, new_items: int, tiny_gpt2: GPT2LMHeadModel, tiny_bert: BertForMaskedLM
) -> None:
    model = tiny_gpt2 if objective == "next-item" else tiny_bert
    before = _scorer(model, objective).scores(HISTORIES)
    model.resize_token_embeddings(FIRST_ITEM_ID + 5 + new_items)
    after = _scorer(model, objective, POPULARITY + [0] * new_items).scores(HISTORIES)
    assert after.shape == (4, 5 + new_items)
    assert torch.equal(after[:, :5], before)


def test_second_growth_over_a_chunk_border_leaves_scores_bit_identical() -> None:
    items = [str(number) for number in range(9_001)]
    tokenizer = ItemTokenizer.from_items(items)
    model = build_model("gpt2", tokenizer, objective="next-item", hidden_size=16, num_hidden_layers=1).eval()
    whole = _scorer(model, "next-item", [1] * 9_001).scores(HISTORIES)
    for size in (1, 4_095, 4_096, 4_097, 8_192, 9_000):
        part = _scorer(model, "next-item", [1] * size).scores(HISTORIES)
        assert torch.equal(part, whole[:, :size])


def test_scores_in_inference_mode_and_outside_of_it_are_the_same(tiny_gpt2: GPT2LMHeadModel) -> None:
    scorer = _scorer(tiny_gpt2, "next-item")
    with torch.inference_mode():
        inside = scorer.scores(HISTORIES)
    assert torch.equal(scorer.scores(HISTORIES), inside)


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_blocks_of_rows_are_the_rows_of_all_scores(
    monkeypatch: pytest.MonkeyPatch, tiny_bert: BertForMaskedLM, rows: int
) -> None:
    torch.nn.init.normal_(tiny_bert.get_output_embeddings().bias)
    scorer = _scorer(tiny_bert, "masked-item")
    histories = [*HISTORIES, np.array([1, 1]), *HISTORIES[::-1], np.array([], dtype=np.int64)]
    whole = scorer.scores(histories)
    monkeypatch.setattr(scorer_module, "_rows_at_once", lambda weight: rows)
    monkeypatch.setattr(scorer_module, "_ROWS_OF_FORWARD", 2)
    found = [block.clone() for block in scorer.score_blocks(histories)]
    assert max(map(len, found)) <= rows
    torch.testing.assert_close(torch.cat(found), whole)


def test_permuted_ids_permute_the_scores(tiny_gpt2: GPT2LMHeadModel) -> None:
    before = _scorer(tiny_gpt2, "next-item").scores(HISTORIES)
    new_place = torch.tensor([3, 0, 4, 1, 2])  # item i moves to column new_place[i]
    table = tiny_gpt2.get_input_embeddings().weight.data
    table[FIRST_ITEM_ID + new_place] = table[FIRST_ITEM_ID : FIRST_ITEM_ID + 5].clone()
    moved = [history.copy() for history in HISTORIES]
    for history in moved:
        known = history >= FIRST_ITEM_ID
        history[known] = new_place[history[known] - FIRST_ITEM_ID] + FIRST_ITEM_ID
    after = _scorer(tiny_gpt2, "next-item").scores(moved)
    torch.testing.assert_close(after[:, new_place], before, rtol=0, atol=1e-6)


def test_scores_of_a_bfloat16_model_are_fp32_products(
    tiny_gpt2: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "CHUNK_ROWS", 2)
    full = _scorer(tiny_gpt2, "next-item").scores(HISTORIES)
    low = _scorer(tiny_gpt2.to(torch.bfloat16), "next-item").scores(HISTORIES)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, full, rtol=0, atol=0.05)
    assert not torch.equal(low, low.bfloat16().float())
