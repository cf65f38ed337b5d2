# SPDX-License-Identifier: Apache-2.0
import dataclasses
import datetime
import sqlite3
import threading
from collections import Counter

import pytest

from cepheid_plugins.notifications import outbox as outbox_module
from cepheid_plugins.notifications.driver import NotificationsRefused
from cepheid_plugins.notifications.outbox import Message, Outbox, OutboxError

PLENTY = 1000


@pytest.fixture
def open_outbox(tmp_path, clock):
    opened = []

    def open_outbox():
        opened.append(Outbox(tmp_path / "outbox.sqlite", clock))
        return opened[-1]

    yield open_outbox
    for one in opened:
        one.close()


@pytest.fixture
def outbox(open_outbox):
    return open_outbox()


def message(name, body="{}", remembered=True):
    return Message(name, body, "req-1", versioned=True, remembered=remembered)


def take(outbox, *names, **options):
    return outbox.take([message(name, **options) for name in names], PLENTY, 31)


def waiting(outbox):
    return [one.message_id for one in outbox.first()]


def test_messages_leave_in_the_order_in_which_they_came(outbox, open_outbox):
    assert take(outbox, "b", "a") == 2
    assert take(outbox, "c") == 1
    assert waiting(open_outbox()) == ["b", "a", "c"]
    outbox.record_sent(outbox.first(1)[0])
    assert waiting(open_outbox()) == ["a", "c"]
    assert not outbox.is_empty()


def test_a_message_is_kept_whole(outbox, open_outbox):
    told = message("a", '{"größe": [1, 2.5, null]}')
    outbox.take([told], PLENTY, 31)
    (kept,) = open_outbox().first()
    assert kept == dataclasses.replace(told, id=kept.id)


def test_one_that_waits_or_was_sent_is_passed_over(outbox):
    take(outbox, "a", "b")
    outbox.record_sent(outbox.first(1)[0])
    assert take(outbox, "a", "b", "c", "c") == 1
    assert waiting(outbox) == ["b", "c"]
    assert outbox.sent(["a", "b", "c"]) == {"a"}


def test_what_was_sent_is_forgotten_after_some_days(outbox, clock):
    take(outbox, "a")
    outbox.record_sent(outbox.first()[0])
    clock.sleep(30 * 86400)
    assert take(outbox, "a") == 0
    clock.sleep(2 * 86400)
    assert take(outbox, "a") == 1


def test_what_cannot_come_again_is_not_remembered(outbox):
    take(outbox, "a", remembered=False)
    outbox.record_sent(outbox.first()[0])
    assert outbox.standing().remembered == 0


def test_what_never_waited_can_be_remembered(outbox):
    outbox.remember(["a", "b"])
    outbox.remember(["b"])
    assert take(outbox, "a", "b") == 0
    assert outbox.standing().remembered == 2


def test_a_full_outbox_takes_all_of_a_batch_or_none(outbox):
    outbox.take([message("a"), message("b")], 3, 31)
    with pytest.raises(NotificationsRefused, match=r"2 .* 2 wait .*max_waiting is 3"):
        outbox.take([message("c"), message("d")], 3, 31)
    assert waiting(outbox) == ["a", "b"]
    assert outbox.take([message("c")], 3, 31) == 1
    # Repetitions take no room.
    assert outbox.take([message("a"), message("c")], 3, 31) == 0


@pytest.mark.parametrize("number", [10, 1000])
def test_a_batch_is_one_transaction_however_many_there_are(outbox, number):
    statements = []
    outbox.connection.set_trace_callback(statements.append)
    take(outbox, *(str(n) for n in range(number)))
    counts = Counter(text.split()[0] for text in statements)
    assert counts == {"BEGIN": 1, "DELETE": 1, "INSERT": number, "SELECT": 1, "COMMIT": 1}


def test_many_are_read_a_page_at_a_time(outbox):
    take(outbox, *(str(n) for n in range(250)))
    assert len(outbox.first()) == outbox_module.PAGE


def test_it_tells_what_it_holds(outbox, clock):
    began = clock.utcnow()
    assert outbox.standing() == outbox_module.Standing(0, None, 0, "", None)
    take(outbox, "a", "b")
    clock.sleep(60)
    outbox.set_trouble("refused")
    clock.sleep(60)
    outbox.set_trouble("timed out")
    take(outbox, "c")
    standing = outbox.standing()
    assert (standing.waiting, standing.oldest) == (3, began)
    assert standing.trouble == "timed out"
    assert standing.since == began + datetime.timedelta(seconds=60)
    outbox.set_trouble("")
    assert outbox.standing().trouble == ""


def test_two_processes_may_take_at_the_same_time(outbox, open_outbox):
    other = open_outbox()

    def put(into, name):
        for n in range(50):
            take(into, f"{name}{n}")

    threads = [
        threading.Thread(target=put, args=(into, name))
        for into, name in ((outbox, "a"), (other, "b"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = waiting(outbox)
    for name in "ab":
        assert [one for one in found if one[0] == name] == [f"{name}{n}" for n in range(50)]


def test_the_room_of_what_was_sent_is_given_back(outbox):
    empty = outbox.path.stat().st_size
    take(outbox, *(f"{n}" * 10 for n in range(900)), body="x" * 2000)
    while messages := outbox.first():
        for one in messages:
            outbox.record_sent(one)
        outbox.shrink()
    outbox.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    assert outbox.path.stat().st_size < empty + 200_000


def test_a_full_disk_is_an_error_that_names_the_file(outbox):
    (pages,) = outbox.rows("PRAGMA page_count")[0]
    outbox.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutboxError, match=r"outbox\.sqlite cannot be used: .*full.* free space"):
        take(outbox, *(f"{n}" for n in range(100)))
    outbox.rows("PRAGMA max_page_count = 1000000")
    assert outbox.is_empty()
    assert take(outbox, "a") == 1


def test_a_file_of_another_kind_is_refused(tmp_path, clock):
    path = tmp_path / "other.sqlite"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(OutboxError, match=r"The outbox .*other\.sqlite cannot be used"):
        Outbox(path, clock)
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(OutboxError, match="has version 7, this cepheid knows 1"):
        Outbox(path, clock)
