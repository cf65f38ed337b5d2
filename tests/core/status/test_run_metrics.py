# SPDX-License-Identifier: Apache-2.0
import datetime

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change, Raced
from cepheid.status.run_metrics import OUTCOMES, RunMetrics


class Busy(cepheid.Task):
    """Change four things."""

    max_changes = 3

    @periodic_task(spacing=60)
    def busy(self, context):
        self.agent.clock.sleep(2)
        context.skip("x", "it is odd")
        context.change_many(
            "thing",
            [Change(str(n)) for n in range(4)],
            lambda changes: {"0": None, "1": Raced(), "2": ValueError("no")},
        )
        if self.agent.fail:
            raise RuntimeError("it breaks")


def values(metrics, name):
    (metric,) = [metric for metric in metrics.metrics() if metric.name == name]
    return metric.values


def observed(agent):
    agent.fail = False
    metrics = RunMetrics(agent)
    agent.runner.observers = [metrics]
    return metrics, agent.build(Busy)


def test_a_task_has_its_series_before_it_runs(agent):
    metrics, _ = observed(agent)
    metrics.expect(["busy"])
    assert values(metrics, "cepheid_runs_total") == {("busy", outcome): 0 for outcome in OUTCOMES}
    assert values(metrics, "cepheid_changes_refused_total") == {("busy",): 0}
    assert values(metrics, "cepheid_run_last_failed") == {}


def test_counts_runs_changes_and_what_was_refused(agent, clock):
    metrics, task = observed(agent)
    agent.run(task)
    agent.run(task, dry_run=True)
    runs = values(metrics, "cepheid_runs_total")
    assert runs["busy", "limited"] == 2
    assert values(metrics, "cepheid_changes_total") == {
        ("busy", "thing", "done"): 1,
        ("busy", "thing", "raced"): 1,
        ("busy", "thing", "failed"): 1,
        ("busy", "thing", "refused"): 2,
        ("busy", "thing", "planned"): 3,
    }
    assert values(metrics, "cepheid_changes_refused_total") == {("busy",): 2}
    assert values(metrics, "cepheid_items_skipped_total") == {("busy",): 2}
    duration = values(metrics, "cepheid_run_duration_seconds")["busy",]
    assert (sum(duration.counts), duration.sum) == (2, 4.0)
    started = clock.utcnow() - datetime.timedelta(seconds=2)
    assert values(metrics, "cepheid_run_last_start_timestamp_seconds") == {
        ("busy",): started.replace(tzinfo=datetime.UTC).timestamp()
    }


def test_only_a_timers_run_has_a_lateness(agent):
    metrics, task = observed(agent)
    agent.run(task)
    assert sum(values(metrics, "cepheid_run_lateness_seconds")["busy",].counts) == 0
    agent.runner.run(task, "busy", Busy.busy, lateness_seconds=7.0)
    lateness = values(metrics, "cepheid_run_lateness_seconds")["busy",]
    assert (sum(lateness.counts), lateness.sum) == (1, 7.0)


def test_a_failure_stands_until_a_run_does_not_fail(agent):
    metrics, task = observed(agent)
    agent.fail = True
    agent.run(task)
    assert values(metrics, "cepheid_run_last_failed") == {("busy",): True}
    agent.fail = False
    agent.run(task)
    assert values(metrics, "cepheid_run_last_failed") == {("busy",): False}


def test_what_was_before_the_start_is_taken_from_the_journal(agent):
    _, task = observed(agent)
    agent.fail = True
    agent.run(task)
    after = RunMetrics(agent)
    after.remember(agent.journal.newest_runs(ended=True))
    assert values(after, "cepheid_run_last_failed") == {("busy",): True}
    assert ("busy",) in values(after, "cepheid_run_last_start_timestamp_seconds")
    assert values(after, "cepheid_run_last_success_timestamp_seconds") == {}
