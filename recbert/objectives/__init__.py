"""What is predicted, from which rows, and at what loss."""

from recbert.objectives.losses import (
    GBCE,
    BatchSampler,
    FullSoftmax,
    PopularitySampler,
    SampledSoftmax,
    Tempered,
    UniformSampler,
)
from recbert.objectives.masked_item import MaskedItem
from recbert.objectives.next_item import NextItem

__all__ = [
    "GBCE",
    "BatchSampler",
    "FullSoftmax",
    "MaskedItem",
    "NextItem",
    "PopularitySampler",
    "SampledSoftmax",
    "Tempered",
    "UniformSampler",
]
