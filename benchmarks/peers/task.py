"""What one run is asked to do, and what it reports: the same for every library.

Needs the standard library and numpy only, which all environments have. The variables BENCHMARK_SIZES (width,
layers, heads, length, batch) and BENCHMARK_DEVICE (cpu or cuda) change the sizes of all libraries at once.
"""

import argparse
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.histories import Histories, load_histories

HIDDEN, LAYERS, HEADS, LENGTH, BATCH = map(int, os.environ.get("BENCHMARK_SIZES", "64 2 2 50 128").split())
DEVICE = os.environ.get("BENCHMARK_DEVICE", "cpu")
DROPOUT, LEARNING_RATE, NEGATIVES, MASK_RATE = 0.2, 1e-3, 256, 0.2
KS = (1, 5, 10, 20)
CALLS, CROWD = 300, 1000  # calls of the latency job, users of the job that answers many at once
TARGET = 0.05  # validation NDCG@10 that the job `quality` trains to


class Task(NamedTuple):
    """One run of one library.

    Attributes:
        job: a job of `benchmarks/speed.py`.
        variant: which of the library's ways to do it; empty for the only one.
        histories: whole histories of the users.
        train: the same without the last two events of each user.
        folder: a folder for what the library writes.
        seed: of weights and order.
        threads: threads of torch.
        epochs: epochs to train.
        report: file to write the figures to.
    """

    job: str
    variant: str
    histories: Histories
    train: Histories
    folder: Path
    seed: int
    threads: int
    epochs: int
    report: Path


def read_task() -> Task:
    """Read the command line of a driver."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--job", required=True)
    parser.add_argument("--variant", default="")
    parser.add_argument("--histories", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--folder", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--report", type=lambda path: Path(path).resolve(), required=True)
    options = parser.parse_args()
    histories = load_histories(options.histories)
    values = {**vars(options), "histories": histories, "train": histories.without_last(2)}
    return Task(**values)


class Meter:
    """CPU seconds, wall seconds and memory between `start` and `stop`, of this process.

    Several laps may be taken, such as one an epoch. The peak of the memory is that of the last lap; on a GPU
    its memory is reported beside.
    """

    def __init__(self) -> None:
        self.laps: list[dict[str, float]] = []

    def start(self) -> None:
        """Begin a lap."""
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
        _finish_gpu()
        self._before = memory("VmRSS")
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()

    def stop(self) -> None:
        """End the lap."""
        _finish_gpu()
        lap = {"cpu": cpu_seconds() - self._cpu, "wall": time.perf_counter() - self._wall}
        self.laps.append({**lap, "rss_before": self._before, "peak": memory("VmHWM")})

    def write(self, task: Task, **figures: Any) -> None:
        """Write the last lap, all laps' seconds and further figures as the run's report."""
        laps = {f"{name}_laps": [lap[name] for lap in self.laps] for name in ("cpu", "wall")}
        if DEVICE == "cuda":
            figures["gpu_peak"] = sys.modules["torch"].cuda.max_memory_allocated() / 2**20
        task.report.write_text(json.dumps({**self.laps[-1], **laps, **figures}))


def cpu_seconds() -> float:
    """User and system seconds of this process, all threads, and of the children it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def memory(field: str, process: str = "self") -> float:
    """A field of /proc/PROCESS/status in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def time_calls(call: Any, arguments: list[Any], meter: Meter) -> dict[str, Any]:
    """Call once to warm up, then once an argument: one lap in all, and the percentiles in milliseconds.

    On a machine that others load, the CPU time of a call says more than its wall time.
    """
    call(arguments[0])
    walls, cpus = [], []
    meter.start()
    for argument in arguments:
        begin, begin_cpu = time.perf_counter(), time.process_time()
        call(argument)
        walls.append(1000 * (time.perf_counter() - begin))
        cpus.append(1000 * (time.process_time() - begin_cpu))
    meter.stop()
    median, late = np.percentile(walls, (50, 95)).tolist()
    return {"p50_ms": median, "p95_ms": late, "p50_cpu_ms": float(np.median(cpus))}


class Progress:
    """Validation NDCG@10 against wall time; a line an epoch is written at once, for a run that is ended."""

    def __init__(self, task: Task) -> None:
        self._path = task.folder / "progress.jsonl"
        self._path.unlink(missing_ok=True)
        self._begin = time.perf_counter()

    def reached(self, epoch: int, ndcg: float) -> bool:
        """Take down an epoch, and say whether the target is reached."""
        line = {"epoch": epoch, "wall": time.perf_counter() - self._begin, "ndcg": ndcg}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return ndcg >= TARGET


def mean_ndcg(found: Any, targets: Any) -> float:
    """NDCG of lists (U, k) of which one item (U,) is right."""
    users, places = np.nonzero(np.asarray(found) == np.asarray(targets)[:, None])
    return float((1 / np.log2(places + 2)).sum() / len(targets))


def _finish_gpu() -> None:
    if DEVICE == "cuda":
        sys.modules["torch"].cuda.synchronize()
