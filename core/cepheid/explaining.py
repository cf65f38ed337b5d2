# SPDX-License-Identifier: Apache-2.0
"""Asking every task about one object: what it would do now, what it did last, what holds it up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cepheid import errors
from cepheid.agent import Agent
from cepheid.explanation import Kind, Subject, Verdict
from cepheid.journal import Pause
from cepheid.journal.pauses import pause_of
from cepheid.loading import Plugin
from cepheid.run import describe, plugin_of
from cepheid.task import Task

_ORDER = {kind: place for place, kind in enumerate(Kind)}


@dataclass
class Explanation:
    """What there is to say of one task and one object.

    :param state: of the task, and why: as in ``cepheid task list``
    :param notes: what stands above its verdicts: a pause, a dry run, ...
    :param next_run_seconds: None where it is not known
    :param last_run: of the task, from the journal
    :param last_change: the newest that it made, or tried, on this object; from the journal
    :param verdicts: None: it does not explain itself
    """

    task: str
    distribution: str
    version: str
    state: str
    reason: str
    notes: list[str] = field(default_factory=list)
    next_run_seconds: float | None = None
    last_run: dict[str, Any] | None = None
    last_change: dict[str, Any] | None = None
    verdicts: list[Verdict] | None = None

    @property
    def kind(self) -> Kind | None:
        """What its verdicts come to; None where there is none."""
        kinds = [verdict.kind for verdict in self.verdicts or ()]
        return min(kinds, key=_ORDER.__getitem__) if kinds else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        verdicts = self.verdicts
        return {
            **{name: value for name, value in vars(self).items() if name != "verdicts"},
            "comes_to": self.kind.value if self.kind else None,
            "explains_itself": verdicts is not None,
            "verdicts": [verdict.as_dict() for verdict in verdicts or ()],
        }


def explain(
    agent: Agent,
    subject: Subject,
    live: Mapping[str, Any] | None,
    only: str | None = None,
) -> tuple[list[Explanation], list[dict[str, Any]]]:
    """Ask every task about the subject, or one of them; those first that have most to say.

    Nothing is changed or recorded, and no lock is kept. What comes second is the newest change of
    the subject by each of those that are no tasks: commands.

    :param agent: with its tasks loaded, and without timers
    :param live: what the running agent says of itself, see :mod:`cepheid.snapshot`; None: none runs
    :raises NoSuchTask: there is none of the name `only`
    """
    plugins = [plugin for plugin in agent.plugins if only in (None, plugin.name)]
    if not plugins:
        raise errors.NoSuchTask(only or "", (plugin.name for plugin in agent.plugins))
    status = {(row["name"], row["distribution"]): row for row in (live or {}).get("tasks", ())}
    pauses = agent.journal.pauses.in_force(agent.clock.utcnow())
    runs = agent.journal.newest_runs()
    changes = agent.journal.last_changes_of(sorted(subject.targets))
    explanations = []
    for plugin in plugins:
        one = Explanation(
            plugin.name, plugin.distribution, plugin.version, plugin.state, plugin.reason
        )
        explanations.append(one)
        if plugin.state not in ("enabled", "disabled"):
            continue
        one.last_run, one.last_change = runs.get(one.task), _newest(changes, one.task)
        if plugin.state == "enabled":
            live_task = status.get((plugin.name, plugin.distribution))
            _add_schedule(one, live_task, pause_of(one.task, pauses))
        task = _task(agent, plugin, one)
        if task is not None:
            if agent.runner.is_dry(task, None):
                one.notes.append("dry_run is set: it records changes and makes none")
            one.verdicts = _verdicts(task, subject)
    tasks = {plugin.name for plugin in agent.plugins}
    others = [change for name, change in changes.items() if plugin_of(name) not in tasks]
    return sorted(explanations, key=_rank), others


def _add_schedule(one: Explanation, live: Mapping[str, Any] | None, pause: Pause | None) -> None:
    if pause is not None:
        one.notes.append(str(pause))
    if live is not None:
        one.next_run_seconds = live["next_run_seconds"]
        one.notes += ["it is running now"] if live["running"] else []


def _task(agent: Agent, plugin: Plugin, explanation: Explanation) -> Task | None:
    """Return the task of a plugin, built even if it is disabled."""
    if plugin.state == "enabled":
        return agent.tasks[plugin.name]
    try:
        return agent.load_task(plugin.name)
    except errors.CepheidError as err:
        explanation.reason = f"{plugin.reason}; {err}"
        return None


def _verdicts(task: Task, subject: Subject) -> list[Verdict] | None:
    """Ask one task; whatever goes wrong there is its own."""
    try:
        return task.explain(subject)
    except (Exception, SystemExit) as err:  # noqa: BLE001 - a vendor's task may do anything
        return [Verdict(Kind.UNKNOWN, f"explaining failed: {describe(err)}")]


def _newest(changes: Mapping[str, dict[str, Any]], name: str) -> dict[str, Any] | None:
    """Return the newest change of a task, by whichever of its methods."""
    own = [change for task, change in changes.items() if plugin_of(task) == name]
    return max(own, key=lambda change: change["id"], default=None)


def _rank(explanation: Explanation) -> tuple[int, str]:
    kind = explanation.kind
    return (len(Kind) if kind is None else _ORDER[kind], explanation.task)


def told(explanations: Iterable[Explanation]) -> list[Explanation]:
    """Return those that have something to say of the object itself, now or on record.

    Of a task that is disabled, what it would do is no more than a remark.
    """
    quiet = (None, Kind.UNCONCERNED, Kind.OFF)
    return [
        one
        for one in explanations
        if one.last_change is not None or (one.state == "enabled" and one.kind not in quiet)
    ]
