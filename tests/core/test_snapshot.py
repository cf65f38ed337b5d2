# SPDX-License-Identifier: Apache-2.0
import datetime
import json

import cepheid
from cepheid import snapshot
from cepheid.periodic_task import periodic_task
from tests.distributions import Distributions
from tests.fake_agent import FakeAgent

TASK = '''
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Say how far it is."""

    time_limit = 30

    @periodic_task(spacing=600)
    def far(self, context):
        context.progress(1, 4)
        context.count("seen", 2)
        self.agent.clock.sleep(5)
        self.agent.look()
'''


class Timer:
    """A timer that turns in some seconds."""

    def __init__(self, clock, seconds):
        self.running = False
        self.due = clock.monotonic() + seconds

    def lateness(self):
        return 0.0


def loaded(tmp_path, clock):
    site = tmp_path / "site"
    site.mkdir()
    distributions = Distributions(site)
    distributions.add_task("acme-far", "far", TASK)
    agent = FakeAgent(tmp_path, clock=clock, settings="enabled_tasks = far\n")
    agent.load_tasks()
    return agent, distributions


def of(state, name):
    (task,) = [task for task in state["tasks"] if task["name"] == name]
    return task


def test_a_snapshot_tells_what_runs_since_when_and_how_far_it_is(tmp_path, clock):
    agent, distributions = loaded(tmp_path, clock)
    seen = []
    agent.look = lambda: seen.append(snapshot.take(agent, {}, {}))
    agent.run(agent.tasks["far"])
    (state,) = seen
    json.dumps(state)
    assert of(state, "far")["running"] is True
    assert state["runs"] == [of(state, "far")["run"]]
    run = state["runs"][0]
    assert (run["task"], run["outcome"], run["seconds"]) == ("far", "running", 5.0)
    assert run["started_at"] == "2026-11-23T12:00:00.000000"
    assert (run["progress"], run["time_limit_seconds"]) == ((1, 4), 30)
    assert run["counters"] == {"seen": 2}
    after = of(snapshot.take(agent, {}, {}), "far")
    assert (after["running"], after["run"]) == (False, None)
    distributions.remove()
    agent.close()


def test_a_snapshot_tells_when_a_task_runs_next_and_what_keeps_it(tmp_path, clock):
    agent, distributions = loaded(tmp_path, clock)
    timers = {agent.tasks["far"]: Timer(clock, 60)}
    task = of(snapshot.take(agent, timers, {}), "far")
    assert (task["state"], task["spacing_seconds"], task["next_run_seconds"]) == (
        "enabled", 600, 600.0
    )  # fmt: skip
    assert (task["pause"], task["late_seconds"]) == (None, 0.0)
    now = clock.utcnow()
    until = now + datetime.timedelta(hours=2)
    agent.journal.pauses.pause("far", now, until, "a new switch", "alice")
    task = of(snapshot.take(agent, timers, agent.pauses.current()), "far")
    assert task["next_run_seconds"] == 7200
    assert task["pause"]["reason"] == "a new switch"
    agent.journal.pauses.pause("far", now)
    state = snapshot.take(agent, timers, agent.pauses.current())
    assert of(state, "far")["next_run_seconds"] is None
    assert [pause["task"] for pause in state["pauses"]] == ["far"]
    distributions.remove()
    agent.close()


def test_what_does_not_run_here_has_no_times(tmp_path, clock):
    agent, distributions = loaded(tmp_path, clock)
    task = of(snapshot.take(agent, {}, {}), "sync_power_states")
    assert (task["state"], task["spacing_seconds"], task["next_run_seconds"]) == (
        "disabled", None, None
    )  # fmt: skip
    distributions.remove()
    agent.close()


def test_progress_is_kept_in_memory_alone(agent):
    class Count(cepheid.Task):
        """Count."""

        @periodic_task(spacing=60)
        def count(self, context):
            sent = []
            self.agent.journal._store.connection.set_trace_callback(sent.append)
            for n in range(1000):
                context.progress(n, 1000)
            context.progress(1000)
            self.agent.journal._store.connection.set_trace_callback(None)
            assert sent == []

    run = agent.run(agent.build(Count))
    assert (run.error, run.progress) == ("", (1000, None))
