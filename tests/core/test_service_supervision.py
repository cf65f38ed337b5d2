# SPDX-License-Identifier: Apache-2.0
"""What a service says of timers that do not turn, and of a journal that is not in its place."""

import pytest

import cepheid
from cepheid import config, errors
from cepheid.attention import LATE_SECONDS
from cepheid.periodic_task import periodic_task
from cepheid.service import Service
from cepheid.systemd import Notifier
from cepheid.task import REFUSED_RETRY_SECONDS
from cepheid.timers import Timer
from tests.fake_agent import FakeAgent


@pytest.fixture
def service(agent):
    """A service with a watchdog, and a timer that nothing turns."""
    notifier = Notifier({"WATCHDOG_USEC": "60000000"})
    service = Service(agent, lambda: agent.conf, notifier)
    service.timers.timers.append(Timer(lambda: None, name="stuck", clock=agent.clock))
    return service


def test_a_timer_that_does_not_turn_is_named_once_and_when_it_turns_again(service, clock, caplog):
    caplog.set_level("INFO")
    clock.advance(LATE_SECONDS + 1)
    for _ in range(3):
        service.supervise()
    service.timers.timers[0].turn()
    service.supervise()
    said = "These timers do not turn, the watchdog is not fed: stuck"
    assert [record.getMessage() for record in caplog.records] == [said, f"Over: {said}"]


def test_a_journal_that_was_moved_away_is_named_once_and_in_what_the_agent_is(
    service, agent, caplog
):
    service.timers.timers.clear()
    agent.journal.path.rename(agent.state_path / "away")
    for _ in range(3):
        service.supervise()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("It is not known what is paused: The journal ")
    assert said.endswith("does not reach the agent. Restart it.")
    assert "was moved, removed or replaced" in service.status()["journal_failure"]


class Waiting(cepheid.Task):
    """Wait to be started."""

    @periodic_task(spacing=600)
    def waiting(self, context):
        pass


class Patient(Waiting):
    """Wait longer."""

    @periodic_task(spacing=600)
    def patient(self, context):
        pass

    waiting = None


def test_a_journal_that_is_locked_is_tried_once_a_minute_and_for_one_task(
    service, agent, clock, caplog, monkeypatch
):
    caplog.set_level("INFO")
    agent.tasks = {"waiting": agent.build(Waiting), "patient": agent.build(Patient)}
    asked = []

    def refuse(*what):
        asked.append(what)
        raise errors.JournalError("The journal is locked")

    with monkeypatch.context() as locked:
        locked.setattr(agent.journal, "set_last_run", refuse)
        for _ in range(3):
            service.supervise()
        assert len(asked) == 1
        clock.advance(REFUSED_RETRY_SECONDS)
        service.supervise()
        assert len(asked) == 2
    service.supervise()
    assert not service._task_timers.by_task
    clock.advance(REFUSED_RETRY_SECONDS)
    service.supervise()
    assert len(service._task_timers.by_task) == 2
    said = [line for line in caplog.messages if "ot started yet" in line]
    first = "Not started yet: waiting, patient: The journal is locked"
    assert said == [first, f"Over: {first}"]


@pytest.mark.parametrize("change", [lambda file: file.write_text(""), lambda file: file.unlink()])
def test_a_file_of_a_folder_that_is_emptied_or_goes_is_refused_at_a_reload(
    tmp_path, caplog, monkeypatch, change
):
    # It would take the log from the test.
    monkeypatch.setattr("oslo_log.log.setup", lambda conf, project: None)
    folder = tmp_path / "conf.d"
    folder.mkdir()
    (folder / "dry.conf").write_text("[DEFAULT]\ndry_run = true\n")
    agent = FakeAgent(tmp_path)

    def load():
        return config.load([str(agent.conf_file)], [str(folder)])

    agent.conf = load()
    service = Service(agent, load, Notifier({}))
    change(folder / "dry.conf")
    service.reload()
    assert f"{folder / 'dry.conf'} was read before and is gone or empty now" in caplog.text
    assert agent.conf.dry_run
    agent.close()


def test_a_file_that_cannot_be_looked_at_is_not_in_use(tmp_path):
    agent = FakeAgent(tmp_path)
    agent.conf_file.unlink()
    assert config.files_in_use(agent.conf) == set()
    agent.close()
