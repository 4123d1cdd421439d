"""A study: trials drawn by Optuna, pruned by their validation, kept in a storage that processes share.

The draw of a trial depends on the seed, its number and the trials that have ended before it, not on the
process that runs it. Optuna is imported here only.
"""

import dataclasses
import importlib
import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recbert.tuning.space import Dimension, Range, Value
from recbert.tuning.summary import Outcome, TrialSummary

try:
    optuna: Any = importlib.import_module("optuna")
except ImportError:  # an extra
    optuna = None

logger = logging.getLogger(__name__)

Pruner = Literal["median", "asha", "none"]
Measured = Callable[[float], bool]
"""Takes the validation metric after an evaluation, tells whether to stop the trial there."""


class Study:
    """A search that stops and goes on, in one process or several.

    Args:
        storage: a file for a journal, or a URL such as `sqlite:///study.db` or a database server's.
        name: of the study in the storage; one that is there goes on.
        space: of `read_space`.
        conditions: JSON values that all its trials share, beside the space.
        maximise: whether a high metric is good.
        pruner: whether trials stop that are below the `median` of the others at the same evaluation, or
            outside the best third of them after 2, 6, 18, ... evaluations (asynchronous successive halving,
            `asha`: Li et al., "A system for massively parallel hyperparameter tuning", 2020).
        seed: of the draws.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: the storage cannot be opened, or the study was begun under other conditions.
    """

    def __init__(
        self,
        storage: str | Path,
        name: str,
        space: Mapping[str, Dimension],
        *,
        conditions: Mapping[str, Any],
        maximise: bool = True,
        pruner: Pruner = "median",
        seed: int = 0,
    ) -> None:
        if optuna is None:
            raise ImportError("a study needs Optuna: pip install 'recbert[tune]'")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name, self.space, self.seed, self.maximise = name, dict(space), seed, maximise
        try:
            self._study = optuna.create_study(
                storage=_open_storage(storage),
                study_name=name,
                direction="maximize" if maximise else "minimize",
                pruner=_build_pruner(pruner),
                load_if_exists=True,
            )
        except Exception as error:  # of any database's driver
            raise ValueError(f"tune.storage is {str(storage)!r}, which cannot be opened: {error}") from error
        plain = {
            key: dataclasses.asdict(dimension) if isinstance(dimension, Range) else dimension
            for key, dimension in space.items()
        }
        self._begin({"space": plain, **conditions})
        self._give_back_dead()

    def _begin(self, conditions: dict[str, Any]) -> None:
        """Write down the conditions of a new study, and refuse others for an old one."""
        begun = self._study.user_attrs.get("conditions")
        if begun is None:
            self._study.set_user_attr("conditions", conditions)
            return
        for key in sorted({*begun, *conditions}):
            if begun.get(key) != conditions.get(key):
                raise ValueError(
                    f"the study {self.name!r} was begun with {key} {begun.get(key)!r}, now it is "
                    f"{conditions.get(key)!r}: give tune.study another name"
                )

    def _give_back_dead(self) -> None:
        """Queue again what processes of this machine were running when they were killed."""
        for trial in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            place = trial.user_attrs.get("place", {})
            if place.get("host") == socket.gethostname() and not _is_alive(place["process"]):
                self._give_back(trial.number, trial.params)

    def _give_back(self, number: int, values: dict[str, Any]) -> None:
        """Close an interrupted trial and queue its values for another one."""
        self._study.tell(number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        if values.keys() == self.space.keys():
            self._study.enqueue_trial(values)
            logger.info("trial %d was interrupted and is queued again", number)

    def run(
        self,
        trials: int,
        measure: Callable[[int, dict[str, Value], Measured], None],
        *,
        failures: tuple[type[Exception], ...] = (ValueError,),
    ) -> None:
        """Run trials until the study has so many, those of other processes and earlier starts included.

        Args:
            trials: of the whole study. Interrupted ones do not count.
            measure: trains with the values of a trial, given its number, and reports each validation metric.
                When told to stop it returns.
            failures: errors that end a trial and not the study.
        """
        while self._counted() < trials:
            trial = self._study.ask()
            trial.set_user_attr("place", {"host": socket.gethostname(), "process": os.getpid()})
            if self._counted(before=trial.number) >= trials:  # another process was faster
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
                return
            self._study.sampler = optuna.samplers.TPESampler(seed=_mix(self.seed, trial.number))
            values = {key: _draw(trial, key, dimension) for key, dimension in self.space.items()}
            try:
                self._run_one(trial, values, measure, failures)
            except BaseException:
                self._give_back(trial.number, values)
                raise

    def _run_one(
        self,
        trial: Any,
        values: dict[str, Value],
        measure: Callable[[int, dict[str, Value], Measured], None],
        failures: tuple[type[Exception], ...],
    ) -> None:
        """Run one trial to its end, of whichever kind."""
        metrics: list[float] = []
        stopped = False

        def report(metric: float) -> bool:
            nonlocal stopped
            metrics.append(metric)
            trial.report(metric, step=len(metrics))
            stopped = bool(trial.should_prune())
            return stopped

        try:
            measure(trial.number, values, report)
            if not metrics:
                raise ValueError("the training ended before its first evaluation: give it more epochs")
        except failures as error:
            trial.set_user_attr("reason", " ".join(str(error).split()) or type(error).__name__)
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            if stopped:
                self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                self._study.tell(trial, self._best_of(metrics))
        self._log(trial.number)

    def _log(self, number: int) -> None:
        """Say how a trial ended, and which is the best one."""
        summaries = self.summaries()
        (own,) = (summary for summary in summaries if summary.number == number)
        done = _finished(summaries)
        logger.info(
            "trial %d %s%s after %d evaluations and %.1f minutes; the best so far has %s",
            number,
            own.outcome if own.best is None else f"{own.outcome} with {own.best:.4f}",
            f" ({own.reason})" if own.reason else "",
            own.evaluations,
            own.minutes or 0.0,
            f"{self._best_of(list(done.values())):.4f}" if done else "nothing",
        )

    def _best_of(self, metrics: list[float]) -> float:
        """Give the best of some metrics."""
        return max(metrics) if self.maximise else min(metrics)

    def _counted(self, before: int | None = None) -> int:
        """Count the trials that are neither queued nor interrupted, perhaps those before a number only."""
        summaries = self.summaries()
        return sum(before is None or summary.number < before for summary in summaries)

    def summaries(self) -> list[TrialSummary]:
        """Give all trials in order but those that are queued or were interrupted."""
        states = optuna.trial.TrialState
        outcomes: dict[Any, Outcome] = {
            states.COMPLETE: "done",
            states.PRUNED: "pruned",
            states.FAIL: "failed",
            states.RUNNING: "running",
        }
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            reason = trial.user_attrs.get("reason", "")
            if trial.state not in outcomes or (trial.state == states.FAIL and not reason):
                continue
            metrics = list(trial.intermediate_values.values())
            summary = TrialSummary(
                number=trial.number,
                outcome=outcomes[trial.state],
                values=dict(trial.params),
                best=self._best_of(metrics) if metrics else None,
                evaluations=len(metrics),
                minutes=None if trial.duration is None else trial.duration.total_seconds() / 60,
                reason=reason,
            )
            found.append(summary)
        return found

    def best(self) -> TrialSummary:
        """Give the best trial that ran to its end.

        Raises:
            ValueError: there is none.
        """
        summaries = self.summaries()
        done = _finished(summaries)
        if not done:
            reasons = dict.fromkeys(summary.reason for summary in summaries if summary.reason)
            raise ValueError(
                f"no trial of the study {self.name!r} ran to its end: {'; '.join(reasons) or 'none yet'}"
            )
        chosen = self._best_of(list(done.values()))
        return next(summary for summary in summaries if done.get(summary.number) == chosen)


def _finished(summaries: list[TrialSummary]) -> dict[int, float]:
    """Give the best metric of each trial that ran to its end, by number."""
    return {
        summary.number: summary.best
        for summary in summaries
        if summary.outcome == "done" and summary.best is not None
    }


def _open_storage(storage: str | Path) -> Any:
    """Open a journal file, or the database of a URL."""
    if "://" in str(storage):
        return optuna.storages.get_storage(str(storage))
    path = Path(storage)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))


def _build_pruner(name: Pruner) -> Any:
    """Build a pruner by its name."""
    if name == "median":  # the first evaluations of a training say little about its last one
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _draw(trial: Any, key: str, dimension: Dimension) -> Value:
    """Draw one value."""
    value: Value
    if not isinstance(dimension, Range):
        value = trial.suggest_categorical(key, dimension)
    elif dimension.whole:
        value = trial.suggest_int(key, int(dimension.low), int(dimension.high), log=dimension.log)
    else:
        value = trial.suggest_float(key, dimension.low, dimension.high, log=dimension.log)
    return value


def _mix(seed: int, number: int) -> int:
    """Give the seed of a trial."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _is_alive(process: int) -> bool:
    """Tell whether a process of this machine runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
