"""A catalogue that grows: new rows behind the old ones, and where they begin."""

from recbert.growth.neighbours import NEIGHBOURS, Start, find_neighbours
from recbert.growth.tables import grow_tables, keep_rows

__all__ = ["NEIGHBOURS", "Start", "find_neighbours", "grow_tables", "keep_rows"]
