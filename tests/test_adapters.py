import json

import pytest
import torch
from peft import AutoPeftModel, PeftModel
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from recbert.adapters import (
    adapter_base,
    add_lora,
    base_name,
    load_adapter,
    merge_adapter,
    parameter_counts,
    save_adapter,
)
from recbert.models import build_model, check_fits, default_lora_targets, hidden_only, item_logits, item_table
from recbert.models.families import FAMILIES
from recbert.recurrent import CELLS
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

MASKED = {"bert", "roberta", "camembert", "xlm-roberta", "distilbert", "modernbert", "electra", "albert"}
MASKED |= {"mpnet", "deberta-v2"}
# Tests that call peft directly meet the warning that recbert.adapters hushes.
HUSHED = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
EVERY = pytest.mark.parametrize("family", [*FAMILIES, *CELLS])


@pytest.fixture(scope="module")
def tokenizer():
    return ItemTokenizer.from_items([f"item{number:02d}" for number in range(30)])


def auto_class(family):
    return AutoModelForMaskedLM if family in MASKED else AutoModelForCausalLM


@pytest.fixture
def base(family, tokenizer, tmp_path):
    """A tiny base of the family, loaded from a folder as users load it."""
    objective = "masked-item" if family in MASKED else "next-item"
    model = build_model(family, tokenizer, objective=objective, hidden_size=16, dropout=0.0, max_length=12)
    model.save_pretrained(tmp_path / "base")
    return auto_class(family).from_pretrained(tmp_path / "base")


@pytest.fixture
def gpt2(tokenizer, tmp_path):
    build_model("gpt2", tokenizer, hidden_size=16, max_length=12).save_pretrained(tmp_path / "base")
    return AutoModelForCausalLM.from_pretrained(tmp_path / "base")


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(FIRST_ITEM_ID, FIRST_ITEM_ID + 30, (4, 10), generator=generator)


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=batch()).logits


def train(model, steps=3):
    """A few steps on the label-only head, every position predicting the next item."""
    ids = batch()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    losses = []
    for _ in range(steps):
        with hidden_only(model):
            hidden = model(input_ids=ids[:, :-1]).logits  # (B, L-1, D)
        loss = torch.nn.functional.cross_entropy(
            item_logits(model, hidden).flatten(0, 1), ids[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@EVERY
@HUSHED
def test_trains_saves_loads_and_merges(family, base, tmp_path):
    untouched = logits_of(base)
    targets = default_lora_targets(family)
    adapted = add_lora(base, r=4)
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert all(any(f".{target}.lora_A." in name for name in trained) for target in targets)
    assert all(any(f".{target}.lora_" in name for target in targets) for name in trained)
    assert torch.equal(logits_of(adapted), untouched)
    table = item_table(adapted)[0].clone()
    losses = train(adapted)
    assert losses[-1] < losses[0]
    assert torch.equal(item_table(adapted)[0], table)
    expected = logits_of(adapted)
    assert not torch.equal(expected, untouched)

    save_adapter(adapted, tmp_path / "adapter")
    fresh = auto_class(family).from_pretrained(tmp_path / "base")
    assert torch.equal(logits_of(PeftModel.from_pretrained(fresh, tmp_path / "adapter")), expected)
    fresh = auto_class(family).from_pretrained(tmp_path / "base")
    loaded = load_adapter(fresh, tmp_path / "adapter")
    assert torch.equal(logits_of(loaded), expected)

    merged = merge_adapter(loaded)
    assert type(merged) is type(base)
    torch.testing.assert_close(logits_of(merged), expected, rtol=0, atol=1e-5)
    merged.save_pretrained(tmp_path / "merged")
    plain, info = auto_class(family).from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(logits_of(plain), expected, rtol=0, atol=1e-5)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


@pytest.mark.parametrize("family", ["gpt2", "bert", "distilbert", "deberta-v2", "mamba", "gru"])
def test_gradients_under_the_label_only_head_are_those_of_the_full_logits(family, base):
    model = add_lora(base).eval()
    ids = batch()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)

    def gradients(logits):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()).backward()
        return [p.grad.clone() for p in model.parameters() if p.requires_grad]

    full = gradients(model(input_ids=ids).logits)
    with hidden_only(model):
        hidden = model(input_ids=ids).logits
    for ours, theirs in zip(gradients(item_logits(model, hidden)), full, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


@HUSHED
def test_files_are_a_standard_peft_adapter(gpt2, tmp_path):
    save_adapter(add_lora(gpt2, r=2, alpha=6, dropout=0.1), tmp_path / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        p.name for p in (tmp_path / "adapter").iterdir()
    }
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"], config["lora_dropout"]) == (
        "LORA",
        2,
        6,
        0.1,
    )
    assert config["fan_in_fan_out"] is True
    assert set(config["target_modules"]) == {"c_attn", "c_proj", "c_fc"}
    assert AutoPeftModel.from_pretrained(tmp_path / "adapter").get_base_model().config.model_type == "gpt2"


