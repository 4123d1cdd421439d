"""A softmax over cosines instead of products."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from recbert.objectives.losses.full_softmax import FullSoftmax
from recbert.objectives.losses.sampled_softmax import SampledSoftmax


@dataclass(frozen=True)
class Tempered:
    """A softmax whose scores are `cos(hidden_n, item_j) / temperature`.

    Lengths take no part, so that no item is ranked high for being popular alone, and training does not end in
    ever longer vectors. Hidden states are normalised here, which changes no user's ranking; items lie on a
    sphere because `RecTrainer` puts their rows back there after every step. A plain product with the saved
    table thus ranks as the cosine does, and the checkpoint needs nothing but its model. Its siblings
    `FullSoftmax` and `SampledSoftmax` take scores of any size, and either may be the softmax here. Source:
    Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations", 2019.

    Args:
        loss: the softmax.
        temperature: above 0; from 0.05 to 0.1 is usual.
        learned: whether the temperature is learned: the sphere's radius, 1 at first, then follows the mean
            length that the optimiser gives the items, and the scores are divided by `temperature / radius`.

    Raises:
        ValueError: `temperature` is out of range.
    """

    loss: FullSoftmax | SampledSoftmax
    temperature: float = 0.07
    learned: bool = False

    def __post_init__(self) -> None:
        """Check the range."""
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}: it must be above 0")

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
            weight: (V, D) item matrix, its items on a sphere.
            bias: None.
            labels: (N,) token ids.
            rows: (N,) the sequence of each label, see `Negatives.score`.

        Returns:
            A scalar in float32 (float64 for float64 input), in nats.

        Raises:
            ValueError: there is a bias, which the length of a hidden state weighs differently for each user.
        """
        if bias is not None:
            raise ValueError("temperature is set and the model has an item bias: take a family without one")
        wide = hidden if hidden.itemsize > 2 else hidden.float()
        unit = functional.normalize(wide, dim=1) / self.temperature
        return self.loss(unit.to(hidden.dtype), weight, None, labels, rows)
