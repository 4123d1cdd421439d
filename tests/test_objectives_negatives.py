"""The objectives room: losses over drawn negatives are their formulas on dense logits, gradients too."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from recbert.objectives import GBCE, BatchSampler, MaskedItem, NextItem, SampledSoftmax, UniformSampler
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer

ITEMS, SIZE = 30, FIRST_ITEM_ID + 30
LABELS = torch.tensor([70, 75, 98, 75, 71, 72])
ROWS = torch.tensor([0, 0, 0, 2, 2, 3])  # the sequence 1 has no label


class _Given:
    """A sampler whose draws are known: some are labels of their sequence, one stands twice."""

    num_items = ITEMS

    def __init__(self, from_batch: bool = False) -> None:
        self.from_batch = from_batch

    def draw(self, count: int, labels: Tensor) -> tuple[Tensor, Tensor]:
        token_ids = torch.tensor([75, 80, 80, 71, 90] * 9)[:count]
        return token_ids, -1 - 0.01 * torch.arange(count)


def _tensors(with_bias: bool, dtype: torch.dtype) -> list[Tensor | None]:
    torch.manual_seed(0)
    made = torch.randn(len(LABELS), 8), torch.randn(SIZE, 8), torch.randn(SIZE) if with_bias else None
    return [None if tensor is None else tensor.to(dtype).requires_grad_() for tensor in made]


def _refused(n: int, item: int, with_own: bool) -> bool:
    own = LABELS[ROWS[n] == ROWS].tolist() if with_own else []
    return item in (int(LABELS[n]), *own)


def _softmax(scores: Tensor, drawn: list[int], log_q: list[float], n: int, with_own: bool) -> Tensor:
    """Denominator over label and draws of one position, from its dense logits (V,)."""
    kept = [s for s, item in enumerate(drawn) if not _refused(n, item, with_own)]
    corrected = [scores[drawn[s]] - log_q[s] - math.log(len(drawn)) for s in kept]
    label = scores[LABELS[n]]
    return torch.stack([label, *corrected]).logsumexp(0) - label


def _gbce(scores: Tensor, drawn: list[int], _: list[float], n: int, with_own: bool) -> Tensor:
    """The formula of the paper as it stands, with a power of the probability."""
    alpha, t = len(drawn) / (ITEMS - 1), 0.6
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    kept = [item for item in drawn if not _refused(n, item, with_own)]
    hit = torch.sigmoid(scores[LABELS[n]]) ** beta
    misses = [torch.log(1 - torch.sigmoid(scores[item])) for item in kept]
    return -(hit.log() + sum(misses)) / (len(drawn) + 1)


CASES: list[tuple[str, str, bool, Callable[..., Tensor]]] = [
    ("sampled", "batch", False, _softmax),
    ("sampled", "batch", True, _softmax),
    ("sampled", "sequence", False, _softmax),
    ("gbce", "batch", False, _gbce),
    ("gbce", "sequence", False, _gbce),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("kind", "per", "from_batch", "formula"), CASES)
def test_loss_and_gradients_are_the_formula(
    kind: str, per: Any, from_batch: bool, formula: Callable[..., Tensor], with_bias: bool, dtype: torch.dtype
) -> None:
    sampler, count = _Given(from_batch), 5
    loss: GBCE | SampledSoftmax = SampledSoftmax(count, sampler=sampler, per=per)
    if kind == "gbce":
        loss = GBCE(count, num_items=ITEMS, calibration=0.6, per=per)
        object.__setattr__(loss._negatives, "sampler", sampler)
    tensors = _tensors(with_bias, dtype)
    hidden, weight, bias = (None if tensor is None else tensor.double() for tensor in tensors)
    logits = functional.linear(hidden, weight, bias)  # type: ignore[arg-type]  # (N, V)
    sets = int(ROWS.max()) + 1 if per == "sequence" else 1
    drawn, log_q = (values.view(sets, count).tolist() for values in sampler.draw(sets * count, LABELS))
    expected = torch.zeros((), dtype=torch.float64)
    for n, row in enumerate(ROWS.tolist()):
        place = row if per == "sequence" else 0
        expected = expected + formula(logits[n], drawn[place], log_q[place], n, from_batch or sets > 1)
    ours = loss(*tensors, LABELS, ROWS)  # type: ignore[arg-type]
    assert ours.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 0.03 if dtype == torch.bfloat16 else 1e-5
    assert ours.item() == pytest.approx(expected.item(), rel=tolerance)
    wanted = [tensor for tensor in tensors if tensor is not None]
    pairs = zip(torch.autograd.grad(ours, wanted), torch.autograd.grad(expected, wanted), strict=True)
    for mine, plain in pairs:
        torch.testing.assert_close(mine, plain, rtol=3 * tolerance, atol=3 * tolerance)


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_seen_margin_adds_the_raised_scores_of_earlier_labels(with_bias: bool) -> None:
    hidden, weight, bias = tensors = _tensors(with_bias, torch.float64)
    labels = torch.tensor([70, 75, 70, 75, 71, 72])  # the third label of the first sequence is its first one
    margin, logits = 2.0, functional.linear(hidden, weight, bias)  # type: ignore[arg-type]
    earlier: list[list[int]] = [[], [70], [75], [], [75], []]
    expected = torch.zeros((), dtype=torch.float64)
    drawn, log_q = (values.tolist() for values in _Given().draw(5, labels))
    for n, seen in enumerate(earlier):
        parts = [
            logits[n, item] - q - math.log(5)
            for item, q in zip(drawn, log_q, strict=True)
            if item != labels[n]
        ]
        parts += [logits[n, item] + margin for item in seen] + [logits[n, labels[n]]]
        expected = expected + torch.stack(parts).logsumexp(0) - logits[n, labels[n]]
    loss = SampledSoftmax(5, sampler=_Given(), seen_margin=margin)
    ours = loss(hidden, weight, bias, labels, ROWS)  # type: ignore[arg-type]
    assert ours.item() == pytest.approx(expected.item())
    wanted = [tensor for tensor in tensors if tensor is not None]
    for mine, plain in zip(
        torch.autograd.grad(ours, wanted), torch.autograd.grad(expected, wanted), strict=True
    ):
        torch.testing.assert_close(mine, plain)


def test_a_seen_margin_needs_to_know_the_sequences() -> None:
    loss = SampledSoftmax(3, sampler=UniformSampler(ITEMS), seen_margin=1.0)
    with pytest.raises(ValueError, match="seen_margin is set, which needs the rows"):
        loss(torch.randn(6, 8), torch.randn(SIZE, 8), None, LABELS)


@pytest.mark.parametrize("per", ["batch", "sequence"])
def test_no_labels_and_no_negatives_left_have_no_gradient(per: Any) -> None:
    hidden, weight = torch.randn(2, 8, requires_grad=True), torch.randn(SIZE, 8, requires_grad=True)
    counts = np.zeros(ITEMS, dtype=np.int64)
    losses = (
        SampledSoftmax(3, sampler=BatchSampler(counts), per=per),
        GBCE(3, num_items=ITEMS, per=per),
    )
    none = torch.zeros(0, dtype=torch.int64)
    for loss in losses:
        empty = loss(hidden[:0], weight, None, none, none)
        assert empty.item() == 0
        empty.backward()
    only_own = losses[0](hidden, weight, None, torch.tensor([70, 71]), torch.tensor([0, 0]))
    only_own.backward()
    assert only_own.item() == 0
    assert not hidden.grad.any() and not weight.grad.any()  # type: ignore[union-attr]


def test_gbce_is_binary_cross_entropy_uncalibrated_and_finite_far_out() -> None:
    assert GBCE(9, num_items=ITEMS, calibration=0).power == 1
    assert GBCE(9, num_items=ITEMS, calibration=1).power == pytest.approx(9 / 29)
    hidden, weight = torch.full((1, 1), 1e4), torch.ones(SIZE, 1)
    weight[70] = -1
    loss = GBCE(9, num_items=ITEMS)(hidden.requires_grad_(), weight, None, torch.tensor([70]))
    loss.backward()
    assert math.isfinite(loss.item()) and hidden.grad is not None and hidden.grad.isfinite().all()


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_batch_draws_follow_their_distribution(share: float) -> None:
    counts = np.array([96, 47, 7, 0], dtype=np.int64)
    sampler = BatchSampler(counts, share)
    popularity = (counts + 1) / (counts + 1).sum()
    labels = FIRST_ITEM_ID + torch.multinomial(torch.from_numpy(popularity), 20_000, replacement=True)
    token_ids, log_q = sampler.draw(20_000, labels)
    expected = share * popularity + (1 - share) / 4
    found = np.bincount(token_ids.numpy() - FIRST_ITEM_ID, minlength=4) / 20_000
    np.testing.assert_allclose(found, expected, atol=0.015)
    np.testing.assert_allclose(log_q.exp().numpy(), expected[token_ids - FIRST_ITEM_ID], rtol=1e-5)


def test_what_is_out_of_range_is_refused() -> None:
    counts = np.ones(ITEMS, dtype=np.int64)
    for share in (0.0, 1.1):
        with pytest.raises(ValueError, match=f"in_batch_share is {share}"):
            BatchSampler(counts, share)
    with pytest.raises(ValueError, match="calibration is 1.5"):
        GBCE(3, num_items=ITEMS, calibration=1.5)
    with pytest.raises(ValueError, match="negatives is 30"):
        GBCE(30, num_items=ITEMS)
    with pytest.raises(ValueError, match="negatives_per is 'user'"):
        SampledSoftmax(3, sampler=UniformSampler(ITEMS), per="user")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negatives_per is 'sequence', which needs the rows"):
        SampledSoftmax(3, sampler=UniformSampler(ITEMS), per="sequence")(
            torch.ones(1, 2), torch.ones(SIZE, 2), None, torch.tensor([70])
        )


@pytest.mark.parametrize("kind", [NextItem, MaskedItem])
def test_objectives_tell_the_loss_which_sequence_a_label_is_of(
    kind: type[NextItem | MaskedItem], tokenizer: ItemTokenizer
) -> None:
    class Spy(GBCE):
        def __call__(self, *tensors: Tensor | None) -> Tensor:  # type: ignore[override]
            assert tensors[4] is not None
            assert tensors[4].tolist() == [0, 2, 2]
            return super().__call__(*tensors)  # type: ignore[arg-type]

    objective = kind(tokenizer, 4, loss=Spy(2, num_items=tokenizer.num_items, per="sequence"))
    labels = torch.tensor([[-100, 69, -100], [-100, -100, -100], [-100, 70, 71]])
    hidden = torch.randn(3, 3 - int(kind is NextItem), 4, requires_grad=True)
    objective.loss(hidden, torch.randn(len(tokenizer), 4), None, labels).backward()
    assert hidden.grad is not None and hidden.grad[0].any() and not hidden.grad[1].any()
