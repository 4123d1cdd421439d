"""Search for the best values of a recipe's keys: the space, and the study that several processes share."""

from recbert.tuning.space import Dimension, Range, Value, corners, read_space
from recbert.tuning.study import Measured, Study
from recbert.tuning.summary import TrialSummary

__all__ = [
    "Dimension",
    "Measured",
    "Range",
    "Study",
    "TrialSummary",
    "Value",
    "corners",
    "read_space",
]
