# SPDX-License-Identifier: Apache-2.0
"""``cepheid task list | show | run | history``."""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from oslo_config import cfg

from cepheid import admin, catalogue, config, errors, journal, loading, periodic_task
from cepheid.cli import base, lists
from cepheid.service import run_as_dict


class TaskList(lists.PluginLister):
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
        plugins = described_catalogue(conf)
        config.check(conf)
        live = admin.ask(conf.state_path, "status")
        by_plugin = {
            (row["name"], row["distribution"]): row for row in (live or {}).get("tasks", ())
        }
        newest = _newest_runs(conf)
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
            _row(conf, plugin, by_plugin.get((plugin.name, plugin.distribution)), newest)
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
        plugin = _find(described_catalogue(conf), parsed_args.name)
        config.check(conf)
        fields: dict[str, Any] = {
            "name": plugin.name,
            "summary": lists.summary(plugin.factory),
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
                fields[f"[{plugin.name}] {option}"] = f"{conf[plugin.name][option]}  ({where})"
        for run in _read_journal(conf, lambda it: it.runs(plugin.name, 5)) or []:
            fields[f"run {run['id']}"] = _run_line(run)
        return list(fields), list(fields.values())


class TaskRun(base.Lister):
    """Run a task once, now: in the running agent if there is one, else here.

    Prints the changes that it made, or with --dry-run the changes that it would make.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", help="the task's name")
        parser.add_argument(
            "--dry-run", action="store_true", default=None, help="plan the changes, make none"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        name = parsed_args.name
        try:
            run = admin.call(self.conf.state_path, "run", task=name, dry_run=parsed_args.dry_run)
        except errors.NotRunning:
            run = self._run_here(name, parsed_args.dry_run)
        counters = ", ".join(f"{key} {n}" for key, n in sorted(run["counters"].items()))
        self.say(
            f"{name}{' (dry run)' if run['dry_run'] else ''}: {run['outcome']} in "
            f"{run['duration_seconds']:.3f} s{f' ({counters})' if counters else ''}"
        )
        if run["outcome"] == "failed":
            raise errors.CepheidError(f"{name} failed: {run['error']}")
        columns = ("Change", "Target", "Before", "After", "Outcome", "Reason")
        return columns, [
            (
                c["kind"],
                c["target"],
                _value(c["before"]),
                _value(c["after"]),
                _with_error(c),
                c["reason"],
            )
            for c in run["changes"]
        ]

    def _run_here(self, name: str, dry_run: bool | None) -> dict[str, Any]:
        with self.agent() as own:
            run = own.load_task(name).run_now("operator", dry_run)
        if run.error:
            raise errors.AlreadyReported(run.error)
        return run_as_dict(run)


class TaskHistory(base.Lister):
    """List the latest runs and their changes, newest last, from the journal."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("name", metavar="NAME", nargs="?", help="only this task's runs")
        parser.add_argument(
            "--limit", type=int, default=20, help="how many runs to list (default: 20)"
        )
        parser.add_argument(
            "--changed", action="store_true", help="only runs that changed, or planned, something"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple[str, ...], list[Any]]:
        def read(it: journal.Journal) -> list[tuple[Any, ...]]:
            runs = it.runs(parsed_args.name, parsed_args.limit)
            changes: dict[int, list[dict[str, Any]]] = {}
            for change in it.changes(run["id"] for run in runs):
                changes.setdefault(change["run_id"], []).append(change)
            rows: list[tuple[Any, ...]] = []
            for run in reversed(runs):
                of_run = changes.get(run["id"], [])
                if of_run or not parsed_args.changed:
                    rows += _history_rows(run, of_run)
            return rows

        if parsed_args.name and not any(
            plugin.name == parsed_args.name for plugin in loading.discover(catalogue.NAMESPACE)
        ):
            known = _read_journal(self.conf, lambda it: it.runs(parsed_args.name, 1))
            if not known:
                raise errors.PluginError(_no_such_task(parsed_args.name))
        columns = (
            "Run",
            "Started",
            "Task",
            "Outcome",
            "Seconds",
            "Change",
            "Target",
            "Before",
            "After",
            "Result",
            "Reason",
        )
        return columns, _read_journal(self.conf, read) or []


def described_catalogue(conf: cfg.ConfigOpts) -> list[loading.Plugin]:
    """Find all task plugins and load them, so that each can be described, without running any."""
    plugins = catalogue.find_tasks(conf)
    for plugin in plugins:
        if plugin.state == "found":
            catalogue.prepare(conf, plugin)
            if plugin.state == "found":
                plugin.state = "enabled"
        elif plugin.state == "disabled":
            reason = plugin.reason
            catalogue.prepare(conf, plugin, even_disabled=True)
            if plugin.state == "disabled":
                plugin.reason = reason
        else:
            try:
                plugin.load()
            except errors.PluginError as err:
                plugin.reason = f"{plugin.reason}; {err}"
    return plugins


def _row(
    conf: cfg.ConfigOpts,
    plugin: loading.Plugin,
    live: dict[str, Any] | None,
    newest: dict[str, dict[str, Any]],
) -> tuple[Any, ...]:
    state, reason = plugin.state, plugin.reason
    if live is not None:
        state, reason = live["state"], live["reason"]
    spacing = ""
    has_options = plugin.state in ("enabled", "disabled") and plugin.name in conf
    if has_options:
        seconds = periodic_task.effective_spacing(conf[plugin.name].spacing)
        spacing = "off" if seconds is None else f"{seconds:g} s"
    run = newest.get(plugin.name) if state not in ("replaced", "in conflict") else None
    return (
        plugin.name,
        "running" if live is not None and live["running"] else state,
        reason,
        spacing,
        _ago(run["started_at"]) if run else "",
        run["outcome"] if run else "",
        _next_run(live),
        plugin.distribution,
        plugin.version,
        lists.summary(plugin.factory),
    )


def _next_run(live: dict[str, Any] | None) -> str:
    if live is None or live["next_run_seconds"] is None:
        return ""
    return f"in {duration(live['next_run_seconds'])}"


def duration(seconds: float) -> str:
    """Return a number of seconds as a person would say it: ``42 s``, ``3 min``, ``5 h``."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _ago(started_at: str) -> str:
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    elapsed = (now - datetime.datetime.fromisoformat(started_at)).total_seconds()
    return f"{duration(max(0.0, elapsed))} ago"


def _history_rows(run: dict[str, Any], changes: list[dict[str, Any]]) -> Iterable[tuple[Any, ...]]:
    seconds = "" if run["duration_seconds"] is None else f"{run['duration_seconds']:.3f}"
    outcome = run["outcome"] + (" (dry run)" if run["dry_run"] else "")
    head = (run["id"], run["started_at"][:19], run["task"], outcome, seconds)
    if not changes:
        yield (*head, "", "", "", "", "", run["error"])
    for change in changes:
        yield (
            *head,
            change["kind"],
            change["target"],
            _value(change["before"]),
            _value(change["after"]),
            _with_error(change),
            change["reason"],
        )


def _with_error(change: dict[str, Any]) -> str:
    return f"{change['outcome']}: {change['error']}" if change["error"] else change["outcome"]


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def _run_line(run: dict[str, Any]) -> str:
    counters = ", ".join(f"{key} {n}" for key, n in sorted(run["counters"].items()))
    parts = [f"{run['started_at'][:19]} UTC", run["outcome"]]
    parts += [part for part in (counters, run["error"]) if part]
    return ", ".join(parts)


def _find(plugins: list[loading.Plugin], name: str) -> loading.Plugin:
    rank = {"enabled": 0, "disabled": 1, "in conflict": 2, "failed": 3, "replaced": 4}
    named = sorted((p for p in plugins if p.name == name), key=lambda p: rank[p.state])
    if not named:
        raise errors.PluginError(_no_such_task(name))
    return named[0]


def _no_such_task(name: str) -> str:
    return f"There is no task {name!r}; 'cepheid task list' shows those there are."


def _newest_runs(conf: cfg.ConfigOpts) -> dict[str, dict[str, Any]]:
    return _read_journal(conf, lambda it: it.newest_runs()) or {}


def _read_journal(conf: cfg.ConfigOpts, read: Any) -> Any:
    """Return what `read` finds in the journal; None where there is none yet."""
    path = Path(conf.state_path) / journal.FILE_NAME
    if not path.exists():
        return None
    opened = journal.Journal(path)
    try:
        return read(opened)
    finally:
        opened.close()
