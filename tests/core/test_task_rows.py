# SPDX-License-Identifier: Apache-2.0
"""What ``cepheid task list`` tells of a task, for people and for scripts."""

import datetime
import importlib.metadata
import re

from cepheid.cli import task_rows
from cepheid.loading import Plugin


class Long:
    __doc__ = "Do " + "x" * 80


def facts(**others):
    point = importlib.metadata.EntryPoint("it", "acme:It", "cepheid.tasks")
    plugin = Plugin("cepheid.tasks", "it", "acme", "1", point, factory=Long)
    told = {
        "plugin": plugin,
        "has_spacing": True,
        "spacing_seconds": 600,
        "started_at": (task_rows.utcnow() - datetime.timedelta(hours=2)).isoformat(),
        "next_run_seconds": 3600,
    }
    return task_rows.Facts(**{**told, **others})


def test_people_get_words():
    spacing, last_run, next_run, summary = task_rows.for_people(facts())
    assert (spacing, last_run, next_run) == ("10 min", "2 h ago", "in 60 min")
    assert summary.endswith("…")


def test_scripts_get_numbers_times_and_whole_texts():
    spacing, last_run, next_run, summary = task_rows.for_scripts(facts())
    assert (spacing, summary) == (600, Long.__doc__)
    assert all(re.fullmatch(r"20[\d-]{8}T[\d:]{8}Z", at) for at in (last_run, next_run))


def test_what_is_not_known_is_nothing():
    unknown = facts(spacing_seconds=None, started_at=None, next_run_seconds=None)
    assert task_rows.for_people(unknown)[:3] == ("off", "", "")
    assert task_rows.for_scripts(unknown)[:3] == (None, None, None)
