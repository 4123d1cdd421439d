"""The ranks of an evaluation on disk, so that runs can be compared later without ranking again."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from recbert.checkpoint import write_file
from recbert.evaluation.ranking import Ranking


@dataclasses.dataclass(frozen=True)
class SavedRankings:
    """What `write_rankings` wrote.

    Attributes:
        rankings: by the name of the model, in the order of the table. Users are their numbers, and there are
            no lists of items (`top` is (N, 0)).
        settings: what two evaluations must share for their numbers to be comparable.
        protocol: the same in words.
    """

    rankings: dict[str, Ranking]
    settings: dict[str, Any]
    protocol: str


def ranks_file(folder: str | Path, part: str) -> Path:
    """Give the file that holds the ranks of a part of the data.

    Args:
        folder: the run's folder.
        part: `valid` or `test`.
    """
    return Path(folder, f"ranks-{part}.safetensors")


def write_rankings(
    path: str | Path, rankings: Mapping[str, Ranking], *, settings: Mapping[str, Any], protocol: str
) -> None:
    """Write the rank of every target of each model; the file appears whole or not at all.

    Users are written as numbers in the order of their first target, so that the file holds no id.

    Args:
        path: the file to write, in the safetensors format.
        rankings: rankings of the same targets by the name of the model.
        settings: JSON values that two evaluations must share to be compared.
        protocol: the protocol in words.
    """
    first = next(iter(rankings.values()))
    numbers: dict[str, int] = {}
    tensors: dict[str, NDArray[Any]] = {
        "users": np.array([numbers.setdefault(user, len(numbers)) for user in first.users], dtype=np.int64),
        "targets": first.targets,
    }
    tensors |= {f"ranks.{place}": ranking.ranks for place, ranking in enumerate(rankings.values())}
    content = {
        "models": list(rankings),
        "num_items": first.num_items,
        "seen_items": first.seen_items,
        "settings": dict(settings),
        "protocol": protocol,
    }
    with write_file(path) as draft:
        save_file(tensors, draft, metadata={"evaluation": json.dumps(content)})


def read_rankings(path: str | Path) -> SavedRankings:
    """Read what `write_rankings` wrote.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: run `recbert evaluate` for this part of this run first")
    try:
        with safe_open(path, framework="numpy") as stored:
            content = json.loads(stored.metadata()["evaluation"])
            users = [str(number) for number in stored.get_tensor("users")]
            targets = stored.get_tensor("targets")
            ranks = [stored.get_tensor(f"ranks.{place}") for place in range(len(content["models"]))]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): run `recbert evaluate` again") from error
    top = np.zeros((len(targets), 0), dtype=np.int32)
    rankings = {
        name: Ranking(found, top, targets, users, content["num_items"], content["seen_items"])
        for name, found in zip(content["models"], ranks, strict=True)
    }
    return SavedRankings(rankings, content["settings"], content["protocol"])
