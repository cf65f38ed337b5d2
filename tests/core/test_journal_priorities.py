# SPDX-License-Identifier: Apache-2.0
"""Lines that go to systemd's journal tell how grave they are."""

import io
import logging
import os
import re
import subprocess
import sys

import pytest

from cepheid import journal_priorities


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """A file that is taken for the journal's."""
    with (tmp_path / "journal").open("w+") as stream:
        monkeypatch.setenv("JOURNAL_STREAM", identity(stream))
        yield stream


def identity(stream):
    found = os.fstat(stream.fileno())
    return f"{found.st_dev}:{found.st_ino}"


def written(stream):
    stream.flush()
    stream.seek(0)
    return stream.read().splitlines()


def logger_of(*handlers):
    logger = logging.Logger("acme")
    for handler in handlers:
        logger.addHandler(handler)
    return logger


def test_each_line_of_a_record_has_its_priority(stream):
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    journal_priorities.mark([handler])
    journal_priorities.mark([handler])  # as after a reload that kept it
    logger = logger_of(handler)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        logger.log(level, "one\ntwo")
    assert written(stream) == [
        "<7>DEBUG one", "<7>two", "<6>INFO one", "<6>two", "<4>WARNING one", "<4>two",
        "<3>ERROR one", "<3>two", "<2>CRITICAL one", "<2>two",
    ]  # fmt: skip


def test_a_traceback_has_the_priority_of_its_error(stream):
    handler = logging.StreamHandler(stream)
    journal_priorities.mark([handler])
    try:
        raise ValueError("a\nb")
    except ValueError:
        logger_of(handler).exception("it failed")
    lines = written(stream)
    assert len(lines) > 4
    assert [line for line in lines if not line.startswith("<3>")] == []


def test_what_goes_elsewhere_is_left_as_it_is(tmp_path, stream, monkeypatch):
    with (tmp_path / "log").open("w+") as other:
        text = io.StringIO()
        handlers = [logging.StreamHandler(other), logging.StreamHandler(text)]
        monkeypatch.setattr(handlers[1], "stream", text)
        journal_priorities.mark([*handlers, logging.NullHandler()])
        logger_of(*handlers).warning("one")
        assert written(other) == text.getvalue().splitlines() == ["one"]


def test_without_systemd_nothing_is_the_journal(stream, monkeypatch):
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not journal_priorities.is_journal(stream)
    assert not journal_priorities.is_journal(None)


@pytest.mark.process
def test_an_agents_log_and_the_reason_of_its_end_are_marked(tmp_path):
    conf = tmp_path / "cepheid.conf"
    with (tmp_path / "stderr").open("w+") as stderr:
        for more in ("graceful_shutdown_timeout = soon", "enabled_tasks = nobody"):
            conf.write_text(f"[DEFAULT]\nstate_path = {tmp_path}\nhost = host1\n{more}\n")
            command = [sys.executable, "-m", "cepheid", "--config-file", conf, "agent"]
            environment = {"PYTHONPATH": ":".join(sys.path), "JOURNAL_STREAM": identity(stderr)}
            ended = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stderr=stderr, timeout=100
            )
            assert ended.returncode == 1
        lines = written(stderr)
    assert [line for line in lines if not re.match("<[2-7]>", line)] == []
    assert [line for line in lines if line.startswith("<3>cepheid: ")]
