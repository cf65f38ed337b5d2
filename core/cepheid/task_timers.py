# SPDX-License-Identifier: Apache-2.0
"""Which task of an agent has which timer, from the start through reloads."""

from __future__ import annotations

from cepheid import errors
from cepheid.agent import Agent
from cepheid.notices import Notices
from cepheid.task import REFUSED_RETRY_SECONDS, Task
from cepheid.timers import Timer, TimerGroup


class TaskTimers:
    """Gives each enabled task of an agent a timer, and takes it when the task goes.

    :param timers: where the timers are made; the service may have others in it
    :param notices: says why tasks have no timer yet
    """

    def __init__(self, agent: Agent, timers: TimerGroup, notices: Notices) -> None:
        self._agent = agent
        self._timers = timers
        self._notices = notices
        #: The timer of each task that has one.
        self.by_task: dict[Task, Timer] = {}
        #: Why tasks have no timer yet; empty where all have theirs.
        self._not_started = ""
        #: When they are tried to be given one again, in monotonic seconds.
        self._start_again_at = 0.0

    def start(self) -> None:
        """Give each task its timer.

        :raises JournalError: the place of a task in its schedule cannot be written
        """
        for task in self._without_timer():
            self._start_one(task)

    def start_missing(self) -> None:
        """Give each task that has no timer its own; where that fails, it is tried again later.

        A journal that another process has locked keeps each attempt waiting. So after one that
        failed there is none for :data:`~cepheid.task.REFUSED_RETRY_SECONDS`.
        """
        waiting, clock = self._without_timer(), self._agent.clock
        if clock.monotonic() >= self._start_again_at or not waiting:
            self._not_started = ""
            for task in waiting:
                try:
                    self._start_one(task)
                except errors.JournalError as err:
                    names = ", ".join(one.name for one in self._without_timer())
                    self._not_started = f"Not started yet: {names}: {err}"
                    self._start_again_at = clock.monotonic() + REFUSED_RETRY_SECONDS
                    break
        if self._not_started:
            self._notices.say("start", self._not_started)

    def reload(self) -> None:
        """Follow what a reload has changed: tasks that came or went, spacings, the longest wait."""
        wanted = self._wanted()
        for task in [task for task in self.by_task if task not in wanted]:
            self._timers.remove(self.by_task.pop(task))
        for timer in self.by_task.values():
            timer.interval_max = self._agent.conf.periodic_interval_max
        self._timers.poke()
        self.start_missing()

    def _wanted(self) -> list[Task]:
        return list(self._agent.tasks.values()) if self._agent.conf.periodic_enable else []

    def _without_timer(self) -> list[Task]:
        return [task for task in self._wanted() if task not in self.by_task]

    def _start_one(self, task: Task) -> None:
        delay = self._agent.random.uniform(0, self._agent.conf.periodic_fuzzy_delay)
        task.delay_schedule(delay)
        self.by_task[task] = self._timers.add_dynamic_timer(
            task.periodic_tasks,
            initial_delay=delay,
            periodic_interval_max=self._agent.conf.periodic_interval_max,
        )
