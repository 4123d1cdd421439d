"""`recbert.json`: what turns a history into model input, and scores into a ranking."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers.utils.hub import cached_file

from recbert.checkpoint.folder import write_file, write_text
from recbert.tokenizer import MAPPED_FROM

INFO_FILE = "recbert.json"
POPULARITY_FILE = "popularity.safetensors"
"""Holds the popularity of catalogues past two million items, which as JSON would take seconds to read."""
RULES_FILE = "rules.safetensors"
"""Holds the sequential rules of a checkpoint whose scores are blended with them."""
FORMAT_VERSION = 1

ObjectiveName = Literal["masked-item", "next-item"]
Anchoring = Literal["left", "right"]
TimeEncoding = Literal["gaps", "clock", "gaps+clock", "rotary", "rotary-axes"]


@dataclasses.dataclass(frozen=True)
class InputFormat:
    """How a history becomes model input; saved with the checkpoint, used in training and serving alike.

    Attributes:
        objective: `next-item` predicts at the last event; `masked-item` appends `[MASK]` and predicts there.
        max_length: positions the model sees at most, the added `[BOS]` or `[MASK]` counted in.
        anchoring: `left`: the first input has position 0. `right`: the last one has `max_length - 1`. Padding
            follows the last one in both.
        time_encoding: None: order only. `gaps`: the time between events as token types; `clock`: hour and
            weekday of the event to predict, at a position of its own behind each event; `gaps+clock`: both;
            `rotary`: times move the positions; `rotary-axes`: order, elapsed time and clock are positions on
            three axes. `recbert.inputs.times` has the formulas.
        starts_with_bos: whether `[BOS]` stands in front of the events; `next-item` only.
    """

    objective: ObjectiveName
    max_length: int
    anchoring: Anchoring = "left"
    time_encoding: TimeEncoding | None = None
    starts_with_bos: bool = False

    def __post_init__(self) -> None:
        """Refuse what this version cannot read."""
        if self.objective not in ("masked-item", "next-item"):
            raise ValueError(f"objective is {self.objective!r}: it must be 'masked-item' or 'next-item'")
        if self.max_length < 2:
            raise ValueError(f"max_length is {self.max_length}: it must be at least 2")
        if self.anchoring not in get_args(Anchoring) or self.time_encoding not in (
            None,
            *get_args(TimeEncoding),
        ):
            raise ValueError(
                f"anchoring {self.anchoring!r} with time_encoding {self.time_encoding!r} is unknown to this "
                f"version of recbert, which reads {', '.join(get_args(Anchoring))} with "
                f"{', '.join(get_args(TimeEncoding))} or none: install a newer recbert"
            )
        if self.anchoring == "right" and self.time_encoding not in (None, "gaps"):
            raise ValueError(
                f"time_encoding is {self.time_encoding!r}, which sets the positions itself: use it with "
                "anchoring 'left', or 'gaps' with 'right'"
            )
        if self.has_clock and self.append_mask:
            raise ValueError(
                f"time_encoding is {self.time_encoding!r}, which masked-item does not take: use 'gaps' or "
                "'rotary', or the objective next-item"
            )
        if self.starts_with_bos and self.append_mask:
            raise ValueError(
                "starts_with_bos is true, but a masked-item model sees both ends of a history anyway: leave "
                "it out, or use 'next-item'"
            )

    @property
    def append_mask(self) -> bool:
        """Whether a query ends with `[MASK]`."""
        return self.objective == "masked-item"

    @property
    def has_clock(self) -> bool:
        """Whether a clock stands behind each event and takes a position too."""
        return self.time_encoding in ("clock", "gaps+clock")

    @property
    def uses_types(self) -> bool:
        """Whether time enters by token types."""
        return self.time_encoding == "gaps" or self.has_clock

    @property
    def history_length(self) -> int:
        """How many events of a history a query holds."""
        places = self.max_length // 2 if self.has_clock else self.max_length
        return places - (self.append_mask or self.starts_with_bos)


@dataclasses.dataclass(frozen=True)
class Blend:
    """How the scores of the model are blended with sequential rules; the rules stand in `RULES_FILE`.

    With p the model's probability of an item and r its share of all the rules that the history follows, the
    blended probability is proportional to `p ** (1 - power) * ((1 - weight) * p + weight * r) ** power`.

    Attributes:
        window: of the rules, at least 1: largest distance that was counted, and latest items that ask.
        weight: of the rules in the interpolation, above 0 and below 1.
        power: how much the interpolation counts against the model itself, above 0 and at most 1; 1 leaves
            the plain interpolation.
    """

    window: int
    weight: float
    power: float

    def __post_init__(self) -> None:
        """Refuse what is no blend."""
        if self.window < 1:
            raise ValueError(f"blend.window is {self.window}: it must be at least 1")
        if not 0 < self.weight < 1:
            raise ValueError(f"blend.weight is {self.weight}: it must be above 0 and below 1")
        if not 0 < self.power <= 1:
            raise ValueError(f"blend.power is {self.power}: it must be above 0 and at most 1")


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """Everything beside the weights and the vocabulary that a recommendation depends on.

    Attributes:
        input: how a history becomes model input.
        popularity: training events of each item, in the order of the item tokens; the answer to an empty
            history.
        filter_seen: whether items of the history are left out of the answer unless the caller says otherwise.
        deny_list: item ids that are never recommended.
        protocol: how the metrics were obtained, in words.
        base_hash: for an adapter, `hash_base` of the checkpoint that it was trained on.
        metrics: evaluation results by name.
        data_fingerprint: hash of the prepared data that the model was trained on.
        blend: how recbert blends the scores with sequential rules; None leaves the model's own.
        untrained_items: how many items, the last of the vocabulary, were added since the last training.
        generation: how often items were dropped from the vocabulary, which numbers the rest anew, and one.
        own_items: for an adapter, how many items, the last of the vocabulary, its base does not have.
        format_version: version of this file's layout.
    """

    input: InputFormat
    popularity: Sequence[int] | NDArray[np.int64]
    filter_seen: bool = True
    deny_list: list[str] = dataclasses.field(default_factory=list)
    protocol: str = ""
    base_hash: str | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    data_fingerprint: str = ""
    blend: Blend | None = None
    untrained_items: int = 0
    generation: int = 1
    own_items: int = 0
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Build the object from the content of a `recbert.json`.

        Args:
            content: the parsed JSON.

        Raises:
            ValueError: it is of another format version, or lacks a key, or has one too many.
        """
        if not isinstance(content, dict):
            raise ValueError(f"{INFO_FILE} holds no JSON object: copy the checkpoint again")
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{INFO_FILE} has format_version {version!r}, this recbert reads {FORMAT_VERSION}: "
                "install the recbert that wrote it, or train again"
            )
        _check_keys(content, cls, {"input", "popularity"})
        _check_keys(content["input"], InputFormat, {"objective", "max_length"})
        blend = content.get("blend")
        if blend is not None:
            _check_keys(blend, Blend, {field.name for field in dataclasses.fields(Blend)})
            blend = Blend(**blend)
        return cls(**{**content, "input": InputFormat(**content["input"]), "blend": blend})


