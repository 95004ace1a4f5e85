"""States of River's policies: what may be read, what not, and that folding is exact."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import pickle
import random
import shutil
from collections import Counter, defaultdict, deque
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, preprocessing, stats, stream, tree
from river.bandit.base import ContextualPolicy

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy import restricted_pickle
from metallm_stream.policy.river_policy import river_policy
from metallm_stream.policy.river_state import (
    MAX_PARTS,
    PART_BYTES,
    Taught,
    UnsafeState,
    difference,
    from_bytes,
    learn,
    nothing_learned,
    split,
    to_bytes,
)

LINUCB = river_policy("river:LinUCBDisjoint")
D = 6


class Own(ContextualPolicy):
    """Holds whatever a test gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.held: object = None

    def _pull(self, arm_ids, context):  # noqa: ARG002 - River's signature
        return arm_ids[0]


class Piece:
    """A class of the policy's own module."""


def helper() -> None:
    """A function of the policy's own module."""


OWN = river_policy(f"{__name__}.Own")


def lessons(count: int, seed: int = 0) -> list[Taught]:
    rng = np.random.default_rng(seed)
    return [
        Taught("abc"[i % 3], rng.normal(size=D).astype(np.float32), float(rng.random()))
        for i in range(count)
    ]


def call(module: str, name: str, *arguments: object) -> bytes:
    """A pickle that calls `module.name(*arguments)`, as `pickle` itself would run it."""
    out = io.BytesIO()
    writer = pickle._Pickler(out, 4)
    writer.save(module)
    writer.save(name)
    out.write(pickle.STACK_GLOBAL)
    writer.save(arguments)
    out.write(pickle.REDUCE + pickle.STOP)
    return b"\x80\x04" + out.getvalue()


ATTACKS = [
    ("os", "system", "echo"),
    ("posix", "system", "echo"),
    ("subprocess", "Popen", ["true"]),
    ("builtins", "eval", "1"),
    ("builtins", "exec", "1"),
    ("builtins", "getattr", {}, "clear"),
    ("builtins", "__import__", "os"),
    ("builtins", "open", "/nowhere"),
    ("builtins", "type", "T", (), {}),
    ("importlib", "import_module", "os"),
    ("operator", "attrgetter", "a"),
    ("numpy", "load", "/nowhere"),
    ("numpy", "frompyfunc", None, 1, 1),
    ("numpy", "dtype", "O"),
    ("numpy", "ndarray", (1,)),
    ("numpy._core.multiarray", "_reconstruct", None, (0,), b"b"),
    ("pickle", "loads", b"N."),
    ("river.stream", "iter_csv", "/nowhere"),
    ("river.stream.cache", "Cache", "/nowhere"),
    ("river.datasets.base", "RemoteDataset"),
    ("river.bandit.datasets.base", "BanditDataset"),
    ("river.checks", "yield_checks"),
    ("river.utils.math", "sherman_morrison"),
    ("river.base.base", "copy.deepcopy", []),
    ("river.base.base", "Base.clone.__globals__", []),
    ("river.base.base", "logging", []),
    ("river.stats.base", "numbers", []),
    ("river.bandit.lin_ucb", "functools.partial", print),
    ("functools", "reduce", []),
    ("collections", "namedtuple", "a", "b"),
    ("random", "SystemRandom"),
    ("copyreg", "_reconstructor", object, object, None),
    ("metallm_stream.policy.river_state", "from_bytes", None, b""),
    ("metallm_stream.policy.restricted_pickle", "loads", b"N.", "os"),
    ("metallm_stream.policy.restricted_pickle", "importlib.import_module", "os"),
    (__name__, "helper"),
    (__name__, "os.system", "echo"),
]


@pytest.mark.parametrize(("module", "name", "arguments"), [(a[0], a[1], a[2:]) for a in ATTACKS])
def test_what_could_run_something_is_refused(
    module: str, name: str, arguments: tuple[object, ...]
) -> None:
    """By name, before anything is called, for policies of River's and for one's own."""
    raw = call(module, name, *(None if item is print else item for item in arguments))
    for policy in (LINUCB, OWN):
        with pytest.raises(UnsafeState, match=f"asks for {module}.{name}"):
            from_bytes(policy, raw)


def program(*parts: object) -> bytes:
    """Instructions, and between them objects that are written as usual; texts are strings."""
    out = io.BytesIO()
    writer = pickle._Pickler(out, 4)
    for part in parts:
        out.write(part) if isinstance(part, bytes) else writer.save(part)
    return b"\x80\x04" + out.getvalue() + pickle.STOP


