# SPDX-License-Identifier: Apache-2.0
"""The names of a new package: which of them can be given, and what follows from them."""

from __future__ import annotations

import email.utils
import importlib.metadata
import importlib.util
import keyword
import re
import sys
from dataclasses import dataclass

from cepheid import drivers, errors, loading
from cepheid.catalogue import NAMESPACE
from cepheid.task import Task

#: A line of the package must hold a task's name, and an import the package's besides.
MAX_CHARACTERS = 40

#: Packages that would be something else's.
TAKEN_PACKAGES = {"build", "cepheid", "cepheid_plugins", "dist", "tests"}

#: What a task's object has besides what its class has.
TAKEN_ATTRIBUTES = {"agent", "conf", "hypervisor", "name"}


@dataclass(frozen=True)
class Names:
    """What a new package and its parts are called.

    :raises CepheidError: out of :meth:`of`: a name cannot be used
    """

    #: The task: entry point, module, method and option group.
    task: str
    #: The distribution, as ``pip install`` takes it.
    distribution: str

    @classmethod
    def of(cls, task: str, distribution: str, replace: bool = False) -> Names:
        """Check the names that were given.

        :param replace: whether the task is to take the place of another of its name
        """
        names = cls(task, distribution)
        _check_task(task, replace)
        _check_distribution(names)
        return names

    @property
    def package(self) -> str:
        """The Python package."""
        return re.sub(r"[-_.]+", "_", self.distribution).lower()

    @property
    def task_class(self) -> str:
        """The class of the task."""
        return "".join(part.capitalize() for part in self.task.split("_"))


def _check_task(task: str, replace: bool) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", task) or keyword.iskeyword(task):
        raise errors.CepheidError(
            f"The task cannot be called {task!r}: a name has small letters, digits and single "
            "underscores, begins with a letter, and is no word of Python's, such as list_guests."
        )
    if len(task) > MAX_CHARACTERS:
        raise errors.CepheidError(
            f"The task's name {task!r} is too long: {MAX_CHARACTERS} characters at most."
        )
    if hasattr(Task, task) or task in TAKEN_ATTRIBUTES:
        raise errors.CepheidError(
            f"The task cannot be called {task!r}: every task has an attribute of that name."
        )
    if task in _option_groups():
        raise errors.CepheidError(
            f"The task cannot be called {task!r}: [{task}] is a group of Cepheid's own options."
        )
    others = [plugin for plugin in loading.discover(NAMESPACE) if plugin.name == task]
    if others and not replace:
        raise errors.CepheidError(
            f"There is a task {task!r} already, of {others[0].provider}; choose another name, or "
            "give --replace to write one that takes its place."
        )
    if replace and not others:
        raise errors.NoSuchTask(task)


def _option_groups() -> set[str]:
    """Return the groups that are not a task's."""
    points = [plugin.name for plugin in loading.discover("oslo.config.opts") if plugin.is_bundled]
    groups = {point.rpartition(".")[2] for point in points if not point.startswith(NAMESPACE)}
    return {*groups, *drivers.DEFAULTS, "task_providers"}


def _check_distribution(names: Names) -> None:
    given, package = names.distribution, names.package
    # Source: the core metadata specification, field Name.
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", given):
        raise errors.CepheidError(
            f"The distribution cannot be called {given!r}: a name has letters, digits, '-', '_' "
            "and '.', and begins and ends with a letter or digit, such as acme-guests."
        )
    if len(given) > MAX_CHARACTERS:
        raise errors.CepheidError(
            f"The distribution's name {given!r} is too long: {MAX_CHARACTERS} characters at most."
        )
    if not package.isidentifier() or keyword.iskeyword(package):
        raise errors.CepheidError(
            f"The distribution cannot be called {given!r}: its Python package would be "
            f"{package!r}, which is no name for one; begin it with a letter."
        )
    if package in TAKEN_PACKAGES or package in sys.stdlib_module_names:
        raise errors.CepheidError(
            f"The distribution cannot be called {given!r}: the Python module {package} is "
            "another's; put your company's name before it, such as acme-guests."
        )
    _refuse_what_is_installed(given, package)


def _refuse_what_is_installed(given: str, package: str) -> None:
    try:
        version = importlib.metadata.version(given)
    except importlib.metadata.PackageNotFoundError:
        version = ""
    spec = importlib.util.find_spec(package)
    if version or (spec is not None and spec.origin):
        raise errors.CepheidError(
            f"{given} {version}".rstrip() + " is installed already; choose another name with "
            f"--dist, or uninstall it ('pip uninstall {given}')."
        )


def author_lines(author: str) -> str:
    """Return the lines of setup.cfg's ``[metadata]`` for an author, as ``Name <address>``.

    :raises CepheidError: it is no text for one line
    """
    if not author.strip():
        return ""
    if not author.isprintable():
        raise errors.CepheidError("The author is to be one line, such as 'Ada <ada@acme.example>'.")
    name, address = email.utils.parseaddr(author)
    if "@" not in address:
        name, address = author.strip(), ""
    lines = [f"author = {name}"] if name else []
    lines += [f"author_email = {address}"] if address else []
    return "".join(f"{line}\n" for line in lines)
