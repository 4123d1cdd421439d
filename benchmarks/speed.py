"""recbert and other libraries in alternation on the same data and sizes: what each job costs, and the ratios.

    python -m benchmarks.speed --data FOLDER --environments FOLDER --output FOLDER

Every run is a process of its own, in the environment that `environments.sh` made for its library. Runs are
appended to `runs.jsonl` of the output folder; one that is there is not repeated, so an interrupted comparison
goes on where it stopped. `--report` only prints the tables of that file.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.histories import Histories, choose_users, read_histories
from benchmarks.report import LATENCY, build_report, figure
from benchmarks.tree import build_environment, last_line, run

# What each job compares: the floor and recbert first, then library or library:variant.
JOBS = {
    "next-item": ("floor", "recbert", "replay", "replay:length-bucket", "recbole", "rectools"),
    "masked-item": ("floor", "recbert", "replay", "replay:restricted", "recbole", "rectools"),
    "sampled-softmax": (
        "floor",
        "recbert",
        "rectools:sampled-softmax",
        "rectools:gbce",
        "replay",
        "replay:length-bucket",
        "cornac",
    ),
    "evaluate": ("recbert", "recbert:ranks-only", "replay", "recbole", "rectools"),
    "recommend-one": ("recbert", "recbole", "rectools", "rectools:own-dataset"),
    "recommend-many": ("recbert", "recbole", "rectools"),
}
WHOLE = ("evaluate", "recommend-one", "recommend-many")  # jobs that a share of the users would distort


def main() -> None:
    options = read_options()
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.report:
        measure(options)
    print(build_report(read_runs(options.output), JOBS))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data", type=Path, help="folder with events.parquet")
    parser.add_argument("--environments", type=Path, help="folder that environments.sh filled")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument(
        "--report", action="store_true", help="only print the tables of the runs that are there"
    )
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument(
        "--against", nargs="+", help="contenders beside floor and recbert, such as replay:restricted"
    )
    parser.add_argument(
        "--users",
        default="fifth",
        help="users that train: fifth, all, or a number, which then holds for all jobs (default: fifth)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the users, the weights and the order")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of alternation")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=3600, help="seconds after which a run is ended")
    parser.add_argument("--prefix", default="", help="put before each command, such as 'taskset -c 0'")
    options = parser.parse_args()
    if not options.report and (options.data is None or options.environments is None):
        parser.error("give --data and --environments, or --report")
    if options.users not in ("fifth", "all") and not options.users.isdecimal():
        parser.error(f"--users is {options.users!r}: give fifth, all or a number")
    return options


def measure(options: argparse.Namespace) -> None:
    """Do the runs that are not there yet."""
    histories = read_histories(options.data)
    names = ("job", "contender", "repeat", "users", "threads", "seed")
    done = {tuple(run[name] for name in names) for run in read_runs(options.output) if "failed" not in run}
    for job, contender, repeat in plan(options):
        users = count_users(options.users, job, len(histories.lengths))
        key = (job, contender, repeat, users, options.threads, options.seed)
        if key in done:
            continue
        path = write_share(options, histories, users)
        outcome = {**dict(zip(names, key, strict=True)), **run_once(options, job, contender, path)}
        with (options.output / "runs.jsonl").open("a") as file:
            file.write(json.dumps(outcome) + "\n")
        print(describe(outcome), file=sys.stderr, flush=True)


def plan(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Give the runs in their order: round after round, the contenders in turn."""
    for job in options.jobs:
        for repeat in range(options.repeats):
            for contender in JOBS[job]:
                if not options.against or contender in ("floor", "recbert", *options.against):
                    yield job, contender, repeat


def count_users(wanted: str, job: str, total: int) -> int:
    if wanted.isdecimal():
        return min(int(wanted), total)
    return total if wanted == "all" or job in WHOLE else round(total / 5)


def write_share(options: argparse.Namespace, histories: Histories, users: int) -> Path:
    path: Path = options.output / f"histories-{users}-{options.seed}.npz"
    if not path.exists():
        choose_users(histories, users, options.seed).save(path)
    return path


def run_once(options: argparse.Namespace, job: str, contender: str, histories: Path) -> dict[str, Any]:
    """Run one contender once; a failure is an outcome too."""
    library, _, variant = contender.partition(":")
    own = library in ("floor", "recbert")
    python = sys.executable if own else str(options.environments / library / "bin" / "python")
    module = "benchmarks.floor" if library == "floor" else f"benchmarks.peers.{library}"
    name = f"{job}-{contender.replace(':', '-')}"
    report, log, folder = (options.output / f"{name}{end}" for end in (".json", ".log", ""))
    report.unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    # -P keeps the working directory off the path: the drivers carry the names of the libraries they import.
    command = [*shlex.split(options.prefix), python, "-P", "-m", module, "--job", job, "--variant", variant]
    command += ["--histories", str(histories), "--folder", str(folder), "--report", str(report)]
    command += ["--seed", str(options.seed), "--threads", str(options.threads)]
    cost = run(command, build_environment(options.threads), log, options.limit)
    outcome = {"whole_cpu": cost.cpu, "whole_wall": cost.wall, "tree_peak": cost.peak}
    if cost.returncode or not report.exists():
        return {**outcome, "failed": f"exit code {cost.returncode}, {last_line(log)}; see {log}"}
    return {**outcome, **json.loads(report.read_text())}


def read_runs(folder: Path) -> list[dict[str, Any]]:
    path = folder / "runs.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def describe(outcome: dict[str, Any]) -> str:
    head = f"{outcome['job']} {outcome['contender']} round {outcome['repeat']}"
    if "failed" in outcome:
        return f"{head}: FAILED {outcome['failed']}"
    unit = "ms" if outcome["job"] in LATENCY else "CPU s"
    return f"{head}: {figure(outcome):.4g} {unit}, {outcome['tree_peak']:.0f} MiB"


if __name__ == "__main__":
    main()
