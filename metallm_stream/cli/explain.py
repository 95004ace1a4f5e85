"""`metallm explain`: why a query went where it went."""

from __future__ import annotations

from collections.abc import Sequence

import click
from sqlalchemy import RowMapping, text

from metallm_stream.cli.database import database
from metallm_stream.cli.decision_table import candidates_table, decided_by
from metallm_stream.cli.output import output
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Candidate
from metallm_stream.settings import load

EXPLAIN = text("SELECT * FROM metallm.explain(:query_id)")
DECIDED = ("policy", "policy_version", "cost_weight", "latency_weight", "budget_weight")
SHOWN = ("arm", "probability", "quality", "cost_usd", "latency_s", "utility")


@click.command()
@click.argument("query_id")
def explain(query_id: str) -> None:
    """Show what every arm was expected to bring for QUERY_ID, and which was chosen."""
    with database(load(), "explain") as engine, engine.connect() as conn:
        rows = conn.execute(EXPLAIN, {"query_id": query_id}).mappings().all()
    if not rows:
        raise ConfigurationError(
            f"no decision is known for query_id {query_id!r}: the learner may be behind, see "
            "the view metallm.lag"
        )
    first, console = rows[0], output()
    if first["arm"] is not None:
        title = decided_by(*(first[name] for name in DECIDED))
        candidates = [Candidate(**{name: row[name] for name in SHOWN}) for row in rows]
        console.print(
            candidates_table(title, candidates, _arm(rows, "chosen"), _arm(rows, "answered"))
        )
    console.print(f"decided at {first['decided_at']:%Y-%m-%d %H:%M:%S} UTC", highlight=False)
    if first["failure"] is not None:
        console.print(f"no answer: {first['failure']}", highlight=False, markup=False)


def _arm(rows: Sequence[RowMapping], mark: str) -> str | None:
    """The arm that is marked, if one is."""
    return next((str(row["arm"]) for row in rows if row[mark]), None)
