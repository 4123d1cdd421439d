"""Event tables: reading, cleaning, reporting and pseudonyms.

One lazy narwhals pipeline serves every table. Polars is the engine for files; a DuckDB relation or a
Spark frame given as input stays on its own engine.
"""

from __future__ import annotations

from recbert.events.cleaning import CleaningSteps, clean_events
from recbert.events.columns import (
    CANONICAL_COLUMNS,
    CATEGORIES,
    EVENT_TYPE,
    FLAG_COLUMNS,
    IS_TARGET,
    ITEM_ID,
    ORDER,
    REQUIRED_COLUMNS,
    SESSION_ID,
    TIMESTAMP,
    TIMESTAMP_IMPUTED,
    TITLE,
    USER_ID,
    VALUE,
    VALUE_IMPUTED,
)
from recbert.events.duckdb_tables import ROW, open_spilling
from recbert.events.engine import materialise, open_frame, require_events, tie_breaker
from recbert.events.holding import distinct_items, item_events
from recbert.events.items import read_titles
from recbert.events.leaving import stream_sorted
from recbert.events.parsing import parse_moment
from recbert.events.pseudonyms import pseudonymise, read_pseudonym_key
from recbert.events.reading import read_events
from recbert.events.report import CleaningReport, StepReport
from recbert.events.spark_tables import open_spark

__all__ = [
    "CANONICAL_COLUMNS",
    "CATEGORIES",
    "CleaningReport",
    "CleaningSteps",
    "EVENT_TYPE",
    "FLAG_COLUMNS",
    "IS_TARGET",
    "ITEM_ID",
    "ORDER",
    "REQUIRED_COLUMNS",
    "ROW",
    "SESSION_ID",
    "StepReport",
    "TIMESTAMP",
    "TIMESTAMP_IMPUTED",
    "TITLE",
    "USER_ID",
    "VALUE",
    "VALUE_IMPUTED",
    "clean_events",
    "distinct_items",
    "item_events",
    "materialise",
    "open_frame",
    "open_spark",
    "open_spilling",
    "parse_moment",
    "pseudonymise",
    "read_events",
    "read_pseudonym_key",
    "read_titles",
    "require_events",
    "stream_sorted",
    "tie_breaker",
]
