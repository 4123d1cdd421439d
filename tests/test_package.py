"""The front door: thirteen names, each documented, none of them loaded before it is used."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import polars as pl
import pytest

import recbert

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(recbert.__path__, "recbert.")
    if not module.name.endswith("__main__")
)
PUBLIC_NAMES = {
    "read_events",
    "clean_events",
    "split_events",
    "ItemTokenizer",
    "build_sequences",
    "build_model",
    "MaskedItem",
    "NextItem",
    "RankingMetrics",
    "RecTrainingArguments",
    "RecTrainer",
    "add_lora",
    "Recommender",
}


def test_the_public_names_are_thirteen() -> None:
    assert len(recbert.__all__) == 13
    assert set(recbert.__all__) == PUBLIC_NAMES
    assert set(dir(recbert)) >= PUBLIC_NAMES


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_each_public_name_is_documented(name: str) -> None:
    value = getattr(recbert, name)
    assert value.__module__.startswith("recbert.")
    assert inspect.cleandoc(value.__dict__["__doc__"] if inspect.isclass(value) else value.__doc__ or "")


@pytest.mark.parametrize("name", sorted(PUBLIC_NAMES))
def test_each_public_name_stands_in_the_readme(name: str) -> None:
    assert f"{name}" in README.read_text(encoding="utf-8")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'read_event'"):
        recbert.read_event  # noqa: B018


def test_import_is_light() -> None:
    program = (
        "import sys, recbert; heavy = {'torch', 'transformers', 'polars', 'numpy', 'datasets', 'peft'};"
        "print(sorted(heavy & sys.modules.keys()), recbert.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", recbert.__version__]


def test_models_and_training_do_without_frames() -> None:
    program = (
        "import sys\n"
        "for name in ('polars', 'narwhals', 'datasets'): sys.modules[name] = None\n"
        "import recbert.models, recbert.objectives, recbert.training"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the example writes into runs/ and reads the data of a clone
    Path("recbert").symlink_to(README.parent / "recbert")
    # A fence right after the last output would be read as more of the output.
    text = re.sub(r"^```.*$", "", README.read_text(encoding="utf-8"), flags=re.MULTILINE)
    example = doctest.DocTestParser().get_doctest(text, {}, "README.md", str(README), 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_film_data_is_whole_and_carries_its_licence() -> None:
    folder = resources.files("recbert") / "data"
    assert "Usage License" in (folder / "README.txt").read_text(encoding="utf-8")
    events = pl.read_parquet(str(folder / "events.parquet"))
    items = pl.read_parquet(str(folder / "items.parquet"))
    assert events.schema == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
        "value": pl.Float64,
    }
    assert (events.height, events["user_id"].n_unique(), events["item_id"].n_unique()) == (
        100_004,
        671,
        9_066,
    )
    assert events.row(0) == ("1", "31", 1260759144, 2.5)
    assert set(events["item_id"]) <= set(items["item_id"])
    assert items.filter(pl.col("item_id") == "318")["title"].item() == "Shawshank Redemption, The (1994)"
