"""`recbert encode`: vectors of histories and items to Parquet, for a vector index or another model."""

import argparse
import logging
from pathlib import Path

import pyarrow as pa
import torch
from torch import Tensor
from tqdm import tqdm

from recbert.commands.histories import (
    COLUMNS,
    add_column_options,
    add_time_option,
    missing_shards,
    read_histories,
    times_of,
    write_shard,
)
from recbert.recommender import Recommender

logger = logging.getLogger(__name__)


def run(arguments: list[str]) -> int:
    """Run the command.

    Args:
        arguments: its command line.

    Returns:
        The exit code.
    """
    options = _parser().parse_args(arguments)
    recommender = Recommender.from_pretrained(options.checkpoint, base=options.base, device=options.device)
    weight, bias = recommender.scorer.item_vectors()
    output = Path(options.output)
    request = {
        name: getattr(options, name)
        for name in ("checkpoint", "base", "histories", "shard_size", "at", *COLUMNS)
    }
    histories = read_histories(options.histories, *(getattr(options, name) for name in COLUMNS))
    for path, shard in tqdm(
        list(missing_shards(histories, output, options.shard_size, request)), desc="Shards"
    ):
        known = [row for row in shard if len(recommender.unknown_items(row.items)) < len(row.items)]
        if len(known) < len(shard):
            logger.warning("%d users without a known item have no vector", len(shard) - len(known))
        batches = [
            known[start : start + options.batch_size] for start in range(0, len(known), options.batch_size)
        ]
        parts = [
            recommender.encode([row.items for row in batch], timestamps=times_of(batch), at=options.at)
            for batch in batches
        ]
        vectors = torch.cat(parts) if parts else torch.empty(0, weight.shape[1])
        write_shard(
            path, {"user_id": pa.array([row.user for row in known], pa.string()), "vector": _lists(vectors)}
        )
    columns = {"item_id": list(recommender.tokenizer.item_ids), "vector": _lists(weight)}
    if bias is not None:
        columns["bias"] = bias.detach().cpu().numpy()
    write_shard(output / "items.parquet", columns)
    logger.info("%s holds the vectors of %s users and all items", output, f"{len(histories):,}")
    return 0


def _lists(vectors: Tensor) -> pa.FixedSizeListArray:
    """Give vectors (N, D) as an Arrow column of float32 lists."""
    values = pa.array(vectors.detach().cpu().numpy().ravel())
    return pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])


def _parser() -> argparse.ArgumentParser:
    """Build the command line."""
    parser = argparse.ArgumentParser(prog="recbert encode", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--checkpoint", required=True, help="folder or Hub id")
    add("--base", help="folder or Hub id of an adapter's base, if it is not where the adapter says")
    add(
        "--histories",
        required=True,
        metavar="FILES",
        help="event files, or Parquet with lists in a column `history`",
    )
    add_column_options(parser)
    add_time_option(parser)
    add("--output", required=True, help="folder for the vectors")
    add("--device", default="cpu")
    add("--batch-size", type=int, default=256)
    add("--shard-size", type=int, default=100_000, help="users in an output file (100000)")
    return parser
