"""The sections of a recipe that say where data comes from and how it is cut."""

import contextlib
import dataclasses
from typing import Literal

from recbert.events import CleaningSteps


@dataclasses.dataclass
class DataConfig:
    """Where events come from, how their columns are called, and where the prepared data goes.

    Attributes:
        prepared: folder of the prepared data; `prepare` writes it, the other commands read it.
        streaming: whether `pretrain` and `finetune` read the training part row by row where it lies;
            `prepared` may then be a URL (`hf://datasets/owner/name`, `s3://...`). Needs `training.max_steps`.
        events: file, glob, folder or Hub id of the event table.
        user: column of user ids.
        item: column of item ids.
        time: column of event times.
        time_unit: what numbers in it count, or `iso`.
        order: column that breaks ties of time; files get their row number where this is null.
        event_type: column of event types.
        value: column of values such as ratings.
        separator: field separator of CSV files; null takes it from the file's ending.
        engine: what prepares the events: `polars` in memory; `duckdb`, which spills to the disk of
            `prepared`; or `spark`, which reads Parquet on the cluster of the Spark settings. The result is
            the same (with `spark`, where `order` names a column or times do not tie).
        memory_limit: `duckdb`: the memory it may use.
        vocabulary: checkpoint whose items are the vocabulary; null takes the items of the training part.
        new_items: how many events in the training part let in an item that `vocabulary` lacks, behind the
            old ones; null lets none in.
        items: table of items (`item_id`, `title`, `categories`), for `model.new_rows: neighbours`.
        pseudonymise: whether user ids are replaced by a keyed hash; the key comes from RECBERT_PSEUDONYM_KEY.
        pseudonym_key_file: file with the key, instead of the environment variable.
        clean: cleaning steps.
    """

    prepared: str
    streaming: bool = False
    events: str | None = None
    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    time_unit: Literal["s", "ms", "us", "iso"] = "s"
    order: str | None = None
    event_type: str | None = None
    value: str | None = None
    separator: str | None = None
    engine: Literal["polars", "duckdb", "spark"] = "polars"
    memory_limit: str = "4GB"
    vocabulary: str | None = None
    new_items: int | None = None
    items: str | None = None
    pseudonymise: bool = False
    pseudonym_key_file: str | None = None
    clean: CleaningSteps = dataclasses.field(default_factory=CleaningSteps)


@dataclasses.dataclass
class CohortConfig:
    """Which users take part.

    Attributes:
        keep: the `first` users, or the `rest`.
        by: by the time of their first event, or at `random`.
        fraction: share of the users that count as first.
        seed: for `random`.
    """

    keep: Literal["first", "rest"]
    by: Literal["joined", "random"] = "joined"
    fraction: float = 0.8
    seed: int = 0


@dataclasses.dataclass
class SplitConfig:
    """How events are divided; see `recbert.split_events`.

    Attributes:
        method: the split.
        cuts: `temporal`: two quantiles of the event times, or two dates.
        target: `temporal`: which events of a user's window are predicted.
        n_test: `leave-n-out` and `users`: test events of a user.
        n_valid: `leave-n-out`: validation events of a user.
        fractions: `users`: shares of users in train, valid and test.
        by: `users`: held out by joining time or at random.
        seed: for `random`.
        cohort: users that take part; null for all.
        since: train on histories that go on from this time only: a share of the events below 1, or a date.
            What a checkpoint that knows the time before is fine-tuned on; null trains on all.
        replay: share of the other histories that stays with `since`, against forgetting.
    """

    method: Literal["temporal", "leave-one-out", "leave-n-out", "users"] = "temporal"
    cuts: tuple[float | str, float | str] = (0.8, 0.9)
    target: Literal["first", "last", "all"] = "last"
    n_test: int = 1
    n_valid: int = 1
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    by: Literal["joined", "random"] = "random"
    seed: int = 0
    cohort: CohortConfig | None = None
    since: float | str | None = None
    replay: float = 0.0

    def __post_init__(self) -> None:
        """Read a number that came from a command line as text."""
        if isinstance(self.since, str):
            with contextlib.suppress(ValueError):
                self.since = float(self.since)


@dataclasses.dataclass
class SequencesConfig:
    """How training sequences are cut from histories; see `recbert.build_sequences`.

    Attributes:
        max_length: positions that the model sees at most.
        windows: the `last` window of a history, `sliding` ones, or every `prefix`.
        stride: events between sliding windows; null for `max_length`.
    """

    max_length: int = 200
    windows: Literal["last", "sliding", "prefix"] = "last"
    stride: int | None = None