MEAN = ("river.stats.mean", "Mean", pickle.STACK_GLOBAL)
ARRAY = ("metallm_stream.policy.restricted_pickle", "array", pickle.STACK_GLOBAL)
NOTHING = pickle.EMPTY_TUPLE
ONE = (*MEAN, NOTHING, pickle.REDUCE)
MAKER = (
    *("metallm_stream.policy.restricted_pickle", "maker", pickle.STACK_GLOBAL),
    *(*ONE, pickle.TUPLE1, pickle.REDUCE),
)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((*MEAN, (None, {"get": 1}), pickle.BUILD), "it changes Mean"),
        ((*ARRAY, {"x": 1}, pickle.BUILD), "it changes array"),
        ((*MAKER, {"x": 1}, pickle.BUILD), "it changes clone"),
        (
            (*MEAN, NOTHING, pickle.REDUCE, {"__setstate__": 1}, pickle.BUILD),
            "it sets __setstate__",
        ),
        (
            (*MEAN, NOTHING, pickle.REDUCE, (None, {"__class__": 1}), pickle.BUILD),
            "it sets __class__",
        ),
        ((*MEAN, NOTHING, pickle.REDUCE, NOTHING, pickle.REDUCE), "it calls a Mean"),
        ((*MEAN, NOTHING, pickle.REDUCE, NOTHING, pickle.NEWOBJ), "it calls a Mean"),
        ((*MEAN, NOTHING, pickle.REDUCE, NOTHING, {}, pickle.NEWOBJ_EX), "it calls a Mean"),
        ((pickle.MARK, *MEAN, pickle.OBJ), "KeyError"),
        ((pickle.MARK, pickle.INST + b"os\nsystem\n"), "KeyError"),
        (("name", pickle.BINPERSID), "KeyError"),
        ((pickle.EXT1 + b"\x01",), "KeyError"),
        ((pickle.GLOBAL + b"os\nsystem\n",), "it asks for os.system"),
        ((pickle.BYTEARRAY8 + b"\xff" * 8,), "KeyError"),
    ],
)
def test_what_is_found_is_neither_changed_nor_abused(parts: tuple[object], reason: str) -> None:
    """Classes keep their attributes, objects are not called, and old instructions are unknown."""
    before = dict(vars(stats.Mean))
    with pytest.raises(UnsafeState, match=reason):
        from_bytes(LINUCB, program(*parts))
    assert dict(vars(stats.Mean)) == before


def test_the_attack_would_work_on_a_reader_that_trusts() -> None:
    """So the refusals above refuse something."""
    assert pickle.loads(call("builtins", "eval", "6 * 7")) == 42  # noqa: S301 - our own bytes


@pytest.mark.parametrize("value", [os.system, builtins.eval, np.load, shutil.rmtree, helper, len])
def test_functions_do_not_come_in_behind_a_policy(value: object) -> None:
    """A whole policy that holds one in an attribute is refused like one alone."""
    policy = OWN.make()
    policy.held = value
    with pytest.raises(UnsafeState, match="asks for"):
        from_bytes(OWN, pickle.dumps(policy, 4))


@pytest.mark.parametrize("kind", ["O", "V8", "i4,O", "M8[s]", "U3"])
def test_arrays_are_of_numbers(kind: str) -> None:
    """What holds references, or has a type made up of others, is none."""
    raw = call("metallm_stream.policy.restricted_pickle", "array", kind, (1,), "C", b"12345678")
    with pytest.raises(UnsafeState, match="an array of"):
        from_bytes(LINUCB, raw)


def test_only_objects_of_rivers_have_a_clone_to_hold() -> None:
    """Not whatever else has an attribute of that name."""
    raw = call("metallm_stream.policy.restricted_pickle", "maker", {})
    with pytest.raises(UnsafeState, match="the clone of a dict"):
        from_bytes(LINUCB, raw)


@pytest.mark.parametrize(
    "raw", [b"", b"\x80\x04", b"no pickle", b"\x80\x04N.", pickle.dumps({"a": 1}, 4)]
)
def test_what_is_no_state_of_the_policy_is_refused(raw: bytes) -> None:
    """Nothing, rubbish, and another object."""
    with pytest.raises(UnsafeState, match="river:LinUCBDisjoint"):
        from_bytes(LINUCB, raw)


def test_a_cut_state_is_refused() -> None:
    """Wherever it is cut."""
    raw = learn(LINUCB, nothing_learned(LINUCB, D), lessons(5))
    for end in range(0, len(raw), 97):
        with pytest.raises(UnsafeState):
            from_bytes(LINUCB, raw[:end])


HELD = [
    linear_model.LogisticRegression(),
    preprocessing.StandardScaler() | linear_model.LinearRegression(),
    tree.HoeffdingTreeClassifier(),
    stats.EWMean(0.3),
    random.Random(3),
    Counter("aab"),
    defaultdict(float, a=1.0),
    deque([1, 2], maxlen=3),
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(12, dtype=np.int32)[::2],
    np.zeros((0, 4)),
    np.float32(0.5),
    np.int64(7),
    {"a": [1, (2.0, None, True)], frozenset("ab"): {"c"}},
]


@pytest.mark.parametrize("held", HELD, ids=lambda item: type(item).__name__)
def test_what_policies_hold_comes_back_as_it_was(held: object) -> None:
    """River's models, NumPy's arrays in their order, and Python's containers."""
    policy = OWN.make()
    policy.held = held
    back = from_bytes(OWN, to_bytes(OWN, policy))
    assert difference(back, policy) == 0.0
    if isinstance(held, np.ndarray):
        assert back.held.flags.f_contiguous == np.array(held, order="K").flags.f_contiguous
        assert back.held.flags.writeable


