"""The item table split by rows over processes, for catalogues past a few million items.

The table is a `DTensor` of `torch.distributed.tensor` with `Shard(0)`: process r of P holds the r-th slice of
its rows, everything else of the model is replicated as under plain data parallelism. Rows travel to the
processes whose batches need them, and their gradients travel back to the owners (`exchange_rows`); under a
sampled loss no process ever holds a dense gradient of the table, and the optimiser's state is two numbers a
row (`RowwiseAdam`).
"""

from recbert.sharding.exchange import exchange_rows, group_of, own_slice, owned_rows
from recbert.sharding.gradients import clip_gradients
from recbert.sharding.optimizer import RowwiseAdam
from recbert.sharding.softmax import sharded_cross_entropy
from recbert.sharding.storage import load_sharded, read_rows, read_weights, write_rows, write_tables
from recbert.sharding.tables import item_mesh, item_tables, shard_items

__all__ = [
    "RowwiseAdam",
    "clip_gradients",
    "exchange_rows",
    "group_of",
    "item_mesh",
    "item_tables",
    "load_sharded",
    "own_slice",
    "owned_rows",
    "read_rows",
    "read_weights",
    "shard_items",
    "sharded_cross_entropy",
    "write_rows",
    "write_tables",
]
