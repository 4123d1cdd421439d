"""Runs a command and tells what its whole process tree cost."""

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

INTERVAL = 0.1  # seconds between two looks at the memory


class Cost(NamedTuple):
    """What a command cost, start to end.

    Attributes:
        returncode: 0 for success.
        cpu: user and system seconds of the process and all descendants.
        wall: seconds.
        peak: largest sum of resident memory over the tree, MiB, seen at intervals of a tenth of a second.
    """

    returncode: int
    cpu: float
    wall: float
    peak: float


def run(command: Sequence[str], environment: Mapping[str, str], log: Path, limit: float) -> Cost:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        environment: all variables.
        log: takes its output.
        limit: seconds after which it is ended; its returncode then is negative.
    """
    begin = perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    ended, peaks = threading.Event(), [0.0]

    def watch() -> None:
        while not ended.wait(INTERVAL):
            peaks.append(sum(map(resident, descendants(process.pid))))
            if perf_counter() - begin > limit:
                os.killpg(process.pid, 9)
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        os.killpg(process.pid, 9)
        raise
    finally:
        ended.set()
        watcher.join()
    process.returncode = os.waitstatus_to_exitcode(status)
    cpu = usage.ru_utime + usage.ru_stime  # of all descendants that were waited for
    return Cost(process.returncode, cpu, perf_counter() - begin, max(peaks))


def descendants(process: int) -> Iterator[int]:
    """Give a process and everything that it started, as far as it still runs."""
    yield process
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:  # it ended meanwhile
        return
    for child in children:
        yield from descendants(int(child))


def resident(process: int) -> float:
    """Resident memory of a process in MiB, 0 when it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def build_environment(threads: int) -> dict[str, str]:
    """Variables of a run: as many threads everywhere, and none that spins while it waits."""
    counts = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    names = [f"{count}_NUM_THREADS" for count in counts] + ["POLARS_MAX_THREADS", "RAYON_NUM_THREADS"]
    return {
        **os.environ,
        **dict.fromkeys(names, str(threads)),
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONWARNINGS": "ignore",
    }


def last_line(log: Path) -> str:
    """What a failed run said last."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
