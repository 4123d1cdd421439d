"""The objectives room: every fast loss is its plain formula, values and gradients."""

import math
import sys
import types

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from recbert.objectives import (
    FullSoftmax,
    MaskedItem,
    NextItem,
    PopularitySampler,
    SampledSoftmax,
    UniformSampler,
)
from recbert.objectives.losses import chunked, kernels
from recbert.tokenizer import FIRST_ITEM_ID, ItemTokenizer


def _tensors(
    rows: int, size: int, with_bias: bool, dtype: torch.dtype = torch.float32
) -> list[Tensor | None]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, 8), torch.randn(size, 8)
    bias = torch.randn(size) if with_bias else None
    return [
        None if tensor is None else tensor.to(dtype).requires_grad_() for tensor in (hidden, weight, bias)
    ]


def _plain(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    return functional.cross_entropy(functional.linear(hidden, weight, bias).float(), labels, reduction="sum")


def _gradients(loss: Tensor, tensors: list[Tensor | None]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [tensor for tensor in tensors if tensor is not None]))


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("rows", "size"), [(0, 50), (1, 50), (63, 4096), (200, 4100), (130, 1024)])
def test_full_softmax_in_chunks_is_plain_cross_entropy(rows: int, size: int, with_bias: bool) -> None:
    tensors = _tensors(rows, size, with_bias)
    labels = torch.randint(size, (rows,))
    ours, expected = FullSoftmax()(*tensors, labels), _plain(*tensors, labels)  # type: ignore[arg-type]
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, plain in zip(_gradients(3 * ours, tensors), _gradients(3 * expected, tensors), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-4, atol=5e-5)


def test_several_chunks_are_taken() -> None:
    hidden, weight, _ = _tensors(200, 4100, False)
    assert hidden is not None and weight is not None
    spans = [(start, stop) for start, stop, _ in chunked._chunks(hidden.detach(), weight.detach(), None)]
    assert len(spans) > 2 and spans[0][0] == 0 and spans[-1][1] == 200
    assert all(stop == start for (_, stop), (start, _) in zip(spans, spans[1:], strict=False))


def test_bfloat16_full_softmax_is_near_the_precise_one() -> None:
    tensors = _tensors(100, 300, True, torch.bfloat16)
    labels = torch.randint(300, (100,))
    loss, expected = FullSoftmax()(*tensors, labels), _plain(*tensors, labels)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    for mine, plain in zip(_gradients(loss, tensors), _gradients(expected, tensors), strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float(), plain.float(), rtol=0.1, atol=0.2)