def test_adapter_knows_its_base(gpt2, tmp_path):
    assert base_name(gpt2) is None
    adapted = add_lora(gpt2)
    assert base_name(adapted) == str(tmp_path / "base")
    save_adapter(adapted, tmp_path / "adapter")
    assert adapter_base(tmp_path / "adapter") == str(tmp_path / "base")


def test_adapter_of_a_base_without_a_name(tokenizer, tmp_path):
    adapted = add_lora(build_model("gpt2", tokenizer, hidden_size=16))
    assert base_name(adapted) is None
    save_adapter(adapted, tmp_path / "adapter")
    with pytest.raises(ValueError, match="does not name its base"):
        adapter_base(tmp_path / "adapter")


def test_parameter_counts(gpt2, tmp_path):
    whole = parameter_counts(gpt2)
    assert whole == {"total": gpt2.num_parameters(), "trainable": gpt2.num_parameters(), "adapter_bytes": 0}
    adapted = add_lora(gpt2, r=3)
    counts = parameter_counts(adapted)
    # Two layers: c_attn 16 -> 48, c_proj 16 -> 16, c_fc 16 -> 64, c_proj 64 -> 16.
    assert counts["trainable"] == 2 * 3 * (64 + 32 + 80 + 80)
    assert counts["total"] == whole["total"] + counts["trainable"]
    assert counts["adapter_bytes"] == 4 * counts["trainable"]
    save_adapter(adapted, tmp_path / "adapter")
    size = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert counts["adapter_bytes"] <= size < counts["adapter_bytes"] + 8192


def test_adapted_model_fits_as_its_base_does(gpt2, tokenizer):
    adapted = add_lora(gpt2)
    check_fits(adapted, tokenizer, 12)
    with pytest.raises(ValueError, match="max_length=13"):
        check_fits(adapted, tokenizer, 13)


def test_own_targets_and_all_linear(gpt2, tokenizer):
    adapted = add_lora(gpt2, target_modules=["c_attn"])
    assert parameter_counts(adapted)["trainable"] == 2 * 8 * (16 + 48)
    everything = add_lora(build_model("gpt2", tokenizer, hidden_size=16), target_modules="all-linear")
    assert not any("lm_head" in name for name, p in everything.named_parameters() if p.requires_grad)


def test_families_outside_the_table_are_adapted_in_every_linear_layer(tokenizer):
    adapted = add_lora(build_model("starcoder2", tokenizer, hidden_size=16))
    losses = train(adapted)
    assert losses[-1] < losses[0]


def test_a_loaded_adapter_is_frozen_unless_asked_for(gpt2, tmp_path):
    save_adapter(add_lora(gpt2), tmp_path / "adapter")
    load = AutoModelForCausalLM.from_pretrained
    assert parameter_counts(load_adapter(load(tmp_path / "base"), tmp_path / "adapter"))["trainable"] == 0
    again = load_adapter(load(tmp_path / "base"), tmp_path / "adapter", trainable=True)
    assert parameter_counts(again)["trainable"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0}, "r=0: must be at least 1"),
        ({"dropout": 1.0}, "dropout=1.0: must be at least 0 and below 1"),
        (
            {"target_modules": ["c_attn", "q_proj"]},
            "target_modules: q_proj matches no layer.*c_attn, c_fc, c_proj",
        ),
        ({"target_modules": []}, "an empty list"),
    ],
)
def test_bad_options_are_refused(options, message, gpt2):
    with pytest.raises(ValueError, match=message):
        add_lora(gpt2, **options)


def test_a_second_adapter_on_top_is_refused(gpt2):
    with pytest.raises(ValueError, match="has an adapter already"):
        add_lora(add_lora(gpt2))


def test_an_adapter_of_another_shape_is_refused(gpt2, tokenizer, tmp_path):
    save_adapter(add_lora(gpt2), tmp_path / "adapter")
    with pytest.raises(ValueError, match="does not fit this model"):
        load_adapter(build_model("gpt2", tokenizer, hidden_size=32), tmp_path / "adapter")


def test_folders_without_an_adapter_are_refused(gpt2, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_adapter(gpt2, tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"holds no adapter_config\.json"):
        adapter_base(tmp_path / "base")
    (tmp_path / "base" / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        adapter_base(tmp_path / "base")
