"""Wall time from the first step to a validation NDCG@10 of 0.05: recbert, then RecTools, full softmax.

    python -m benchmarks.quality --data FOLDER --environments FOLDER --output FOLDER

Leave-one-out, all users, the whole catalogue, seen items filtered; training and a validation after each epoch
are timed. Both have 2 layers of 64, two heads, length 50, batches of 128, dropout 0.2 and Adam at 1e-3 (the
defaults of RecTools are wider and slower). `recbert:sampled`, 1,024 negatives, has to be asked for: its
epochs are cheaper but it needs more of them. A contender that `--limit` ends gives a lower bound of a ratio.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.histories import choose_users, read_histories
from benchmarks.peers.task import TARGET
from benchmarks.tree import build_environment, last_line, run

CONTENDERS = ("recbert:full", "recbert:sampled", "rectools:softmax")
EPOCHS = 100  # at most; the target or the limit comes first


def main() -> None:
    options = read_options()
    options.output.mkdir(parents=True, exist_ok=True)
    histories = read_histories(options.data)
    path = options.output / "histories.npz"
    choose_users(histories, min(options.users, len(histories.lengths)), seed=0).save(path)
    outcomes = {contender: train(options, contender, path) for contender in options.contenders}
    (options.output / "quality.json").write_text(json.dumps(outcomes, indent=1))
    print(build_table(outcomes))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with events.parquet")
    parser.add_argument("--environments", type=Path, required=True, help="folder that environments.sh filled")
    parser.add_argument("--output", type=Path, required=True, help="folder for logs and quality.json")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=[CONTENDERS[0], CONTENDERS[2]])
    parser.add_argument("--limit", type=float, default=25, metavar="MINUTES", help="of each contender")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--users", type=int, default=10**9, help="fewer than all for a trial")
    return parser.parse_args()


def train(options: argparse.Namespace, contender: str, histories: Path) -> dict[str, Any]:
    """Train one contender to the target or to the limit."""
    library, _, variant = contender.partition(":")
    python = options.environments / library / "bin" / "python"
    folder = options.output / contender.replace(":", "-")
    folder.mkdir(exist_ok=True)
    command = [
        sys.executable if library == "recbert" else str(python),
        "-P",
        "-m",
        f"benchmarks.peers.{library}",
    ]
    command += [
        "--job",
        "quality",
        "--variant",
        variant,
        "--histories",
        str(histories),
        "--folder",
        str(folder),
    ]
    command += [
        "--threads",
        str(options.threads),
        "--epochs",
        str(EPOCHS),
        "--report",
        str(folder / "report.json"),
    ]
    progress, log = folder / "progress.jsonl", folder / "log"
    progress.unlink(missing_ok=True)
    cost = run(command, build_environment(options.threads), log, 60 * options.limit)
    epochs = [json.loads(line) for line in progress.read_text().splitlines()] if progress.exists() else []
    ended = cost.returncode < 0 and cost.wall >= 60 * options.limit
    if cost.returncode and not ended:
        raise SystemExit(f"{contender} failed with exit code {cost.returncode}: {last_line(log)}; see {log}")
    reached = [epoch for epoch in epochs if epoch["ndcg"] >= TARGET]
    # What the limit ended had spent some of its time on starting: only whole epochs count for the bound.
    wall = (reached or epochs or [{"wall": 0.0}])[0 if reached else -1]["wall"]
    best = max((epoch["ndcg"] for epoch in epochs), default=0.0)
    return {
        "reached": bool(reached),
        "wall": wall,
        "epochs": len(epochs),
        "best": best,
        "whole": cost._asdict(),
    }


def build_table(outcomes: dict[str, dict[str, Any]]) -> str:
    own = [each["wall"] for name, each in outcomes.items() if name.startswith("recbert") and each["reached"]]
    lines = [
        f"| contender | s to NDCG@10 {TARGET} | epochs | best NDCG@10 | CPU s | peak MiB | times recbert |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, each in outcomes.items():
        bound = "" if each["reached"] else "> "
        ratio = f"{bound}{each['wall'] / min(own):.3g}" if own and not name.startswith("recbert") else ""
        whole = each["whole"]
        cells = (f"{bound}{each['wall']:.4g}", each["epochs"], f"{each['best']:.4f}", f"{whole['cpu']:.4g}")
        lines.append(f"| {name} | {' | '.join(map(str, cells))} | {whole['peak']:.0f} | {ratio} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
