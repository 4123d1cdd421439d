"""The log of looks at the test part: whoever chooses by test figures leaves a trace."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recbert.checkpoint import hash_file

LOOKS_FILE = "looks.jsonl"


def log_look(
    output: Path, checkpoints: Mapping[str, str], result: Mapping[str, Any], columns: Sequence[str]
) -> int:
    """Append a look to the log of the run, and to the logs of the runs that the checkpoints belong to.

    A checkpoint called `model` belongs to the run whose folder it lies in.

    Args:
        output: the folder of the evaluating run.
        checkpoints: the name in the table of each checkpoint, by its folder or Hub id.
        result: content of `evaluation.json`.
        columns: the metrics to write down.

    Returns:
        The number of looks of this run at the test part of this data, this one included.
    """
    look = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_fingerprint": result["data_fingerprint"],
        "protocol": result["protocol"],
        "checkpoints": {name: _hash_weights(place) for place, name in checkpoints.items()},
        "figures": {
            name: {column: figures[column] for column in columns}
            for name, figures in result["models"].items()
        },
    }
    runs = {Path(place).resolve().parent for place in checkpoints if Path(place).name == "model"}
    for folder in sorted({output.resolve(), *(run for run in runs if run.is_dir())}):
        with (folder / LOOKS_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps(look, ensure_ascii=False) + "\n")
    lines = (output / LOOKS_FILE).read_text(encoding="utf-8").splitlines()
    return sum(json.loads(line)["data_fingerprint"] == look["data_fingerprint"] for line in lines)


def _hash_weights(place: str) -> str | None:
    """Give the hash of a checkpoint's weights; None for one on the Hub."""
    files = sorted(Path(place).glob("*.safetensors"))
    joined = " ".join(map(hash_file, files))
    return f"sha256:{hashlib.sha256(joined.encode()).hexdigest()}" if files else None
