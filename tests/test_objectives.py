"""The objectives room: what is predicted, and that the label-only loss is the model's own."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertForMaskedLM, GPT2LMHeadModel, PreTrainedModel

from recbert.checkpoint import Anchoring
from recbert.inputs import Draw, TrainBatch, TrainRows, build_query, pack
from recbert.models import hidden_only, item_table
from recbert.objectives import MaskedItem, NextItem
from recbert.tokenizer import ItemTokenizer

MASK, BOS = 2, 3


def _rows(*rows: tuple[tuple[int, ...], str], numbers: Sequence[int] | None = None) -> TrainBatch:
    """A batch; a row is its tokens and, by x or ., which of them are targets ("" for all)."""
    marks = [mark == "x" for tokens, targets in rows for mark in targets or "x" * len(tokens)]
    return TrainBatch(
        tokens=np.array([token for tokens, _ in rows for token in tokens], dtype=np.int64),
        is_target=np.array(marks, dtype=np.bool_),
        lengths=np.array([len(tokens) for tokens, _ in rows]),
        rows=np.arange(len(rows)) if numbers is None else np.array(numbers),
        seed=0,
        epoch=0,
    )


PARTS = [((69, 70, 71, 72, 73, 70), ""), ((73, 69, 72), "..x"), ((71, 70, 69, 71), ".x.x")]
ROWS = _rows(*PARTS)


def _label_only_loss(
    model: PreTrainedModel, objective: NextItem | MaskedItem, batch: dict[str, Tensor]
) -> Tensor:
    with hidden_only(model):
        hidden = model(**{name: values for name, values in batch.items() if name != "labels"}).logits
    weight, bias = item_table(model)
    return objective.loss(hidden, weight, bias, batch["labels"])


def _dense_loss(model: PreTrainedModel, objective: NextItem | MaskedItem, batch: dict[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits  # (B, L, V)
    labels = batch["labels"][:, 1:] if isinstance(objective, NextItem) else batch["labels"]
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")


def _gradients(model: PreTrainedModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ["next-item", "masked-item"])
def test_label_only_loss_is_dense_cross_entropy(
    name: str,
    tokenizer: ItemTokenizer,
    tiny_gpt2: GPT2LMHeadModel,
    tiny_bert: BertForMaskedLM,
) -> None:
    model = tiny_gpt2 if name == "next-item" else tiny_bert
    if isinstance(model, BertForMaskedLM):
        torch.nn.init.normal_(item_table(model)[1])
    objective = NextItem(tokenizer, 16) if name == "next-item" else MaskedItem(tokenizer, 16)
    batch = objective.collate(ROWS)
    ours, dense = _label_only_loss(model, objective, batch), _dense_loss(model, objective, batch)
    assert ours.item() == pytest.approx(dense.item(), rel=1e-6)
    assert ours.item() > 0
    expected = _gradients(model, dense)
    for parameter, gradient in _gradients(model, ours).items():
        torch.testing.assert_close(gradient, expected[parameter], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("anchoring", ["left", "right"])
@pytest.mark.parametrize("name", ["next-item", "masked-item"])
def test_batch_composition_and_padding_do_not_change_the_loss(
    name: str,
    anchoring: Anchoring,
    tokenizer: ItemTokenizer,
    tiny_gpt2: GPT2LMHeadModel,
    tiny_bert: BertForMaskedLM,
) -> None:
    model = tiny_gpt2 if name == "next-item" else tiny_bert
    kind = NextItem if name == "next-item" else MaskedItem
    objective = kind(tokenizer, 16, anchoring=anchoring)
    with torch.no_grad():
        together = _label_only_loss(model, objective, objective.collate(ROWS))
        alone = [
            _label_only_loss(model, objective, objective.collate(_rows(part, numbers=[number])))
            for number, part in enumerate(PARTS)
        ]
    assert sum(alone).item() == pytest.approx(together.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["next-item", "next-item behind a start token", "masked-item"])
def test_filler_adds_nothing(name: str, tokenizer: ItemTokenizer) -> None:
    objective: NextItem | MaskedItem = MaskedItem(tokenizer, 16)
    if name != "masked-item":
        objective = NextItem(tokenizer, 16, start_token=name != "next-item")
    part = [{"input_ids": [69, 70, 71], "is_target": [True] * 3}]
    rows = TrainRows(part, least=objective.least_events, seed=0)
    batch = objective.collate(rows.__getitems__(Draw(np.zeros(0, np.int64), 0)))
    assert (batch["labels"] == -100).all()
    assert batch["attention_mask"].bool().all()
    hidden = torch.randn(*batch["input_ids"].shape, 4, requires_grad=True)
    weight = torch.randn(len(tokenizer), 4, requires_grad=True)
    loss = objective.loss(hidden, weight, None, batch["labels"])
    loss.backward()
    assert loss.item() == 0
    assert weight.grad is not None and not weight.grad.any()


def test_bfloat16_hidden_states_meet_a_full_precision_table(tokenizer: ItemTokenizer) -> None:
    hidden = torch.randn(1, 3, 4, dtype=torch.bfloat16)
    labels = torch.tensor([[-100, 69, 70, 71]])
    table, bias = torch.randn(len(tokenizer), 4), torch.randn(len(tokenizer))
    loss = NextItem(tokenizer).loss(hidden, table, bias, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        NextItem(tokenizer).loss(hidden.float(), table, bias, labels).item(), rel=0.03
    )


def test_next_item_labels_stand_one_place_later(tokenizer: ItemTokenizer) -> None:
    batch = NextItem(tokenizer, 3).collate(_rows(*PARTS[:2]))
    assert batch["input_ids"].tolist() == [[71, 72, 73], [73, 69, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[-100, 72, 73, 70], [-100, -100, 72, -100]]


def test_start_token_predicts_the_first_event_of_whole_histories(tokenizer: ItemTokenizer) -> None:
    objective = NextItem(tokenizer, 3, start_token=True)
    assert objective.least_events == 1
    rows = _rows(((73, 69, 72), ""), ((71, 70, 69, 72), ""), ((72,), ""), ((70, 69), ".x"))
    batch = objective.collate(rows)
    assert batch["input_ids"].tolist() == [[BOS, 73, 69], [BOS, 70, 69], [BOS, 0, 0], [BOS, 70, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 0]]
    no = -100
    assert batch["labels"].tolist() == [
        [no, 73, 69, 72],
        [no, no, 69, 72],
        [no, 72, no, no],
        [no, no, 69, no],
    ]
    assert rows.is_target[:3].all()  # what was given is left as it was


@pytest.mark.parametrize("anchoring", ["left", "right"])
@pytest.mark.parametrize("start_token", [False, True])
def test_query_is_the_last_position_of_training(
    tokenizer: ItemTokenizer, start_token: bool, anchoring: Anchoring
) -> None:
    objective = NextItem(tokenizer, 4, start_token=start_token, anchoring=anchoring)
    random = np.random.default_rng(0)
    for length in range(2, 9):
        history = random.integers(69, 74, length)
        batch = objective.collate(_rows((tuple(history.tolist()), "")))
        query = build_query([history[:-1]], objective.input_format)
        assert torch.equal(batch["input_ids"], query.input_ids)
        assert ("position_ids" in batch) == ("position_ids" in query.beside) == (anchoring == "right")
        for name, values in query.beside.items():
            assert torch.equal(batch[name], values)
        assert batch["labels"][0, -1] == history[-1]


def test_masked_events_are_the_labels(tokenizer: ItemTokenizer) -> None:
    objective = MaskedItem(tokenizer, 16, mask_rate=0.5)
    rows = _rows(*[((69, 70, 71, 72, 73, 70), "..xxxx")] * 200)
    batch = objective.collate(rows)
    masked = batch["labels"] != -100  # (200, 6)
    assert masked.any(1).all()
    assert (batch["input_ids"][masked] == MASK).all()
    original = torch.from_numpy(rows.tokens.reshape(200, 6))
    assert torch.equal(torch.where(masked, batch["labels"], batch["input_ids"]), original)
    assert not masked[:, :2].any()
    # A tenth of the rows masks the last event alone; the others each event with probability 0.5.
    assert masked[:, 2:5].float().mean().item() == pytest.approx(0.9 * 0.5, abs=0.06)


def test_row_of_a_low_mask_rate_still_has_a_label(tokenizer: ItemTokenizer) -> None:
    objective = MaskedItem(tokenizer, 4, mask_rate=1e-9, last_item_share=0.0)
    rows = _rows(*[((69, 70, 71, 72, 73), "")] * 50)
    masked = objective.collate(rows)["labels"] != -100  # (50, 4): the first event is cut off
    assert masked.sum(1).tolist() == [1] * 50
    assert masked.any(0).all()


def test_last_item_share_masks_the_last_target(tokenizer: ItemTokenizer) -> None:
    labels = MaskedItem(tokenizer, 4, last_item_share=1.0).collate(ROWS)["labels"]
    assert labels.tolist() == [[-100, -100, -100, 70], [-100, -100, 72, -100], [-100, -100, -100, 71]]


def test_rows_whose_targets_are_cut_off_have_no_label(tokenizer: ItemTokenizer) -> None:
    row = _rows(((69, 70, 71, 72, 73), "xx..."))
    assert (MaskedItem(tokenizer, 3).collate(row)["labels"] == -100).all()


def test_masks_depend_on_seed_epoch_and_row_only(tokenizer: ItemTokenizer) -> None:
    objective = MaskedItem(tokenizer, 50, mask_rate=0.5)
    part = [
        {"input_ids": [69 + (i + j) % 5 for j in range(20 + i)], "is_target": [True] * (20 + i)}
        for i in range(4)
    ]
    rows = TrainRows(part, least=1, seed=3)

    def mask(row: int, epoch: int, seed: int = 3, beside: tuple[int, ...] = ()) -> list[bool]:
        source = rows if seed == 3 else TrainRows(part, least=1, seed=seed)
        batch = objective.collate(source.__getitems__(Draw(np.array([row, *beside]), epoch)))
        return (batch["labels"][0, : 20 + row] != -100).tolist()

    assert mask(1, 0) == mask(1, 0, beside=(3, 0)) == mask(1, 0, beside=(2,))
    different = [mask(0, 0), mask(0, 1), mask(0, 0, seed=4), mask(1, 0)[:20], mask(2, 0)[:20]]
    assert all(different.count(entry) == 1 for entry in different)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mask_rate": 0}, "mask_rate is 0"),
        ({"mask_rate": 1.0}, "mask_rate is 1.0"),
        ({"last_item_share": 1.1}, "last_item_share is 1.1"),
        ({"max_length": 1}, "max_length is 1"),
    ],
)
def test_masked_item_refuses_rates_out_of_range(
    values: dict[str, float], message: str, tokenizer: ItemTokenizer
) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedItem(tokenizer, **values)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("start_token", [False, True])
def test_packed_rows_have_the_loss_of_padded_ones(
    tokenizer: ItemTokenizer, tiny_gpt2: GPT2LMHeadModel, start_token: bool
) -> None:
    objective = NextItem(tokenizer, 16, start_token=start_token)
    padded = objective.collate(ROWS)
    packed = pack(padded)
    tokens = 13 if start_token else 10
    assert packed["input_ids"].shape == packed["position_ids"].shape == (1, tokens)
    with torch.no_grad(), hidden_only(tiny_gpt2):
        hidden = tiny_gpt2(
            input_ids=packed["input_ids"], position_ids=packed["position_ids"], use_cache=False
        ).logits
    loss = objective.loss(hidden, *item_table(tiny_gpt2), packed["labels"])
    assert loss.item() == pytest.approx(_label_only_loss(tiny_gpt2, objective, padded).item(), rel=1e-5)


def test_later_events_do_not_move_earlier_predictions(
    tokenizer: ItemTokenizer, tiny_gpt2: GPT2LMHeadModel
) -> None:
    objective = NextItem(tokenizer, 16)
    batch = objective.collate(_rows(((69, 70, 71, 72, 73), ""), ((69, 70, 71, 69, 70), "")))
    with torch.no_grad(), hidden_only(tiny_gpt2):
        hidden = tiny_gpt2(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(hidden[0, :3], hidden[1, :3])
    assert not torch.allclose(hidden[0, 3], hidden[1, 3])
