"""Tables of the runs of `benchmarks.speed`, in Markdown."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

LATENCY = ("recommend-one", "recommend-many")  # compared by milliseconds a call, the others by CPU seconds

COLUMNS = (
    "contender",
    "CPU s",
    "wall s",
    "ms a call",
    "CPU ms a call",
    "whole process, CPU s",
    "peak of the tree, MiB",
    "above the start, MiB",
    "times recbert [least, most]",
    "floor / CPU s",
    "rounds",
)


def build_report(runs: Sequence[Mapping[str, Any]], jobs: Mapping[str, Sequence[str]]) -> str:
    """One table for each job and number of users.

    Medians over the rounds. A ratio is taken within each round and is above 1 where recbert is better; the
    share of the floor is that of the same round.
    """
    settings = sorted({(run["users"], run["threads"], run["seed"]) for run in runs})
    parts = []
    for job, contenders in jobs.items():
        for users, threads, seed in settings:
            wanted = (job, users, threads, seed)
            chosen = [
                run for run in runs if (run["job"], run["users"], run["threads"], run["seed"]) == wanted
            ]
            if chosen:
                head = f"### {job}: {users:,} users, threads: {threads}, seed: {seed}"
                parts += [head, "", build_table(chosen, contenders), *describe_floor(chosen), ""]
    return "\n".join(parts)


def build_table(runs: Sequence[Mapping[str, Any]], contenders: Sequence[str]) -> str:
    good = [run for run in runs if "failed" not in run]
    figures = {(run["contender"], run["repeat"]): figure(run) for run in good}
    lines = [f"| {' | '.join(COLUMNS)} |", f"|---{'|---:' * (len(COLUMNS) - 1)}|"]
    for contender in contenders:
        own = [run for run in good if run["contender"] == contender]
        failed = [run["failed"] for run in runs if run["contender"] == contender and "failed" in run]
        if own:
            lines.append(f"| {contender} | {' | '.join(build_cells(own, figures))} |")
        elif failed:
            lines.append(f"| {contender} | failed: {failed[-1]} |{' |' * (len(COLUMNS) - 2)}")
    return "\n".join(lines)


def build_cells(own: Sequence[Mapping[str, Any]], figures: Mapping[tuple[str, int], float]) -> list[str]:
    def middle(name: str) -> str:
        values = [run[name] for run in own if name in run]
        return f"{median(values):.4g}" if values else ""

    def over(other: str, upside_down: bool = False) -> list[float]:
        pairs = [
            (figure(run), figures[other, run["repeat"]]) for run in own if (other, run["repeat"]) in figures
        ]
        return [there / here if upside_down else here / there for here, there in pairs]

    is_peer = own[0]["contender"] not in ("floor", "recbert")
    ratios = over("recbert") if is_peer else []
    shares = over("floor", upside_down=True) if own[0]["contender"] != "floor" else []
    above = [run["peak"] - run["rss_before"] for run in own if "peak" in run]
    return [
        *map(middle, ("cpu", "wall", "p50_ms", "p50_cpu_ms", "whole_cpu", "tree_peak")),
        f"{median(above):.4g}" if above else "",
        f"{median(ratios):.3g} [{min(ratios):.3g}, {max(ratios):.3g}]" if ratios else "",
        f"{median(shares):.1%}" if shares else "",
        str(len(own)),
    ]


def describe_floor(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what was counted and measured for the floor."""
    floors = [run for run in runs if run["contender"] == "floor" and "failed" not in run]
    if not floors:
        return []
    first = floors[0]
    rates = {
        name: median(run[name] for run in floors) for name in ("items_gflops", "body_gflops", "bytes_cpu")
    }
    text = (
        f"Floor: {first['items'] / 1e9:.4g} GFLOP of item products ({first['labels']:,.0f} labels) at "
        f"{rates['items_gflops']:.1f} GFLOP/s and {first['body'] / 1e9:.4g} GFLOP of the body "
        f"({first['tokens']:,.0f} events) at {rates['body_gflops']:.1f} GFLOP/s; not in it the "
        f"{first['moved'] / 2**30:.2g} GiB that AdamW moves in {first['steps']} steps, "
        f"{rates['bytes_cpu']:.2g} s at the measured bandwidth."
    )
    return ["", text]


def figure(run: Mapping[str, Any]) -> float:
    """The figure that a job compares."""
    return float(run["p50_ms" if run["job"] in LATENCY else "cpu"])
