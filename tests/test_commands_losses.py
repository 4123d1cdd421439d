"""The loss keys of a recipe: each loss trains by command, and what does not go together is refused before."""

from pathlib import Path

import pytest

from recbert.commands.main import main
from recbert.recommender import Recommender
from tests.workspace import write_events, write_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("losses")
    write_events(folder / "events.csv")
    assert main(["prepare", "--config", str(write_recipe(folder / "recipe.yaml", "run"))]) == 0
    return folder


def options(values: str) -> list[str]:
    """`loss=full model.x=1` as an option list; keys without a section are the objective's."""
    pairs = (pair.split("=") for pair in values.split())
    return [
        part for name, value in pairs for part in (f"--{'' if '.' in name else 'objective.'}{name}", value)
    ]


REFUSED = [
    ("loss=sampled label_smoothing=0.1", "objective.label_smoothing is 0.1 and objective.loss is 'sampled'"),
    ("loss=gbce label_smoothing=0.1", "objective.label_smoothing is 0.1 and objective.loss is 'gbce'"),
    ("label_smoothing=0.1 model.shard_items=true", "objective.label_smoothing is 0.1 and model.shard_items"),
    ("label_smoothing=1.0", "label_smoothing is 1.0"),
    ("loss=gbce sampler=mixed", "objective.sampler is 'mixed' and objective.loss is 'gbce'"),
    ("sampler=in-batch", "objective.sampler is 'in-batch' and objective.loss is 'full'"),
    ("negatives_per=sequence", "objective.negatives_per is 'sequence' and objective.loss is 'full'"),
    (
        "loss=sampled negatives=3 sampler=in-batch model.shard_items=true",
        "objective.sampler is 'in-batch' and model.shard_items is true",
    ),
    (
        "loss=gbce negatives=3 negatives_per=sequence training.packing=true",
        "objective.negatives_per is 'sequence' and training.packing is true",
    ),
    ("loss=gbce negatives=3 calibration=2", "calibration is 2"),
    ("loss=sampled negatives=3 sampler=mixed in_batch_share=0", "in_batch_share is 0"),
    (
        "model.item_vectors=cooccurrence model.shard_items=true",
        "'cooccurrence' and model.shard_items is true",
    ),
    ("model.item_vectors=cooccurrence data.streaming=true", "'cooccurrence' and data.streaming is true"),
    ("model.tie_items=false model.shard_items=true", "model.tie_items is false and model.shard_items"),
    ("seen_margin=1", "objective.seen_margin is 1.0 and objective.loss is 'full'"),
    (
        "seen_margin=1 loss=sampled negatives=3 name=masked-item model.family=bert",
        "objective.seen_margin is 1.0 and objective.name is 'masked-item'",
    ),
    ("seen_margin=1 loss=sampled negatives=3 training.packing=true", "is 1.0 and training.packing is true"),
    ("seen_margin=1 loss=sampled negatives=3 horizon=2", "is 1.0 and objective.horizon is 2"),
    ("seen_margin=1 loss=sampled negatives=3 model.shard_items=true", "is 1.0 and model.shard_items is true"),
    ("temperature=0.1 loss=gbce", "objective.temperature is 0.1 and objective.loss is 'gbce'"),
    ("temperature=0.1 model.shard_items=true", "objective.temperature is 0.1 and model.shard_items is true"),
    ("temperature=0", "temperature is 0"),
    ("learn_temperature=true", "objective.learn_temperature is true and objective.temperature is null"),
    ("temperature=0.1 name=masked-item model.family=bert", "temperature is set and a bert model has an item"),
]


@pytest.mark.parametrize(("values", "expected"), REFUSED)
def test_pairs_that_are_refused(
    values: str, expected: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(folder.rglob("*"))
    assert main(["pretrain", "--config", str(folder / "recipe.yaml"), *options(values)]) == 2
    assert expected in capfd.readouterr().err
    assert set(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "values",
    [
        "label_smoothing=0.1",
        "loss=gbce negatives=4 negatives_per=sequence",
        "loss=sampled negatives=4 sampler=in-batch",
        "loss=sampled negatives=4 seen_margin=2",
        "loss=sampled negatives=4 sampler=mixed negatives_per=sequence name=masked-item model.family=bert",
        "model.tie_items=false",
        "model.item_vectors=cooccurrence",
        "temperature=0.1 learn_temperature=true label_smoothing=0.1",
    ],
)
def test_losses_train_by_command(values: str, folder: Path, tmp_path: Path) -> None:
    run = ["--training.output_dir", str(tmp_path), "--training.max_steps", "1"]
    assert main(["pretrain", "--config", str(folder / "recipe.yaml"), *run, *options(values)]) == 0
    assert len(Recommender.from_pretrained(tmp_path / "model").recommend(["jam"], k=5)) == 5
