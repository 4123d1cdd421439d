"""How the cost of training grows with the data: CPU seconds against one size at a time, as log-log plots.

    python -m benchmarks.scale --output FOLDER

The data are invented. Each axis changes one size and keeps the rest; the slope of log(CPU seconds) over
log(size) is 1 where the cost grows as the size does. Under ten minutes on one
thread; `--scale 0.1` is a trial.
"""

import argparse
import json
import logging
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import PrinterCallback

from benchmarks.histories import draw_histories
from benchmarks.peers.recbert import Laps, build_arguments, build_objective, build_trainer, prepare_training
from benchmarks.peers.task import Meter

EPOCHS = 3  # the fastest counts; the first one also touches memory for the first time


class Point(NamedTuple):
    """One measurement.

    Attributes:
        job: a training job of `benchmarks.speed`.
        users: number of histories.
        length: training events that each history gives as input.
        num_items: size of the catalogue.
        batch: histories in a batch.
    """

    job: str = "next-item"
    users: int = 4000
    length: int = 8
    num_items: int = 2000
    batch: int = 128


AXES: dict[str, tuple[str, list[Point]]] = {
    "events": (
        "CPU seconds an epoch, 2,000 histories that grow from 4 to 64 events",
        [Point(users=2000, length=length) for length in (4, 8, 16, 32, 64)],
    ),
    "users": (
        "CPU seconds an epoch, histories of 8 events",
        [Point(users=users) for users in (1000, 2000, 4000, 8000, 16000)],
    ),
    "length": (
        "CPU seconds an epoch of 65,536 events in all, batches of 2,048 events",
        [
            Point(users=65536 // length, length=length, batch=2048 // length)
            for length in (8, 16, 32, 64, 128, 256)
        ],
    ),
    "batch": (
        "CPU seconds an epoch, 4,000 histories of 8 events",
        [Point(batch=batch) for batch in (16, 32, 64, 128, 256, 512)],
    ),
    "items": (
        "CPU seconds a step of 1,024 events, full softmax",
        [Point(users=512, num_items=items) for items in (1000, 4000, 16000, 64000, 256000)],
    ),
    "items-sampled": (
        "CPU seconds a step of 1,024 events, 256 sampled negatives",
        [
            Point("sampled-softmax", users=512, num_items=items)
            for items in (1000, 4000, 16000, 64000, 256000)
        ],
    ),
}
PER_STEP = ("items", "items-sampled")


def main() -> None:
    options = read_options()
    options.output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    found = {}
    for axis in options.axes:
        sizes, costs = [], []
        for size, cost in measure_axis(axis, options.scale):
            print(f"{axis} {size:,}: {cost:.4g} CPU s", flush=True)
            sizes.append(size)
            costs.append(cost)
        slope, last = fit_slope(sizes, costs), fit_slope(sizes[-2:], costs[-2:])
        found[axis] = {"sizes": sizes, "cpu": costs, "slope": slope, "last_slope": last}
        print(f"{axis}: slope {slope:.3f}, between the two largest {last:.3f}", flush=True)
        (options.output / "scale.json").write_text(json.dumps(found, indent=1))
    draw(found, options.output / "scale.png")


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for scale.png and scale.json")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of users")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def measure_axis(axis: str, scale: float) -> Iterator[tuple[int, float]]:
    """Give size and CPU seconds of the points of an axis."""
    _, points = AXES[axis]
    for point in points:
        point = point._replace(users=max(2, round(point.users * scale)))
        seconds = measure(point)
        size = {
            "events": point.users * point.length,
            "users": point.users,
            "length": point.length,
            "batch": point.batch,
        }.get(axis, point.num_items)
        yield size, seconds / math.ceil(point.users / point.batch) if axis in PER_STEP else seconds


def measure(point: Point) -> float:
    """CPU seconds of the fastest epoch."""
    events = point.length + 3  # one more than there are inputs, and the two that leave-one-out takes
    histories = draw_histories(point.users, point.num_items, (events, events), seed=0)
    rows, tokenizer = prepare_training(histories, point.length)
    objective = build_objective(point.job, tokenizer, point.length)
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        args = build_arguments(Path(folder), num_train_epochs=EPOCHS, per_device_train_batch_size=point.batch)
        trainer = build_trainer(objective, {"train": rows}, args, (Laps(meter),))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return min(lap["cpu"] for lap in meter.laps)


def fit_slope(sizes: list[int], costs: list[float]) -> float:
    """Slope of the straight line through the points, both axes logarithmic."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def draw(found: dict[str, dict[str, object]], path: Path) -> None:
    """Draw a panel an axis, with the line of slope 1 through the last point."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(3, len(found))
    rows = math.ceil(len(found) / columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(5 * columns, 4 * rows), squeeze=False)
    for panel in panels.flat[len(found) :]:
        panel.axis("off")
    for panel, (axis, points) in zip(panels.flat, found.items(), strict=False):
        sizes, costs = np.array(points["sizes"]), np.array(points["cpu"])
        panel.loglog(sizes, costs, "o-", label=f"slope {points['slope']:.2f}")
        panel.loglog(sizes, costs[-1] * sizes / sizes[-1], ":", color="grey", label="slope 1")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
        panel.set_xticks([], minor=True)
        panel.set_xlabel(axis.partition("-")[0])
        panel.set_title(AXES[axis][0], fontsize=8)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
