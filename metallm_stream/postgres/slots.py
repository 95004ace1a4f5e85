"""The sums of each learner process, under its slot.

Invariant: a slot's sums change only together with its version and only under its newest epoch,
so that two processes with one slot cannot mix their sums.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from metallm_stream.errors import ConfigurationError, Fenced
from metallm_stream.policy import Sums
from metallm_stream.postgres import statements

# Contributions of days that retention has dropped. The live slots still contain them, so the
# archive counts only in a rebuild: archive + fold(retained interactions) = sum of the live slots.
ARCHIVE_SLOT = "(archive)"
# Prior knowledge, one slot for each file: part of the model, and of no rebuild. Learners' slots
# have no colon.
WARMUP_PREFIX = "warmup:"


@dataclass(frozen=True, slots=True)
class SlotLease:
    """The right to save the sums of one slot from `version`, as of `epoch`."""

    slot: str
    epoch: int
    version: int


def claim_slot(conn: Connection, slot: str) -> SlotLease:
    """Take over a slot: an older process with the same slot is fenced at its next save."""
    return SlotLease(*conn.execute(statements.CLAIM_SLOT, {"slot": slot}).one())


def claim_encoder(conn: Connection, name: str, dimensions: int) -> None:
    """Bind this database to an encoder, or see that it already is.

    Raises `ConfigurationError` if its sums were learned with another one.
    """
    conn.execute(statements.CLAIM_ENCODER, {"name": name, "dimensions": dimensions})
    known = conn.execute(statements.LOAD_ENCODER).one()
    if (known.name, known.dimensions) != (name, dimensions):
        raise ConfigurationError(
            f"this database was learned with encoder {known.name!r} ({known.dimensions} "
            f"dimensions), the settings name {name!r} ({dimensions}): set the former, or use a "
            "new database for the latter"
        )


def save_sums(
    conn: Connection,
    lease: SlotLease,
    sums: Mapping[str, bytes],
    observations: Mapping[str, float] | None = None,
) -> SlotLease:
    """Replace the sums of the given arms; `observations` (labelled, by arm) is for the reader.

    The latter are as of the arm's newest event, where what is older counts less.

    Returns the lease for the next save, valid once the transaction has committed. Raises `Fenced`
    if another process has claimed the slot or saved to it.
    """
    fields = {"slot": lease.slot, "epoch": lease.epoch, "version": lease.version}
    row = conn.execute(statements.BUMP_SLOT, fields).one_or_none()
    if row is None:
        raise Fenced(f"another learner has taken over slot {lease.slot!r}")
    if sums:
        known = observations or {}
        conn.execute(
            statements.SAVE_SUMS,
            {
                "slot": lease.slot,
                "arms": list(sums),
                "sums": list(sums.values()),
                "observations": [float(known.get(arm, 0.0)) for arm in sums],
            },
        )
    return SlotLease(*row)


def save_arms(conn: Connection, lease: SlotLease, sums: Sums, arms: Iterable[str]) -> SlotLease:
    """Replace the sums of these arms, with what they count as of each one's newest event."""
    raw, newest = {arm: sums.arm_to_bytes(arm) for arm in arms}, sums.as_of({})
    return save_sums(conn, lease, raw, {arm: newest.observations(arm) for arm in raw})


def load_sums(conn: Connection) -> dict[str, dict[str, bytes]]:
    """What learners have learned, by slot and arm: neither the archive nor prior knowledge."""
    found: dict[str, dict[str, bytes]] = defaultdict(dict)
    fields = {"archive": ARCHIVE_SLOT, "warmup": WARMUP_PREFIX}
    for slot, arm, raw in conn.execute(statements.LOAD_SUMS, fields):
        found[slot][arm] = bytes(raw)
    return dict(found)


def load_slot_sums(conn: Connection, slot: str) -> dict[str, bytes]:
    """One slot's sums by arm; `ARCHIVE_SLOT` names the archive."""
    rows = conn.execute(statements.LOAD_SLOT_SUMS, {"slot": slot})
    return {arm: bytes(raw) for arm, raw in rows}


def sums_bytes(conn: Connection) -> tuple[int, int]:
    """What the sums of all slots take on disk, and what of it is in force."""
    on_disk, in_force = conn.execute(statements.SUMS_BYTES).one()
    return int(on_disk), int(in_force)


def slot_versions(conn: Connection) -> dict[str, tuple[int, int]]:
    """`(epoch, version)` of every slot of the model, prior knowledge included.

    Equal versions mean equal sums.
    """
    rows = conn.execute(statements.SLOT_VERSIONS, {"archive": ARCHIVE_SLOT})
    return {slot: (epoch, version) for slot, epoch, version in rows}
