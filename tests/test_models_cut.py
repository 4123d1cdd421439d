"""The last block for predicted positions only gives the hidden states of the whole one, family by family."""

import pytest
import torch

from recbert.adapters import add_lora
from recbert.models import build_model, hidden_only, last_only
from recbert.models.families import FAMILIES, supported_families
from recbert.tokenizer import ItemTokenizer

CUT = [family for family, row in FAMILIES.items() if row.position_wise]


@pytest.mark.parametrize("family", CUT)
def test_cut_block_gives_the_hidden_states_of_the_whole_one(family: str) -> None:
    torch.manual_seed(0)
    objective = next(name for name in ("next-item", "masked-item") if family in supported_families(name))
    tokenizer = ItemTokenizer.from_items([str(item) for item in range(20)])
    model = build_model(
        family, tokenizer, objective=objective, hidden_size=16, num_attention_heads=2, max_length=8
    )
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    ids = torch.randint(69, 89, (3, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6])
    last = mask.sum(1) - 1
    rows = torch.arange(3)
    with torch.no_grad(), hidden_only(model):
        whole = model(input_ids=ids * mask, attention_mask=mask).logits[rows, last]
        with last_only(model, last):
            cut = model(input_ids=ids * mask, attention_mask=mask).logits
        again = model(input_ids=ids * mask, attention_mask=mask).logits[rows, last]
    cut = cut.squeeze(1) if cut.shape[1] == 1 else cut[rows, last]
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(again, whole)


def test_an_adapter_in_the_last_block_sees_the_cut_too() -> None:
    torch.manual_seed(0)
    tokenizer = ItemTokenizer.from_items([str(item) for item in range(20)])
    model = add_lora(build_model("gpt2", tokenizer, objective="next-item", hidden_size=8, max_length=8), r=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval()
    ids, last, rows = torch.randint(69, 89, (3, 7)), torch.tensor([6, 3, 0]), torch.arange(3)
    with torch.no_grad(), hidden_only(model):
        whole = model(input_ids=ids).logits[rows, last]
        with last_only(model, last):
            cut = model(input_ids=ids).logits[rows, last]
    torch.testing.assert_close(cut, whole, rtol=1e-5, atol=1e-5)
