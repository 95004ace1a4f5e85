"""Query and context → decision and ranking: constraints, utilities, propensities, duplicates."""

from metallm_stream.route.decide import decide
from metallm_stream.route.fingerprint import fingerprint
from metallm_stream.route.records import Arrival, Decided
from metallm_stream.route.trade_off import TradeOff
from metallm_stream.route.window import RecentIds

__all__ = ["Arrival", "Decided", "RecentIds", "TradeOff", "decide", "fingerprint"]
