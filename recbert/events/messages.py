"""Messages about columns: what is absent, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def check_columns(names: Sequence[str], wanted: Sequence[str], source: str, hint: str = "") -> None:
    """Check that a table has the wanted columns.

    Raises:
        ValueError: naming the absent columns, the nearest ones that exist, and all that exist.
    """
    absent = [name for name in wanted if name not in names]
    if not absent:
        return
    parts = []
    for name in absent:
        near = nearest(name, names)
        parts.append(f"'{name}'" + (f" (did you mean '{near}'?)" if near else ""))
    shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    raise ValueError(f"{source} has no column {', '.join(parts)}; its columns are: {shown}{hint}")


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The existing name closest to a wanted one (case and underscores aside), or None when none is close."""
    folded = {other.lower().replace("_", "").replace(" ", "").lstrip("\ufeff"): other for other in names}
    found = difflib.get_close_matches(name.lower().replace("_", ""), list(folded), n=1, cutoff=0.6)
    return folded[found[0]] if found else None
