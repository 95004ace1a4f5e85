"""Pickles that are read without trusting them.

Invariant: reading calls nothing but allowed classes and the three functions below, and sets
attributes of instances alone: those of River's learning parts, of one named module, and of a few
harmless types of Python. NumPy arrays are rebuilt from numbers.

Python's own `pickle` says that restricting what it finds is not enough on its own: a found class
can be changed, and any object be called. So the instructions that call and set are guarded too,
which the reader written in Python allows and the one in C does not.
"""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import types
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from river.base import Base

PROTOCOL = 4  # without out-of-band buffers, and with instructions for what older ones call
# Parts of River that learn; not those that read files, listen to streams or wrap other libraries.
_RIVER = frozenset((
    "_river_rust", "active", "anomaly", "bandit", "base", "cluster", "compose", "covariance",
    "drift", "dummy", "ensemble", "facto", "feature_extraction", "feature_selection", "forest",
    "imblearn", "linear_model", "metrics", "misc", "model_selection", "multiclass", "multioutput",
    "naive_bayes", "neighbors", "optim", "preprocessing", "proba", "rules", "stats",
    "time_series", "tree", "utils",
))  # fmt: skip
_PLAIN = {
    "builtins": ["bool", "complex", "dict", "float", "frozenset", "int", "list", "object", "set"],
    "collections": ["Counter", "OrderedDict", "defaultdict", "deque"],
    "datetime": ["date", "datetime", "timedelta"],
    "functools": ["partial"],
    "random": ["Random"],
}
_NUMBERS = "biufc"  # kinds of NumPy types that hold numbers and no references


_UNUSED = b"".join((
    pickle.INST, pickle.OBJ, pickle.PERSID, pickle.BINPERSID, pickle.EXT1, pickle.EXT2,
    pickle.EXT4, pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
))  # fmt: skip


def dumps(item: object) -> bytes:
    """An object as a pickle that `loads` can read, if it holds nothing that is not allowed.

    Raises what `pickle` raises for what cannot be pickled at all.
    """
    stream = io.BytesIO()
    _Pickler(stream, PROTOCOL).dump(item)
    return stream.getvalue()


def loads(raw: bytes, module: str) -> object:
    """The object in a pickle; besides what is always allowed, it may hold classes of `module`.

    Raises `pickle.UnpicklingError` for everything else.
    """
    try:
        return _Unpickler(io.BytesIO(raw), module).load()
    except (ArithmeticError, AttributeError, EOFError, ImportError, LookupError) as exc:
        raise pickle.UnpicklingError(f"{type(exc).__name__}: {exc}") from exc
    except (MemoryError, TypeError, ValueError, struct.error) as exc:
        raise pickle.UnpicklingError(f"{type(exc).__name__}: {exc}") from exc


# What stands in the pickle for what would need an unsafe function to be rebuilt.


def array(kind: str, shape: tuple[int, ...], order: str, raw: bytes) -> NDArray[Any]:
    """A NumPy array of numbers."""
    if np.dtype(kind).kind not in _NUMBERS or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array of {kind!r} in order {order!r}")
    flat = np.frombuffer(raw, dtype=np.dtype(kind))
    return flat.reshape(shape, order="F" if order == "F" else "C").copy(order="K")


def scalar(kind: str, raw: bytes) -> object:
    """A NumPy number."""
    return array(kind, (1,), "C", raw)[0]


def maker(example: Base) -> Callable[[], Base]:
    """River's way to make new statistics: the `clone` of an example."""
    if not isinstance(example, Base):
        raise pickle.UnpicklingError(f"the clone of a {type(example).__name__}")
    return example.clone


_OWN = {"array": array, "scalar": scalar, "maker": maker}


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj: object) -> Any:  # noqa: ANN401 - as the standard library has it
        if type(obj) is np.ndarray and obj.dtype.kind in _NUMBERS:
            is_fortran = obj.flags.f_contiguous and not obj.flags.c_contiguous
            raw = obj.tobytes("F") if is_fortran else obj.tobytes("C")
            return array, (obj.dtype.str, obj.shape, "F" if is_fortran else "C", raw)
        if isinstance(obj, np.generic) and obj.dtype.kind in _NUMBERS:
            return scalar, (obj.dtype.str, obj.tobytes())
        if isinstance(obj, types.MethodType) and obj.__name__ == "clone":
            return maker, (obj.__self__,)
        return NotImplemented


_LOAD: dict[int, Callable[[Any], None]] = pickle._Unpickler.dispatch  # noqa: SLF001


class _Unpickler(pickle._Unpickler):  # noqa: SLF001 - the reader whose instructions can be guarded
    stack: list[Any]

    def __init__(self, stream: io.BytesIO, module: str) -> None:
        super().__init__(stream)
        self._module = module

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - as it is there
        if module == __name__ and name in _OWN:
            return _OWN[name]
        is_named = module == self._module or _learns(module)
        if (is_named or name in _PLAIN.get(module, ())) and "." not in name:
            found = getattr(importlib.import_module(module), name, None)
            # Neither functions, nor what a module has itself imported from elsewhere.
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")

    def _call(self) -> None:
        self._require_maker(self.stack[-2])
        _LOAD[pickle.REDUCE[0]](self)

    def _make(self) -> None:
        self._require_maker(self.stack[-2])
        _LOAD[pickle.NEWOBJ[0]](self)

    def _make_with_names(self) -> None:
        self._require_maker(self.stack[-3])
        _LOAD[pickle.NEWOBJ_EX[0]](self)

    def _set_state(self) -> None:
        made, state = self.stack[-2:]
        # What is set on a method is set on its function.
        if _may_be_called(made) or isinstance(made, types.MethodType):
            raise pickle.UnpicklingError(f"it changes {made.__name__}")
        for part in state if isinstance(state, tuple) else (state,):
            for name in part if isinstance(part, dict) else ():
                if isinstance(name, str) and name.startswith("__"):
                    raise pickle.UnpicklingError(f"it sets {name}")
        _LOAD[pickle.BUILD[0]](self)

    def _require_maker(self, item: object) -> None:
        if not _may_be_called(item):
            raise pickle.UnpicklingError(f"it calls a {type(item).__name__}")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: load for code, load in _LOAD.items() if code not in _UNUSED
    } | {
        pickle.REDUCE[0]: _call,
        pickle.NEWOBJ[0]: _make,
        pickle.NEWOBJ_EX[0]: _make_with_names,
        pickle.BUILD[0]: _set_state,
    }


def _may_be_called(item: object) -> bool:
    """Of all that can be found: a class, or one of our functions."""
    return isinstance(item, type) or any(item is known for known in _OWN.values())


def _learns(module: str) -> bool:
    first, _, rest = module.partition(".")
    return first == "river" and rest.partition(".")[0] in _RIVER and ".datasets" not in module
