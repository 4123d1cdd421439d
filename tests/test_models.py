import logging

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

import recbert.models.build as build
from recbert.models import (
    build_model,
    check_fits,
    default_lora_targets,
    hidden_only,
    item_head,
    item_logits,
    item_table,
    supported_families,
)
from recbert.models.families import FAMILIES, Family
from recbert.recurrent import CELLS
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

PAIRS = [
    (objective, family)
    for objective in ("masked-item", "next-item")
    for family in supported_families(objective)
    if family in FAMILIES or family in CELLS
]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_length": 12}


@pytest.fixture(scope="module")
def tokenizer():
    return ItemTokenizer.from_items([f"item{number:02d}" for number in range(30)])


def tiny(family, tokenizer, objective, **changes):
    torch.manual_seed(0)
    return build_model(family, tokenizer, objective=objective, **(SIZES | changes))


def batch():
    torch.manual_seed(1)
    return torch.randint(FIRST_ITEM_ID, FIRST_ITEM_ID + 30, (4, 12))


def forward(model, ids):
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def labelled(objective, ids):
    """Inputs, and (row, position, label) triples as an objective would make them."""
    if objective == "next-item":
        return ids[:, :-1], ids[:, 1:]
    inputs = ids.clone()
    inputs[:, 1::2] = 2
    labels = torch.where(inputs == 2, ids, -100)
    return inputs, labels


@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_builds_trains_saves_and_reloads(objective, family, tokenizer, tmp_path):
    model = tiny(family, tokenizer, objective, dropout=0.0)
    weight, bias = item_table(model)
    assert weight is model.get_input_embeddings().weight
    assert weight.shape == (len(tokenizer), 16)
    assert (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id) == (0, 3, 4)

    inputs, labels = labelled(objective, batch())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    model.train()
    for _ in range(3):
        with hidden_only(model):
            hidden = forward(model, inputs)[labels != -100]  # (N, D)
        logits = item_logits(model, hidden)
        loss = torch.nn.functional.cross_entropy(logits, labels[labels != -100])
        optimizer.zero_grad()
        loss.backward()
        assert weight.grad.isfinite().all() and weight.grad.abs().sum() > 0
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]

    model.save_pretrained(tmp_path)
    auto = AutoModelForMaskedLM if objective == "masked-item" else AutoModelForCausalLM
    reloaded, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert type(reloaded) is type(model)
    with torch.no_grad():
        torch.testing.assert_close(forward(reloaded, inputs), forward(model.eval(), inputs), rtol=0, atol=0)


@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_hidden_state_times_item_table_is_the_models_own_logits(objective, family, tokenizer):
    model = tiny(family, tokenizer, objective).eval()
    with torch.no_grad():
        logits = forward(model, batch())  # (B, L, V)
        with hidden_only(model):
            hidden = forward(model, batch())  # (B, L, D)
        again = forward(model, batch())
    assert hidden.shape == (4, 12, 16)
    torch.testing.assert_close(item_logits(model, hidden), logits, rtol=0, atol=1e-6)
    assert torch.equal(again, logits)


@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_attention_looks_where_the_objective_needs_it(objective, family, tokenizer):
    model = tiny(family, tokenizer, objective).eval()
    ids = batch()
    changed = ids.clone()
    changed[:, -1] = FIRST_ITEM_ID + (changed[:, -1] - FIRST_ITEM_ID + 1) % 30
    with torch.no_grad():
        moved = (forward(model, changed) - forward(model, ids))[:, :-1].abs().max().item()
    assert moved == 0 if objective == "next-item" else moved > 0


@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_padding_on_the_right_changes_nothing(objective, family, tokenizer):
    model = tiny(family, tokenizer, objective).eval()
    ids = batch()[:, :7]
    padded = torch.nn.functional.pad(ids, (0, 5))
    with torch.no_grad():
        alone = forward(model, ids)
        inside = model(input_ids=padded, attention_mask=(padded != 0).long()).logits[:, :7]
    torch.testing.assert_close(inside, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("objective", "family"), PAIRS)
def test_max_length_is_what_the_model_holds(objective, family, tokenizer):
    model = tiny(family, tokenizer, objective)
    check_fits(model, tokenizer, 12)
    if family in (*CELLS, "mamba"):
        check_fits(model, tokenizer, 10_000)
    else:
        with pytest.raises(ValueError, match="max_length=13: the model holds at most 12 positions"):
            check_fits(model, tokenizer, 13)


@pytest.mark.parametrize("family", [name for name in FAMILIES if FAMILIES[name].dropout])
def test_dropout_reaches_every_name_of_the_family(family, tokenizer):
    objective = "next-item" if family in supported_families("next-item") else "masked-item"
    row = FAMILIES[family]
    config = tiny(family, tokenizer, objective, dropout=0.3).config
    assert {getattr(config, name) for name in row.dropout} == {0.3}


@pytest.mark.parametrize(
    "family", ["gpt2", "bert", "distilbert", "llama", "opt", "modernbert", "gemma3_text"]
)
def test_intermediate_size_is_the_feed_forward_width(family, tokenizer):
    objective = "masked-item" if family in supported_families("masked-item") else "next-item"
    config = tiny(family, tokenizer, objective, intermediate_size=24).config
    assert getattr(config, FAMILIES[family].feed_forward) == 24


