"""Rows of new items that train with an adapter, in every family."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from recbert.adapters import add_lora, load_adapter, merge_adapter, save_adapter
from recbert.growth import grow_tables
from recbert.models import build_model, hidden_only, item_logits, item_table
from recbert.tokenizer import ItemTokenizer
from tests.test_adapters import EVERY, MASKED, auto_class, batch, logits_of, train

OLD, NEW = 30, 3


def scores_of(model):
    """Scores as recbert computes them, which needs peft's head to know its bias."""
    with torch.no_grad(), hidden_only(model):
        hidden = model.eval()(input_ids=batch()).logits
    return item_logits(model, hidden).detach()


def save_base(folder: Path, family: str, tie_items: bool) -> None:
    tokenizer = ItemTokenizer.from_items([f"item{number:02d}" for number in range(OLD)])
    objective = "masked-item" if family in MASKED else "next-item"
    model = build_model(
        family,
        tokenizer,
        objective=objective,
        hidden_size=16,
        dropout=0.0,
        max_length=12,
        num_hidden_layers=1,
        tie_items=tie_items,
    )
    bias = item_table(model)[1]
    if bias is not None:
        torch.nn.init.normal_(bias)
    model.save_pretrained(folder)


@pytest.mark.parametrize("tie_items", [True, False])
@EVERY
def test_new_rows_train_are_saved_and_merged(family, tie_items, tmp_path):
    save_base(tmp_path / "base", family, tie_items)
    model = auto_class(family).from_pretrained(tmp_path / "base")
    grow_tables(model, NEW)
    before = logits_of(model)
    adapted = add_lora(model, r=2, new_rows=NEW)
    torch.testing.assert_close(scores_of(adapted), before, atol=1e-6, rtol=0)
    tables = [
        table.detach().clone() for table in (model.get_input_embeddings().weight, item_table(adapted)[0])
    ]
    train(adapted)
    for old, new in zip(tables, (model.get_input_embeddings().weight, item_table(adapted)[0]), strict=True):
        moved = (old != new).any(1).nonzero().flatten().tolist()
        assert moved == list(range(len(old) - NEW, len(old)))
    save_adapter(adapted, tmp_path / "adapter")
    with safe_open(tmp_path / "adapter" / "adapter_model.safetensors", "pt") as stored:
        rows = [stored.get_slice(name).get_shape()[0] for name in stored.keys()]  # noqa: SIM118
    assert NEW in rows and not any(OLD < count - 69 <= OLD + NEW for count in rows)
    again = auto_class(family).from_pretrained(tmp_path / "base")
    grow_tables(again, NEW)
    expected = scores_of(adapted)
    torch.testing.assert_close(
        scores_of(load_adapter(again, tmp_path / "adapter")), expected, atol=1e-6, rtol=0
    )
    merged = merge_adapter(adapted)
    torch.testing.assert_close(logits_of(merged), expected, atol=1e-5, rtol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    reloaded = auto_class(family).from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(reloaded), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"use_rslora": True}, {"modules_to_save": ["ln_f"]}])
def test_kinds_of_lora_begin_at_the_base_and_are_saved(options, tmp_path):
    save_base(tmp_path / "base", "gpt2", tie_items=True)
    model = auto_class("gpt2").from_pretrained(tmp_path / "base")
    before = logits_of(model)
    adapted = add_lora(model, r=2, **options)
    torch.testing.assert_close(logits_of(adapted), before, atol=1e-6, rtol=0)
    losses = train(adapted)
    assert losses[-1] < losses[0]
    save_adapter(adapted, tmp_path / "adapter")
    again = load_adapter(auto_class("gpt2").from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(logits_of(again), logits_of(adapted), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"new_rows": -1}, "from 0 to the model's 30 items"),
        ({"new_rows": 31}, "from 0 to the model's 30 items"),
        ({"r": 17}, "is 16 wide"),
        ({"modules_to_save": ["ln_9"]}, "ln_9 is no module of this model; it has .*ln_f"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(options, expected, tmp_path):
    save_base(tmp_path / "base", "gpt2", tie_items=True)
    with pytest.raises(ValueError, match=expected):
        add_lora(auto_class("gpt2").from_pretrained(tmp_path / "base"), **{"r": 2, **options})
