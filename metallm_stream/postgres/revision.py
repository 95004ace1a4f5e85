"""Which of a database's objects Alembic compares with our tables.

Invariant: partitions come and go with the days, and other schemas are not ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from metallm_stream.postgres.tables import SCHEMA

_PARTITION = re.compile(r"^interactions_\d{8}$")


def is_ours(name: str | None, kind: str, _parents: Mapping[str, str | None]) -> bool:
    """Alembic's `include_name`: schema `metallm`, without the partitions of days.

    >>> is_ours("interactions_20260131", "table", {"schema_name": "metallm"})
    False
    """
    if kind == "schema":
        return name == SCHEMA
    return not (kind == "table" and name is not None and _PARTITION.match(name))
