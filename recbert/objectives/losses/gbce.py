"""Binary cross-entropy over the label and a sample of the catalogue, made free of overconfidence."""

from typing import Literal

from torch import Tensor
from torch.nn import functional

from recbert.objectives.losses.negatives import Negatives
from recbert.objectives.losses.samplers import UniformSampler


class GBCE:
    """Generalised binary cross-entropy: whether the label, and each drawn item, comes next.

    `-(b log sigmoid(s_y) + sum_j log(1 - sigmoid(s_j))) / (S + 1)` over S uniform draws `j`, with
    `b = 1 - t (1 - a)` and the sampling rate `a = S / (V_items - 1)`. Few negatives make plain binary
    cross-entropy (t = 0, the loss of SASRec) sure that any likely item is a hit; at t = 1 the probabilities
    are those of all negatives, whatever S. The cost grows with N x S. Its sibling `SampledSoftmax` estimates
    the full softmax instead and may draw by popularity, which the calibration does not cover. Source: Petrov
    and Macdonald, "gSASRec: reducing overconfidence in sequential recommendation trained with negative
    sampling", 2023.

    The power b stands in front of the logarithm, so that float32 is enough.

    Args:
        negatives: draws a batch or a sequence, at least 1.
        num_items: size of the catalogue.
        calibration: t, from 0 to 1; the paper's own default is 0.75.
        per: whether the draws are shared by a `batch` or by the positions of a `sequence`, see `Negatives`.

    Raises:
        ValueError: a number is out of range or `per` is unknown.
    """

    def __init__(
        self,
        negatives: int = 256,
        *,
        num_items: int,
        calibration: float = 0.75,
        per: Literal["batch", "sequence"] = "batch",
    ) -> None:
        if not 0 <= calibration <= 1:
            raise ValueError(f"calibration is {calibration}: it must be from 0 to 1")
        self._negatives = Negatives(negatives, UniformSampler(num_items), per)
        self.power = 1 - calibration * (1 - negatives / (num_items - 1))

    def __call__(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Give the sum over the labelled positions.

        Args:
            hidden: (N, D) hidden states.
            weight: (V, D) item matrix.
            bias: (V,) or None.
            labels: (N,) token ids.
            rows: (N,) the sequence of each label, see `Negatives.score`.

        Returns:
            A scalar in float32 (float64 for float64 input), in nats.
        """
        positive, negative, _ = self._negatives.score(hidden, weight, bias, labels, rows)
        losses = self.power * functional.softplus(-positive) + functional.softplus(negative).sum(1)
        total: Tensor = losses.sum() / (self._negatives.count + 1)
        return total
