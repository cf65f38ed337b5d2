# SPDX-License-Identifier: Apache-2.0
"""Libraries that may not be installed: importing what needs them, and which extra brings each."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import warnings
from collections.abc import Iterator
from typing import Any

from cepheid import errors

#: The extra of cepheid that brings a library, by the library's top-level module.
EXTRAS = {
    "libvirt": "libvirt",
    "lxml": "libvirt",
    "sqlalchemy": "database",
    "oslo_db": "database",
    "alembic": "database",
    "oslo_messaging": "messaging",
    "kombu": "messaging",
    "amqp": "messaging",
    "keystoneauth1": "neutron",
    "openstack": "neutron",
    "oslo_upgradecheck": "upgrade",
    "prometheus_client": "status",
}


def load_part(module: str, without: str, alternative: str) -> Any:
    """Import the part of a plugin that wraps a library which may not be installed.

    :param module: its full name
    :param without: what cannot be done without it, for the message
    :param alternative: what else the operator may do than install the library
    :raises PluginError: it cannot be imported
    """
    try:
        with quiet_imports():
            return importlib.import_module(module)
    except ImportError as err:
        remedy = _remedy(err.name or "")
        raise errors.PluginError(f"{without}: {err}{remedy}, or {alternative}.") from err


def require(*modules: str) -> None:
    """Refuse to import a plugin's module where a library is missing that it imports later.

    The library is only looked for: to import one may take longer than all the rest of a command.

    :raises ModuleNotFoundError: one is missing; it has the name of the first
    """
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Hide warnings while something is imported: they are no news to an operator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def why_not_imported(failure: BaseException) -> str:
    """Return in words why a module was not imported, with the remedy where there is one."""
    if isinstance(failure, ModuleNotFoundError) and failure.name:
        return f"the Python module {failure.name} is missing{_remedy(failure.name)}"
    if isinstance(failure, SyntaxError):
        return f"syntax error in {failure.filename}, line {failure.lineno}: {failure.msg}"
    return f"{type(failure).__name__}: {failure}"


def _remedy(module: str) -> str:
    extra = EXTRAS.get(module.partition(".")[0])
    return f"; pip install 'cepheid[{extra}]'" if extra else ""
