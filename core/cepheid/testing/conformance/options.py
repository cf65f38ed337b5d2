# SPDX-License-Identifier: Apache-2.0
"""Checks of what a task class declares: its options, its docstring, its spacing, its shape."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from oslo_config import cfg, types

from cepheid import task_options
from cepheid.periodic_task import PeriodicTasks
from cepheid.task import Task
from cepheid.testing.conformance.findings import Problem

#: A word that says what a number counts or measures.
UNITS = re.compile(
    r"milliseconds?|seconds?|minutes?|hours?|days?|weeks?|months?|[kmgt]i?b\b|bytes?|ratio|percent"
    r"|share|parts?|degrees?|celsius|kelvin|watts?|volts?|amperes?|hertz|[kmg]?bit|times|attempts"
    r"|tries|number|many|most|least|port|level|version|weight|priority|vlan|\bid\b|index|uid|gid"
    r"|(?!this|does|always|less|status|process|address|access|class)\b[a-z]{3,}s\b"
)

#: Names of options that hold what nobody may read.
SECRET = re.compile(r"(password|passwd|passphrase|secret|token|credential|private_key|api_?key)")

#: What is beside a secret, and may be read: where it is, what it is called.
NO_SECRET = re.compile(r"_(file|path|dir|directory|name|id|bucket|url|ttl|lifetime)s?$")

#: Seconds between runs below which a host is never at rest.
LEAST_SPACING = 5

#: How a summary begins that is not in the imperative.
NOT_IMPERATIVE = {"this", "a", "an", "the", "task", "class", "periodic", "it", "my"}

#: Verbs that look as if they were in another form.
IMPERATIVE = {"alias", "bias", "bring", "cling", "ping", "ring", "sling", "spring", "string"}

#: What a task may say anew of its base, ...
OFFERED = {"__init__", "configure", "explain", "list_opts", "metrics"}

#: ... and what the base classes do for it, and nobody else may.
KEPT = {
    name
    for base in (Task, PeriodicTasks)
    for name, value in vars(base).items()
    if callable(getattr(value, "__func__", value)) and not hasattr(object, name)
} - OFFERED


def docstring(factory: type[Task]) -> Iterator[Problem]:
    """Check the line that ``cepheid task list`` shows."""
    lines = (vars(factory).get("__doc__") or "").strip().splitlines()
    where = f"class {factory.__name__}"
    if not lines:
        yield Problem(
            "the class has no docstring, so 'cepheid task list' shows nothing of it",
            'begin it with """Delete old dumps of guests.""" or what it does',
            where,
        )
        return
    first = lines[0].strip()
    remedy = "say in one line, in the imperative and with a full stop, what it does"
    if not first.endswith("."):
        yield Problem(f"the first line does not end with a full stop: {first!r}", remedy, where)
    if len(lines) > 1 and lines[1].strip():
        yield Problem("the first line of the docstring goes on in the second", remedy, where)
    word = first.split()[0].rstrip(".,:")
    verb = word.lower()
    is_other_form = verb.endswith("ing") or re.search(r"[^sui]s$", verb)
    if verb in NOT_IMPERATIVE or (is_other_form and verb not in IMPERATIVE):
        yield Problem(f"the first line is not in the imperative: {word} ...", remedy, where)
    elif not word[:1].isupper():
        yield Problem(f"the first line does not begin with a capital: {word}", remedy, where)


def options(factory: type[Task], others: Mapping[str, type[Task]]) -> Iterator[Problem]:
    """Check the options that a task declares.

    :param others: the other tasks that are installed, by name
    """
    built_in = {option.dest: option for option in task_options.common(factory)}
    for option in factory.options:
        where = f"[{factory.task_name()}] {option.name}"
        if option.dest in built_in:
            common = built_in[option.dest]
            if type(common.type) is not type(option.type):
                yield Problem(
                    f"{option.name} is an option of every task, and this one is of another type",
                    "give yours another name; set the default of the common one by the decorator "
                    "or on the class",
                    where,
                )
        yield from _text(option, where)
        if is_secret(option) and not option.secret:
            yield Problem(
                "it holds a secret and is not declared so; it would be logged and shown",
                "declare it with secret=True",
                where,
            )
    yield from _old_names(factory, others)


def is_secret(option: cfg.Opt) -> bool:
    """Tell whether an option holds what nobody may read, as it says or as its name does."""
    if not isinstance(option.type, types.String):
        return False
    named = SECRET.search(option.dest) and not NO_SECRET.search(option.dest)
    return bool(option.secret or named)


def _text(option: cfg.Opt, where: str) -> Iterator[Problem]:
    text = (option.help or "").strip()
    if (
        len(text.split()) < 3
        or not text.endswith(".")
        or not (text[0].isupper() or not text[0].isalpha())
    ):
        yield Problem(
            f"its help is no full sentence: {text!r}",
            "say in a sentence, with a full stop, what it sets",
            where,
        )
    if isinstance(option.type, types.Number) and not UNITS.search(f"{text} {option.name}".lower()):
        yield Problem(
            f"its help does not say in which unit the number is: {text!r}",
            "name the unit: seconds, days, MiB, ...",
            where,
        )


def _old_names(factory: type[Task], others: Mapping[str, type[Task]]) -> Iterator[Problem]:
    taken: dict[tuple[str, str], str] = {}
    for name, other in others.items():
        for option in other.all_options():
            taken[(name, option.name)] = name
            for old in option.deprecated_opts:
                taken[(old.group or name, old.name or option.name)] = name
    for option in factory.options:
        for old in option.deprecated_opts:
            group = old.group or factory.task_name()
            owner = taken.get((group, old.name or option.name))
            if owner is not None:
                yield Problem(
                    f"its old name [{group}] {old.name or option.name} is one of the task {owner}",
                    "give it no deprecated_opts that another task answers to",
                    f"[{factory.task_name()}] {option.name}",
                )


def spacing(factory: type[Task]) -> Iterator[Problem]:
    """Check how often it wants to run."""
    function: Any = factory._periodic_declared[factory.task_name()]
    seconds = function._periodic_spacing
    where = f"{factory.__name__}.{factory.task_name()}"
    if seconds < 0:
        yield Problem(
            "it is off until an operator gives it a spacing",
            "write @periodic_task(spacing=600), or how many seconds it takes until there is news",
            where,
        )
    elif 0 < seconds < LEAST_SPACING:
        yield Problem(
            f"it wants to run every {seconds} seconds on every host",
            f"choose {LEAST_SPACING} seconds at the least; a minute and more is usual",
            where,
        )


def shape(factory: type[Task]) -> Iterator[Problem]:
    """Check that it leaves running it to the core."""
    for base in factory.__mro__:
        if base in Task.__mro__:
            continue
        for name in sorted(set(vars(base)) & KEPT):
            yield Problem(
                f"{base.__name__} replaces {name} of its base, and with it the runner's locks, "
                "time limit, journal or schedule",
                "leave it; do the work in the decorated method",
                f"{base.__name__}.{name}",
            )
    function = getattr(factory, factory.task_name())
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        yield Problem(
            "the method is a coroutine or a generator, of which nothing is ever carried out",
            "write def name(self, context), without async and yield",
            f"{factory.__name__}.{factory.task_name()}",
        )
    method = inspect.signature(function)
    if len(method.parameters) != 2:
        yield Problem(
            f"the method takes {len(method.parameters) - 1} arguments beside self",
            "write def name(self, context)",
            f"{factory.__name__}.{factory.task_name()}",
        )
