# SPDX-License-Identifier: Apache-2.0
"""``cepheid top`` as it goes on: looks at the agent, draws, and does what the keys say."""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Callable
from typing import Any

from oslo_config import cfg
from rich.console import Console

from cepheid import admin, durations, wording
from cepheid.agent import Agent
from cepheid.cli.pause import user
from cepheid.run import describe
from cepheid.terminal.choice import Choice, Wish
from cepheid.terminal.keys import Keyboard
from cepheid.terminal.screen import Screen
from cepheid.terminal.shapes import Shapes
from cepheid.terminal.source import Document, Source


class Live:
    """Shows an agent until it is told to quit.

    :param interval_seconds: between two looks at the agent
    """

    def __init__(
        self, conf: cfg.ConfigOpts, console: Console, shapes: Shapes, interval_seconds: float
    ) -> None:
        self._conf = conf
        self._console = console
        self._keyboard = Keyboard()
        self._screen = Screen(shapes)
        self._choice = Choice()
        self._interval_seconds = interval_seconds
        self._source = Source(conf)
        self._seen: Document | None = None
        self._told = ""
        self._look_again = threading.Event()
        self._has_ended = False

    def run(self) -> None:
        """Show it; on the main thread."""
        looking = threading.Thread(target=self._look, name="look", daemon=True)
        looking.start()
        try:
            while True:
                with self._keyboard.taken(self._console):
                    self._show()
                if not self._keyboard.is_to_stop:
                    return
                self._keyboard.stop()
        except KeyboardInterrupt:
            return
        finally:
            self._has_ended = True
            self._look_again.set()

    def _show(self) -> None:
        """Draw and heed keys until it is to quit or to stop."""
        while not self._keyboard.is_to_stop:
            seen, self._seen = self._seen, None
            if seen is not None:
                self._choice.update(seen)
            told, self._told = self._told, ""
            if told:
                self._choice.message = told
            self._draw()
            for key in self._keyboard.wait(self._interval_seconds):
                wish = self._choice.press(key)
                if wish is not None and wish.kind == "quit":
                    return
                if wish is not None:
                    self._fulfil(wish)

    def _draw(self) -> None:
        # Asked for each time: rich would go by the environment, which knows of no resize.
        width, height = os.get_terminal_size(self._console.file.fileno())
        self._console.size = (width, height)
        self._console.update_screen(self._screen.compose(self._choice, width, height))

    def _look(self) -> None:
        """Look at the agent again and again; on a thread of its own."""
        while not self._has_ended:
            self._look_again.clear()
            try:
                self._seen = self._source.look()
            except Exception as err:  # noqa: BLE001 - shown; another look may go well
                self._told = describe(err)
            self._keyboard.wake()
            self._look_again.wait(self._interval_seconds)

    def _fulfil(self, wish: Wish) -> None:
        """Do what is wished for on a thread of its own; it may take long."""
        does: dict[str, Callable[[Wish], str]] = {
            "run": self._run,
            "pause": self._pause,
            "resume": self._resume,
        }
        self._choice.message = f"{wish.task}: {wish.kind}{' (dry)' if wish.dry_run else ''} ..."

        def fulfil() -> None:
            try:
                self._told = does[wish.kind](wish)
            except Exception as err:  # noqa: BLE001 - shown
                self._told = f"{wish.task}: {describe(err)}"
            self._look_again.set()
            self._keyboard.wake()

        threading.Thread(target=fulfil, name="wish", daemon=True).start()

    def _run(self, wish: Wish) -> str:
        run = admin.call(self._conf.state_path, "run", task=wish.task, dry_run=wish.dry_run or None)
        return f"{wish.task}: {ended(run)}"

    def _pause(self, wish: Wish) -> str:
        agent = Agent(self._conf)
        try:
            now = agent.clock.utcnow()
            until: datetime.datetime | None = None
            if wish.duration:
                until = now + durations.parse(wish.duration)
            pause = agent.journal.pauses.pause(wish.task, now, until, wish.reason, user())
            return f"{wish.task}: {pause}"
        finally:
            agent.close()

    def _resume(self, wish: Wish) -> str:
        agent = Agent(self._conf)
        try:
            ended = agent.journal.pauses.resume(wish.task, agent.clock.utcnow(), "", user())
        finally:
            agent.close()
        return f"{wish.task}: resumed" if ended is not None else f"{wish.task} is not paused."


def ended(run: dict[str, Any]) -> str:
    """Say how a run ended."""
    told = run["error"] or wording.counters(run["counters"])
    dry = " (dry run)" if run["dry_run"] else ""
    return f"{run['outcome']}{dry} in {run['duration_seconds']:.2f} s{f': {told}' if told else ''}"
