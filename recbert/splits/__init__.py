"""Which events are learned from and which are asked for: temporal, leave-n-out and user hold-out splits.

Frames go in and the same kind comes out; every part is a table of events with a boolean `is_target`.
"""

from recbert.splits.protocol import SplitProtocol, describe_cut
from recbert.splits.split import split_events
from recbert.splits.users import select_active, select_users

__all__ = ["SplitProtocol", "describe_cut", "select_active", "select_users", "split_events"]
