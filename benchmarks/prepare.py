"""Events to sequences: what preparation costs beside a hand-written polars grouping of the same file.

    python benchmarks/prepare.py --events 20000000 --users 400000 --items 100000 --repeats 5
    python benchmarks/prepare.py --events 16000000 --users 320000 --growth

Sides, each in a process of its own, in alternation:

hand      polars group_by(user).agg(sort_by(time)) of the Parquet file: the grouping alone
recbert   read_events, clean_events (null ids and exact duplicates dropped), ItemTokenizer.from_items,
          build_sequences, everything a training part, without a split
split     the same with a leave-one-out split: three parts, each with the whole context of its targets
write     `recbert prepare` with that split, written to disk with fingerprint, card and report
duckdb    the same with data.engine=duckdb and the given memory limit

CPU and wall seconds count from after the imports (what they cost is printed apart) to the end of the work.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIDES = ("hand", "recbert", "split", "write", "duckdb")
BLOCK = 1_000_000
DUPLICATES, NULLS = 0.005, 0.0001
GROWTH_STEPS = 4


def main() -> int:
    """Run the comparison, or one side of it when called by itself."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=400_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=5, help="alternations")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["hand", "recbert", "split"])
    parser.add_argument("--memory-limit", default="1GB", help="of the side duckdb")
    parser.add_argument("--integer-ids", action="store_true", help="ids as numbers instead of text")
    parser.add_argument("--growth", action="store_true", help="cost of the side recbert against the size")
    parser.add_argument("--folder", default=None, help="where the files go; a temporary folder when absent")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        return work(options.side, Path(options.folder), options.memory_limit)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.growth:
            grow(options, Path(folder))
        else:
            compare(options, Path(folder))
    return 0


def compare(options: argparse.Namespace, folder: Path) -> None:
    """Print the table of all sides and their ratios to the first one."""
    write_events(folder, options.events, options.users, options.items, options.integer_ids)
    size = (folder / "events.parquet").stat().st_size
    print(f"{options.events:,} events, {options.users:,} users, {options.items:,} items, {size / 1e6:.0f} MB")
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in options.sides}
    for repeat in range(options.repeats):
        for side in options.sides:
            runs[side].append(run_side(side, folder, options.memory_limit))
            print(f"  {repeat + 1} {side:8}", json.dumps(runs[side][-1]), flush=True)
    first = options.sides[0]
    print(f"\n{'side':9}{'CPU s':>8}{'wall s':>8}{'GiB':>7}{'import s':>10}   CPU / {first}, median; wall")
    for side, found in runs.items():
        middle = {key: statistics.median(run[key] for run in found) for key in found[0]}
        ratios = {
            key: [run[key] / base[key] for run, base in zip(found, runs[first], strict=True)]
            for key in ("cpu", "wall")
        }
        pairs = " ".join(f"{ratio:.2f}" for ratio in ratios["cpu"])
        print(
            f"{side:9}{middle['cpu']:8.1f}{middle['wall']:8.1f}{max(run['peak'] for run in found):7.2f}"
            f"{middle['imports']:10.1f}   {pairs}, {statistics.median(ratios['cpu']):.2f}; "
            f"{statistics.median(ratios['wall']):.2f}"
        )