def test_autocast_decides_the_products_and_the_gradients_keep_their_type() -> None:
    tensors = _tensors(60, 200, False)
    labels = torch.randint(200, (60,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = FullSoftmax()(*tensors, labels)  # type: ignore[arg-type]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(_plain(*tensors, labels).item(), rel=0.02)  # type: ignore[arg-type]
    assert all(gradient.dtype == torch.float32 for gradient in _gradients(loss, tensors))


def test_frozen_table_and_no_grad_make_no_gradient() -> None:
    hidden, weight, _ = _tensors(20, 50, False)
    assert hidden is not None and weight is not None
    labels = torch.randint(50, (20,))
    loss = FullSoftmax()(hidden, weight.detach(), None, labels)
    loss.backward()
    assert hidden.grad is not None and weight.grad is None
    with torch.no_grad():
        assert FullSoftmax()(hidden, weight, None, labels).item() == pytest.approx(loss.item(), rel=1e-6)


def test_label_of_vanishing_probability_has_its_loss() -> None:
    hidden, weight = torch.tensor([[1.0]], requires_grad=True), torch.tensor([[0.0], [500.0]])
    loss = FullSoftmax()(hidden, weight, None, torch.tensor([0]))
    assert loss.item() == pytest.approx(500.0)


def test_gradient_is_taken_once() -> None:
    hidden, weight, _ = _tensors(3, 9, False)
    assert hidden is not None and weight is not None
    loss = FullSoftmax()(hidden, weight, None, torch.tensor([1, 2, 3]))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the loss again"):
        loss.backward()


# Label smoothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 150])
def test_smoothed_labels_are_a_dense_target(rows: int, with_bias: bool, dtype: torch.dtype) -> None:
    size, smoothing = 300, 0.2
    tensors = _tensors(rows, size, with_bias, dtype)
    labels = torch.randint(FIRST_ITEM_ID, size, (rows,))
    target = torch.zeros(rows, size, dtype=dtype)  # (N, V)
    target[:, FIRST_ITEM_ID:] = smoothing / (size - FIRST_ITEM_ID)
    target[torch.arange(rows), labels] += 1 - smoothing
    dense = -(target * functional.linear(*tensors).log_softmax(1)).sum()  # type: ignore[arg-type]
    ours = FullSoftmax(smoothing)(*tensors, labels)  # type: ignore[arg-type]
    assert ours.dtype == dtype
    assert ours.item() == pytest.approx(dense.item(), rel=1e-5)
    if rows:
        pairs = zip(_gradients(3 * ours, tensors), _gradients(3 * dense, tensors), strict=True)
        for mine, plain in pairs:
            torch.testing.assert_close(mine, plain, rtol=1e-4, atol=1e-4)


def test_smoothed_labels_in_bfloat16() -> None:
    tensors = _tensors(40, 200, True, torch.bfloat16)
    labels = torch.randint(FIRST_ITEM_ID, 200, (40,))
    wide = [None if tensor is None else tensor.float() for tensor in tensors]
    loss = FullSoftmax(0.1)(*tensors, labels)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(FullSoftmax(0.1)(*wide, labels).item(), rel=0.02)  # type: ignore[arg-type]
    assert all(gradient.dtype == torch.bfloat16 for gradient in _gradients(loss, tensors))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_label_smoothing_has_a_range(smoothing: float) -> None:
    with pytest.raises(ValueError, match=f"label_smoothing is {smoothing}"):
        FullSoftmax(smoothing)


# Fused kernels, which need a GPU to run


def test_kernels_are_looked_for_on_cuda_only(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels._function.cache_clear()
    assert kernels.find_kernel(torch.device("cpu"), torch.bfloat16, with_bias=False) is None
    liger = types.ModuleType("liger_kernel.transformers.functional")
    cut = types.ModuleType("cut_cross_entropy")
    liger.liger_fused_linear_cross_entropy = cut.linear_cross_entropy = _plain  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "liger_kernel.transformers.functional", liger)
    monkeypatch.setitem(sys.modules, "cut_cross_entropy", cut)
    cuda = torch.device("cuda")
    try:
        assert kernels.find_kernel(cuda, torch.bfloat16, with_bias=False) is kernels._cut_cross_entropy
        assert kernels.find_kernel(cuda, torch.bfloat16, with_bias=True) is kernels._liger
        assert kernels.find_kernel(cuda, torch.float32, with_bias=False) is kernels._liger
    finally:
        kernels._function.cache_clear()


# Sampled softmax


class _Given:
    """A sampler whose draws are known."""

    num_items = 30
    from_batch = False

    def __init__(self, token_ids: list[int], log_q: list[float]) -> None:
        self.token_ids, self.log_q = torch.tensor(token_ids), torch.tensor(log_q)

    def draw(self, count: int, labels: Tensor) -> tuple[Tensor, Tensor]:
        assert count == len(self.token_ids)
        return self.token_ids, self.log_q


@pytest.mark.parametrize("with_bias", [False, True])
def test_sampled_softmax_is_its_formula(with_bias: bool) -> None:
    hidden, weight, bias = _tensors(3, 100, with_bias)
    assert hidden is not None and weight is not None
    labels, drawn = [70, 75, 99], [75, 80, 80, 71]
    log_q = [math.log(share) for share in (0.1, 0.4, 0.4, 0.2)]
    loss = SampledSoftmax(4, sampler=_Given(drawn, log_q))(hidden, weight, bias, torch.tensor(labels))
    expected = 0.0
    for row, label in enumerate(labels):

        def score(item: int, row: int = row) -> float:
            own = float(hidden.detach()[row] @ weight.detach()[item])
            return own + (0.0 if bias is None else float(bias.detach()[item]))

        draws = [(item, log) for item, log in zip(drawn, log_q, strict=True) if item != label]
        others = [math.exp(score(item)) / (4 * math.exp(log)) for item, log in draws]
        expected -= math.log(math.exp(score(label)) / (math.exp(score(label)) + sum(others)))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert weight.grad is not None
    touched = weight.grad.any(1).nonzero().flatten().tolist()
    assert touched == sorted({*labels, *drawn})


def test_sampled_denominator_estimates_the_full_one() -> None:
    torch.manual_seed(0)
    items = 200
    hidden, weight = torch.randn(1, 8), torch.randn(FIRST_ITEM_ID + items, 8) / 3
    weight[:FIRST_ITEM_ID] = -1e4 * hidden  # special tokens, which are never drawn, take no part
    label = torch.tensor([100])
    loss = SampledSoftmax(50, sampler=UniformSampler(items))
    own = math.exp(float(hidden[0] @ weight[100]))
    sums = [own * (math.exp(loss(hidden, weight, None, label).item()) - 1) for _ in range(2000)]
    full = own * (math.exp(FullSoftmax()(hidden, weight, None, label).item()) - 1)
    assert sum(sums) / len(sums) == pytest.approx(full, rel=0.01)


def test_draws_are_items_and_follow_the_global_seed() -> None:
    sampler = UniformSampler(5)
    torch.manual_seed(3)
    tokens, log_q = sampler.draw(500, torch.empty(0))
    assert set(tokens.tolist()) == set(range(FIRST_ITEM_ID, FIRST_ITEM_ID + 5))
    assert log_q.tolist() == pytest.approx([-math.log(5)] * 500)
    torch.manual_seed(3)
    assert torch.equal(sampler.draw(500, torch.empty(0))[0], tokens)


def test_popularity_draws_follow_the_counts_to_a_power() -> None:
    counts = np.array([99, 0, 24, 3], dtype=np.int64)
    for power, weights in ((1.0, [100, 1, 25, 4]), (0.5, [10, 1, 5, 2]), (0.0, [1, 1, 1, 1])):
        torch.manual_seed(0)
        tokens, log_q = PopularitySampler(counts, power).draw(20_000, torch.empty(0))
        shares = np.array(weights) / sum(weights)
        found = np.bincount(tokens.numpy() - FIRST_ITEM_ID, minlength=4) / 20_000
        np.testing.assert_allclose(found, shares, atol=0.01)
        np.testing.assert_allclose(log_q.numpy(), np.log(shares)[tokens - FIRST_ITEM_ID], rtol=1e-5)
    with pytest.raises(ValueError, match="power is 1.5"):
        PopularitySampler(counts, 1.5)


def test_popularity_denominator_estimates_the_full_one() -> None:
    torch.manual_seed(0)
    items = 200
    hidden, weight = torch.randn(1, 8), torch.randn(FIRST_ITEM_ID + items, 8) / 3
    weight[:FIRST_ITEM_ID] = -1e4 * hidden
    label = torch.tensor([100])
    loss = SampledSoftmax(50, sampler=PopularitySampler(np.arange(items) ** 2, 0.5))
    own = math.exp(float(hidden[0] @ weight[100]))
    sums = [own * (math.exp(loss(hidden, weight, None, label).item()) - 1) for _ in range(2000)]
    full = own * (math.exp(FullSoftmax()(hidden, weight, None, label).item()) - 1)
    assert sum(sums) / len(sums) == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize("negatives", [0, 5, 9])
def test_negatives_must_be_fewer_than_the_items(negatives: int) -> None:
    with pytest.raises(ValueError, match=f"negatives is {negatives} and the catalogue has 5 items"):
        SampledSoftmax(negatives, sampler=UniformSampler(5))


@pytest.mark.parametrize("objective_class", [NextItem, MaskedItem])
def test_objectives_take_a_loss(
    objective_class: type[NextItem | MaskedItem], tokenizer: ItemTokenizer
) -> None:
    loss = SampledSoftmax(2, sampler=UniformSampler(tokenizer.num_items))
    objective = objective_class(tokenizer, 4, loss=loss)
    shift = int(objective_class is NextItem)
    hidden = torch.randn(1, 2, 4, requires_grad=True)
    labels = torch.tensor([[-100] * shift + [69, 70]])
    objective.loss(hidden, torch.randn(len(tokenizer), 4), None, labels).backward()
    assert hidden.grad is not None and hidden.grad.any()
