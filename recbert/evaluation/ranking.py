"""What an evaluation leaves behind: the rank of every target and the items recommended instead."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from recbert.inputs import Moments

SeenItems = Literal["filtered", "kept", "filtered unless they are the target"]


class Scorer(Protocol):
    """Whatever scores every item for a batch of histories: a model behind a backend, or a count baseline."""

    def scores(
        self, histories: Sequence[NDArray[np.int64]], moments: Moments | None = None, /
    ) -> torch.Tensor:
        """Score all items.

        Args:
            histories: B arrays of token ids, the earliest event first, `[UNK]` for unknown items.
            moments: their times, which a scorer is free to ignore; None for unknown ones.

        Returns:
            (B, num_items) fp32; column j is the item with token id `FIRST_ITEM_ID + j`. Special tokens have
            no column. Higher is better, -inf is never recommended.
        """
        ...


@runtime_checkable
class BlockScorer(Scorer, Protocol):
    """A scorer that can also give its scores a few rows at a time, so that they are ranked in the cache."""

    def score_blocks(
        self, histories: Sequence[NDArray[np.int64]], moments: Moments | None = None, /
    ) -> Iterator[torch.Tensor]:
        """Yield the rows of `scores` in order, (b, num_items) each; the caller may change what it got."""
        ...


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The outcome of ranking all items once for each target.

    Attributes:
        ranks: (N,) float64, 1 is best, ties at mid-rank; inf for a target that cannot be recommended (unknown
            to the vocabulary, or filtered).
        top: (N, K) the best items, best first, as item indices; -1 where no candidate was left.
        targets: (N,) item index of each target; -1 when the vocabulary does not have it.
        users: N user ids; a user with several targets has several rows.
        num_items: size of the catalogue, all of it candidates.
        seen_items: what happened to the items of the history.
    """

    ranks: NDArray[np.float64]
    top: NDArray[np.int32]
    targets: NDArray[np.int64]
    users: list[str]
    num_items: int
    seen_items: SeenItems = "filtered"

    def __post_init__(self) -> None:
        """Refuse parts of different length."""
        lengths = {len(self.ranks), len(self.top), len(self.targets), len(self.users)}
        if len(lengths) > 1:
            raise ValueError(f"ranks, top, targets and users have different lengths: {sorted(lengths)}")

    def __len__(self) -> int:
        """Give the number of targets."""
        return len(self.ranks)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        """Keep some targets, such as those of one popularity bucket.

        Args:
            rows: (N,) bool, or the row numbers to keep.
        """
        numbers = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return dataclasses.replace(
            self,
            ranks=self.ranks[numbers],
            top=self.top[numbers],
            targets=self.targets[numbers],
            users=[self.users[number] for number in numbers],
        )