def grow(options: argparse.Namespace, folder: Path) -> None:
    """Print the cost at sizes that double, and its slope on log-log axes."""
    series = {
        "users and events": lambda share: (options.events // share, options.users // share),
        "events alone": lambda share: (options.events // share, options.users // 2 ** (GROWTH_STEPS - 1)),
        "users alone": lambda share: (options.events // 2, options.users // share),
    }
    for name, sizes in series.items():
        xs, ys = [], []
        for step in reversed(range(GROWTH_STEPS)):
            events, users = sizes(2**step)
            write_events(folder, events, users, options.items, options.integer_ids)
            cost = min(run_side("recbert", folder, "")["cpu"] for _ in range(options.repeats))
            print(f"  {name}: {events:>12,} events {users:>10,} users {cost:8.2f} CPU s", flush=True)
            xs.append(math.log(users if name == "users alone" else events))
            ys.append(math.log(cost))
        slope, last = np.polyfit(xs, ys, 1)[0], (ys[-1] - ys[-2]) / (xs[-1] - xs[-2])
        print(f"{name}: slope {slope:.2f}, of the last doubling {last:.2f}")


def write_events(folder: Path, events: int, users: int, items: int, integer_ids: bool) -> None:
    """Write events: uniform users, Zipf items, random whole seconds, some duplicates and null users."""
    rng = np.random.default_rng(0)
    share = np.cumsum(1 / np.arange(1, items + 1))
    names = rng.permutation(items), np.arange(users)
    if not integer_ids:
        names = tuple(
            pa.array(f"{kind}{name}" for name in ids) for kind, ids in zip("iu", names, strict=True)
        )
    item_names, user_names = map(pa.array, names) if integer_ids else names
    schema = pa.schema({"user_id": user_names.type, "item_id": item_names.type, "timestamp": pa.float64()})
    with pq.ParquetWriter(folder / "events.parquet", schema) as writer:
        for start in range(0, events, BLOCK):
            size = min(BLOCK, events - start)
            user = rng.integers(0, users, size)
            item = np.searchsorted(share, rng.random(size) * share[-1])
            when = np.floor(1.5e9 + rng.random(size) * 1e8)
            copies = rng.integers(0, size, (2, int(size * DUPLICATES)))
            for column in (user, item, when):
                column[copies[0]] = column[copies[1]]
            columns = [
                user_names.take(pa.array(user, mask=rng.random(size) < NULLS)),
                item_names.take(pa.array(item)),
                pa.array(when),
            ]
            writer.write_table(pa.table(columns, schema=schema))


def run_side(side: str, folder: Path, memory_limit: str) -> dict[str, float]:
    """Run one side in a process of its own; its seconds, and the peak GiB of its process tree."""
    command = [
        sys.executable,
        __file__,
        "--side",
        side,
        "--folder",
        str(folder),
        "--memory-limit",
        memory_limit,
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak = [0]
    watcher = threading.Thread(target=_watch, args=(process, peak))
    watcher.start()
    output, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"the side {side} failed")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found: dict[str, float] = json.loads(output.splitlines()[-1])
    total = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found["imports"] = round(total - found["cpu"], 2)
    found["peak"] = round(max(found["peak"], peak[0] / 2**30), 2)
    return found


def _watch(process: subprocess.Popen[str], peak: list[int]) -> None:
    """Keep the most memory that the processes of a tree had together."""
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_resident(pid) for pid in _tree(process.pid)))
        time.sleep(0.05)


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(each for child in children for each in _tree(int(child)))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def work(side: str, folder: Path, memory_limit: str) -> int:
    """One side: the work between two looks at the clock."""
    job = prepare_job(side, folder, memory_limit)
    wall, cpu = time.perf_counter(), time.process_time()
    kept = job()
    found = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    status = Path("/proc/self/status").read_text()
    found["peak"] = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    del kept
    print(json.dumps({key: round(value, 2) for key, value in found.items()}))
    return 0


def prepare_job(side: str, folder: Path, memory_limit: str) -> Callable[[], object]:
    """Import what a side needs, and give its work."""
    file = folder / "events.parquet"
    if side == "hand":
        import polars as pl

        user, rest = "user_id", ("item_id", "timestamp")
        return lambda: pl.scan_parquet(file).group_by(user).agg(pl.col(*rest).sort_by("timestamp")).collect()

    import transformers  # noqa: F401  # imported by the tokenizer otherwise, inside the measured time

    if side in ("write", "duckdb"):
        import matplotlib.figure  # noqa: F401  # as above

        import recbert.commands.prepare  # noqa: F401  # as above
        from recbert.commands.main import main as recbert_main

        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(folder=folder, memory_limit=memory_limit, engine=_engine(side)))
        return lambda: _checked(recbert_main(["prepare", "--config", str(recipe)]))

    from recbert import ItemTokenizer, build_sequences, clean_events, read_events, split_events

    def job() -> object:
        events = read_events(file, keep_invalid=True)
        events, _ = clean_events(events, drop_invalid=True, drop_duplicates=True)
        parts = split_events(events, "leave-one-out") if side == "split" else (events, None, None)
        return build_sequences(*parts, tokenizer=ItemTokenizer.from_items(parts[0]))

    return job


RECIPE = """\
data:
  events: {folder}/events.parquet
  prepared: {folder}/prepared
  engine: {engine}
  memory_limit: {memory_limit}
  clean: {{drop_invalid: true, drop_duplicates: true}}
split: {{method: leave-one-out}}
training: {{output_dir: {folder}/run}}
"""


def _engine(side: str) -> str:
    return "duckdb" if side == "duckdb" else "polars"


def _checked(code: int) -> int:
    if code:
        raise SystemExit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
