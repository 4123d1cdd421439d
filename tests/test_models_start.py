"""Where training begins: attention as an average, items at given vectors."""

import pytest
import torch

from recbert.models import start_items
from recbert.tokenizer import FIRST_ITEM_ID
from tests.test_models import SIZES, tiny
from tests.test_models import tokenizer as tokenizer


@pytest.mark.parametrize(
    ("family", "objective"), [("openai-gpt", "next-item"), ("gpt2", "next-item"), ("bert", "masked-item")]
)
def test_a_mimetic_start_passes_the_attended_vectors_through(family, objective, tokenizer):
    model = tiny(family, tokenizer, objective, mimetic=True)
    plain = tiny(family, tokenizer, objective)
    changed = {
        name: (weight - other).round(decimals=5)
        for (name, weight), other in zip(model.named_parameters(), plain.parameters(), strict=True)
        if not torch.equal(weight, other)
    }
    if family == "bert":
        assert torch.equal(changed.pop("cls.predictions.transform.dense.weight"), torch.eye(16))
        assert torch.equal(changed.pop("cls.predictions.transform.dense.bias"), torch.full((16,), 3.0))
    assert len(changed) == 2 * SIZES["num_hidden_layers"]
    for difference in changed.values():
        assert torch.equal(difference[:, -16:], torch.eye(16)) and not difference[:, :-16].any()


def test_the_transform_of_a_mimetic_start_keeps_the_order_of_scores(tokenizer):
    model = tiny("bert", tokenizer, "masked-item", mimetic=True)
    hidden = torch.nn.functional.layer_norm(torch.randn(50, 16), (16,))
    passed = model.cls.predictions.transform(hidden)
    assert torch.nn.functional.cosine_similarity(hidden, passed).min() > 0.98


@pytest.mark.parametrize("family", ["llama", "gru"])
def test_a_mimetic_start_is_refused_where_it_is_unknown(family, tokenizer):
    with pytest.raises(ValueError, match=f"mimetic: family='{family}' has no such start; choose one of bert"):
        tiny(family, tokenizer, "next-item", mimetic=True)


@pytest.mark.parametrize("tie_items", [True, False])
def test_items_start_at_given_vectors(tie_items, tokenizer):
    model, plain = (tiny("gpt2", tokenizer, "next-item", tie_items=tie_items) for _ in range(2))
    first, second = torch.randn(2, tokenizer.num_items, 16)
    start_items(model, 7 * first, 7 * second)
    for find, vectors in (
        ("get_input_embeddings", first),
        ("get_output_embeddings", first if tie_items else second),
    ):
        table, drawn = (getattr(each, find)().weight.detach() for each in (model, plain))
        assert torch.equal(table[:FIRST_ITEM_ID], drawn[:FIRST_ITEM_ID])
        placed = (table - 0.2 * drawn)[FIRST_ITEM_ID:]
        scale = 1.5 * drawn[FIRST_ITEM_ID:].std() / vectors.std()
        assert torch.allclose(placed, scale * vectors, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda n: torch.randn(n, 15), "of shape"), (lambda n: torch.zeros(n, 16), "all vectors are the same")],
)
def test_vectors_that_do_not_fit_are_refused(make, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        start_items(tiny("gpt2", tokenizer, "next-item"), *[make(tokenizer.num_items)] * 2)
