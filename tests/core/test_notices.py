# SPDX-License-Identifier: Apache-2.0
"""Warnings that are said once while their cause lasts. Those of runs are in test_run.py."""

import logging

from cepheid.notices import Notices


def round_of(notices, *said, complete=True):
    notices.begin()
    for key, message in said:
        notices.say(key, message)
    notices.end(complete)


def test_a_warning_is_said_once_while_it_lasts_and_when_it_is_over(caplog):
    caplog.set_level(logging.INFO)
    notices = Notices(logging.getLogger("cepheid.act"))
    round_of(notices, ("disk", "the disk is full"))
    round_of(notices, ("disk", "the disk is full"))
    assert caplog.messages == ["the disk is full"]
    round_of(notices)
    assert caplog.messages == ["the disk is full", "Over: the disk is full"]


def test_a_round_that_was_cut_short_ends_no_warning(caplog):
    caplog.set_level(logging.INFO)
    notices = Notices(logging.getLogger("cepheid.act"))
    round_of(notices, ("disk", "the disk is full"))
    round_of(notices, complete=False)
    round_of(notices, ("disk", "the disk is full"))
    assert caplog.messages == ["the disk is full"]


def test_only_the_newest_warnings_stand_after_rounds_that_were_cut_short(caplog, monkeypatch):
    monkeypatch.setattr("cepheid.notices.MAX_STANDING", 3)
    notices = Notices(logging.getLogger("cepheid.act"))
    for n in range(10):
        round_of(notices, ("failure", "no answer"), (n, f"item {n} skipped"), complete=False)
    caplog.clear()
    items = [(n, f"item {n} skipped") for n in range(10)]
    round_of(notices, ("failure", "no answer"), *items, complete=False)
    # "failure", 8 and 9 stood; more than three in one round are all of use, and all stand now.
    assert caplog.messages == [f"item {n} skipped" for n in range(8)]
    caplog.clear()
    round_of(notices, ("failure", "no answer"), *items, complete=False)
    assert caplog.messages == []
