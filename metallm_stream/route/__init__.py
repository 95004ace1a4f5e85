"""Query and context → decision and ranking: constraints, utilities, budgets, propensities."""

from metallm_stream.route.account import Account, Charge
from metallm_stream.route.arrival import Arrival
from metallm_stream.route.budget import Budget
from metallm_stream.route.charges import charge_of
from metallm_stream.route.decide import decide
from metallm_stream.route.fingerprint import fingerprint
from metallm_stream.route.outages import Outages
from metallm_stream.route.pacer import (
    Pacer,
    Reservation,
    account_of,
    record_of,
    reservation,
)
from metallm_stream.route.records import Decided
from metallm_stream.route.sole_account import SoleAccount
from metallm_stream.route.trade_off import TradeOff
from metallm_stream.route.window import RecentIds

__all__ = [
    "Account",
    "Arrival",
    "Budget",
    "Charge",
    "Decided",
    "Outages",
    "Pacer",
    "RecentIds",
    "Reservation",
    "SoleAccount",
    "TradeOff",
    "account_of",
    "charge_of",
    "decide",
    "fingerprint",
    "record_of",
    "reservation",
]
