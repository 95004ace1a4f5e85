"""Interactions, offsets, sums and what people read, in PostgreSQL; the caller owns transactions."""

from metallm_stream.postgres.budgets import Place, load_accounts, lock_accounts, save_accounts
from metallm_stream.postgres.clocks import claim_half_life, load_forgetting
from metallm_stream.postgres.dead_letters import DeadLetter, save_dead_letters
from metallm_stream.postgres.engine import database_url, open_engine
from metallm_stream.postgres.interactions import (
    load_for_update,
    save_interactions,
    stream_interactions,
)
from metallm_stream.postgres.migrate import (
    check_revision,
    current_revision,
    head_revision,
    migrate,
    roles_exist,
    roles_sql,
)
from metallm_stream.postgres.offsets import (
    Advance,
    Position,
    advance,
    claim_partition,
    load_offsets,
)
from metallm_stream.postgres.outcomes import stream_outcomes
from metallm_stream.postgres.policies import (
    forget_other_models,
    next_policy_version,
    record_policy,
    save_model,
    try_publish_lock,
)
from metallm_stream.postgres.retention import drop_days_before, ensure_day, fold
from metallm_stream.postgres.river import (
    RiverRow,
    StoredLesson,
    claim_river,
    correct_lessons,
    forgotten_lessons,
    load_lessons,
    load_river,
    lock_river,
    rebase_river,
    replace_river,
    save_lessons,
    save_river,
    split_lessons,
)
from metallm_stream.postgres.slots import (
    ARCHIVE_SLOT,
    SlotLease,
    claim_encoder,
    claim_slot,
    load_slot_sums,
    load_sums,
    save_sums,
    slot_versions,
)
from metallm_stream.postgres.warmups import Warmup, load_warmups, remove_warmup, save_warmup
from metallm_stream.postgres.watches import (
    load_all_watches,
    load_watches,
    record_shift,
    save_watches,
)

__all__ = [
    "ARCHIVE_SLOT",
    "Advance",
    "DeadLetter",
    "Place",
    "Position",
    "RiverRow",
    "SlotLease",
    "StoredLesson",
    "Warmup",
    "advance",
    "check_revision",
    "claim_encoder",
    "claim_half_life",
    "claim_partition",
    "claim_river",
    "claim_slot",
    "correct_lessons",
    "current_revision",
    "database_url",
    "drop_days_before",
    "ensure_day",
    "fold",
    "forget_other_models",
    "forgotten_lessons",
    "head_revision",
    "load_accounts",
    "load_all_watches",
    "load_for_update",
    "load_forgetting",
    "load_lessons",
    "load_offsets",
    "load_river",
    "load_slot_sums",
    "load_sums",
    "load_warmups",
    "load_watches",
    "lock_accounts",
    "lock_river",
    "migrate",
    "next_policy_version",
    "open_engine",
    "rebase_river",
    "record_policy",
    "record_shift",
    "remove_warmup",
    "replace_river",
    "roles_exist",
    "roles_sql",
    "save_accounts",
    "save_dead_letters",
    "save_interactions",
    "save_lessons",
    "save_model",
    "save_river",
    "save_sums",
    "save_warmup",
    "save_watches",
    "slot_versions",
    "split_lessons",
    "stream_interactions",
    "stream_outcomes",
    "try_publish_lock",
]
