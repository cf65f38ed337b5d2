# SPDX-License-Identifier: Apache-2.0
"""What a user who may not use the agent's files is told."""

import argparse
import contextlib
import io
import os

import pytest

from cepheid import config, errors
from cepheid.cli import base
from cepheid.cli.history import TaskHistory
from cepheid.cli.status import StatusCommand
from cepheid.journal import FILE_NAME, Journal
from cepheid.testing.agent import write_conf

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


class Program:
    """What commands are run in."""

    options = argparse.Namespace(debug=False)

    def __init__(self, state_path):
        self.conf = config.load([str(write_conf(state_path))])

    def run(self, command, *words):
        """Run a command as root, so that all is imported, and then as nobody."""
        for who in (0, NOBODY):
            it = command(self, None)
            asked = it.get_parser("it").parse_args(words)
            with as_user(who):
                status = it.run(asked)
        return status


@contextlib.contextmanager
def as_user(number):
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def program(tmp_path):
    """A program on a state_path of root's with a journal in it."""
    tmp_path.chmod(0o700)
    Journal(tmp_path / FILE_NAME).close()
    program = Program(tmp_path)
    program.stdout = io.StringIO()
    return program


TOLD = "Run this as the user who runs the agent, root as a rule: with sudo."


def test_who_may_run_it_is_said_in_one_line(program, tmp_path, capsys):
    assert program.run(TaskHistory) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"cepheid: This user may not use {tmp_path / FILE_NAME}. {TOLD}"


def test_status_is_unknown(program, capsys, monkeypatch):
    # Where it is installed may be a directory of root's as well.
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    assert program.run(StatusCommand, "--brief") == 3
    assert "This user may not use" in capsys.readouterr().out.splitlines()[-1]


def test_a_journal_that_cannot_be_opened_says_it_too(program, tmp_path):
    with as_user(NOBODY), pytest.raises(errors.JournalError, match=TOLD):
        Journal(tmp_path / FILE_NAME)


class Refused(base.Command):
    """Meet an error that is not about the user."""

    error = PermissionError(1, "Operation not permitted", "/proc/1/mem")

    def take_action(self, parsed_args):
        raise self.error


def test_what_root_may_not_do_is_not_answered_with_run_it_as_root(program):
    command = Refused(program, None)
    with pytest.raises(PermissionError):
        command.run(command.get_parser("it").parse_args([]))


def test_what_is_refused_and_no_file_is_not_named_as_one(program):
    command = Refused(program, None)
    command.error = PermissionError("the hypervisor says no")
    with as_user(NOBODY), pytest.raises(PermissionError, match="the hypervisor says no"):
        command.run(command.get_parser("it").parse_args([]))
