"""When the targets of an evaluation are asked for: a server does not know when the next event will happen."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recbert.inputs.targets import TargetRows

RequestTime = Literal["true", "window-start", "jittered"]

_JITTER_S = 3600.0


def request_times(
    targets: TargetRows, kind: RequestTime, *, has_window: bool, seed: int = 0
) -> NDArray[np.float64]:
    """Give the moments at which targets are asked for, (N,) epoch seconds.

    Args:
        targets: what to predict.
        kind: `true`: when the target happens, which only an oracle or the request itself knows;
            `window-start`: when the part begins, which is the time of its first target, or after the last
            event of the history where that is later; `jittered`: `true` up to an hour earlier or later.
        has_window: whether the part is a window of time for all users; else `window-start` is the last event
            of the history.
        seed: of the jitter.
    """
    true = targets.true_times
    if kind == "true":
        return true
    if kind == "jittered":
        return true + np.random.default_rng(seed).uniform(-_JITTER_S, _JITTER_S, len(true))
    last = targets.last_times
    start = np.nanmin(true, initial=np.inf) if has_window else -np.inf
    # Where there is no history, no time of it is known either.
    return np.where(np.isnan(last), start if has_window else np.nan, np.maximum(last, start))


def describe_request_time(kind: RequestTime, *, has_window: bool) -> str:
    """Say for the protocol when the targets are asked for.

    Args:
        kind: as for `request_times`.
        has_window: as for `request_times`.
    """
    return (
        "asked for at "
        + {
            "true": "the true time of the target",
            "jittered": "the true time of the target, give or take up to an hour",
            "window-start": "the start of the window, or the last event of the history if later"
            if has_window
            else "the time of the last event of the history",
        }[kind]
    )