def test_mamba_takes_its_inner_width_as_a_multiple(tokenizer):
    assert tiny("mamba", tokenizer, "next-item", intermediate_size=48).config.intermediate_size == 48
    with pytest.raises(ValueError, match="intermediate_size=20: must be a multiple of hidden_size=16"):
        tiny("mamba", tokenizer, "next-item", intermediate_size=20)


def test_dropout_the_family_cannot_honour_is_said(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, "recbert"):
        tiny("llama", tokenizer, "next-item")
        tiny("mamba", tokenizer, "next-item")
        tiny("gpt2", tokenizer, "next-item")
        tiny("qwen3", tokenizer, "next-item", dropout=0.0)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("recbert")]
    assert said == [
        "llama: dropout=0.1 applies only in attention.",
        "mamba: dropout=0.1 applies nowhere: the family has none.",
    ]


def test_same_seed_same_model(tokenizer):
    for family in ("gpt2", "gru", "starcoder2"):
        first, second = (tiny(family, tokenizer, "next-item").state_dict() for _ in range(2))
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_initial_scale_is_the_familys_own(tokenizer):
    weight = tiny("gpt2", tokenizer, "next-item", hidden_size=64).get_input_embeddings().weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("family", "objective"),
    [
        ("starcoder2", "next-item"),
        ("convbert", "masked-item"),
        ("data2vec-text", "masked-item"),
        ("bert-generation", "next-item"),
    ],
)
def test_a_family_outside_the_table_is_built_by_uniform_names(family, objective, tokenizer):
    model = tiny(family, tokenizer, objective, max_length=16).eval()
    assert family not in FAMILIES
    assert default_lora_targets(family) == "all-linear"
    assert item_head(model).weight.shape == (len(tokenizer), 16)
    check_fits(model, tokenizer, 16)


@pytest.mark.parametrize(
    ("family", "objective", "message"),
    [
        ("gpt2", "masked-item", "gpt2' has no masked-item head.*objective='next-item'.*bert.*deberta-v2"),
        ("distilbert", "next-item", "distilbert' has no next-item head.*gpt2.*gru.*llama.*lstm"),
        ("lstm", "masked-item", "lstm' has no masked-item head"),
        ("bret", "masked-item", "bret' is unknown; nearest names: bert"),
        ("gemma2", "next-item", "soft-caps"),
        ("gpt2", "next-click", "objective='next-click': must be one of masked-item, next-item"),
        ("bart", "next-item", "encoder-decoder"),
        ("funnel", "masked-item", "funnel' refuses these sizes.*num_hidden_layers"),
    ],
)
def test_pairs_that_do_not_exist_are_refused(family, objective, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        tiny(family, tokenizer, objective)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 15}, "hidden_size=15: must be a multiple of num_attention_heads=2"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0: must be at least 1"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        ({"max_length": 0}, "max_length=0: must be at least 1"),
        ({"intermediate_size": -4}, "intermediate_size=-4: must be at least 1"),
    ],
)
def test_sizes_out_of_range_are_refused(changes, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        tiny("gpt2", tokenizer, "next-item", **changes)


def test_a_size_the_family_ignores_is_named(tokenizer, monkeypatch):
    monkeypatch.setitem(build.FAMILIES, "bert", Family(hidden=("width",)))
    with pytest.raises(ValueError, match="family='bert' ignores hidden_size=16 and uses 768"):
        tiny("bert", tokenizer, "masked-item")


def test_a_vocabulary_larger_than_the_models_is_refused(tokenizer):
    model = tiny("gpt2", tokenizer, "next-item")
    larger = ItemTokenizer.from_items([f"item{number:02d}" for number in range(31)])
    with pytest.raises(ValueError, match=r"the tokenizer has 100 tokens, the model only 99 rows"):
        check_fits(model, larger, 12)


def test_hidden_only_ends_with_an_error_inside(tokenizer):
    model = tiny("gpt2", tokenizer, "next-item")
    with pytest.raises(KeyError), hidden_only(model):
        raise KeyError
    assert forward(model, batch()).shape == (4, 12, len(tokenizer))


def test_hidden_only_may_be_nested(tokenizer):
    model = tiny("bert", tokenizer, "masked-item")
    with hidden_only(model):
        with hidden_only(model):
            pass
        assert forward(model, batch()).shape == (4, 12, 16)
    assert forward(model, batch()).shape == (4, 12, len(tokenizer))


def test_a_model_without_a_head_is_refused(tokenizer):
    with pytest.raises(ValueError, match="GPT2Model has no item head"):
        item_head(tiny("gpt2", tokenizer, "next-item").transformer)


def test_data_parallel_wrappers_are_looked_through(tokenizer):
    model = tiny("gpt2", tokenizer, "next-item")
    assert item_head(torch.nn.DataParallel(model)) is model.lm_head


def test_a_fixed_feed_forward_width_is_said(tokenizer):
    with pytest.raises(ValueError, match=r"intermediate_size=32.*4 \* hidden_size=64"):
        tiny("openai-gpt", tokenizer, "next-item", intermediate_size=32)
