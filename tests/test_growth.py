"""New rows behind the old ones, and the old items that a new one is like."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from recbert.growth import find_neighbours, grow_tables
from recbert.models import item_table
from recbert.tokenizer import FIRST_ITEM_ID
from tests.test_models import PAIRS, tiny
from tests.test_models import tokenizer as tokenizer

NEIGHBOURS = np.array([[0, 1], [2, -1], [-1, -1]])


@pytest.mark.parametrize("tie_items", [True, False])
@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_old_rows_stay_and_new_ones_are_means(objective, family, tie_items, tokenizer, tmp_path):
    model = tiny(family, tokenizer, objective, num_hidden_layers=1, tie_items=tie_items).eval()
    tables = (model.get_input_embeddings().weight, *item_table(model))
    with torch.no_grad():
        if tables[2] is not None:
            tables[2].normal_()
    before = [None if table is None else table.detach().clone() for table in tables]
    grow_tables(model, 3, NEIGHBOURS)
    model.save_pretrained(tmp_path)
    auto = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    reloaded = auto.from_pretrained(tmp_path)
    assert model.config.vocab_size == len(before[0]) + 3
    for grown in (model, reloaded):
        entered, (ranked, bias) = grown.get_input_embeddings().weight, item_table(grown)
        assert (ranked is entered) == tie_items
        for new, old in zip((entered, ranked, bias), before, strict=True):
            if old is None:
                assert new is None
                continue
            items = old[FIRST_ITEM_ID:]
            assert torch.equal(new[: len(old)], old)
            if new is bias:
                torch.testing.assert_close(new[-3:], items.mean().expand(3))
                continue
            torch.testing.assert_close(new[-3], (items[0] + items[1]) / 2)
            assert torch.equal(new[-2], items[2])
            torch.testing.assert_close(new[-1], items.mean(0))


def test_two_steps_of_growth_are_one(tokenizer):
    one, two = tiny("gpt2", tokenizer, "next-item"), tiny("gpt2", tokenizer, "next-item")
    two.load_state_dict(one.state_dict())
    grow_tables(one, 2, NEIGHBOURS[:2])
    for neighbours in NEIGHBOURS[:2, None]:
        grow_tables(two, 1, neighbours)
    assert torch.equal(item_table(one)[0], item_table(two)[0])


def test_neighbours_have_the_rarest_words_in_common():
    old = ["Red Nail Polish", "blue nail polish", "Shampoo, 200 ml", "", "nail file"]
    new = ["NAIL polish (red)", "shampoo for nails", "ml", "unheard of", ""]
    found = find_neighbours(new, old, 3)
    assert found.tolist() == [[0, 1, 4], [2, -1, -1], [2, -1, -1], [-1, -1, -1], [-1, -1, -1]]
    assert find_neighbours(["a"], ["", ""], 2).tolist() == [[-1, -1]]
    assert find_neighbours(["a"], ["a b", "a b"], 4).tolist() == [[0, 1, -1, -1]]


def test_many_new_items_find_what_each_alone_finds():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 40, 5)) for _ in range(700)]
    together = find_neighbours(texts, texts[:50], 4)
    assert together[600:].tolist() == [
        find_neighbours([text], texts[:50], 4)[0].tolist() for text in texts[600:]
    ]
