"""Losses over labelled positions only; each gives a sum, which the caller divides by the number of labels."""

from recbert.objectives.losses.full_softmax import FullSoftmax
from recbert.objectives.losses.gbce import GBCE
from recbert.objectives.losses.labelled import labelled
from recbert.objectives.losses.sampled_softmax import SampledSoftmax
from recbert.objectives.losses.samplers import BatchSampler, PopularitySampler, Sampler, UniformSampler
from recbert.objectives.losses.tempered import Tempered

Loss = FullSoftmax | SampledSoftmax | GBCE | Tempered
"""Every loss an objective takes."""

__all__ = [
    "GBCE",
    "BatchSampler",
    "FullSoftmax",
    "Loss",
    "PopularitySampler",
    "SampledSoftmax",
    "Sampler",
    "Tempered",
    "UniformSampler",
    "labelled",
]
