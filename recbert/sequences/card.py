"""The dataset card of prepared data: what it is, how it was split, how to read it."""

from typing import Any

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)
_MEANINGS = {
    "user_id": "whose history it is",
    "input_ids": "the token id of each event's item, the earliest first; 1 stands for items never trained on",
    "timestamps": "when, in epoch seconds",
    "event_type": "what kind of event",
    "value": "rating, price or another number; NaN where missing",
    "is_target": "whether the event is to be predicted from the ones before it",
}


def build_dataset_card(manifest: dict[str, Any], columns: list[str]) -> str:
    """The Markdown text with its YAML header.

    Args:
        manifest: What `write_prepared` writes: protocol, fingerprint, items and counts of each part.
        columns: The names of the columns.
    """
    counts: dict[str, dict[str, int]] = manifest["counts"]
    rows = sum(part["rows"] for part in counts.values())
    size = next((name for limit, name in _SIZES if rows < limit), "n>10M")
    table = "\n".join(
        f"| {name} | {part['rows']:,} | {part['users']:,} | {part['events']:,} | {part['targets']:,} "
        f"| {part['cold_targets']:,} |"
        for name, part in counts.items()
    )
    meanings = "\n".join(f"- `{name}`: {_MEANINGS[name]}" for name in columns if name in _MEANINGS)
    return f"""---
tags:
- recbert
- sequential-recommendation
size_categories:
- {size}
---

# Event histories for sequential recommendation

Each row is the history of a user, or a window of it, as token ids of {manifest["items"]:,} items.

- Split: {manifest["protocol"]}.
- Fingerprint: `{manifest["fingerprint"]}`

| part | rows | users | events | targets | targets of unknown items |
|------|-----:|------:|-------:|--------:|-------------------------:|
{table}

Columns:

{meanings}

## Reading it

```python
from datasets import load_from_disk
from transformers import AutoTokenizer

data = load_from_disk("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER/tokenizer")
print(tokenizer.decode(data["train"][0]["input_ids"]))
```

A token is an item id whose whitespace, `%` and spellings of special tokens are percent-encoded
(`urllib.parse.unquote` gives the id). The file `manifest.json` holds the numbers above.
"""
