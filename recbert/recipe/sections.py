"""The sections of a recipe as dataclasses: every name, type and default that a YAML may set."""

import dataclasses
from typing import Any, Literal

from recbert.growth import Start
from recbert.inputs import Augmentation, RequestTime
from recbert.models import TieItems
from recbert.recipe.data import DataConfig, SequencesConfig, SplitConfig
from recbert.training import RecTrainingArguments


@dataclasses.dataclass
class ModelConfig:
    """The model to build, or the checkpoint to start from.

    Attributes:
        base: checkpoint to fine-tune; null builds a new model.
        backbone: language model to fine-tune, by folder or Hub id: its blocks stay, items take the place of
            its words, and all of their rows train. Sizes are its own.
        gguf_file: name of the file that holds its weights, for a backbone in GGUF.
        family: transformers' name of the architecture, or `lstm` or `gru`.
        hidden_size: width.
        num_hidden_layers: depth.
        num_attention_heads: heads a layer.
        intermediate_size: width of the feed-forward layer; null for four times `hidden_size`.
        dropout: probability, wherever the family has dropout.
        tie_items: whether items as input and items as candidates share one table; false gives a `base` with
            one table a second one, a copy. `mirrored`: two tables, equal in the first half of the width and
            opposite in the second, where an item is unlike itself; for lists that keep seen items.
        new_rows: where the rows of items that the `base` lacks begin: at the `mean` of its items, or of the
            `neighbours` that have most words of `data.items` in common.
        mimetic: start every attention layer as an average of what it attends to; better on small catalogues.
        item_vectors: begin with items placed by their `cooccurrence` in the training part; trains faster
            and further. For a backbone also where their titles in `data.items` are: at the mean of the words
            (`title-tokens`) or of what the backbone makes of them (`title-states`). null draws their vectors.
        shard_items: split the item table by rows over the processes, and with a `sampled` loss update only
            the rows that a batch touches; for a million items and more, in one process too.
    """

    base: str | None = None
    backbone: str | None = None
    gguf_file: str | None = None
    family: str = "gpt2"
    hidden_size: int = 64
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int | None = None
    dropout: float = 0.1
    tie_items: TieItems = True
    new_rows: Start = "mean"
    mimetic: bool = False
    item_vectors: Literal["cooccurrence", "title-tokens", "title-states"] | None = None
    shard_items: bool = False


@dataclasses.dataclass
class ObjectiveConfig:
    """What is predicted.

    Attributes:
        name: the objective.
        time: how the times of events and of the request enter: their `gaps` as token types (bert, roberta and
            kin, electra, albert, deberta-v2, gpt2); a `clock` with hour and weekday behind each event, or
            both (`next-item`); `rotary` positions (llama, qwen3, mistral, modernbert and others), for
            qwen3_5_text also on three `rotary-axes`. null: order only.
        start_token: `next-item`: put `[BOS]` in front of each history, from which its first event is
            predicted too; it takes one of the positions, so `prepare` cuts windows one event shorter.
        anchoring: whether learned positions are counted from the `left` or the `right` end of what the model
            sees.
        horizon: `next-item`: a position predicts a random one of this many events after it.
        augmentation: random changes of the training sequences.
        mask_rate: `masked-item`: probability of masking an event.
        last_item_share: `masked-item`: share of rows that mask only the last event.
        loss: softmax over the `full` catalogue; a `sampled` one, for hundreds of thousands of items; or
            `gbce`, a calibrated binary cross-entropy over a sample.
        label_smoothing: `full`: share of the label's probability that all items take alike, in [0, 1).
        negatives: `sampled`, `gbce`: items drawn for each batch or sequence.
        negatives_per: `sampled`, `gbce`: whether a `batch` or each `sequence` has its own draws.
        sampler: `sampled`: all items alike; by their training events; from the labels of the batch; or
            `mixed` of the batch and all alike.
        seen_margin: `sampled`, `next-item`: nats that items of the history have to stay further behind than
            others; for lists whose seen items are not filtered. null treats them alike.
        in_batch_share: `mixed`: share of the draws that come from the batch.
        temperature: `full`, `sampled`: divides cosines of hidden states and items, which then lie on a
            sphere; null takes plain products.
        learn_temperature: whether `temperature` is only the start.
        calibration: `gbce`: t, from 0 (plain binary cross-entropy) to 1 (as sure as with all negatives).
    """

    name: Literal["next-item", "masked-item"] = "next-item"
    time: Literal["gaps", "clock", "gaps+clock", "rotary", "rotary-axes"] | None = None
    start_token: bool = False
    anchoring: Literal["left", "right"] = "left"
    horizon: int = 1
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    mask_rate: float = 0.2
    last_item_share: float = 0.1
    loss: Literal["full", "sampled", "gbce"] = "full"
    label_smoothing: float = 0.0
    negatives: int = 256
    negatives_per: Literal["batch", "sequence"] = "batch"
    sampler: Literal["uniform", "popularity", "in-batch", "mixed"] = "uniform"
    seen_margin: float | None = None
    in_batch_share: float = 0.5
    calibration: float = 0.75
    temperature: float | None = None
    learn_temperature: bool = False


