"""The table of a batch as Parquet, for programs; apart from the CSV, since pyarrow is nothing the demo needs."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow
import pyarrow.parquet

from app.batch import Row

__all__ = ["SCHEMA", "as_parquet"]

SCHEMA = pyarrow.schema(
    [(name, pyarrow.float64() if name == "probability" else pyarrow.string()) for name in Row._fields]
)


def as_parquet(rows: Sequence[Row]) -> bytes:
    """Rows as a table; a probability that is not known is null."""
    table = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row._asdict() for row in rows], SCHEMA), table)
    return table.getvalue()
