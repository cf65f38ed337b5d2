# SPDX-License-Identifier: Apache-2.0
"""Sending what waits, by a fake publisher and by the clock."""

import fcntl
import logging
import threading

import pytest

from cepheid.clock import Clock
from cepheid_plugins.notifications.outbox import Message, Outbox
from cepheid_plugins.notifications.sender import LOCK_NAME, Sender
from tests.fake_agent import LowestRandom, eventually
from tests.fakes import FakePublisher


@pytest.fixture
def publisher():
    return FakePublisher()


@pytest.fixture
def outbox(tmp_path, clock):
    outbox = Outbox(tmp_path / "outbox.sqlite", clock)
    yield outbox
    outbox.close()


@pytest.fixture
def make(tmp_path, clock, outbox, publisher):
    made = []

    def make(clock=clock):
        made.append(Sender(outbox, publisher, tmp_path, clock, LowestRandom()))
        return made[-1]

    yield make
    publisher.answers.set()
    for sender in made:
        assert sender.close(20)


@pytest.fixture
def sender(make):
    return make()


def put(outbox, *names):
    outbox.take([Message(name, "{}", remembered=True) for name in names], 100, 1)


def waiting(outbox):
    return [one.message_id for one in outbox.first()]


def said(caplog, text="cannot be sent"):
    return [r.getMessage() for r in caplog.records if text in r.getMessage()]


def test_what_waits_is_sent_in_order_and_leaves(outbox, sender, publisher):
    put(outbox, "c", "a")
    sender.start()
    put(outbox, "b")
    sender.wake()
    eventually(outbox.is_empty)
    assert publisher.published == ["c", "a", "b"]
    assert outbox.sent(["a", "b", "c"]) == {"a", "b", "c"}


def test_nothing_is_opened_while_nothing_waits(sender, publisher, clock):
    sender.start()
    clock.settle(1)
    assert publisher.attempts == 0


def test_without_a_thread_what_waits_is_sent_once_one_can_be_had(
    outbox, sender, publisher, monkeypatch, caplog
):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for name in "ab":
            put(outbox, name)
            sender.wake()
    assert len(said(caplog, "can't start new thread")) == 1
    assert outbox.standing().trouble
    sender.wake()
    eventually(outbox.is_empty)
    assert publisher.published == ["a", "b"]
    assert not outbox.standing().trouble


def test_a_failure_is_tried_again_after_longer_and_longer_waits(outbox, sender, publisher, clock):
    publisher.error = OSError("refused")
    put(outbox, "a", "b")
    sender.start()
    clock.settle(1)
    waits = []
    for attempt in range(1, 9):
        assert publisher.attempts == attempt
        assert publisher.closed == attempt  # the next attempt has a connection of its own
        began = clock.monotonic()
        while publisher.attempts == attempt:
            clock.advance(0.5)
        waits.append(clock.monotonic() - began)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]  # the least that chance may give
    publisher.error = None
    clock.advance(30)
    eventually(outbox.is_empty)
    assert publisher.published == ["a", "b"]


def test_it_is_said_once_while_it_lasts_and_once_when_it_is_over(
    outbox, sender, publisher, clock, caplog
):
    caplog.set_level(logging.INFO)
    publisher.error = OSError("connection refused")
    put(outbox, "a", "b")
    sender.start()
    clock.settle(1)
    clock.advance(10)
    assert publisher.attempts > 3
    (warning,) = said(caplog)
    assert "OSError: connection refused. They wait in" in warning
    standing = outbox.standing()
    assert standing.trouble == "OSError: connection refused"
    publisher.error = OSError("ACCESS_REFUSED")  # another reason is news
    clock.advance(60)
    assert len(said(caplog)) == 2
    publisher.error = None
    clock.advance(60)
    eventually(outbox.is_empty)
    assert len(said(caplog, "Over: ")) == 1
    assert outbox.standing().trouble == ""


def test_what_comes_during_an_outage_waits_its_turn(outbox, sender, publisher, clock):
    publisher.error = OSError("refused")
    put(outbox, "a")
    sender.start()
    clock.settle(1)
    put(outbox, "b")
    sender.wake()
    clock.settle(1)
    assert publisher.attempts == 1  # it does not hurry the attempts
    publisher.error = None
    clock.advance(1)
    eventually(outbox.is_empty)
    assert publisher.published == ["a", "b"]


def test_what_another_process_puts_in_is_sent_at_the_next_look(outbox, sender, publisher, clock):
    sender.start()
    clock.settle(1)
    put(outbox, "a")
    clock.advance(5)
    eventually(outbox.is_empty)
    assert publisher.published == ["a"]


def test_of_several_processes_one_sends(tmp_path, outbox, sender, publisher, clock):
    with (tmp_path / LOCK_NAME).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        put(outbox, "a")
        sender.start()
        clock.settle(1)
        clock.advance(20)
        assert publisher.attempts == 0
    clock.advance(5)
    eventually(outbox.is_empty)
    assert publisher.published == ["a"]


def test_one_that_hangs_keeps_nobody_else_and_is_reported_once(
    outbox, sender, publisher, clock, caplog
):
    caplog.set_level(logging.INFO)
    publisher.answers.clear()
    put(outbox, "a")
    sender.wake()
    eventually(lambda: publisher.attempts)
    clock.sleep(9)
    put(outbox, "b")
    sender.wake()
    assert said(caplog) == []
    for _ in range(3):
        clock.sleep(2)
        sender.wake()
    (warning,) = said(caplog)
    assert "was not confirmed within 10 seconds" in warning
    assert "confirmed" in outbox.standing().trouble
    publisher.answers.set()
    eventually(outbox.is_empty)
    assert publisher.published == ["a", "b"]
    assert len(said(caplog, "Over: ")) == 1


def test_closing_gives_what_waits_a_last_attempt(make, outbox, publisher):
    for _ in range(20):
        sender = make()
        put(outbox, "a")
        sender.wake()
        assert sender.close(20)
        assert outbox.is_empty()
        outbox.rows("DELETE FROM sent")
    assert publisher.published == ["a"] * 20


def test_after_a_failure_closing_makes_one_attempt_and_waits_no_longer(
    outbox, sender, publisher, clock
):
    publisher.error = OSError("refused")
    put(outbox, "a")
    sender.start()
    clock.settle(1)
    assert sender.close(20)
    assert publisher.attempts == 2
    assert not outbox.is_empty()


def test_closing_ends_in_time_while_a_message_hangs(outbox, make, publisher):
    sender = make(Clock())
    publisher.answers.clear()
    put(outbox, "a", "b")
    sender.wake()
    eventually(lambda: publisher.attempts)
    assert not sender.close(0)
    publisher.answers.set()
    # What was on its way is recorded; the next is for whoever comes after.
    eventually(lambda: waiting(outbox) == ["b"])
    assert publisher.published == ["a"]


def test_one_that_never_began_closes_at_once(sender):
    assert sender.close(20)


def test_a_lock_that_cannot_be_opened_is_said(tmp_path, outbox, sender, clock, caplog):
    (tmp_path / LOCK_NAME).mkdir()
    put(outbox, "a")
    sender.start()
    clock.settle(1)
    assert "the lock file" in said(caplog)[0]
    (tmp_path / LOCK_NAME).rmdir()
    clock.advance(1)
    eventually(outbox.is_empty)
