# SPDX-License-Identifier: Apache-2.0
"""What becomes of the numbers that plugins tell."""

import email.message

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from cepheid.metric import Histogram, Metric, Summary, gauge
from cepheid.status.messages import Request
from cepheid.status.metrics import Exposition


def scrape(*sources, accept=""):
    exposition = Exposition(lambda: sources)
    headers = email.message.Message()
    headers["Accept"] = accept
    answer = exposition.answer(Request("GET", "/metrics", {}, headers, b"", "127.0.0.1"))
    assert answer.status == 200
    return exposition, answer


def samples(answer):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def test_every_kind_of_metric_is_exposed():
    histogram = Histogram.empty((0.5, 1.0))
    for value in (0.1, 0.5, 0.7, 9.0):
        histogram = histogram.with_one(value)
    told = [
        gauge("acme_room_bytes", "Room.", 5),
        Metric("acme_done_total", "Done.", {("a",): 2, ("b",): 0}, ("what",), "counter"),
        Metric("acme_call_seconds", "Calls.", {(): Summary(3, 1.5)}, kind="summary"),
        Metric("acme_run_seconds", "Runs.", {(): histogram}, kind="histogram"),
    ]
    _, answer = scrape(("acme", lambda: told))
    assert samples(answer) == {
        ("acme_room_bytes",): 5,
        ("acme_done_total", ("what", "a")): 2,
        ("acme_done_total", ("what", "b")): 0,
        ("acme_call_seconds_count",): 3,
        ("acme_call_seconds_sum",): 1.5,
        ("acme_run_seconds_bucket", ("le", "0.5")): 2,
        ("acme_run_seconds_bucket", ("le", "1.0")): 3,
        ("acme_run_seconds_bucket", ("le", "+Inf")): 4,
        ("acme_run_seconds_count",): 4,
        ("acme_run_seconds_sum",): pytest.approx(10.3),
    }


def test_a_label_may_hold_anything():
    value = 'a "b"\\c\nd'
    _, answer = scrape(("acme", lambda: [Metric("acme_x", "X.", {(value,): 1}, ("what",))]))
    assert samples(answer) == {("acme_x", ("what", value)): 1}


def test_who_asks_for_openmetrics_gets_it():
    told = [Metric("acme_done_total", "Done.", {(): 2}, kind="counter")]
    _, answer = scrape(("acme", lambda: told), accept="application/openmetrics-text; version=1.0.0")
    assert answer.content_type.startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")
    names = [f.name for f in openmetrics.text_string_to_metric_families(answer.body.decode())]
    assert "acme_done" in names


def broken():
    yield gauge("acme_before", "Before.", 1)
    raise RuntimeError("dictionary changed size")


@pytest.mark.parametrize(
    ("tell", "why"),
    [
        (broken, "RuntimeError: dictionary changed size"),
        (lambda: [gauge("acme bad", "Bad.", 1)], "ValueError"),
        (lambda: [Metric("acme_x", "X.", {("a", "b"): 1}, ("one",))], "are not values of"),
        (lambda: [gauge("acme_x", "X.", "much")], "ValueError"),
        (lambda: None, "TypeError"),
        (lambda: [gauge("ours", "Ours too.", 2)], "is told by us already"),
    ],
)
def test_who_cannot_tell_its_metrics_costs_nobody_elses(tell, why):
    exposition, answer = scrape(
        ("us", lambda: [gauge("ours", "Ours.", 1)]),
        ("them", tell),
        ("others", lambda: [gauge("theirs", "Theirs.", 3)]),
    )
    assert samples(answer) == {
        ("ours",): 1,
        ("theirs",): 3,
        ("cepheid_metrics_failed", ("source", "them")): 1,
    }
    assert why in exposition.failures["them"]


def test_a_failure_is_over_when_it_is():
    answers = iter([broken, lambda: [gauge("acme_x", "X.", 1)]])
    exposition = Exposition(lambda: [("acme", next(answers))])
    assert list(exposition.registry().collect())
    assert exposition.failures
    assert list(exposition.registry().collect())
    assert exposition.failures == {}
