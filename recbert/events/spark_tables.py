"""Spark: Parquet tables where the cluster has them, and rows that come back sorted by user."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa


def open_spark(source: str) -> Any:
    """Parquet files as a Spark DataFrame, on the session that runs or the one that Spark's settings describe.

    Args:
        source: path, glob or URL of Parquet files, as the cluster sees it (``s3a://...``, ``hdfs://...``).

    Raises:
        ValueError: if PySpark is not installed, Spark does not start, or it cannot read the files.
    """
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise ValueError("the engine spark needs PySpark (and Java): pip install 'recbert[spark]'") from error

    try:
        return SparkSession.builder.getOrCreate().read.parquet(source)
    except PySparkException as error:
        first_line = str(error).strip().splitlines()[0]
        raise ValueError(
            f"Spark cannot read {source!r} as Parquet ({first_line}): check the path as the cluster sees it, "
            "and that Java is installed"
        ) from error


def stream_spark(frame: Any, user: str, keys: Sequence[str], names: Sequence[str]) -> Iterator[pa.Table]:
    """The rows as Arrow tables, at least one, which may be empty, in the order of the keys.

    Users are divided into ranges and each range is sorted by itself, so that nothing is sorted globally; one
    range after the other comes to the driver.

    Args:
        frame: a Spark DataFrame.
        user: the column that ranges are made of, the first of the keys.
        keys: what to sort by.
        names: the columns wanted.
    """

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        # Runs on the workers, which need pyarrow and no recbert.
        import pyarrow

        for batch in batches:
            stream = pyarrow.BufferOutputStream()
            with pyarrow.ipc.new_stream(stream, batch.schema) as writer:
                writer.write_batch(batch)
            block = pyarrow.array([stream.getvalue().to_pybytes()], pyarrow.binary())
            yield pyarrow.record_batch([block], ["block"])

    yield frame.select(*names).limit(0).toArrow()
    ranges = frame.repartitionByRange(user).sortWithinPartitions(*keys).select(*names)
    for row in ranges.mapInArrow(write, "block binary").toLocalIterator(prefetchPartitions=True):
        with pa.ipc.open_stream(bytes(row.block)) as stream:
            yield stream.read_all()
