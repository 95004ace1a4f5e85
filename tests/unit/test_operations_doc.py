"""Alerts, runbook and metrics belong together: nothing is named that there is not."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from metallm_stream.serve.call_metrics import CallMetrics
from metallm_stream.serve.learner_metrics import LearnerMetrics
from metallm_stream.serve.metrics import LoopMetrics
from metallm_stream.serve.router_metrics import RouterMetrics
from metallm_stream.settings import Settings
from tests.readme import REPOSITORY, tables

OPERATIONS = REPOSITORY / "docs" / "operations.md"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((REPOSITORY / "docs" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
NAMES = re.compile(r"\b(?:metallm|process)_\w+")
FOREIGN = {"process_start_time_seconds", "metallm_stream"}


def ours(metrics: LoopMetrics) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Kind and labels of each family that a service exports, by the name it is described under."""
    metrics.stepped(lambda: {("queries", 0): 0})
    by_name = metrics.registry._names_to_collectors
    found = {}
    for family in metrics.registry.collect():
        if family.name.startswith("metallm_"):
            told = [tuple(sample.labels) for sample in family.samples] or [()]
            labels = getattr(by_name.get(family.name), "_labelnames", told[0])
            total = "_total" if family.type == "counter" else ""
            found[family.name + total] = (family.type, tuple(labels))
    return found


ALL: dict[str, LoopMetrics] = {
    "router": RouterMetrics("0"),
    "worker": CallMetrics("worker", "0"),
    "judge": CallMetrics("judge", "0"),
    "learner": LearnerMetrics("0"),
}
EXPORTED = {name: kind for metrics in ALL.values() for name, kind in ours(metrics).items()}
SAMPLES = {
    name.removesuffix("_total") + suffix
    for name, (kind, _) in EXPORTED.items()
    for suffix in SUFFIXES[kind]
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_is_about_metrics_that_there_are_and_has_its_section(rule: dict[str, Any]) -> None:
    """A metric that is exported, a severity, a summary, and what to do."""
    named = set(NAMES.findall(rule["expr"])) - FOREIGN
    assert named <= SAMPLES
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert rule["annotations"]["summary"]
    assert f"\n### {rule['alert']}\n\n" in OPERATIONS.read_text()


def test_every_section_about_an_alert_has_its_alert() -> None:
    """In the same order."""
    sections = re.findall(r"^### (Metallm\w+)$", OPERATIONS.read_text(), re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]


def test_labels_in_alerts_are_those_of_the_metric() -> None:
    """What stands in braces behind a metric's name, and what it is summed and matched by."""
    known = {"job", "instance", "le"}.union(*(labels for _, labels in EXPORTED.values()))
    for rule in RULES:
        for listed in re.findall(r"\b(?:by|on|group_left) \(([^)]*)\)", rule["expr"]):
            assert set(re.findall(r"\w+", listed)) <= known, rule["alert"]
        for name, braces in re.findall(r"\b(metallm_\w+)\{([^}]*)\}", rule["expr"]):
            base = next(n for n in EXPORTED if name.startswith(n.removesuffix("_total")))
            assert set(re.findall(r"(\w+)(?:=|!)", braces)) <= set(EXPORTED[base][1]), rule["alert"]


def test_an_alert_on_a_share_lacks_no_term_before_there_is_anything_to_count() -> None:
    """A sum over nothing is nothing, and so is all that it is added to or divided by."""
    shown = {
        sample.name
        for metrics in ALL.values()
        for family in metrics.registry.collect()
        for sample in family.samples
    }
    for rule in RULES:
        expression = " ".join(rule["expr"].split())
        terms = re.findall(r"sum\(\w+\((\w+)[^)]*\)\)( or vector\(0\))?", expression)
        for name, otherwise in terms if len(terms) > 1 else ():
            assert name in shown or otherwise, rule["alert"]


def test_an_old_policy_is_told_of_only_where_there_was_something_to_learn() -> None:
    """Decisions alone, as of workers that are down, teach nothing."""
    (rule,) = (rule for rule in RULES if rule["alert"] == "MetallmPolicyOld")
    assert 'metallm_interactions_total{part!="decision"}' in rule["expr"]


def test_every_metric_is_described_with_its_services_and_labels() -> None:
    """And none that there is not."""
    described = {}
    for names, service, labels, said in tables(OPERATIONS, "metric"):
        assert said
        for name in re.findall(r"`(\w+)`", names):
            described[name] = (service, tuple(re.findall(r"`(\w+)`", labels)))
    assert described.keys() == EXPORTED.keys()
    for name, (service, labels) in described.items():
        assert labels == EXPORTED[name][1], name
        having = [each for each, metrics in ALL.items() if name in ours(metrics)]
        assert having == ([*ALL] if service == "all" else service.split(", ")), name


def test_metrics_in_the_examples_are_exported() -> None:
    """Those in code, inline or in a block."""
    table = {name for cells in tables(OPERATIONS, "metric") for name in NAMES.findall(cells[0])}
    named = set(NAMES.findall(OPERATIONS.read_text())) - FOREIGN - table
    assert named <= SAMPLES


def test_the_bound_of_liveness_is_the_default() -> None:
    """As the table of paths has it."""
    assert f"`METALLM_HTTP__STUCK_AFTER_S` ({Settings().http.stuck_after_s:.0f} s)" in (
        OPERATIONS.read_text()
    )
