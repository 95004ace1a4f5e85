"""The order of features, so that River's dicts and arrays mean the same columns.

Invariant: a feature keeps its column for ever; new ones are appended.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray


class Features:
    """Columns by feature name; column j of an array is the feature named j.

    `are_numbers` tells whether feature j is column j, so that columns mean the same elsewhere.

    >>> features = Features()
    >>> features.add(["length", "code"])
    >>> features.row_of_dict({"code": 1.0, "never seen": 5.0})
    array([[0., 1.]])
    """

    def __init__(self) -> None:
        self._columns: dict[Hashable, int] = {}
        self.are_numbers = True  # feature j is column j, so arrays are rows as they are
        self._width: int | None = None  # of all arrays, once one was learned from

    def __len__(self) -> int:
        return len(self._columns)

    def add(self, names: Iterable[Hashable]) -> None:
        """Give each new name the next column."""
        for name in names:
            if name not in self._columns:
                self.are_numbers = self.are_numbers and name == len(self._columns)
                self._columns[name] = len(self._columns)

    def add_columns(self, width: int) -> None:
        """Give the features named 0 to `width − 1` columns, and all later arrays this width."""
        self._require(width)
        self._width = width
        if not self.are_numbers or width > len(self._columns):
            self.add(range(width))

    def row_of_dict(self, context: Mapping[Hashable, float]) -> NDArray[np.float64]:
        """One context as an array `(1, d)`; features without a column are left out."""
        row = np.zeros((1, len(self._columns)))
        columns = self._columns
        known = [(columns[name], value) for name, value in context.items() if name in columns]
        if known:
            row[0, [column for column, _ in known]] = [value for _, value in known]
        return row

    def rows_of_array(self, given: NDArray[np.floating]) -> NDArray[np.floating]:
        """Contexts `(n, width)` as an array `(n, d)`; columns not known yet are left out.

        Raises `ValueError` for another width than was learned from.
        """
        self._require(given.shape[1])
        if self.are_numbers and given.shape[1] == len(self._columns):
            return given
        known = [j for j in range(given.shape[1]) if j in self._columns]
        rows = np.zeros((len(given), len(self._columns)), given.dtype)
        rows[:, [self._columns[j] for j in known]] = given[:, known]
        return rows

    def _require(self, width: int) -> None:
        if self._width not in (None, width):
            raise ValueError(
                f"contexts must have {self._width} features, as those learned from before, got "
                f"{width}: encode all with the same encoder"
            )