def _check_keys(content: dict[str, Any], kind: type, needed: set[str]) -> None:
    """Refuse a JSON object that lacks a key of a dataclass or has one that it does not know."""
    if not isinstance(content, dict):
        raise ValueError(f"{INFO_FILE} has {content!r} for {kind.__name__}: copy the checkpoint again")
    unknown = content.keys() - {field.name for field in dataclasses.fields(kind)}
    if missing := needed - content.keys():
        raise ValueError(f"{INFO_FILE} lacks {sorted(missing)}: copy the checkpoint again")
    if unknown:
        raise ValueError(
            f"{INFO_FILE} has the unknown keys {sorted(unknown)}: install the recbert that wrote it"
        )


def write_info(folder: str | Path, info: CheckpointInfo) -> None:
    """Write `recbert.json`, and `popularity.safetensors` beside it where the catalogue is large.

    Args:
        folder: the checkpoint folder.
        info: what to write.
    """
    counts = np.asarray(info.popularity, dtype=np.int64)
    content = dataclasses.asdict(dataclasses.replace(info, popularity=[]))
    if len(counts) > MAPPED_FROM:
        content["popularity"] = POPULARITY_FILE
        with write_file(Path(folder) / POPULARITY_FILE) as draft:
            save_file({"popularity": torch.from_numpy(counts)}, draft)
    else:
        content["popularity"] = counts.tolist()
    text = json.dumps(content, indent=1, ensure_ascii=False)
    write_text(Path(folder) / INFO_FILE, text + "\n")


def read_info(folder_or_hub_id: str | Path) -> CheckpointInfo:
    """Read `recbert.json` from a checkpoint folder or a Hub repository.

    Args:
        folder_or_hub_id: a local folder or a Hub id such as `owner/name`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not readable JSON or of another format.
    """
    path = find_file(folder_or_hub_id, INFO_FILE)
    if path is None:
        raise FileNotFoundError(
            f"{folder_or_hub_id} has no {INFO_FILE}: give the folder (or Hub id) of a checkpoint that "
            "recbert saved"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise ValueError(f"{path} is not valid JSON ({error}): copy the checkpoint again") from error
    info = CheckpointInfo.from_dict(content)
    if info.popularity == POPULARITY_FILE:
        return dataclasses.replace(info, popularity=_read_popularity(folder_or_hub_id))
    return info


def _read_popularity(folder_or_hub_id: str | Path) -> NDArray[np.int64]:
    """Map the counts of a large catalogue, (V_items,)."""
    path = find_file(folder_or_hub_id, POPULARITY_FILE)
    if path is None:
        raise FileNotFoundError(f"{folder_or_hub_id} has no {POPULARITY_FILE}: copy the checkpoint again")
    try:
        with safe_open(path, framework="pt") as stored:
            counts: NDArray[np.int64] = stored.get_tensor("popularity").numpy()
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): copy the checkpoint again") from error
    return counts


def find_file(folder_or_hub_id: str | Path, name: str) -> Path | None:
    """Find one file of a checkpoint, downloading it when the checkpoint is a Hub repository.

    Args:
        folder_or_hub_id: a local folder or a Hub id.
        name: the file's name.

    Returns:
        Its local path, or None when the checkpoint has no such file.

    Raises:
        FileNotFoundError: there is neither such a folder nor such a repository.
    """
    if Path(folder_or_hub_id).is_dir():
        path = Path(folder_or_hub_id) / name
        return path if path.is_file() else None
    try:
        found = cached_file(str(folder_or_hub_id), name, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise FileNotFoundError(
            f"{folder_or_hub_id} is neither a folder here nor a repository that the Hub lets you read: "
            f"{error}"
        ) from error
    return None if found is None else Path(found)
