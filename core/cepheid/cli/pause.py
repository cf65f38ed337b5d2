# SPDX-License-Identifier: Apache-2.0
"""``cepheid pause | resume``."""

from __future__ import annotations

import argparse
import os
import pwd
from typing import Any

from cepheid import catalogue, durations, errors, loading
from cepheid.cli import base
from cepheid.journal import Pause
from cepheid.journal.pauses import ALL
from cepheid.run import plugin_of


class PauseCommand(base.Command):
    """Pause one task, or all: the agent does not run it until the time is over or it is resumed.

    Without TASK all tasks are paused. Without --for or --until there is no end: nothing runs by
    itself until 'cepheid resume'. It is kept across restarts. A run in progress goes on to its end.
    What falls due meanwhile is made once when the pause is over.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="TASK", nargs="?", help="the task (default: all)")
        end = parser.add_mutually_exclusive_group()
        end.add_argument(
            "--for",
            dest="duration",
            metavar="DURATION",
            help="how long: 30m, 2h, 1d, 1d12h (default: until it is resumed)",
        )
        end.add_argument(
            "--until",
            metavar="TIME",
            help="until when: 2026-11-24T18:30 (local time), or with Z at its end in UTC",
        )
        parser.add_argument(
            "--reason", default="", metavar="TEXT", help="why, for whoever looks later"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        task = _known(parsed_args.name)
        with self.agent() as agent:
            now = agent.clock.utcnow()
            until = None
            if parsed_args.duration is not None:
                until = now + durations.parse(parsed_args.duration)
            elif parsed_args.until is not None:
                until = durations.parse_time(parsed_args.until, now)
            reason = " ".join(parsed_args.reason.split())
            pause = agent.journal.pauses.pause(task, now, until, reason, user())
            print(f"{task}: {pause}" if task else f"{str(pause)[0].upper()}{str(pause)[1:]}")
        if until is None:
            self._warn_of_no_end(pause)
        live = self.ask_agent("status") or {"runs": []}
        names = {plugin_of(run["task"]) for run in live["runs"]}
        for name in sorted(name for name in names if task in (ALL, name)):
            self.say(f"{name} is running now; it goes on to its end.")
        failure = live.get("journal_failure")
        if failure:
            raise errors.CepheidError(f"The agent does not heed the pause. {failure}")

    def _warn_of_no_end(self, pause: Pause) -> None:
        who = f"{pause.task} does not run" if pause.task else "no task of this host runs"
        self.say(f"This pause has no end: {who} by itself until '{pause.resume_command}'.")
        self.say(f"To give it an end: 'cepheid pause {f'{pause.task} --for 2h'.strip()}'.")


class ResumeCommand(base.Command):
    """End a pause: that of one task, or that of all.

    Tasks that are paused by their own names stay so when that of all ends.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "name", metavar="TASK", nargs="?", help="the task (default: the pause of all)"
        )
        parser.add_argument(
            "--reason", default="", metavar="TEXT", help="why, for whoever looks later"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        task = parsed_args.name or ALL
        with self.agent() as agent:
            reason = " ".join(parsed_args.reason.split())
            now = agent.clock.utcnow()
            ended = agent.journal.pauses.resume(task, now, reason, user())
            left = agent.journal.pauses.in_force(now)
        if ended is None:
            raise errors.CepheidError(_not_paused(task, left))
        print(f"{task or 'All tasks'}: resumed; was {_past(ended)}")
        for pause in left.values():
            if task in (ALL, pause.task) or pause.task == ALL:
                self.say(_still_paused(pause))


def user() -> str:
    """Return who runs this, and on whose behalf where that is known."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"user {number}"
    behind = os.environ.get("SUDO_USER")
    return f"{name} (sudo by {behind})" if behind and behind != name else name


def _known(name: str | None) -> str:
    """Return the task's name as pauses have it."""
    if name is None:
        return ALL
    names = {plugin.name for plugin in loading.discover(catalogue.NAMESPACE)}
    if name not in names:
        raise errors.NoSuchTask(name, names)
    return name


def _past(pause: Pause) -> str:
    return pause.in_words(no_end="").replace("all tasks are paused", "paused")


def _still_paused(pause: Pause) -> str:
    what = "Still so:" if pause.task == ALL else f"Still paused: {pause.task},"
    return f"{what} {pause}; '{pause.resume_command}' ends it."


def _not_paused(task: str, left: dict[str, Any]) -> str:
    if task != ALL and ALL in left:
        return (
            f"{task} is not paused by itself, but {left[ALL]}. 'cepheid resume' ends that of all."
        )
    if task != ALL:
        return f"{task} is not paused."
    names = ", ".join(left)
    return f"There is no pause of all tasks{f'; paused by name: {names}' if names else ''}."
