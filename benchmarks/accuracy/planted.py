"""A log of events with planted time structure, and what the best possible ranking of it earns.

    python -m benchmarks.accuracy.planted --seed 1 --out FOLDER

Writes FOLDER/events.parquet (user_id, item_id, timestamp in epoch seconds) for `recbert prepare` and
FOLDER/truth.json: NDCG@10 and HR@10, seen items filtered, of the optimum, of the best that sees the order but
no times, and of popularity, for the temporal split at 0.8 and 0.9 and for leave-one-out. `--surge 0` and so
on switch a structure off; see `world` for what each is.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from benchmarks.accuracy.optimum import Log, leave_one_out, measure_optimum, split_by_time
from benchmarks.accuracy.world import (
    DAY,
    ORIGIN,
    Floats,
    Ints,
    Sizes,
    Strengths,
    World,
    build_world,
    draw_first,
    draw_next,
    initial_state,
    observe,
    theme_shares,
)


def draw_log(world: World, random: np.random.Generator) -> Log:
    """Draw every user's events until the end of the log."""
    users = world.sizes.users
    end = ORIGIN + world.sizes.days * DAY
    state = initial_state(world, (users,))
    taken = np.zeros((users, world.sizes.items), dtype=bool)
    now = draw_first(world, (users,), random)
    items, times = [], []
    most = world.sizes.items - 1  # a choice needs an item that is left
    while (active := now < end).any() and len(items) < most:
        item = np.where(active, _draw_items(world, theme_shares(world, state, now), taken, random), -1)
        items.append(item)
        times.append(now)
        taken[active, item[active]] = True
        state = observe(world, state, now, world.theme_of[item])
        now = np.where(active, draw_next(now, random), end)
    chosen = np.stack(items, axis=1)
    return Log(chosen, np.stack(times, axis=1), (chosen >= 0).sum(1))


def _draw_items(world: World, shares: Floats, taken: np.ndarray, random: np.random.Generator) -> Ints:
    """Draw an item for each user, (U,): a theme by its shares and by what is left of it, then an item."""
    left = np.where(taken[:, world.members], 0.0, world.share_of[world.members])  # (U, G, V / G)
    theme = _draw(shares * left.sum(-1), random)
    rows = np.arange(len(theme))
    return world.members[theme, _draw(left[rows, theme], random)]


def _draw(weights: Floats, random: np.random.Generator) -> Ints:
    """Draw a column of each row by its weights."""
    ends = np.cumsum(weights, axis=1)
    points = random.random((len(ends), 1)) * ends[:, -1:]
    return (ends <= points).sum(1)


def write_events(log: Log, path: Path, random: np.random.Generator) -> None:
    """Write the events in the order of time; the names of users and items tell nothing."""
    import pyarrow  # the rest needs numpy alone
    import pyarrow.parquet

    users, places = np.nonzero(log.real)
    order = np.argsort(log.times[users, places], kind="stable")
    users, places = users[order], places[order]
    names = random.permutation(len(log.lengths))
    columns = {
        "user_id": [f"u{name:05d}" for name in names[users]],
        "item_id": [f"i{item:05d}" for item in log.items[users, places]],
        "timestamp": log.times[users, places],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def main(arguments: list[str] | None = None) -> None:
    options = vars(read_options(arguments))
    sizes, strengths = (
        kind(**{field.name: options[field.name] for field in dataclasses.fields(kind)})
        for kind in (Sizes, Strengths)
    )
    folder: Path = options["out"]
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(options["seed"])
    world = build_world(sizes, strengths, random)
    log = draw_log(world, random)
    write_events(log, folder / "events.parquet", random)
    parts = {"temporal": split_by_time(log), "leave-one-out": leave_one_out(log)}
    truth = {
        "seed": options["seed"],
        "sizes": dataclasses.asdict(sizes),
        "strengths": dataclasses.asdict(strengths),
        "events": int(log.lengths.sum()),
        **measure_optimum(world, log, parts, options["seed"]),
    }
    text = json.dumps(truth, indent=1)
    (folder / "truth.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    for kind in (Sizes, Strengths):
        for field in dataclasses.fields(kind):
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
