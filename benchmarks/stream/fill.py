"""What a learner's work costs and how soon it is back with so many interactions behind it.

    python -m benchmarks.stream.fill --sizes 1000 10000 100000 1000000 --backlog 5000

A thousand interactions are learned from topics. Their rows are then copied inside PostgreSQL under
ids of their own, and their sums added as often, until there are as many as `--sizes` says: rows and
sums agree, which a rebuild proves while there are few. At each size a backlog is worked off, twice,
and what it took of processor time is told for each interaction. At the end the learner is
killed, again with some hundred policies on their topic. Prints one JSON object.

Needs about 6 GB of disk for a million interactions, in $TMPDIR and for PostgreSQL, until it ends.
"""

from __future__ import annotations

import argparse
import json
import uuid
from collections.abc import Sequence
from typing import Any, LiteralString

import orjson
import psycopg
from confluent_kafka import Consumer
from psycopg import sql

from benchmarks.stream.footprint import Footprint, grown, restart, unread, wait
from benchmarks.stream.stage import Stage, open_stage, stored_bytes
from benchmarks.stream.throughput import interactions, libpq, put
from metallm_stream.embedded import Child
from metallm_stream.encode import load_encoder
from metallm_stream.events import Model
from metallm_stream.kafka import Follower, Record
from metallm_stream.policy import Sums
from metallm_stream.postgres import claim_slot, load_slot_sums, open_engine, save_sums
from metallm_stream.serve.rebuild import rebuild
from metallm_stream.settings import Settings

BASE = 1_000  # interactions that are copied
AT_ONCE = 50  # copies of each in one statement
ROUNDS = 2
REBUILT_UP_TO = 20_000
POLICIES = 600  # ten minutes, of which the topic would compact the first five
COPIES_SLOT = "copies"
LEARNED_WITHIN_S = 600.0
_ID = sql.SQL("md5(i.query_id || '/' || copy)")
_COPIED = {  # the columns with the id in them
    "query_id": "{id}",
    "decision": "jsonb_set(i.decision, '{{query_id}}', to_jsonb({id}))",
    "result": "jsonb_set(i.result, '{{query_id}}', to_jsonb({id}))",
    "feedback": "jsonb_set(i.feedback, '{{0,query_id}}', to_jsonb({id}))",
}


