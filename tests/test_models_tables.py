"""One table of items, or one for input and one for output."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from recbert.models import freeze_spare_bias, item_head, item_table, untie_items
from tests.test_models import PAIRS, batch, forward, tiny
from tests.test_models import tokenizer as tokenizer


@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_two_tables_are_saved_and_stay_two(objective, family, tokenizer, tmp_path):
    model = tiny(family, tokenizer, objective, num_hidden_layers=1, tie_items=False).eval()
    freeze_spare_bias(model)
    head, embedding = item_head(model), model.get_input_embeddings()
    assert head.weight is not embedding.weight
    logits = forward(model, batch())
    logits.sum().backward()
    unused = [name for name, value in model.named_parameters() if value.grad is None and value.requires_grad]
    assert unused == []
    model.save_pretrained(tmp_path)
    auto = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    reloaded = auto.from_pretrained(tmp_path)
    assert not torch.equal(reloaded.get_input_embeddings().weight, item_table(reloaded)[0])
    with torch.no_grad():
        torch.testing.assert_close(forward(reloaded, batch()), logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("objective", "family"), [("masked-item", "bert"), ("next-item", "gpt2")])
def test_parted_tables_are_saved_with_their_bias(objective, family, tokenizer, tmp_path):
    model = tiny(family, tokenizer, objective, num_hidden_layers=1).eval()
    logits = forward(model, batch())
    untie_items(model)
    model.save_pretrained(tmp_path)
    auto = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    reloaded, loading = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    with torch.no_grad():
        torch.testing.assert_close(forward(reloaded, batch()), logits, rtol=0, atol=1e-6)


def test_spare_bias_of_one_table_is_the_bias(tokenizer):
    model = tiny("bert", tokenizer, "masked-item")
    freeze_spare_bias(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
