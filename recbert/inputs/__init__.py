"""Histories into model inputs, for training and for a query.

The one place that knows padding, anchoring and [MASK].
"""

from recbert.inputs.packing import pack
from recbert.inputs.padding import TokenIds, lay_out, pad_right, present_places
from recbert.inputs.query import Query, build_query, known_items
from recbert.inputs.targets import Target, TargetRows, group_by_length
from recbert.inputs.training import Draw, TrainBatch, TrainRows

__all__ = [
    "Draw",
    "Query",
    "Target",
    "TargetRows",
    "TokenIds",
    "TrainBatch",
    "TrainRows",
    "build_query",
    "group_by_length",
    "known_items",
    "lay_out",
    "pack",
    "pad_right",
    "present_places",
]
