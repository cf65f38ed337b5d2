# SPDX-License-Identifier: Apache-2.0
"""Installed distributions for tests: real modules and real metadata in a directory on sys.path."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

TASK = '''
import cepheid
from cepheid.periodic_task import periodic_task

class Plugin(cepheid.Task):
    """Do {name}."""

    @periodic_task(spacing=60)
    def {name}(self, context):
        pass
'''


class Distributions:
    """Writes what pip would have installed; :meth:`remove` takes it out of the process again.

    It comes first on sys.path, so one named ``cepheid`` hides the real one's entry points.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._modules: list[str] = []
        sys.path.insert(0, str(path))

    def add(
        self,
        name: str,
        entry_points: Mapping[str, Mapping[str, str]],
        modules: Mapping[str, str] | None = None,
        version: str = "1.0",
    ) -> None:
        """Install a distribution.

        :param entry_points: by namespace and name, ``module:attribute``
        :param modules: the source of each module
        """
        for module, source in (modules or {}).items():
            (self.path / f"{module}.py").write_text(source)
            self._modules.append(module)
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = []
        for namespace, points in entry_points.items():
            lines += [f"[{namespace}]", *(f"{point} = {value}" for point, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        importlib.invalidate_caches()

    def add_task(
        self, distribution: str, task: str, source: str | None = None, version: str = "1.0"
    ) -> None:
        """Install a distribution that offers one task.

        :param source: its module, which defines ``Plugin``; by default a task that does nothing
        """
        module = f"{distribution.replace('-', '_').replace('.', '_').lower()}_{task}"
        self.add(
            distribution,
            {"cepheid.tasks": {task: f"{module}:Plugin"}},
            {module: TASK.format(name=task) if source is None else source},
            version,
        )

    def uninstall(self, name: str) -> None:
        """Take the metadata of a distribution away."""
        for info in self.path.glob(f"{name.replace('-', '_')}-*.dist-info"):
            for file in info.iterdir():
                file.unlink()
            info.rmdir()
        importlib.invalidate_caches()

    def remove(self) -> None:
        """Take all of it out of sys.path and sys.modules."""
        sys.path.remove(str(self.path))
        for module in self._modules:
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
