"""The report of a cleaning: what each step dropped and why, and what is left."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbert.events.advice import advise


@dataclasses.dataclass(frozen=True)
class StepReport:
    """What one step did: its name, why it drops or changes rows, rows in and out, and up to three of them."""

    name: str
    reason: str
    rows_in: int
    rows_out: int
    examples: list[dict[str, Any]]
    changed: int = 0


@dataclasses.dataclass(frozen=True)
class CleaningReport:
    """What a cleaning did and what the events look like after it.

    Attributes:
        steps: one report a step, in the order they ran.
        ties: events that share user and time with another event.
        tie_rule: what orders them.
        statistics: users, items, events, first and last time, history lengths, event types.
        distributions: history lengths, events over time, popularity and gaps, as [x, count] pairs.
    """

    steps: list[StepReport]
    ties: int
    tie_rule: str
    statistics: dict[str, Any]
    distributions: dict[str, list[list[float]]]

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python values that JSON can hold."""
        return dataclasses.asdict(self)

    def advice(self) -> list[str]:
        """What to set in a recipe for these events, a line for each choice."""
        return advise(self.statistics, self.distributions, self.ties)

    def to_markdown(self) -> str:
        """The report as a Markdown page."""
        facts = self.statistics
        lengths = facts["history_length"]
        lines = [
            "# Cleaning report",
            "",
            "## Steps",
            "",
            *_table(
                ("step", "why", "rows in", "rows out", "dropped", "changed"),
                (
                    (
                        step.name,
                        step.reason,
                        step.rows_in,
                        step.rows_out,
                        step.rows_in - step.rows_out,
                        step.changed,
                    )
                    for step in self.steps
                ),
            ),
        ]
        if not self.steps:
            lines += ["No step was asked for.", ""]
        for step in self.steps:
            if step.examples:
                lines += [f"### Examples: {step.name}", ""]
                lines += _table(tuple(step.examples[0]), (tuple(row.values()) for row in step.examples))
        lines += [
            "## Events left",
            "",
            *_table(
                ("what", "number"),
                (
                    ("events", facts["events"]),
                    ("users", facts["users"]),
                    ("items", facts["items"]),
                    ("density", f"{facts['density']:.4%}"),
                    ("first event", facts["first_event"]),
                    ("last event", facts["last_event"]),
                    (
                        "history length",
                        f"{lengths['minimum']} to {lengths['maximum']}, median {lengths['median']:g}, "
                        f"mean {lengths['mean']:.1f}",
                    ),
                    *((f"event type {kind}", count) for kind, count in facts.get("event_types", {}).items()),
                ),
            ),
        ]
        lines += [
            f"{self.ties} events share user and time with another event; {self.tie_rule} orders them.",
            "",
            "## Advice",
            "",
            *(f"- {line}" for line in self.advice()),
            "",
        ]
        return "\n".join(lines)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write report.json, report.md and report.png (four plots); each appears whole or not at all."""
        # Here, because matplotlib is slow to import and only saving needs it.
        from recbert.events.plots import draw_page

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        _write_whole(target / "report.json", (text + "\n").encode())
        _write_whole(target / "report.md", self.to_markdown().encode())
        _write_whole(target / "report.png", draw_page(self.distributions))


def _table(header: tuple[str, ...], body: Iterable[tuple[Any, ...]]) -> list[str]:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rows = [line(row) for row in body]
    return [line(header), line("---" for _ in header), *rows, ""] if rows else []


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
