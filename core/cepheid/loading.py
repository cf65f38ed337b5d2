# SPDX-License-Identifier: Apache-2.0
"""Finding and loading plugins: who offers which name, which of them counts, and what went wrong.

Entry points are found through importlib.metadata, which tells their distribution and version,
and loaded through stevedore. One broken plugin stops nobody else.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from stevedore import extension

from cepheid import errors, libraries

LOG = logging.getLogger(__name__)

#: The distribution whose plugins are the bundled ones.
BUNDLED = "cepheid"


@dataclass(eq=False)
class Plugin:
    """An entry point that was found, and what became of it."""

    namespace: str
    name: str
    distribution: str
    version: str
    entry_point: importlib.metadata.EntryPoint = field(repr=False)
    #: found, enabled, disabled, failed, in conflict, replaced.
    state: str = "found"
    reason: str = ""
    #: What the entry point names, once it is loaded.
    factory: Any = None

    @property
    def is_bundled(self) -> bool:
        """Tell whether cepheid itself brings it."""
        return self.distribution == BUNDLED

    @property
    def identity(self) -> tuple[str, str, str]:
        """What makes two findings the same plugin: name, distribution, object."""
        return (self.name, self.distribution, self.entry_point.value)

    @property
    def provider(self) -> str:
        """The distribution and its version, for messages."""
        return f"{self.distribution} {self.version}"

    @property
    def summary(self) -> str:
        """The first line of its docstring; empty where it has none, or is not loaded."""
        text = None if self.factory is None else getattr(self.factory, "__doc__", None)
        return (text or "").strip().partition("\n")[0]

    def as_dict(self) -> dict[str, str]:
        """Return what it is and what became of it, as what JSON can hold."""
        return {
            "name": self.name,
            "summary": self.summary,
            "distribution": self.distribution,
            "version": self.version,
            "state": self.state,
            "reason": self.reason,
        }

    def load(self) -> Any:
        """Import what the entry point names and return it.

        :raises PluginError: it cannot be imported, whatever the reason
        """
        if self.factory is None:
            self.factory = _load(self)
        return self.factory

    def fail(self, reason: object) -> None:
        """Set the plugin aside."""
        self.state = "failed"
        self.reason = " ".join(str(reason).split())

    @contextlib.contextmanager
    def set_aside_if(self, failure: str) -> Iterator[None]:
        """Set the plugin aside if its code, which is called inside, raises anything.

        An error of ours is the reason as it stands; of any other, the reason is `failure` and what
        was raised. Only a KeyboardInterrupt goes on: it is the operator's, not the plugin's.
        """
        try:
            yield
        except errors.CepheidError as err:
            self.fail(err)
        except KeyboardInterrupt:
            raise
        except BaseException as err:  # a vendor's code may do anything, such as exit
            LOG.debug("%s of %s: %s", self.name, self.provider, failure, exc_info=True)
            self.fail(f"{failure}: {type(err).__name__}: {err}")


class _OnePlugin(extension.ExtensionManager[Any]):
    """A stevedore manager for one entry point, of whichever distribution."""

    def __init__(self, entry_point: importlib.metadata.EntryPoint) -> None:
        self._entry_point = entry_point
        self.failure: BaseException | None = None
        super().__init__(entry_point.group, on_load_failure_callback=self._failed)

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        return [self._entry_point]

    def _failed(self, manager: Any, entry_point: Any, err: BaseException) -> None:
        self.failure = err


def _load(plugin: Plugin) -> Any:
    # stevedore lets AssertionError out, and all that is no Exception.
    try:
        with libraries.quiet_imports():
            manager = _OnePlugin(plugin.entry_point)
    except SystemExit as err:
        raise errors.PluginError(f"it exits when it is imported (sys.exit({err.code!r}))") from err
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # a module may do anything while it is imported
        raise errors.PluginError(libraries.why_not_imported(err)) from err
    failure = manager.failure
    if failure is not None:
        raise errors.PluginError(libraries.why_not_imported(failure)) from failure
    return manager[plugin.name].plugin


def discover(namespace: str) -> list[Plugin]:
    """Find every plugin that an installed distribution offers in `namespace`, sorted by name."""
    return _discover(lambda offered: offered == namespace)


def discover_under(prefix: str) -> list[Plugin]:
    """Find every plugin in a namespace that begins with `prefix`, sorted by namespace and name."""
    return sorted(_discover(lambda offered: offered.startswith(prefix)), key=lambda p: p.namespace)


def _discover(is_wanted: Callable[[str], bool]) -> list[Plugin]:
    plugins: dict[str, list[Plugin]] = {}
    for offering in importlib.metadata.distributions():
        try:
            # Names are slow to read, and few distributions have such entry points.
            if not any(is_wanted(entry_point.group) for entry_point in offering.entry_points):
                continue
            name = offering.metadata["Name"]
            # Installed twice, the first on the path shadows the other.
            distribution = importlib.metadata.distribution(name)
            version = distribution.version
            plugins[normalized(name)] = [
                Plugin(entry_point.group, entry_point.name, name, version, entry_point)
                for entry_point in distribution.entry_points
                if is_wanted(entry_point.group)
            ]
        except Exception as err:  # noqa: BLE001 - any damaged distribution's metadata
            where = getattr(offering, "_path", offering)
            LOG.warning("The metadata in %s cannot be read: %s", where, err)
    found = [plugin for offered in plugins.values() for plugin in offered]
    return sorted(found, key=lambda plugin: (plugin.name, plugin.distribution))


def settle_conflicts(plugins: Iterable[Plugin], providers: dict[str, str], option: str) -> None:
    """Leave at most one plugin of each name in state ``found``.

    :param providers: the distribution that was chosen for a name
    :param option: where the choice is made, for the message; ``{name}`` stands for the name
    """
    by_name: dict[str, list[Plugin]] = {}
    for plugin in plugins:
        by_name.setdefault(plugin.name, []).append(plugin)
    for name, rivals in by_name.items():
        wanted = providers.get(name)
        if wanted:
            chosen = [
                rival for rival in rivals if normalized(rival.distribution) == normalized(wanted)
            ]
            for rival in rivals:
                if rival in chosen:
                    continue
                rival.state = "replaced" if chosen else "failed"
                rival.reason = (
                    f"by {chosen[0].provider}, as {option.format(name=name)} says"
                    if chosen
                    else f"{option.format(name=name)} names {wanted}, which does not offer it"
                )
        elif len(rivals) > 1:
            names = " and ".join(rival.provider for rival in rivals)
            for rival in rivals:
                rival.state = "in conflict"
                rival.reason = f"offered by {names}; choose one with {option.format(name=name)}"


def normalized(distribution: str) -> str:
    """Return the spelling that names of one distribution share. Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
