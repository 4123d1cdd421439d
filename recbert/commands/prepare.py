"""`recbert prepare`: events into cleaned, split, tokenised sequences in one folder."""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbert.checkpoint import write_folder
from recbert.events import (
    ROW,
    CleaningReport,
    CleaningSteps,
    StepReport,
    clean_events,
    item_events,
    open_spark,
    open_spilling,
    pseudonymise,
    read_events,
    read_pseudonym_key,
)
from recbert.recipe import CohortConfig, DataConfig, SplitConfig, data_sections, load_recipe, recipe_parser
from recbert.sequences import MANIFEST_FILE, stream_sequences, write_prepared
from recbert.splits import SplitProtocol, describe_cut, select_active, select_users, split_events
from recbert.tokenizer import ItemTokenizer

logger = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    recipe, _ = load_recipe(recipe_parser("prepare"), arguments)
    protocol = _protocol(recipe.split)
    with _open_source(recipe.data) as source:
        events = _read(recipe.data, source)
        events, report = _clean(events, recipe.data.clean, recipe.split.cohort)
        for name in ("users", "items"):
            if report.statistics[name] < 2:
                raise ValueError(
                    f"{recipe.data.events} has only one of {name} after cleaning, and a recommender learns "
                    "from many: check the column names and loosen data.clean"
                )
        train, valid, test = split_events(events, protocol)
        train = _only_active(train, events, recipe.split)
        tokenizer = _vocabulary(recipe.data, train)
        streams = stream_sequences(
            train,
            valid,
            test,
            tokenizer=tokenizer,
            max_length=recipe.sequences.max_length - recipe.objective.start_token,
            windows=recipe.sequences.windows,
            stride=recipe.sequences.stride,
        )
        with write_folder(recipe.data.prepared, marker=MANIFEST_FILE) as draft:
            manifest = {"protocol": _describe(protocol, recipe.split), "recipe": data_sections(recipe.text)}
            counts = write_prepared(draft, streams, tokenizer, manifest)["counts"]
            report.save(draft / "report")
    logger.info("where to begin with this data:\n%s", "\n".join(f"  {line}" for line in report.advice()))
    sizes = ", ".join(f"{name} {part['rows']:,} rows" for name, part in counts.items())
    logger.info("%s: %s, %s items", recipe.data.prepared, sizes, f"{tokenizer.num_items:,}")
    return 0


@contextlib.contextmanager
def _open_source(config: DataConfig) -> Iterator[Any]:
    """Give what `read_events` is to read: the files, or a table of them on the engine of the recipe."""
    if config.events is None:
        raise ValueError(
            "data.events is missing: name the event table in the recipe or with --data.events PATH"
        )
    if config.engine == "polars":
        yield config.events
        return
    if config.engine == "spark":
        yield open_spark(config.events)
        return
    needed = (config.user, config.item, config.time, config.order, config.event_type, config.value)
    columns = [column for column in needed if column is not None]
    target = Path(config.prepared)
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{target.name}-spill-", dir=target.parent) as folder,
        open_spilling(config.events, columns, config.separator, config.memory_limit, folder) as relation,
    ):
        yield relation


def _read(config: DataConfig, source: Any) -> Any:
    """Read the events of a source."""
    # DuckDB has the rows of the files numbered; polars numbers them while it reads.
    order = ROW if config.engine == "duckdb" and config.order is None else config.order
    events = read_events(
        source,
        user=config.user,
        item=config.item,
        time=config.time,
        time_unit=config.time_unit,
        order=order,
        event_type=config.event_type,
        value=config.value,
        separator=config.separator if config.engine == "polars" else None,
        keep_invalid=config.clean.drop_invalid or config.clean.impute_time is not None,
    )
    if config.pseudonymise:
        events = pseudonymise(events, read_pseudonym_key(file=config.pseudonym_key_file))
    return events


def _vocabulary(config: DataConfig, train: Any) -> ItemTokenizer:
    """Take the items of the training part, or those of a checkpoint and, if asked, new ones behind them."""
    least = config.new_items
    if config.vocabulary is None:
        if least is not None:
            raise ValueError("data.new_items is set and data.vocabulary is null: name what is to grow")
        return ItemTokenizer.from_items(train)
    tokenizer = ItemTokenizer.from_pretrained(config.vocabulary)
    if least is None:
        return tokenizer
    seen = item_events(train)
    new = sorted(item for item, events in seen.items() if events.number >= least and item not in tokenizer)
    logger.info("%s new items have %s events or more", f"{len(new):,}", least)
    return tokenizer.with_items(new) if new else tokenizer


def _clean(events: Any, steps: CleaningSteps, cohort: CohortConfig | None) -> tuple[Any, CleaningReport]:
    """Clean the events of a cohort, or all; who belongs to it does not depend on what is cleaned away later.

    Only missing users, items and times come first: without them nobody's joining date is known.
    """
    if cohort is None:
        return clean_events(events, steps)
    first = CleaningSteps(impute_time=steps.impute_time, drop_invalid=steps.drop_invalid)
    done: list[StepReport] = []
    if first != CleaningSteps():
        events, report = clean_events(events, first)
        done, steps = report.steps, dataclasses.replace(steps, impute_time=None, drop_invalid=False)
    events = select_users(events, by=cohort.by, fraction=cohort.fraction, keep=cohort.keep, seed=cohort.seed)
    events, report = clean_events(events, steps)
    return events, dataclasses.replace(report, steps=[*done, *report.steps])


def _protocol(config: SplitConfig) -> SplitProtocol:
    """Give the rules of a recipe's split."""
    return SplitProtocol(
        method=config.method,
        cuts=config.cuts,
        target=config.target,
        n_test=config.n_test,
        n_valid=config.n_valid,
        fractions=config.fractions,
        by=config.by,
        seed=config.seed,
    )


def _only_active(train: Any, events: Any, config: SplitConfig) -> Any:
    """Keep the training histories that a recipe wants, all or those that go on after a time."""
    if config.since is None:
        if config.replay:
            raise ValueError(f"split.replay is {config.replay} and split.since is null: name a time with it")
        return train
    return select_active(train, events, since=config.since, replay=config.replay, seed=config.seed)


def _describe(protocol: SplitProtocol, config: SplitConfig) -> str:
    """Say in words how the events were divided, which users took part, and whose histories are trained on."""
    parts = [protocol.describe()]
    if config.since is not None:
        others = f" and {config.replay:.0%} of the others" if config.replay else ""
        parts.append(f"trained on histories that go on from {describe_cut(config.since)}{others}")
    if config.cohort is None:
        return "; ".join(parts)
    cohort = config.cohort
    share = cohort.fraction if cohort.keep == "first" else 1 - cohort.fraction
    if cohort.by == "random":
        who = f"a random {share:.0%} of users (seed {cohort.seed}, {cohort.keep})"
    else:
        who = f"the {share:.0%} of users who joined {'first' if cohort.keep == 'first' else 'last'}"
    return "; ".join([*parts, f"only {who}"])
