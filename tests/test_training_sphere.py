"""A loss over cosines leaves item rows on a sphere, so that plain products rank as cosines do."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from recbert.models import item_table
from recbert.objectives import FullSoftmax, NextItem, SampledSoftmax, Tempered, UniformSampler
from recbert.tokenizer import FIRST_ITEM_ID
from recbert.training import RecTrainer
from tests.training_runs import (
    MAX_LENGTH,
    TOKENIZER,
    TRAIN,
    VALID,
    losses,
    tiny_arguments,
    tiny_model,
)


def _trainer(folder: Path, learned: bool, family: str = "gpt2", **changes: object) -> RecTrainer:
    loss = Tempered(FullSoftmax(), 0.1, learned)
    return RecTrainer(
        tiny_model("next-item", family=family),
        tiny_arguments(folder, **changes),
        objective=NextItem(TOKENIZER, MAX_LENGTH, loss=loss),
        data={"train": TRAIN, "valid": VALID},
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_loss_and_gradients_are_those_of_cosines(dtype: torch.dtype) -> None:
    hidden = torch.randn(6, 8).to(dtype).requires_grad_()
    weight = functional.normalize(torch.randn(90, 8), dim=1).to(dtype).requires_grad_()
    labels = torch.randint(FIRST_ITEM_ID, 90, (6,))
    wide = hidden.double(), weight.double()
    logits = functional.cosine_similarity(wide[0][:, None], wide[1][None], dim=2) / 0.2  # (N, V)
    products = functional.normalize(wide[0], dim=1) @ wide[1].T / 0.2
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(logits, products, rtol=tolerance, atol=tolerance)
    expected = functional.cross_entropy(products, labels, reduction="sum")
    loss = Tempered(FullSoftmax(), 0.2)(hidden, weight, None, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    pairs = zip(
        torch.autograd.grad(loss, (hidden, weight)),
        torch.autograd.grad(expected, (hidden, weight)),
        strict=True,
    )
    for mine, plain in pairs:
        torch.testing.assert_close(mine, plain, rtol=2 * tolerance, atol=2 * tolerance)


def test_sampled_softmax_may_be_inside() -> None:
    loss = Tempered(SampledSoftmax(5, sampler=UniformSampler(20)), 0.1)
    hidden, labels = torch.randn(3, 8), torch.tensor([70, 71, 72])
    torch.manual_seed(1)
    first = loss(hidden, torch.ones(90, 8), None, labels, torch.tensor([0, 0, 1]))
    torch.manual_seed(1)
    assert loss(7 * hidden, torch.ones(90, 8), None, labels).item() == pytest.approx(first.item(), rel=1e-5)


@pytest.mark.parametrize("learned", [False, True])
def test_saved_items_lie_on_a_sphere(learned: bool, tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, learned)
    trainer.train()
    assert losses(trainer)[-1] < losses(trainer)[0]
    trainer.save_model(tmp_path / "model")
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    weight: Tensor = item_table(stock)[0].detach()[FIRST_ITEM_ID:]
    lengths = weight.norm(dim=1)
    torch.testing.assert_close(lengths, lengths[:1].expand_as(lengths), rtol=1e-5, atol=0)
    assert (abs(lengths[0].item() - 1) > 1e-3) == learned


@pytest.mark.parametrize("learned", [False, True])
def test_resumed_run_has_the_losses_of_the_uninterrupted_one(learned: bool, tmp_path: Path) -> None:
    saving = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": None}
    whole = _trainer(tmp_path, learned, **saving)
    whole.train()
    resumed = _trainer(tmp_path, learned, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert losses(resumed) == losses(whole)


def test_what_a_sphere_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="temperature is -1"):
        Tempered(FullSoftmax(), -1)
    with pytest.raises(ValueError, match="temperature is set and the model has an item bias"):
        Tempered(FullSoftmax())(torch.ones(1, 2), torch.ones(90, 2), torch.ones(90), torch.tensor([70]))
    with pytest.raises(ValueError, match="temperature is set and a bert model has an item bias"):
        _trainer(tmp_path, False, family="bert")
    model = tiny_model("next-item")
    model.requires_grad_(False)
    objective = NextItem(TOKENIZER, MAX_LENGTH, loss=Tempered(FullSoftmax()))
    with pytest.raises(ValueError, match="temperature is set and the item table is frozen"):
        RecTrainer(model, tiny_arguments(tmp_path), objective=objective, data={"train": TRAIN})
