# SPDX-License-Identifier: Apache-2.0
"""The process in which one task is checked: confined, and never the operator's own.

Run by :mod:`.sandbox` with an order in JSON on its standard input; writes what it found into the
directory that is named there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from cepheid import errors, loading
from cepheid.task import Task
from cepheid.testing.conformance import footprint, metadata, mishaps, options, scenes, source
from cepheid.testing.conformance.confinement import confine
from cepheid.testing.conformance.findings import (
    FAILED,
    WARNING,
    Finding,
    NotChecked,
    Problem,
    as_dict,
    findings_of,
    skipped,
)
from cepheid.testing.conformance.trial import Trial
from cepheid.testing.conformance.watch import Watch

RESULT = "result.json"

#: The scenes, by the names of their checks, in the order in which they are played.
SCENES: dict[str, Callable[[Trial], Iterable[Problem]]] = {
    "constructor": scenes.constructor,
    "changes": scenes.normal_run,
    "dry run": scenes.dry_run,
    "max_changes": scenes.limit,
    "leftovers": scenes.leaves_nothing_behind,
    "quick": scenes.is_quick,
    "overlapping": scenes.overlapping,
    "repeatable": scenes.repeatable,
    "time-outs": mishaps.time_outs,
    "vanishing": mishaps.vanishing,
    "half lists": mishaps.half_lists,
    "bad rows": mishaps.bad_rows,
    "constant cost": scenes.constant_cost,
    "reload": scenes.reload,
    "secrets": scenes.secrets,
}


def main() -> None:
    """Check the task that the order names."""
    order = json.load(sys.stdin)
    directory = Path(order["directory"])
    confined = confine(directory)
    found: list[Finding] = []
    plugin = next(
        one
        for one in metadata.tasks_of(metadata.find(order["distribution"]))
        if one.name == order["task"]
    )
    watch = Watch(directory, _source_of(plugin.entry_point.module))
    _watch_sleep(watch)
    watch.install()
    for finding in _check(plugin, watch, directory, confined):
        found.append(finding)
        _write(directory, found, "")
    # Not where an error ends it: what was not checked is then not said to be.
    _write(directory, found, "end")
    os._exit(0)  # whatever threads it has left


def _write(directory: Path, found: list[Finding], state: str) -> None:
    result = {"state": state, "found": [as_dict(one) for one in found]}
    part = directory / f"{RESULT}.part"
    part.write_text(json.dumps(result))
    part.replace(directory / RESULT)


def _check(
    plugin: loading.Plugin, watch: Watch, directory: Path, confined: bool
) -> Iterator[Finding]:
    name = plugin.name
    out = io.StringIO()
    heavy_before = set(sys.modules)
    before = footprint.take()
    watch.phase = "import"
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            factory = plugin.load()
    except errors.PluginError as err:
        at_import = list(_at_import(watch, before, out.getvalue()))
        if at_import:
            yield from findings_of(name, "import", at_import)
        heavy = [one for one in source.HEAVY if f"module {one} " in str(err)]
        what = "heavy imports" if heavy else "loading"
        yield from findings_of(
            name,
            what,
            [
                Problem(
                    f"it cannot be loaded: {err}",
                    "leave the library to a driver, and ask for that with agent.driver(kind)"
                    if heavy
                    else "mend what the error names; 'cepheid task list' shows it as well",
                    plugin.entry_point.value,
                )
            ],
        )
        return
    watch.phase = ""
    if not (isinstance(factory, type) and issubclass(factory, Task)):
        what = f"{plugin.entry_point.value} is no subclass of cepheid.Task"
        yield Finding(name, "loading", FAILED, what, "", "derive its class from cepheid.Task")
        return
    if not confined:
        yield Finding(
            name,
            "sandbox",
            WARNING,
            "this kernel has no Landlock: code of the plugin's that is not Python is not confined",
        )
    yield from findings_of(name, "loading", _other_name(factory, plugin))
    yield from findings_of(name, "import", _at_import(watch, before, out.getvalue()))
    static = list(_static(factory, plugin, watch, set(sys.modules) - heavy_before))
    yield from static
    why = ""
    if any(one.check == "shape" and one.result == FAILED for one in static):
        why = "its shape is to be mended first"
    trial = Trial(factory, watch, directory)
    for check, scene in SCENES.items():
        if why:
            yield skipped(name, check, why)
            continue
        found = _played(name, check, scene, trial)
        yield from found
        why = trial.hopeless


def _played(
    name: str, check: str, scene: Callable[[Trial], Iterable[Problem]], trial: Trial
) -> list[Finding]:
    out = io.StringIO()
    problems: list[Problem] = []
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            for problem in scene(trial):  # what was found until an error ends it counts
                problems.append(problem)
    except NotChecked as err:
        if problems:
            return findings_of(name, check, problems)
        if check == "constructor":
            trial.hopeless = "it cannot be built"
            remedy = "mend what the error names"
            return [Finding(name, check, FAILED, str(err), trial.factory.__qualname__, remedy)]
        return [skipped(name, check, str(err))]
    except BaseException as err:  # noqa: BLE001 - a plugin may do anything
        if check == "constructor":
            trial.hopeless = "it cannot be built"
        what = f"the check was cut short by {type(err).__name__}: {err}"
        problems.append(Problem(what, "let no such error out of the task"))
        return findings_of(name, check, problems)
    if check == "quick" and out.getvalue().strip():
        line = out.getvalue().strip().splitlines()[0]
        problems.append(
            Problem(f"it prints: {line!r}", "log instead; nobody sees an agent's output")
        )
    return findings_of(name, check, problems)


def _static(
    factory: type[Task], plugin: loading.Plugin, watch: Watch, imported: set[str]
) -> Iterator[Finding]:
    name = plugin.name
    module = source.Source(source.modules_of(plugin.entry_point.module), watch.short)
    heavy = list(module.heavy_imports())
    loaded = sorted({one.partition(".")[0] for one in imported} & set(source.HEAVY))
    if loaded and not heavy:
        heavy.append(
            Problem(
                f"importing it loads {', '.join(loaded)}",
                "import no module that needs it; leave the library to a driver",
            )
        )
    yield from findings_of(name, "heavy imports", heavy)
    undeclared = metadata.undeclared(metadata.find(plugin.distribution), module.imports())
    yield from findings_of(name, "requirements", undeclared, WARNING)
    yield from findings_of(name, "docstring", options.docstring(factory))
    yield from findings_of(name, "options", options.options(factory, _other_tasks(name)))
    yield from findings_of(name, "spacing", options.spacing(factory))
    yield from findings_of(name, "shape", options.shape(factory))
    yield from findings_of(name, "clock", module.clocks())
    yield from findings_of(name, "sleep", module.sleeps())
    yield from findings_of(name, "errors", module.catches())
    yield from findings_of(name, "configuration", module.global_conf())
    yield from findings_of(name, "manners", module.manners())


def _at_import(watch: Watch, before: footprint.Footprint, printed: str) -> Iterator[Problem]:
    if printed.strip():
        line = printed.strip().splitlines()[0]
        yield Problem(f"importing it prints: {line!r}", "leave it out; a module only defines")
    for act in watch.acts:
        if act.phase == "import":
            yield Problem(f"importing it {act.what}", "do that in the decorated method", act.where)
    for problem in footprint.differences(before, footprint.take()):
        what = problem.what.removeprefix("it ")
        yield Problem(f"importing it {what}", problem.remedy, problem.where)


def _other_name(factory: type[Task], plugin: loading.Plugin) -> Iterator[Problem]:
    try:
        name = factory.task_name()
    except errors.PluginError as err:
        yield Problem(str(err), "decorate the method with periodic_task")
        return
    if name != plugin.name:
        yield Problem(
            f"its method is {name}, its entry point {plugin.name}",
            "give both one name, which is that of its options' group as well",
            plugin.entry_point.value,
        )


def _other_tasks(name: str) -> dict[str, type[Task]]:
    """Return the other tasks that are installed and load."""
    found: dict[str, type[Task]] = {}
    for plugin in loading.discover("cepheid.tasks"):
        if plugin.name != name:
            with contextlib.suppress(errors.CepheidError):
                factory = plugin.load()
                if isinstance(factory, type) and issubclass(factory, Task):
                    found[plugin.name] = factory
    return found


def _source_of(module: str) -> str:
    """Return the directory or file of a module's top-level package, not imported."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None:
        return "/nowhere/"
    if spec.submodule_search_locations:
        return next(iter(spec.submodule_search_locations)) + os.sep
    return spec.origin or "/nowhere/"


def _watch_sleep(watch: Watch) -> None:
    """Note who sleeps; a plugin does not."""
    module: Any = time
    sleep = time.sleep

    def noted(seconds: float) -> None:
        # A library that it calls may wait, such as subprocess for a program with a time-out.
        is_plugins = sys._getframe(1).f_code.co_filename.startswith(watch.source)
        if not is_plugins or not watch.note(
            "sleep", f"sleeps for {seconds:g} seconds by the machine's clock"
        ):
            sleep(seconds)

    module.sleep = noted


if __name__ == "__main__":
    main()
