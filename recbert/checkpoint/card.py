"""The model card: what the checkpoint is, how well it ranks, and how to use it with and without recbert."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np

from recbert.checkpoint.folder import write_text
from recbert.checkpoint.info import (
    RULES_FILE,
    Blend,
    CheckpointInfo,
    TimeEncoding,
    read_info,
    write_info,
)
from recbert.checkpoint.snippet import build_snippet

BLENDED = "with rules"
"""The row of a blended checkpoint in a table, beside that of its model."""

_OBJECTIVE_TEXT = {
    "masked-item": "fills `[MASK]` tokens in a history; to recommend, one `[MASK]` is appended",
    "next-item": "predicts the item that follows a history",
}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def build_model_card(
    info: CheckpointInfo, config_json: dict[str, Any], recipe_text: str | None = None, base: str | None = None
) -> str:
    """Write the README.md of a checkpoint.

    Args:
        info: the checkpoint's `recbert.json`. Its metrics may be named `ndcg@10`, or `popularity/ndcg@10` for
            the row of a baseline; `ndcg@10_low` and `ndcg@10_high` are the ends of an interval.
        config_json: content of `config.json` (of the base, for an adapter).
        recipe_text: the resolved recipe as YAML; None when no recipe made the checkpoint.
        base: folder or Hub id of the base that an adapter goes onto; None for a whole model.

    Returns:
        Markdown with the metadata that the Hub reads in front.
    """
    parts = [
        _metadata(info, base),
        _summary(info, config_json, base),
        _results(info),
        _usage(info, config_json, base),
        _input_format(info),
        _origin(info, recipe_text),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def record_results(folder: str | Path, metrics: dict[str, float], protocol: str) -> None:
    """Put the results of an evaluation into a checkpoint: into `recbert.json` and the table of its card.

    Args:
        folder: the checkpoint folder.
        metrics: as `CheckpointInfo.metrics`, baselines as `popularity/ndcg@10`.
        protocol: how they were obtained, in words.
    """
    old = read_info(folder)
    _record(folder, old, dataclasses.replace(old, metrics=metrics, protocol=protocol))


def record_blend(folder: str | Path, blend: Blend | None) -> None:
    """Put a blend into `recbert.json` and the card; figures of the blend before go.

    Args:
        folder: the checkpoint folder.
        blend: the blend; None removes it.
    """
    old = read_info(folder)
    metrics = {name: value for name, value in old.metrics.items() if not name.startswith(f"{BLENDED}/")}
    _record(folder, old, dataclasses.replace(old, metrics=metrics, blend=blend))


def record_deny_list(folder: str | Path, items: list[str]) -> None:
    """Put the items that are never recommended into `recbert.json` and the card.

    Args:
        folder: the checkpoint folder.
        items: all of them.
    """
    old = read_info(folder)
    _record(folder, old, dataclasses.replace(old, deny_list=items))


def _record(folder: str | Path, old: CheckpointInfo, new: CheckpointInfo) -> None:
    """Write `recbert.json` and bring what it changes in the card up to date; the rest may be edited."""
    write_info(folder, new)
    path = Path(folder, "README.md")
    card = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not card:
        return
    before, after = _results(old), _results(new)
    if before and before in card:
        card = card.replace(before, after, 1)
    elif after:
        card = card.replace("## Use\n", f"{after}\n\n## Use\n", 1)
    write_text(path, card.replace(_input_format(old), _input_format(new), 1))


def _metadata(info: CheckpointInfo, base: str | None) -> str:
    """Write the YAML block that the Hub reads."""
    lines = ["---", f"library_name: {'transformers' if base is None else 'peft'}"]
    if base is not None and _HUB_ID.fullmatch(base) and not Path(base).exists():
        lines.append(f"base_model: {base}")
    if info.input.objective == "masked-item":
        lines.append("pipeline_tag: fill-mask")
    lines += ["tags:", "- recbert", "- recommender-system", "- sequential-recommendation", "---"]
    return "\n".join(lines)


def _summary(info: CheckpointInfo, config_json: dict[str, Any], base: str | None) -> str:
    """Say in a few lines what the checkpoint is."""
    architecture = (config_json.get("architectures") or [config_json.get("model_type", "model")])[0]
    what = f"A sequential recommender ({architecture})"
    if base is not None:
        what = f"A LoRA adapter for the sequential recommender `{base}` ({architecture})"
    return (
        f"# {architecture} for recommendation\n\n"
        f"{what} over {len(info.popularity):,} items, trained on {int(np.sum(info.popularity)):,} events. "
        f"It {_OBJECTIVE_TEXT[info.input.objective]}. Items are the tokens of its tokenizer."
    )


def _results(info: CheckpointInfo) -> str:
    """Write the table of metrics: a row for the model and for each baseline, intervals beside the values."""
    if not info.metrics:
        return ""
    rows: dict[str, dict[str, str]] = {}
    columns: list[str] = []
    for name, value in info.metrics.items():
        row, _, metric = name.rpartition("/")
        if metric.endswith(("_low", "_high")):
            continue
        low, high = info.metrics.get(f"{name}_low"), info.metrics.get(f"{name}_high")
        interval = "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"
        rows.setdefault(row or "this model", {})[metric] = f"{value:.4f}{interval}"
        if metric not in columns:
            columns.append(metric)
    lines = ["## Results", "", info.protocol or "The protocol was not recorded.", ""]
    lines += [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [
        f"| {row} | {' | '.join(cells.get(name, '') for name in columns)} |" for row, cells in rows.items()
    ]
    if any(name.endswith("_low") for name in info.metrics):
        lines += ["", "In brackets: 95 % intervals."]
    return "\n".join(lines)


def _usage(info: CheckpointInfo, config_json: dict[str, Any], base: str | None) -> str:
    """Write how to recommend with recbert and without."""
    if base is None:
        load = 'recbert.Recommender.from_pretrained("path/or/hub-id")'
    else:
        load = f'recbert.Recommender.from_pretrained("path/or/hub-id", base={base!r})'
    times, called = "", "ITEM_ID ..."
    if info.input.time_encoding is not None:
        times, called = (
            ", timestamps=[1600000000, ...], at=1600086400",
            "NOW ITEM_ID TIME ..., times in seconds",
        )
    return (
        "## Use\n\nWith recbert:\n\n"
        f"```python\nimport recbert\n\nrecommender = {load}\n"
        f'recommender.recommend(["item id", "..."], k=10{times})\n```\n\n'
        f"Without recbert (`python snippet.py FOLDER_OR_HUB_ID {called}`):\n\n"
        f"```python\n{build_snippet(info, config_json, base)}\n```"
    )


def _input_format(info: CheckpointInfo) -> str:
    """Write how a history becomes model input."""
    last = "`[MASK]`, appended" if info.input.append_mask else "the latest event"
    end = info.input.max_length - 1
    positions = "0, 1, 2, ..." if info.input.anchoring == "left" else f"..., {end - 1}, {end}"
    first = "`[BOS]`, then the" if info.input.starts_with_bos else "The"
    deny = f"{len(info.deny_list)} items on the deny-list are never recommended. " if info.deny_list else ""
    seen = "left out of the answer" if info.filter_seen else "allowed in the answer"
    blend = ""
    if info.blend is not None:
        blend = (
            f"recbert blends the scores with sequential rules counted on the training part (window "
            f"{info.blend.window}, weight {info.blend.weight:g}, power {info.blend.power:g}; "
            f"`{RULES_FILE}`); transformers alone gives the model's own scores. "
        )
    return (
        "## Input\n\n"
        f"{first} latest {info.input.history_length} known items of a history, the oldest first, at "
        f"positions {positions}; unknown items are skipped. "
        f"The prediction is read at the last position: {last}. "
        f"{_time_format(info.input.time_encoding)}"
        f"Items of the history are {seen}. {deny}{blend}"
        "White space, `%` and the spellings of special tokens inside item ids are percent-encoded. "
        "`recbert.json` holds the same for programs."
    )


def _time_format(encoding: TimeEncoding | None) -> str:
    """Write how times enter."""
    if encoding is None:
        return ""
    how = {
        "gaps": "times between events as token types",
        "clock": "hour and weekday of the event to predict at a position behind each event",
        "gaps+clock": "times between events as token types, and hour and weekday of the event to predict at "
        "a position behind each event",
        "rotary": "positions that times between events move apart",
        "rotary-axes": "order, elapsed time and hour of the day as positions on three axes",
    }[encoding]
    return f"Times and the moment of the request enter as {how}; without them the order alone counts. "


def _origin(info: CheckpointInfo, recipe_text: str | None) -> str:
    """Write where the checkpoint comes from: data, base and recipe."""
    lines = ["## Origin", "", f"- data: `{info.data_fingerprint or 'not recorded'}`"]
    if info.base_hash is not None:
        lines.append(f"- base: `{info.base_hash}`")
    if recipe_text is not None:
        lines += ["", "The recipe, as resolved:", "", f"````yaml\n{recipe_text.strip()}\n````"]
    return "\n".join(lines)