@dataclasses.dataclass
class AdapterConfig:
    """A LoRA adapter; see `recbert.add_lora`.

    Attributes:
        r: rank.
        alpha: scale, divided by `r`.
        dropout: probability on the adapter's input.
        target_modules: names of the layers to adapt; null for the family's own.
        use_dora: learn the size of each output apart from its direction.
        use_rslora: scale by the root of `r` instead of `r`.
        modules_to_save: names of modules that train and are saved whole.
    """

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] | None = None
    use_dora: bool = False
    use_rslora: bool = False
    modules_to_save: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class EvaluationConfig:
    """What is evaluated, and beside what.

    Attributes:
        checkpoints: folders or Hub ids; empty for the `model` folder of `training.output_dir`.
        part: the part of the data.
        filter_seen: whether items of the history are left out of the ranking.
        request_time: when a checkpoint that knows of time is asked: at the `true` time of the target; at the
            `window-start`, the beginning of the part (after leave-n-out: the user's last event); or
            `jittered`, the true time give or take an hour.
        allow_repeats: with `filter_seen`, keep a target that the history already has; an optimistic protocol.
        baselines: count baselines in the same table.
        rules_window: window of the sequential rules.
        recent_days: window of the recent popularity.
        bootstrap: resamples of users behind each interval.
        batch_size: histories scored at once.
    """

    checkpoints: list[str] = dataclasses.field(default_factory=list)
    part: Literal["test", "valid"] = "test"
    filter_seen: bool = True
    request_time: RequestTime = "true"
    allow_repeats: bool = False
    baselines: list[Literal["popularity", "recent-popularity", "markov", "sequential-rules", "item-knn"]] = (
        dataclasses.field(
            default_factory=lambda: ["popularity", "recent-popularity", "markov", "sequential-rules"]
        )
    )
    rules_window: int = 10
    recent_days: float = 30.0
    bootstrap: int = 1000
    batch_size: int = 512


@dataclasses.dataclass
class TuneConfig:
    """The search of `recbert tune` for the best recipe; each trial trains for `training.num_train_epochs`.

    Attributes:
        space: what is searched, by dotted key of the recipe: a list of values, or `low` and `high`, with
            `log: true` where ratios count and `int: true` for whole numbers.
        trials: of the whole study, over all processes and restarts.
        storage: file of the journal, or URL of a database (`sqlite:///study.db`, `postgresql://...`) that
            processes and machines share; null for `study.journal` in `training.output_dir`.
        study: name in the storage; null for the name of `training.output_dir`.
        pruner: whether trials stop early that are below the `median` of the others at the same evaluation, or
            outside the best third of them after 2, 6, 18, ... evaluations (`asha`).
        seed: of the draws.
    """

    space: dict[str, list[Any] | dict[str, Any]] = dataclasses.field(default_factory=dict)
    trials: int = 20
    storage: str | None = None
    study: str | None = None
    pruner: Literal["median", "asha", "none"] = "median"
    seed: int = 0


@dataclasses.dataclass
class Recipe:
    """All sections of a recipe, in the order of the flow, with its own text for the checkpoint."""

    data: DataConfig
    split: SplitConfig
    sequences: SequencesConfig
    model: ModelConfig
    objective: ObjectiveConfig
    adapter: AdapterConfig | None
    training: RecTrainingArguments
    evaluation: EvaluationConfig
    tune: TuneConfig
    text: str = ""
