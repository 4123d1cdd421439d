"""What became of a trial."""

import dataclasses
from typing import Literal

from recbert.tuning.space import Value

Outcome = Literal["done", "pruned", "failed", "running"]


@dataclasses.dataclass(frozen=True)
class TrialSummary:
    """One trial.

    Attributes:
        number: from 0.
        outcome: `failed` stands for training that diverged or was refused.
        values: by key of the space.
        best: the best validation metric; None when there is none.
        evaluations: how many there were.
        minutes: from draw to end; None while it runs.
        reason: why it failed.
    """

    number: int
    outcome: Outcome
    values: dict[str, Value]
    best: float | None
    evaluations: int
    minutes: float | None
    reason: str = ""
