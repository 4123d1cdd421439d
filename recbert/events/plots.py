"""The page of four plots in the cleaning report."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

Pairs = Sequence[Sequence[float]]

_COLOUR = "#35618f"
_SECONDS_A_DAY = 86_400
_MARKS = (
    (1, "1 s"),
    (60, "1 min"),
    (3600, "1 h"),
    (86_400, "1 day"),
    (2_592_000, "30 days"),
    (31_557_600, "1 year"),
)


def draw_page(distributions: Mapping[str, Pairs]) -> bytes:
    """A PNG page: history lengths, events over time, popularity curve, gaps between events.

    Args:
        distributions: as `statistics.measure_distributions` gives them.
    """
    # Without pyplot: no global state, no display, safe in any thread.
    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    _draw_lengths(axes[0, 0], distributions["history_lengths"])
    _draw_time(axes[0, 1], distributions["events_over_time"])
    _draw_popularity(axes[1, 0], distributions["popularity"])
    _draw_gaps(axes[1, 1], distributions["gaps"])
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw_lengths(axis: Axes, pairs: Pairs) -> None:
    lengths, users = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    if pairs[-1][0] > 100:
        bins = np.unique(np.geomspace(lengths[0], lengths[-1] + 1, 40).round())
        axis.hist(lengths, bins=bins.tolist(), weights=users, color=_COLOUR)
        axis.set_xscale("log")
    else:
        axis.bar(lengths, users, width=1.0, color=_COLOUR)
    axis.set(title="History lengths", xlabel="events of a user", ylabel="users")


def _draw_time(axis: Axes, pairs: Pairs) -> None:
    if pairs:
        days = [pair[0] / _SECONDS_A_DAY for pair in pairs]
        width = days[1] - days[0] if len(days) > 1 else 1.0
        axis.bar(days, [pair[1] for pair in pairs], width=width, align="edge", color=_COLOUR)
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]  # matplotlib leaves it untyped
        axis.xaxis.set_major_locator(locator)
        formatter = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]  # as above
        axis.xaxis.set_major_formatter(formatter)
    axis.set(title="Events over time", xlabel="time (UTC)", ylabel="events")


def _draw_popularity(axis: Axes, pairs: Pairs) -> None:
    axis.loglog([pair[0] for pair in pairs], [pair[1] for pair in pairs], color=_COLOUR, linewidth=2)
    axis.set(title="Popularity curve", xlabel="rank of the item", ylabel="events of the item")


def _draw_gaps(axis: Axes, pairs: Pairs) -> None:
    positive = [pair for pair in pairs if pair[0] > 0]
    ties = sum(int(pair[1]) for pair in pairs if pair[0] <= 0)
    if positive:
        starts = [pair[0] for pair in positive]
        widths = [start * (10**0.25 - 1) for start in starts]
        axis.bar(starts, [pair[1] for pair in positive], width=widths, align="edge", color=_COLOUR)
        axis.set_xscale("log")
        marks = [mark for mark in _MARKS if starts[0] / 2 <= mark[0] <= starts[-1] * 2]
        axis.set_xticks([mark[0] for mark in marks], [mark[1] for mark in marks])
        axis.minorticks_off()
    axis.set(title=f"Gaps between events ({ties} at the same time)", xlabel="gap", ylabel="pairs of events")
