"""`metallm explain`: why a query went where it went."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import text

from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres import open_engine
from metallm_stream.settings import load


@click.command()
@click.argument("query_id")
def explain(query_id: str) -> None:
    """Show what every arm was expected to bring for QUERY_ID, and which was chosen."""
    engine = open_engine(load().database(), application_name="metallm-cli")
    with engine.connect() as conn:
        found = conn.execute(
            text("SELECT * FROM metallm.explain(:query_id)"), {"query_id": query_id}
        )
        columns, rows = list(found.keys()), found.all()
    if not rows:
        raise ConfigurationError(
            f"no decision is known for query_id {query_id!r}: the learner may be behind, see "
            "the view metallm.lag"
        )
    table = Table(*columns)
    for row in rows:
        table.add_row(*(f"{item:.6g}" if isinstance(item, float) else str(item) for item in row))
    Console().print(table)
