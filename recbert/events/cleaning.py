"""Cleaning an event table: optional steps in a fixed order, each one reported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import narwhals as nw

from recbert.events import steps as named_steps
from recbert.events.columns import EVENT_TYPE, ORDER, TIMESTAMP, TIMESTAMP_IMPUTED, VALUE, VALUE_IMPUTED
from recbert.events.engine import Frame, materialise, rows, single, tie_breaker
from recbert.events.holding import Opened, open_events, sort_held
from recbert.events.imputation import impute
from recbert.events.parsing import parse_moment
from recbert.events.report import CleaningReport, StepReport
from recbert.events.statistics import count_ties, describe_events

_KEEP = "_keep"
_EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class CleaningSteps:
    """The cleaning steps, in the order they run; each is off by default.

    Attributes:
        impute_time: fill missing times: "median" of the user's times, or "neighbours" (the middle between the
            times before and after in `order`); sets `timestamp_imputed`.
        impute_value: the same for values; sets `value_imputed`.
        drop_invalid: drop events that still lack user, item or time.
        keep_event_types: keep only these event types.
        min_value: keep only events with at least this value (events without a value are dropped).
        start: keep only events at or after this ISO 8601 date or number of epoch seconds.
        end: keep only events before it.
        drop_duplicates: of events equal in everything but `order`, keep the first.
        drop_repeats: of consecutive events of one user with one item, keep the first.
        max_events_per_user: drop users with more events than this (crawlers, shared accounts); 0 keeps all.
        min_user_count: keep users with at least this many events ...
        min_item_count: ... and items with at least this many, repeated until both hold (k-core); 0 keeps all.
        session_gap_minutes: number the sessions of each user in `session_id`; a longer pause starts a new
            one.
    """

    impute_time: str | None = None
    impute_value: str | None = None
    drop_invalid: bool = False
    keep_event_types: Sequence[str] | None = None
    min_value: float | None = None
    start: str | float | None = None
    end: str | float | None = None
    drop_duplicates: bool = False
    drop_repeats: bool = False
    max_events_per_user: int = 0
    min_user_count: int = 0
    min_item_count: int = 0
    session_gap_minutes: float | None = None


def clean_events(
    events: Any,
    steps: CleaningSteps | None = None,
    *,
    min_item_count: int = 0,
    min_user_count: int = 0,
    drop_duplicates: bool = False,
    drop_invalid: bool = False,
) -> tuple[Any, CleaningReport]:
    """The cleaned events, of the kind given, and a report of what each step dropped and why.

    Args:
        events: canonical events, as `read_events` gives them.
        steps: all options; None runs only those named below.
        min_item_count: keep items with at least this many events (overrides `steps` when above 0).
        min_user_count: keep users with at least this many events (overrides `steps` when above 0).
        drop_duplicates: drop exact duplicates (also on when `steps` says so).
        drop_invalid: drop rows without a user, an item or a readable time (also on when `steps` says so).

    Raises:
        ValueError: if an option is out of range, needs a column that is absent, or nothing is left.
    """
    steps = steps or CleaningSteps()
    steps = dataclasses.replace(
        steps,
        min_item_count=min_item_count or steps.min_item_count,
        min_user_count=min_user_count or steps.min_user_count,
        drop_duplicates=drop_duplicates or steps.drop_duplicates,
        drop_invalid=drop_invalid or steps.drop_invalid,
    )
    _check_options(steps)
    opened = open_events(events)
    cleaner = _Cleaner(opened)
    _run_fills(cleaner, steps)
    _run_filters(cleaner, steps)
    _run_history_steps(cleaner, steps)
    frame = cleaner.finish()
    statistics, distributions = describe_events(frame)
    has_order = tie_breaker(frame) == ORDER
    report = CleaningReport(
        steps=cleaner.reports,
        ties=count_ties(frame),
        tie_rule="the order column" if has_order else "the item id, for want of an order column",
        statistics=statistics,
        distributions=distributions,
    )
    return opened.restore(frame), report


class _Cleaner:
    """The frame between two steps, computed once each, and the reports so far."""

    def __init__(self, opened: Opened) -> None:
        self.frame = self._held = materialise(opened.frame)
        self._spell = opened.spell
        self.reports: list[StepReport] = []
        self._count = int(single(self.frame.select(nw.len().alias("n")))["n"])
        if not self._count:
            raise ValueError("events holds no events: there is nothing to clean")

    def drop(self, name: str, reason: str, keep: nw.Expr | Frame) -> None:
        """Keep the rows where an expression holds, or those that a frame marks in `_keep`."""
        marked = (
            self.frame.with_columns(keep.fill_null(False).alias(_KEEP)) if isinstance(keep, nw.Expr) else keep
        )
        self._held = marked = materialise(marked, instead_of=self._held)
        left = int(single(marked.select(nw.col(_KEEP).cast(nw.Int64).sum().alias("n")))["n"])
        examples = []
        if left < self._count:
            names = [column for column in marked.collect_schema().names() if column != _KEEP]
            examples = self._examples(marked.filter(~nw.col(_KEEP)).select(*names))
        self.reports.append(StepReport(name, reason, self._count, left, examples))
        if not left:
            raise ValueError(
                f"cleaning leaves no events: the step '{name}' ({reason}) dropped the last {self._count}"
            )
        self.frame = marked.filter(nw.col(_KEEP)).drop(_KEEP)
        self._count = left

    def change(self, name: str, reason: str, frame: Frame, flag: str | None = None) -> None:
        """Take a frame with the same rows and other columns; `flag` marks the rows that were changed."""
        self.frame = self._held = materialise(sort_held(frame), instead_of=self._held)
        examples, changed = [], self._count
        if flag is not None:
            flagged = self.frame.filter(nw.col(flag))
            changed = int(single(flagged.select(nw.len().alias("n")))["n"])
            examples = self._examples(flagged)
        self.reports.append(StepReport(name, reason, self._count, self._count, examples, changed))

    def finish(self) -> Frame:
        """The rows that are left, without those that the last step dropped behind them."""
        self.frame = self._held = materialise(self.frame, instead_of=self._held)
        return self.frame

    def _examples(self, frame: Frame) -> list[dict[str, Any]]:
        names = frame.collect_schema().names()
        by = [ORDER if ORDER in names else names[0], *names[:3]]
        return rows(self._spell(frame.sort(*by).head(_EXAMPLES)))


def _check_options(steps: CleaningSteps) -> None:
    for name in ("max_events_per_user", "min_user_count", "min_item_count"):
        if getattr(steps, name) < 0:
            raise ValueError(f"{name}={getattr(steps, name)} must be 0 (off) or more")
    if steps.session_gap_minutes is not None and not steps.session_gap_minutes > 0:
        raise ValueError(f"session_gap_minutes={steps.session_gap_minutes} must be above 0, or None")
    if steps.keep_event_types is not None and (
        isinstance(steps.keep_event_types, str) or not list(steps.keep_event_types)
    ):
        raise ValueError(
            f"keep_event_types={steps.keep_event_types!r} must be a list of event types, or None"
        )


def _run_fills(cleaner: _Cleaner, steps: CleaningSteps) -> None:
    for column, flag, method, name in (
        (TIMESTAMP, TIMESTAMP_IMPUTED, steps.impute_time, "impute_time"),
        (VALUE, VALUE_IMPUTED, steps.impute_value, "impute_value"),
    ):
        if method is not None:
            filled = impute(cleaner.frame, column, method, name)
            cleaner.change(
                name, f"missing {column}s filled by the {method} of the user's history", filled, flag
            )
    if steps.drop_invalid:
        cleaner.drop("drop_invalid", "user, item or time is missing or unreadable", named_steps.is_valid())


def _run_filters(cleaner: _Cleaner, steps: CleaningSteps) -> None:
    names = cleaner.frame.collect_schema().names()
    if steps.keep_event_types is not None:
        named_steps.need(names, EVENT_TYPE, "keep_event_types")
        kinds = [str(kind) for kind in steps.keep_event_types]
        cleaner.drop(
            "keep_event_types", f"event type is not {' or '.join(kinds)}", nw.col(EVENT_TYPE).is_in(kinds)
        )
    if steps.min_value is not None:
        named_steps.need(names, VALUE, "min_value")
        reason = f"value is missing or below {steps.min_value:g}"
        cleaner.drop("min_value", reason, nw.col(VALUE) >= float(steps.min_value))
    start = None if steps.start is None else parse_moment(steps.start, "start")
    end = None if steps.end is None else parse_moment(steps.end, "end")
    if start is not None and end is not None and start >= end:
        raise ValueError(f"start={steps.start!r} must lie before end={steps.end!r}")
    if start is not None:
        cleaner.drop("start", f"time is before {steps.start}", nw.col(TIMESTAMP) >= start)
    if end is not None:
        cleaner.drop("end", f"time is at or after {steps.end}", nw.col(TIMESTAMP) < end)


def _run_history_steps(cleaner: _Cleaner, steps: CleaningSteps) -> None:
    if steps.drop_duplicates:
        reason = "the same event, in everything but order, came before"
        cleaner.drop("drop_duplicates", reason, named_steps.mark_first_copies(cleaner.frame, _KEEP))
    if steps.drop_repeats:
        reason = "the user's previous event has the same item"
        cleaner.drop("drop_repeats", reason, named_steps.mark_changes_of_item(cleaner.frame, _KEEP))
    if steps.max_events_per_user:
        reason = f"the user has more than {steps.max_events_per_user} events"
        cleaner.drop("max_events_per_user", reason, named_steps.is_of_modest_user(steps.max_events_per_user))
    if steps.min_user_count > 1 or steps.min_item_count > 1:
        reason = (
            f"the user has fewer than {steps.min_user_count} events, "
            f"or the item fewer than {steps.min_item_count}"
        )
        core = named_steps.mark_core(cleaner.frame, steps.min_user_count, steps.min_item_count, _KEEP)
        cleaner.drop("k_core", reason, core)
    if steps.session_gap_minutes is not None:
        reason = f"sessions numbered; a pause over {steps.session_gap_minutes:g} minutes starts a new one"
        cleaner.change(
            "sessions", reason, named_steps.number_sessions(cleaner.frame, steps.session_gap_minutes)
        )
