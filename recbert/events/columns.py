"""Names of the columns of an event table, written once.

The canonical event table, whatever engine holds it:

| column       | type    | meaning                                                           |
|--------------|---------|-------------------------------------------------------------------|
| `user_id`    | string  | who                                                               |
| `item_id`    | string  | what, in the outside world's spelling                             |
| `timestamp`  | float64 | when: epoch seconds, the fraction kept; null means unknown        |
| `order`      | int64   | row of the source; breaks ties in time (absent on DuckDB, Spark)  |
| `event_type` | string  | optional: view, cart, purchase, ...                               |
| `value`      | float64 | optional: rating, price, seconds watched, ...                     |
"""

from __future__ import annotations

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
ORDER = "order"
EVENT_TYPE = "event_type"
VALUE = "value"

IS_TARGET = "is_target"
"""Flag that a split adds: the event is one to predict, not only context."""
SESSION_ID = "session_id"
"""Number of the session inside its user's history, added by the session step of the cleaning."""
TIMESTAMP_IMPUTED = "timestamp_imputed"
VALUE_IMPUTED = "value_imputed"

TITLE = "title"
CATEGORIES = "categories"

REQUIRED_COLUMNS = (USER_ID, ITEM_ID, TIMESTAMP)
CANONICAL_COLUMNS = (USER_ID, ITEM_ID, TIMESTAMP, ORDER, EVENT_TYPE, VALUE)
FLAG_COLUMNS = (IS_TARGET, SESSION_ID, TIMESTAMP_IMPUTED, VALUE_IMPUTED)