def test_a_taught_model_comes_back_taught() -> None:
    """A tree of River's with its leaves and statistics."""
    model = tree.HoeffdingTreeClassifier(grace_period=20)
    rng = np.random.default_rng(2)
    for _ in range(300):
        x = rng.random(2).tolist()
        model.learn_one(dict(enumerate(x)), x[0] > 0.5)
    policy = OWN.make()
    policy.held = model
    back = from_bytes(OWN, to_bytes(OWN, policy)).held
    for x in ({0: 0.1, 1: 0.5}, {0: 0.9, 1: 0.5}):
        assert back.predict_proba_one(x) == model.predict_proba_one(x)


def test_classes_of_the_policys_own_module_may_be_held() -> None:
    """And no other module's: the policy is refused when it is tried."""
    policy = OWN.make()
    policy.held = Piece()
    assert type(from_bytes(OWN, to_bytes(OWN, policy)).held) is Piece
    policy.held = stream.Cache("/nowhere")
    with pytest.raises(UnsafeState, match=r"river\.stream\.cache\.Cache"):
        to_bytes(OWN, policy)


def test_a_model_that_holds_functions_is_refused_when_it_is_written() -> None:
    """As River's regression trees do: no state is stored that nobody can read."""
    model = tree.HoeffdingTreeRegressor()
    model.learn_one({0: 1.0}, 1.0)
    policy = OWN.make()
    policy.held = model
    with pytest.raises(UnsafeState, match="EBSTNode"):
        to_bytes(OWN, policy)


def test_a_lambda_is_refused_when_it_is_written() -> None:
    """With the setting that brought it."""
    policy = OWN.make()
    policy.held = lambda: 1
    with pytest.raises(ConfigurationError, match="METALLM_ROUTER__POLICY"):
        to_bytes(OWN, policy)


@given(cuts=st.lists(st.integers(0, 40), max_size=5), seed=st.integers(0, 9))
@settings(max_examples=20)
def test_a_state_is_the_fold_of_its_lessons_at_every_cut(cuts: list[int], seed: int) -> None:
    """However the lessons are parted into batches, with a pickle between them."""
    taught, start = lessons(40, seed), nothing_learned(LINUCB, D)
    edges = [0, *sorted(cuts), 40]
    state = start
    for begin, end in itertools.pairwise(edges):
        state = learn(LINUCB, state, taught[begin:end])
    whole = learn(LINUCB, start, taught)
    assert difference(from_bytes(LINUCB, state), from_bytes(LINUCB, whole)) <= 1e-12


def test_learning_leaves_the_former_state_as_it_was() -> None:
    """A batch that is rolled back has taught nothing."""
    start = nothing_learned(LINUCB, D)
    before = bytes(start)
    assert learn(LINUCB, start, lessons(3)) != start == before
    again = learn(LINUCB, start, [])
    assert difference(from_bytes(LINUCB, again), from_bytes(LINUCB, start)) == 0.0


def test_a_lesson_more_is_a_difference() -> None:
    """Of counts at least; and of another kind of object it is infinite."""
    start = nothing_learned(LINUCB, D)
    one, two = (from_bytes(LINUCB, learn(LINUCB, start, lessons(n))) for n in (20, 21))
    assert difference(one, two) > 1e-3
    assert difference(one, from_bytes(LINUCB, start)) == np.inf
    assert difference(one, OWN.make()) == np.inf
    assert difference({"a": 1.0}, {"b": 1.0}) == np.inf
    assert difference([1.0, np.nan], [1.0, 2.0]) == np.inf


def test_large_states_are_parted_and_too_large_ones_refused() -> None:
    """Each part fits a record of 1 MB in base64; the refusal says what to do."""
    policy = OWN.make()
    policy.held = np.zeros(PART_BYTES // 8)
    raw = to_bytes(OWN, policy)
    assert [len(part) for part in split(raw)] == [PART_BYTES, len(raw) - PART_BYTES]
    assert b"".join(split(raw)) == raw
    assert PART_BYTES * 4 / 3 < 900_000
    policy.held = np.zeros(MAX_PARTS * PART_BYTES // 8)
    with pytest.raises(ConfigurationError, match=r"METALLM_ENCODER=wordllama:32"):
        to_bytes(OWN, policy)


def test_the_reader_is_not_pickles_own() -> None:
    """What is written can also be read by it, so the reader's list is what protects."""
    raw = nothing_learned(LINUCB, D)
    assert type(pickle.loads(raw)) is LINUCB.cls  # noqa: S301 - our own bytes
    assert restricted_pickle.PROTOCOL == 4


def test_a_difference_deep_in_a_deque_is_found() -> None:
    """Pieces that live only while they are compared lend their ids to the next ones."""
    parts = [[SimpleNamespace(of=deque([1.0, 2.0])) for _ in range(100)] for _ in range(2)]
    for number in range(100):
        parts[1][number].of[1] = 77.0
        assert difference(*parts) > 0.9
        parts[1][number].of[1] = 2.0
    assert difference(*parts) == 0
