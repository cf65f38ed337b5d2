# SPDX-License-Identifier: Apache-2.0
"""What a real agent exposes, against what its page, the alert rules and the dashboard say."""

import json
import os
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import parser

from tests.functional.agents import Installation
from tests.functional.processes import wait_until
from tests.functional.status_pages import StatusServer

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "doc" / "source" / "metrics.rst").read_text()
ALERTS = yaml.safe_load((ROOT / "etc" / "cepheid" / "prometheus-alerts.yaml").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "etc" / "cepheid" / "grafana-dashboard.json").read_text())

SETTINGS = """
[hypervisor]
uri = test:///default
[compute]
instances_path = {path}/instances
[status]
enabled = true
port = 0
[update_available_resource]
spacing = 1
[oslo_messaging_notifications]
driver = messagingv2
transport_url = rabbit://127.0.0.1:1/
"""

#: Those of the scrape itself, and of prometheus_client's process collector.
FOREIGN = {
    "up": set(),
    "process_resident_memory_bytes": set(),
}

#: What Prometheus adds to each series.
ADDED = {"job", "instance"}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """What an agent of all bundled tasks exposes after a while."""
    path = tmp_path_factory.mktemp("agent")
    agent = Installation(path, SETTINGS.format(path=path))
    agent.environment = {**os.environ}
    agent.environment.pop("CEPHEID_TEST_CONCURRENCY", None)
    agent.run("db", "sync")
    agent.run("host", "adopt")
    agent.start_agent()
    server = StatusServer(path, agent.log)
    try:
        # The journal's size is left out while somebody else holds the journal.
        late = ("cepheid_instances{", "\ncepheid_journal_size_bytes ")
        texts = []

        def is_complete():
            texts.append(server.get("/metrics"))
            return all(name in texts[-1].text for name in late)

        wait_until(is_complete, agent.read_log)
        text = texts[-1]
        assert text.headers["Content-Type"].startswith("text/plain; version=")
        yield text.text
    finally:
        agent.close()


def families(text):
    return {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in parser.text_string_to_metric_families(text)
        if family.name.startswith("cepheid_")
    }


def documented():
    """Return what the page says: by name, the type and the labels."""
    rows = re.findall(
        r"   \* - ``(cepheid_\w+)``\n     - (\w+)\n     - ([\w, ]+)\n     - (\S.*)", PAGE
    )
    return {
        name: (kind, set() if labels == "none" else set(labels.split(", ")))
        for name, kind, labels, _ in rows
    }


def labels_of(family):
    found = [set(sample.labels) - {"le"} for sample in family.samples]
    return set.union(*found) if found else None


def test_the_page_has_every_metric_and_no_other(scraped):
    exposed = families(scraped)
    said = documented()
    assert said.keys() == exposed.keys()
    assert {name: kind for name, (kind, _) in said.items()} == {
        name: family.type for name, family in exposed.items()
    }
    for name, family in exposed.items():
        if family.samples:
            assert labels_of(family) == said[name][1], name


def test_every_metric_has_a_name_and_a_help_that_a_linter_accepts(scraped):
    # As promtool's linter has it. Source: prometheus/client_golang, promlint.
    for name, family in families(scraped).items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", name)
        assert family.documentation.endswith("."), name
        assert (family.type == "counter") == name.endswith("_total")
        if family.type == "gauge":
            assert not name.endswith(("_count", "_sum", "_bucket", "_info_total"))
        assert not re.search(r"_(ms|millis|milliseconds|minutes|hours|mb|kb|mib|gib)(_|$)", name)
        assert family.type not in name.split("_")


def test_little_is_exposed_for_each_task(scraped):
    assert len(scraped) < 128 * 1024


def expressions():
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["definition"]


def selectors(expression):
    """Return the metrics that an expression names, each with the labels of its matchers."""
    bare = re.sub(r'"[^"]*"|`[^`]*`', '""', expression)
    return [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers or "")))
        for name, matchers in re.findall(r"\b(cepheid_\w+|process_\w+|up)\b(?:\{([^}]*)\})?", bare)
    ]


def known_labels():
    known = dict(FOREIGN)
    for name, (kind, labels) in documented().items():
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
        for suffix in suffixes.get(kind, ("",)):
            known[name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return known


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_alerts_and_dashboard_name_metrics_and_labels_that_there_are(where, expression):
    known = known_labels()
    found = selectors(expression)
    assert found, where
    usable = set()
    for name, labels in found:
        assert name in known, (where, name)
        assert labels <= known[name] | ADDED, (where, name)
        usable |= known[name] | ADDED
    for grouped in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", grouped)) <= usable, where
    assert re.search(r"\b(by|without|on|ignoring) \(", expression) or "group_left" not in expression


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_what_and_where_to_read_on(rule):
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    notes = rule["annotations"]
    assert notes["runbook"] == f"metrics.rst, {rule['alert']}"
    assert f"   * - ``{rule['alert']}``\n" in PAGE
    usable = set(ADDED)
    for name, _ in selectors(rule["expr"]):
        usable |= known_labels()[name]
    for text in (notes["summary"], notes["description"]):
        assert set(re.findall(r"\$labels\.(\w+)", text)) <= usable


def test_the_page_has_the_alerts_that_there_are_and_no_other():
    names = [rule["alert"] for rule in RULES]
    assert re.findall(r"^   \* - ``(Cepheid\w+)``$", PAGE, re.MULTILINE) == names


def test_the_dashboard_can_be_provisioned():
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD.get("id") is None
    assert DASHBOARD["uid"] == "cepheid"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert names == {"datasource", "job", "instance"}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["description"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            for name in re.findall(r"\$(\w+)", target["expr"]):
                assert name in names
        for name in re.findall(r"\{\{(\w+)\}\}", json.dumps(panel)):
            labels = set().union(*(labels_ for t in panel["targets"]
                                   for labels_ in [legend_labels(t["expr"])]))  # fmt: skip
            assert name in labels, panel["title"]


def legend_labels(expression):
    """Return the labels that the result of an expression has."""
    grouped = re.findall(r"\bby \(([^)]*)\)", expression)
    if grouped:
        return set(re.split(r",\s*", grouped[0])) - {"le"}
    return set().union(*(known_labels()[name] | ADDED for name, _ in selectors(expression)))
