"""The accounts of budgets: locked, loaded, saved.

Invariant: from `lock_accounts` to the end of its transaction nobody else changes those accounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson
from sqlalchemy import Connection

from metallm_stream.events import BudgetAccount
from metallm_stream.postgres import statements
from metallm_stream.postgres.rows import storable_json
from metallm_stream.route import Account, Budget, account_of, record_of

Place = tuple[str, str]  # name of the budget, and value of its metadata key


def lock_accounts(
    conn: Connection, budgets: Mapping[str, Budget], places: Iterable[Place]
) -> dict[Place, Account]:
    """Lock accounts of these budgets, in one order for everybody, and read them.

    New ones are empty. In one that was kept in another unit than its budget is set in today, what
    that unit measured starts anew.
    """
    wanted = sorted(set(places))
    if not wanted:
        return {}
    columns = {"budgets": [b for b, _ in wanted], "keys": [k for _, k in wanted]}
    conn.execute(statements.MAKE_ACCOUNTS, columns)
    rows = conn.execute(statements.LOCK_ACCOUNTS, columns)
    return {(row.budget, row.key): _account(row.account, budgets[row.budget]) for row in rows}


def save_accounts(
    conn: Connection, budgets: Mapping[str, Budget], accounts: Mapping[Place, Account]
) -> None:
    """Write accounts that this transaction has locked."""
    rows = [
        {
            "budget": name,
            "key": key,
            "metadata_key": budgets[name].metadata_key,
            "per": budgets[name].per,
            "hard": budgets[name].hard,
            "amount_usd": budgets[name].amount_usd,
            "queries": account.queries,
            "spent_usd": account.spent_usd,
            "reserved_usd": account.reserved_usd,
            "left_usd": account.left_usd(budgets[name]),
            "weight": account.price(budgets[name]),
            "account": orjson.Fragment(storable_json(record_of(budgets[name], key, account))),
        }
        for (name, key), account in accounts.items()
    ]
    if rows:
        conn.execute(statements.SAVE_ACCOUNTS, {"rows": orjson.dumps(rows).decode()})


def list_accounts(conn: Connection, budgets: Iterable[str]) -> list[Place]:
    """Where these budgets have accounts that hold something."""
    rows = conn.execute(statements.LIST_ACCOUNTS, {"budgets": list(budgets)})
    return [(row.budget, row.key) for row in rows]


def forget_accounts(conn: Connection, days: int, most: int) -> list[Place]:
    """Drop up to `most` accounts of metadata values that no query has had for so many days."""
    rows = conn.execute(statements.FORGET_ACCOUNTS, {"days": days, "most": most})
    return [(row.budget, row.key) for row in rows]


def _account(record: str | None, budget: Budget) -> Account:
    if record is None:
        return Account()
    return account_of(BudgetAccount.model_validate_json(record), budget)
