"""Approximate search: what it finds is what scoring everything finds, and what it lacks is scored."""

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from recbert.backends import ItemIndex, index
from recbert.checkpoint import CheckpointInfo, InputFormat
from recbert.models import build_model
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer

ITEMS = [f"{number:04}" for number in range(2_000)]


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    tokenizer = ItemTokenizer.from_items(ITEMS)
    model = build_model("gpt2", tokenizer, objective="next-item", hidden_size=16, num_hidden_layers=1)
    torch.nn.init.normal_(model.get_input_embeddings().weight)
    return model


@pytest.fixture
def recommender(model: GPT2LMHeadModel) -> Recommender:
    info = CheckpointInfo(
        input=InputFormat("next-item", 8),
        popularity=list(range(len(ITEMS))),
        filter_seen=True,
        protocol="",
        base_hash=None,
        metrics={},
        data_fingerprint="",
    )
    return Recommender(model, ItemTokenizer.from_items(ITEMS), info)


def _histories(count: int) -> list[list[str]]:
    draws = np.random.default_rng(0).integers(0, len(ITEMS), (count, 5))
    return [[ITEMS[item] for item in row] for row in draws]


@pytest.mark.parametrize("has_bias", [False, True])
def test_all_lists_give_the_exact_best_items(has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, queries = torch.randn(1_000, 8, generator=generator), torch.randn(20, 8, generator=generator)
    bias = torch.randn(1_000, generator=generator) if has_bias else None
    values, items = (queries @ weight.T + (0 if bias is None else bias)).topk(10)
    found_values, found = ItemIndex(weight, bias).search(queries, 10)
    assert found.tolist() == items.tolist()
    np.testing.assert_allclose(found_values, values.numpy(), rtol=1e-5, atol=1e-5)


def test_tuned_search_finds_the_share_it_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, queries = torch.randn(5_000, 8, generator=generator), torch.randn(50, 8, generator=generator)
    table = ItemIndex(weight, None)
    with caplog.at_level("INFO"):
        recall = table.tune(queries, k=10, recall=0.8)
    assert 0.8 <= recall < 1
    best, (_, found) = (queries @ weight.T).topk(10).indices.tolist(), table.search(queries, 10)
    shares = [len({*near} & {*row}) / 10 for near, row in zip(best, found.tolist(), strict=True)]
    assert recall == pytest.approx(np.mean(shares))
    assert f"finds {100 * recall:.2f} % of the 10 best items of 50 histories" in caplog.text
    assert table.tune(queries, k=10, recall=1.0) == 1


def test_recommendations_through_the_index_are_the_exact_ones(recommender: Recommender) -> None:
    histories = _histories(30)
    excluded = [item for item, _ in recommender.recommend(histories[0], 3)]
    plain = [recommender.recommend(histories, 10, exclude=excluded), recommender.recommend(histories[0], 7)]
    assert recommender.build_index(histories, recall=1.0) == 1
    found = [recommender.recommend(histories, 10, exclude=excluded), recommender.recommend(histories[0], 7)]
    assert [[item for item, _ in row] for row in found[0]] == [[item for item, _ in row] for row in plain[0]]
    assert [item for item, _ in found[1]] == [item for item, _ in plain[1]]
    scores = [[score for _, score in row] for row in (*found[0], found[1])]
    for row, exact in zip(scores, (*plain[0], plain[1]), strict=True):
        assert row == pytest.approx([score for _, score in exact], abs=1e-4)


def test_what_the_index_cannot_answer_is_scored(recommender: Recommender) -> None:
    histories = [*_histories(3), ["never seen"]]
    questions = [
        lambda: recommender.recommend(histories, 10),
        lambda: recommender.recommend([["never seen"]], 3),
        lambda: recommender.recommend(histories[0], 5, candidates=ITEMS[:6]),
        lambda: recommender.recommend(histories[0], len(ITEMS)),
        lambda: recommender.recommend(histories[0], 5, filter_seen=False),
    ]
    plain = [question() for question in questions]
    recommender.build_index(histories[:3], recall=0.01)
    for question, exact in zip(questions, plain, strict=True):
        found = question()
        assert [len(row) for row in found] == [len(row) for row in exact]
    assert questions[1]() == plain[1]
    assert questions[2]() == plain[2]
    assert questions[3]() == plain[3]


def test_bad_arguments_say_what_to_do(recommender: Recommender) -> None:
    for recall in (0.0, 1.5):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            recommender.build_index(_histories(1), recall=recall)
    with pytest.raises(ValueError, match="give some hundred histories"):
        recommender.build_index([])
    with pytest.raises(ValueError, match="no item that the checkpoint knows"):
        recommender.build_index([["never seen"]])


def test_without_faiss_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "faiss", None)
    with pytest.raises(ImportError, match=r"recbert\[ann\]"):
        ItemIndex(torch.zeros(100, 4), None)
