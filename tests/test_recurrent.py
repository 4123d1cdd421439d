import json

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from recbert.models import build_model
from recbert.recurrent import CELLS, RecurrentConfig, RecurrentForCausalLM
from recbert.tokenizer import ItemTokenizer

CELL = pytest.mark.parametrize("cell", CELLS)


def tiny(cell, **changes):
    sizes = {
        "vocab_size": 90,
        "hidden_size": 16,
        "recurrent_size": 24,
        "num_hidden_layers": 2,
        "dropout": 0.0,
    }
    return RecurrentForCausalLM(RecurrentConfig(cell=cell, **(sizes | changes)))


def batch():
    return torch.randint(69, 90, (3, 8))


@CELL
def test_tied_table_is_saved_once_and_tied_again(cell, tmp_path):
    model = tiny(cell)
    torch.nn.init.ones_(model.item_table.weight[0].detach())  # the pad row is trained through the head
    assert model.lm_head.weight is model.item_table.weight
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as saved:
        names = set(saved.keys())
    assert "item_table.weight" in names and "lm_head.weight" not in names
    assert AutoConfig.from_pretrained(tmp_path).to_diff_dict() == model.config.to_diff_dict()
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(reloaded, RecurrentForCausalLM)
    assert reloaded.lm_head.weight is reloaded.item_table.weight
    for name, value in model.state_dict().items():
        assert torch.equal(reloaded.state_dict()[name], value), name


@CELL
def test_no_code_is_named_in_the_checkpoint(cell, tmp_path):
    tiny(cell).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "recbert-recurrent"
    assert config["cell"] == cell
    assert "auto_map" not in config


@CELL
def test_reads_to_the_right_only_and_ignores_the_mask(cell):
    model = tiny(cell).eval()
    ids = batch()
    with torch.no_grad():
        alone = model(input_ids=ids).logits
        padded = model(
            input_ids=torch.nn.functional.pad(ids, (0, 4)),
            attention_mask=torch.nn.functional.pad(torch.ones_like(ids), (0, 4)),
            position_ids=torch.arange(12),
        ).logits
    torch.testing.assert_close(padded[:, :8], alone, rtol=0, atol=1e-6)


@CELL
def test_loss_is_the_cross_entropy_of_the_next_item(cell):
    model = tiny(cell)
    ids = batch()
    labels = ids.clone()
    labels[0, 5:] = -100
    output = model(input_ids=ids, labels=labels)
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(output.loss, expected)
    count = (labels[:, 1:] != -100).sum()
    halved = model(input_ids=ids, labels=labels, num_items_in_batch=2 * count).loss
    torch.testing.assert_close(2 * halved, expected)
    as_tuple = model(input_ids=ids, labels=labels, return_dict=False)
    assert len(as_tuple) == 2 and torch.equal(as_tuple[1], output.logits)


@CELL
def test_embeddings_in_place_of_ids(cell):
    model = tiny(cell).eval()
    ids = batch()
    embedded = model.get_input_embeddings()(ids)
    assert torch.equal(model(inputs_embeds=embedded).logits, model(input_ids=ids).logits)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        model(input_ids=ids, inputs_embeds=embedded)


@CELL
def test_table_grows_and_keeps_its_tie(cell):
    model = tiny(cell).eval()
    ids = batch()
    with torch.no_grad():
        before = model(input_ids=ids).logits
        model.resize_token_embeddings(95)
        after = model(input_ids=ids).logits
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert after.shape == (3, 8, 95) and model.config.vocab_size == 95
    torch.testing.assert_close(after[..., :90], before, rtol=0, atol=1e-6)


@CELL
def test_learns_a_cycle(cell):
    model = tiny(cell)
    ids = (torch.arange(24) % 6 + 69).repeat(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2)
    for _ in range(50):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2
    best = model.eval()(input_ids=ids).logits[0, 5:-1].argmax(-1)
    assert torch.equal(best, ids[0, 6:])


@CELL
def test_dropout_is_active_in_training_only(cell):
    model = tiny(cell, dropout=0.5, num_hidden_layers=1)
    ids = batch()
    model.train()
    assert not torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)
    model.eval()
    assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_initial_weights_are_bounded_by_the_state_width():
    for cell in CELLS:
        bound = 1 / 24**0.5
        largest = max(parameter.abs().max().item() for parameter in tiny(cell).recurrent.parameters())
        assert 0.9 * bound < largest <= bound


def test_build_model_maps_the_uniform_sizes():
    tokenizer = ItemTokenizer.from_items(["a", "b"])
    model = build_model(
        "lstm", tokenizer, hidden_size=16, intermediate_size=48, num_hidden_layers=3, dropout=0.25
    )
    assert model.recurrent.hidden_size == 48 and model.recurrent.num_layers == 3
    assert model.recurrent.dropout == model.dropout.p == 0.25
    assert model.config.eos_token_id == 4


def test_an_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="cell='rnn': must be one of gru, lstm"):
        tiny("rnn")