def main() -> None:
    """Fill, work off, restart, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--backlog", type=int, default=5_000, help="Worked off twice a size.")
    parser.add_argument("--arms", type=int, default=12)
    parser.add_argument("--restarts", type=int, default=3)
    options = parser.parse_args()
    with open_stage("recorded", learns=True) as stage:
        stage.encoder = Settings().encoder
        with psycopg.connect(libpq(stage.database_url), autocommit=True) as conn:
            print(json.dumps(run(Filled(stage, conn, arms(options.arms)), options), indent=2))


def arms(count: int) -> list[Model]:
    """So many models."""
    names = (f"arm{number}" for number in range(count))
    return [Model(arm=name, provider="recorded", model=name) for name in names]


def run(filled: Filled, options: argparse.Namespace) -> dict[str, Any]:
    """Figures of each size, what has grown from the first to the last, and restarts."""
    sizes: list[dict[str, Any]] = []
    for size in sorted(options.sizes):
        difference = filled.fill(size)
        sizes.append({"stored": filled.count, "live_less_rebuilt": difference})
        sizes[-1]["rounds"] = [filled.work_off(options.backlog) for _ in range(ROUNDS)]
    grew = {
        name: grown([one["cpu_ms"][name] for size in sizes for one in size["rounds"]], ROUNDS)
        for name in ("learner", "postgres")
    }
    few = filled.restart(options.backlog)
    filled.publish(POLICIES)
    return {
        "sizes": sizes,
        "grown": grew,
        "restart_after_few_policies": few,
        "restarts": [filled.restart(options.backlog) for _ in range(options.restarts)],
    }


class Filled:
    """A stage whose learner has learned a thousand interactions, and copies of them.

    Attributes
    ----------
    count
        How many interactions are stored.
    """

    def __init__(self, stage: Stage, conn: psycopg.Connection, models: Sequence[Model]) -> None:
        self._stage = stage
        self._conn = conn
        self._models = models
        self._encoder = load_encoder(stage.encoder)
        self._dimensions = self._encoder.dimensions
        self._reader: Consumer = stage.kafka.reader("fill")
        self._engine = open_engine(stage.database_url, application_name="fill")
        self.count, self._copies = 0, 0
        stage.add_models(models)
        self._learner: Child = stage.start("learner")
        self._base = self._ask(BASE)
        self._wait_learned()
        with self._engine.begin() as database:
            self._sums = Sums.from_bytes(load_slot_sums(database, "0"), self._dimensions)

    def fill(self, size: int) -> float | None:
        """Copy the first interactions until about `size` are stored; live less rebuilt model."""
        copies = max(0, round((size - self.count) / BASE))
        last = self._copies + copies
        for start in range(self._copies + 1, last + 1, AT_ONCE):
            self._copy(start, min(start + AT_ONCE - 1, last))
        self._copies, self.count = last, self.count + copies * BASE
        self._save_sums()
        self._conn.execute("VACUUM ANALYZE")
        self._conn.execute("CHECKPOINT")
        if self.count > REBUILT_UP_TO:
            return None
        return rebuild(self._engine, self._encoder.name, self._dimensions).max_relative_difference

    def work_off(self, backlog: int) -> dict[str, Any]:
        """What so many interactions more take, from the first record to the last transaction."""
        policies = self._policies()
        footprint = Footprint(self._stage, {"learner": self._learner})
        self._ask(backlog)
        self._wait_learned()
        return footprint.end(backlog, self._conn) | {"policies": self._policies() - policies}

    def publish(self, count: int) -> None:
        """Write the newest policy so many times, under versions of its own each."""
        topic = self._stage.names.policy
        follower = Follower(self._stage.kafka, [topic])
        newest = {
            message.key(): orjson.loads(message.value() or b"") for message in follower.catch_up()
        }
        follower.close()
        version = max(record["version"] for record in newest.values())
        for number in range(1, count + 1):
            put(
                self._stage,
                (
                    Record(topic, key, orjson.dumps(record | {"version": version + number}))
                    for key, record in newest.items()
                ),
            )

    def restart(self, backlog: int) -> dict[str, float]:
        """Kill the learner while it has so many interactions to learn from."""
        self._ask(backlog)
        stored = stored_bytes(self._stage.directory / "state", self._stage.names.policy)
        seconds = restart(self._learner, self._learned)
        self._wait_learned()
        return {"policy_topic_mb": round(stored / 1e6, 1)} | seconds

    def _ask(self, count: int) -> list[str]:
        keys = [str(uuid.uuid4()) for _ in range(count)]
        put(self._stage, interactions(self._stage, keys, self._models))
        self.count += count
        return keys

    def _wait_learned(self) -> None:
        wait(
            "the learner has read all",
            lambda: unread(self._stage, self._reader, self._conn) == 0,
            LEARNED_WITHIN_S,
            every_s=0.2,
        )

    def _learned(self) -> int:
        return self._number("SELECT sum(next_offset) FROM metallm.offsets")

    def _policies(self) -> int:
        return self._number("SELECT max(version) FROM metallm.policies")

    def _number(self, query: LiteralString) -> int:
        row = self._conn.execute(query).fetchone()
        return 0 if row is None else int(row[0])

    def _copy(self, first: int, last: int) -> None:
        """Rows of copies `first` to `last` of the base, under ids of their own."""
        columns = [
            row[0]
            for row in self._conn.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = 'metallm' AND table_name = 'interactions'"
                " AND is_generated = 'NEVER' ORDER BY ordinal_position"
            )
        ]
        values = [
            sql.SQL(_COPIED[name]).format(id=_ID) if name in _COPIED else sql.Identifier("i", name)
            for name in columns
        ]
        source = sql.SQL(
            "SELECT {} FROM metallm.interactions AS i, generate_series(%s::integer, %s) AS copy"
            " WHERE i.query_id = ANY(%s)"
        )
        for table, into, chosen in (
            ("query_days", ["query_id", "day"], [sql.SQL("{}").format(_ID), sql.SQL("i.day")]),
            ("interactions", columns, values),
        ):
            statement = sql.SQL("INSERT INTO {} ({}) {}").format(
                sql.Identifier("metallm", table),
                sql.SQL(", ").join(map(sql.Identifier, into)),
                source.format(sql.SQL(", ").join(chosen)),
            )
            self._conn.execute(statement, (first, last, self._base))

    def _save_sums(self) -> None:
        """The sums of all copies, as those of a learner of their own."""
        total = Sums(self._dimensions)
        for _ in range(self._copies):
            total.merge(self._sums)
        with self._engine.begin() as database:
            lease = claim_slot(database, COPIES_SLOT)
            save_sums(
                database,
                lease,
                {arm: total.arm_to_bytes(arm) for arm in total.arms},
                {arm: total.observations(arm) for arm in total.arms},
            )


if __name__ == "__main__":
    main()
