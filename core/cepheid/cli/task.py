# SPDX-License-Identifier: Apache-2.0
"""``cepheid task list | show | run``."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from cepheid import admin, catalogue, config, errors, loading, wording
from cepheid.agent import Agent
from cepheid.cli import base, cells, lists, progress, task_rows
from cepheid.journal import Journal, Pause
from cepheid.journal.pauses import pause_of
from cepheid.task import run_by_hand


class TaskList(lists.FittedLister):
    """List every task that is installed, whether it runs or not, and why."""

    importance = (
        "Outcome",
        "Next run",
        "Spacing",
        "Last run",
        "Summary",
        "Distribution",
        "Version",
    )

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        conf = self.conf
        # Who looks for the right name is helped by the list all the same.
        misnamed: list[errors.ConfigError] = []
        plugins = catalogue.describe(conf, misnamed)
        config.check(conf)
        for error in misnamed:
            self.say(f"cepheid: {error}")
            self.exit_code = error.exit_code
        live = self.ask_agent("status")
        by_plugin = {
            (row["name"], row["distribution"]): row for row in (live or {}).get("tasks", ())
        }
        newest, pauses = self.read_journal(_newest_runs_and_pauses) or ({}, {})
        write = task_rows.for_scripts if base.is_for_scripts(parsed_args) else task_rows.for_people
        columns = (
            "Name",
            "State",
            "Reason",
            "Spacing",
            "Last run",
            "Outcome",
            "Next run",
            "Distribution",
            "Version",
            "Summary",
        )
        return columns, [
            task_rows.row(
                write,
                conf,
                plugin,
                by_plugin.get((plugin.name, plugin.distribution)),
                newest,
                pause_of(plugin.name, pauses),
            )
            for plugin in plugins
        ]


class TaskShow(base.ShowOne):
    """Show a task: where it comes from, every option, its drivers, its latest runs."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="the task's name")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[list[str], list[Any]]:
        conf = self.conf
        is_for_scripts = base.is_for_scripts(parsed_args)
        plugin = _find(catalogue.describe(conf), parsed_args.name)
        config.check(conf)
        fields: dict[str, Any] = {
            "name": plugin.name,
            "summary": plugin.summary,
            "state": plugin.state,
            "reason": plugin.reason,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "object": plugin.entry_point.value,
        }
        if plugin.factory is not None and plugin.name in conf:
            fields["drivers"] = ", ".join(
                f"{kind} = {conf[kind].driver}" for kind in plugin.factory.drivers if kind in conf
            )
            for option in conf[plugin.name]:
                where = config.where_set(conf, option, plugin.name)
                name, value = f"[{plugin.name}] {option}", conf[plugin.name][option]
                if is_for_scripts:
                    fields |= {name: value, f"{name} is set in": where}
                else:
                    fields[name] = f"{cells.option(value)}  ({where})"
        _, pauses = self.read_journal(_newest_runs_and_pauses) or ({}, {})
        pause = pause_of(plugin.name, pauses)
        if pause is not None and plugin.state == "enabled":
            fields["state"] = "paused"
            fields["reason"] = str(pause)
        for run in self.read_journal(lambda it: it.runs(plugin.name, 5)) or []:
            fields[f"run {run['id']}"] = _run_fields(run) if is_for_scripts else _run_line(run)
        return list(fields), list(fields.values())


class TaskRun(lists.FittedLister):
    """Run a task once, now: in the running agent if there is one, else here.

    Prints the changes that it made, or with --dry-run the changes that it would make.
    """

    importance = ("Change", "After", "Before")
    marked = result = "Outcome"
    shorter = {"Target": cells.short_targets}

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="the task's name")
        parser.add_argument(
            "--dry-run", action="store_true", default=None, help="plan the changes, make none"
        )
        parser.add_argument("--force", action="store_true", help="run it though it is paused")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        name = parsed_args.name
        options = {"dry_run": parsed_args.dry_run, "force": parsed_args.force}
        try:
            with progress.shown(name, lambda: self._progress(name)):
                run = admin.call(self.conf.state_path, "run", task=name, **options)
        except errors.NotRunning:
            run = None
        # Not in the clause above: what the run logs would tell of the socket too.
        if run is None:
            run = self._run_here(name, **options)
        counters = wording.counters(run["counters"])
        self.say(
            f"{name}{' (dry run)' if run['dry_run'] else ''}: {run['outcome']} in "
            f"{run['duration_seconds']:.3f} s{f' ({counters})' if counters else ''}"
        )
        if run["outcome"] == "failed":
            raise errors.CepheidError(f"{name} failed: {run['error']}")
        columns = ("Change", "Target", "Before", "After", "Outcome", "Reason")
        return columns, [cells.change(change) for change in run["changes"]]

    def _progress(self, name: str) -> progress.Progress:
        """Return how far the agent's run of the task is."""
        for run in (self.ask_agent("status") or {}).get("runs", ()):
            if run["task"] == name:
                return run["progress"]  # type: ignore[no-any-return]
        return None

    def _run_here(self, name: str, dry_run: bool | None, force: bool) -> dict[str, Any]:
        with self.agent() as own:
            task = own.load_task(name)
            with progress.shown(name, lambda: _progress_here(own)):
                run = run_by_hand(task, dry_run, force)
        if run.error:
            raise errors.AlreadyReported(run.error)
        return dataclasses.asdict(run)


def _progress_here(agent: Agent) -> progress.Progress:
    return next((run.progress for run in agent.runner.active), None)


def _newest_runs_and_pauses(it: Journal) -> tuple[dict[str, dict[str, Any]], dict[str, Pause]]:
    return it.newest_runs(), it.pauses.in_force(task_rows.utcnow())


def _run_line(run: dict[str, Any]) -> str:
    parts = [f"{run['started_at'][:19]} UTC", run["outcome"]]
    parts += [part for part in (wording.counters(run["counters"]), run["error"]) if part]
    return ", ".join(parts)


def _run_fields(run: dict[str, Any]) -> dict[str, Any]:
    names = ("outcome", "duration_seconds", "counters", "error")
    return {"started_at": cells.time(run["started_at"])} | {name: run[name] for name in names}


def _find(plugins: list[loading.Plugin], name: str) -> loading.Plugin:
    rank = {"enabled": 0, "disabled": 1, "in conflict": 2, "failed": 3, "replaced": 4}
    named = sorted((p for p in plugins if p.name == name), key=lambda p: rank[p.state])
    if not named:
        raise errors.NoSuchTask(name, (plugin.name for plugin in plugins))
    return named[0]
