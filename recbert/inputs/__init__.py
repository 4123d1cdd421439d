"""Histories into model inputs, for training and for a query.

The one place that knows padding, anchoring and [MASK].
"""

from recbert.inputs.augmentation import Augmentation
from recbert.inputs.draws import uniform
from recbert.inputs.moments import Moments
from recbert.inputs.packing import pack
from recbert.inputs.padding import TokenIds, lay_out, present_places
from recbert.inputs.positions import add_positions
from recbert.inputs.query import Query, build_query, count_known, known_items
from recbert.inputs.requests import RequestTime, describe_request_time, request_times
from recbert.inputs.targets import Target, TargetRows, group_by_length
from recbert.inputs.times import add_training_times
from recbert.inputs.training import Draw, TrainBatch, TrainRows, add_counts

__all__ = [
    "Augmentation",
    "Draw",
    "Moments",
    "Query",
    "RequestTime",
    "Target",
    "TargetRows",
    "TokenIds",
    "TrainBatch",
    "TrainRows",
    "add_counts",
    "add_positions",
    "add_training_times",
    "build_query",
    "count_known",
    "describe_request_time",
    "group_by_length",
    "known_items",
    "lay_out",
    "pack",
    "present_places",
    "request_times",
    "uniform",
]
