"""Random numbers of a row that depend on seed, epoch and row number alone."""

import numpy as np
from numpy.typing import NDArray

from recbert.inputs.training import TrainBatch


def uniform(batch: TrainBatch, places: NDArray[np.int64], purpose: int = 0) -> NDArray[np.float64]:
    """Draw from [0, 1) for places of the rows of a batch, by hashing instead of a stream of numbers.

    A number depends on seed, epoch, row, place and purpose alone: not on the batch, nor on the number of
    processes; and all are made at once.

    Args:
        batch: B rows.
        places: (B, P) or (1, P), from 0.
        purpose: what the numbers decide, from 0 to 255; other purposes get other numbers.

    Returns:
        (B, P).
    """
    with np.errstate(over="ignore"):  # unsigned arithmetic is meant to wrap around
        key = _scramble(_scramble(np.array([batch.seed], dtype=np.uint64)) + np.uint64(batch.epoch))
        keys = _scramble(key + batch.rows.astype(np.uint64) + np.uint64(purpose << 56))
        bits = _scramble(keys[:, None] + places.astype(np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _scramble(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Hash 64-bit numbers: one step of SplitMix64 (Steele, Lea and Flood, "Fast splittable PRNGs", 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
