"""Two item tables that stay mirror images, and train as one."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from recbert.adapters import add_lora
from recbert.models import build_model, item_table, mirror_items, mirror_signs
from recbert.objectives import NextItem, SampledSoftmax, UniformSampler
from recbert.recommender import Recommender
from recbert.tokenizer import ItemTokenizer
from recbert.training import MirroredTables, RecTrainer
from tests.training_runs import ITEMS, MAX_LENGTH, TOKENIZER, TRAIN, tiny_arguments


def build(tokenizer: ItemTokenizer, **options: object) -> torch.nn.Module:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "dropout": 0.0, "max_length": MAX_LENGTH}
    return build_model(**{"family": "openai-gpt", "tokenizer": tokenizer, **sizes, **options})


def tables(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    return model.get_input_embeddings().weight.detach(), item_table(model)[0].detach()


def loss_of(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def test_a_mirrored_model_starts_as_images_and_saves_two_tables(tmp_path: Path) -> None:
    model = build(TOKENIZER, tie_items="mirrored")
    model.save_pretrained(tmp_path)
    for net in (model, AutoModelForCausalLM.from_pretrained(tmp_path)):
        entered, ranked = tables(net)
        assert torch.equal(entered[:, :4], ranked[:, :4]) and torch.equal(entered[:, 4:], -ranked[:, 4:])
        MirroredTables(net)


@pytest.mark.parametrize("family", ["openai-gpt", "gru"])
def test_tables_stay_images_while_they_train(family: str, tmp_path: Path) -> None:
    model = build(TOKENIZER, family=family, tie_items="mirrored")
    before, _ = (table.clone() for table in tables(model))
    loss = SampledSoftmax(4, sampler=UniformSampler(len(ITEMS)), seen_margin=2.0)
    trainer = RecTrainer(
        model,
        tiny_arguments(tmp_path, weight_decay=0.1),
        objective=NextItem(TOKENIZER, MAX_LENGTH, loss=loss),
        data={"train": TRAIN},
        callbacks=[MirroredTables(model)],
    )
    trainer.train()
    entered, ranked = tables(model)
    assert torch.equal(ranked, entered * mirror_signs(entered))
    assert (entered != before).any(1)[69:].all()
    trainer.save_model(tmp_path / "model")
    again = Recommender.from_pretrained(tmp_path / "model").model
    assert torch.equal(tables(again)[1], ranked)


def test_gradients_are_those_of_one_table_seen_in_a_mirror() -> None:
    model = build(TOKENIZER, tie_items="mirrored").eval()
    callback = MirroredTables(model)
    ids = torch.tensor([[69, 70, 71, 72], [75, 74, 69, 80]])
    torch.nn.functional.cross_entropy(
        model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    ).backward()
    callback.on_pre_optimizer_step(None, None, None)
    entered = model.get_input_embeddings().weight
    one = entered.detach().clone().requires_grad_()
    logits = torch.func.functional_call(
        model,
        {"transformer.tokens_embed.weight": one, "lm_head.weight": one * mirror_signs(one)},
        (ids,),
        tie_weights=False,
    ).logits
    loss_of(logits, ids).backward()
    torch.testing.assert_close(entered.grad, one.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(item_table(model)[0].grad, one.grad * mirror_signs(one), atol=1e-6, rtol=1e-5)


def test_other_tables_are_refused() -> None:
    for tie_items in (True, False):
        with pytest.raises(ValueError, match="no mirror images"):
            MirroredTables(build(TOKENIZER, tie_items=tie_items))
    adapted = build(TOKENIZER, tie_items="mirrored")
    add_lora(adapted, r=2)
    with pytest.raises(ValueError, match="frozen"):
        MirroredTables(adapted)
    parted = build(TOKENIZER, tie_items=False)
    mirror_items(parted)
    MirroredTables(parted)
