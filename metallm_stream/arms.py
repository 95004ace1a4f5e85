"""The catalogue of arms: a fold over the compacted `models` topic.

Invariant: the catalogue depends only on the newest record of each key, so that replaying the
topic from anywhere before those records gives the same catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Model


class Catalogue:
    """The arms that may be chosen now, by name, in alphabetical order.

    >>> catalogue = Catalogue()
    >>> catalogue.apply("mini", Model(arm="mini", provider="openai", model="gpt-4o-mini"))
    >>> list(catalogue), catalogue.revision
    (['mini'], 1)
    >>> catalogue.apply("mini", None)
    >>> len(catalogue)
    0
    """

    def __init__(self) -> None:
        self._arms: dict[str, Model] = {}
        self.revision = 0

    def apply(self, key: str, model: Model | None) -> None:
        """Fold in one record; `None` is the tombstone that removes the arm.

        Raises `InvalidEvent` if the key and the record's `arm` differ.
        """
        if model is not None and model.arm != key:
            raise InvalidEvent(f"key {key!r} differs from arm {model.arm!r}: use the arm as key")
        arms = dict(self._arms)
        if model is None:
            arms.pop(key, None)
        else:
            arms[key] = model
        self._arms = dict(sorted(arms.items()))
        self.revision += 1

    @property
    def arms(self) -> Mapping[str, Model]:
        """The arms by name, read-only."""
        return MappingProxyType(self._arms)

    def __iter__(self) -> Iterator[str]:
        return iter(self._arms)

    def __len__(self) -> int:
        return len(self._arms)

    def __getitem__(self, arm: str) -> Model:
        return self._arms[arm]

    def __contains__(self, arm: object) -> bool:
        return arm in self._arms
