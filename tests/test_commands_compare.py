import shutil
from pathlib import Path

import numpy as np
import pytest

from recbert.commands.main import main
from recbert.evaluation import Ranking, RankingMetrics, compare_means
from recbert.evaluation.comparison import compare_recipes
from recbert.evaluation.saved import ranks_file, read_rankings, write_rankings
from tests.workspace import World, build_world, run_json

SETTINGS = {"data_fingerprint": "sha256:0", "part": "test", "filter_seen": True}


def random_ranking(seed: int, targets: int = 60) -> Ranking:
    """Ranks at random of targets that are the same for every seed; two targets a user."""
    ranks = np.random.default_rng(seed).integers(1, 30, targets).astype(np.float64)
    users = [f"user {row // 2}" for row in range(targets)]
    return Ranking(ranks, np.zeros((targets, 0), dtype=np.int32), np.arange(targets) % 7, users, 40)


def write_run(folder: Path, seed: int, **settings: object) -> Path:
    """A run's folder with the ranks of a model and of a baseline."""
    folder.mkdir()
    rankings = {"mine": random_ranking(seed), "rules": random_ranking(seed + 100)}
    write_rankings(
        ranks_file(folder, "test"), rankings, settings={**SETTINGS, **settings}, protocol="Protocol: any."
    )
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def test_ranks_come_back_without_ids(tmp_path: Path) -> None:
    ranking = random_ranking(0)
    write_rankings(tmp_path / "ranks", {"a": ranking}, settings=SETTINGS, protocol="words")
    saved = read_rankings(tmp_path / "ranks")
    assert (saved.settings, saved.protocol, list(saved.rankings)) == (SETTINGS, "words", ["a"])
    back = saved.rankings["a"]
    assert np.array_equal(back.ranks, ranking.ranks) and np.array_equal(back.targets, ranking.targets)
    assert back.users == [str(row // 2) for row in range(60)]
    assert b"user 1" not in (tmp_path / "ranks").read_bytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "ranks"]


def test_one_seed_each_is_the_paired_bootstrap() -> None:
    first, second, metrics = random_ranking(0), random_ranking(1), RankingMetrics(resamples=200)
    figures = compare_recipes({"a": [first], "b": [second]}, metrics=metrics)
    assert figures["a"]["ndcg@10"].against is None
    assert figures["b"]["ndcg@10"].against == metrics.compare(second, first)
    found = figures["b"]["ndcg@10"]
    assert (found.low, found.high) == metrics.bootstrap(second, "ndcg@10")
    assert found.mean == metrics.value(second, "ndcg@10") == found.seeds[0]


def test_seeds_are_averaged_before_users_are_drawn() -> None:
    seeds, metrics = [random_ranking(seed) for seed in range(3)], RankingMetrics(resamples=200)
    found = compare_recipes({"a": [random_ranking(9)], "b": seeds}, metrics=metrics)["b"]["hit@10"]
    rows = np.mean([metrics.row_values(ranking, "hit@10") for ranking in seeds], axis=0)
    other = metrics.row_values(random_ranking(9), "hit@10")
    assert found.mean == pytest.approx(rows.mean())
    assert found.against == compare_means(rows, other, seeds[0].users, resamples=200)
    assert found.spread == pytest.approx(np.std(found.seeds, ddof=1))


def test_table_and_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, two, three = (write_run(tmp_path / f"run{seed}", seed) for seed in range(3))
    runs = [f"{one}", f"{one}:rules", f"wide={two},{three}"]
    assert main(["compare", *runs]) == 0
    table = capfd.readouterr().out
    assert "| recipe | seeds | hit@10 | ndcg@10 | debiased-ndcg@10 | hit@10 against run0 |" in table
    for text in ("| run0 | 1 |", "| run0:rules | 1 |", "| wide | 2 |", " ± ", "Protocol: any."):
        assert text in table
    result = run_json(capfd, "compare", *runs, "--json")
    assert list(result["recipes"]) == ["run0", "run0:rules", "wide"]
    assert len(result["recipes"]["wide"]["ndcg@10"]["seeds"]) == 2
    assert result["recipes"]["wide"]["ndcg@10"]["against"]["low"] <= 1


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"data_fingerprint": "sha256:1"}, "data_fingerprint 'sha256:1'"),
        ({"filter_seen": False}, "filter_seen False"),
        ({"request_time": "start"}, "request_time 'start'"),
    ],
)
def test_runs_of_another_protocol_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], settings: dict[str, object], text: str
) -> None:
    one, two = write_run(tmp_path / "one", 0), write_run(tmp_path / "two", 1, **settings)
    assert main(["compare", str(one), str(two)]) == 2
    assert text in capfd.readouterr().err


def test_bad_runs_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = write_run(tmp_path / "one", 0)
    damaged = write_run(tmp_path / "damaged", 0)
    ranks_file(damaged, "test").write_bytes(b"no tensors")
    for runs, text in [
        ([one, tmp_path / "none"], "run `recbert evaluate`"),
        ([one, damaged], "is damaged"),
        ([one, f"{one}:rule"], "it has mine, rules"),
        ([one, one], "two runs are called one"),
        ([one, "name="], "names no folder"),
    ]:
        assert main(["compare", *map(str, runs)]) == 2
        assert text in capfd.readouterr().err


def test_evaluate_writes_what_compare_reads(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ["--evaluation.part", "valid", "--evaluation.baselines", "[popularity, markov]", "--json"]
    figures = run_json(capfd, "evaluate", "--config", world.gpt2_recipe, *options)["models"]
    run_json(capfd, "evaluate", "--config", world.bert_recipe, *options)
    copy = shutil.copytree(world.folder / "gpt2", tmp_path / "copy")
    runs = [world.folder / "bert", f"gpt={world.folder / 'gpt2'},{copy}", f"{copy}:markov"]
    result = run_json(capfd, "compare", *runs, "--part", "valid", "--json")
    assert list(result["recipes"]) == ["bert", "gpt", "copy:markov"]
    assert result["recipes"]["gpt"]["ndcg@10"]["mean"] == pytest.approx(figures["gpt2"]["ndcg@10"])
    assert result["recipes"]["copy:markov"]["debiased-ndcg@10"]["mean"] == pytest.approx(
        figures["markov"]["debiased-ndcg@10"]
    )
    assert main(["compare", str(copy), "--part", "test"]) == 2  # that part was not ranked
