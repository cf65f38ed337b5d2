# SPDX-License-Identifier: Apache-2.0
"""Writing a new package: one task, its options, its tests, and what pip needs."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import shutil
import string
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cepheid import errors
from cepheid.scaffold.names import Names, author_lines

#: The files of a package and the templates that they are made of, in the order in which a person
#: looks at them.
FILES = {
    "${package}/${task}.py": "task.py.in",
    "${package}/__init__.py": "init.py.in",
    "tests/test_${task}.py": "test_task.py.in",
    "README.rst": "README.rst.in",
    "setup.cfg": "setup.cfg.in",
    "pyproject.toml": "pyproject.toml.in",
    "LICENSE": "LICENSE",
    ".gitignore": "gitignore.in",
}

#: What the text of the README adds where the task takes another's place.
CHOOSE = """
Several packages offer ``$task`` now, so choose this one as well:

.. code-block:: ini

   [task_providers]
   $task = $distribution
"""


def render(names: Names, author: str = "", replace: bool = False) -> dict[str, str]:
    """Return the text of each file, by its path in the package."""
    values = {
        "task": names.task,
        "task_class": names.task_class,
        "package": names.package,
        "distribution": names.distribution,
        "underline": "=" * len(names.distribution),
        "author_lines": author_lines(author),
        "cepheid_version": importlib.metadata.version("cepheid"),
    }
    values["choose"] = string.Template(CHOOSE).substitute(values) if replace else ""
    return {
        string.Template(path).substitute(values): _fill(template, values)
        for path, template in FILES.items()
    }


def _fill(template: str, values: Mapping[str, str]) -> str:
    text = (importlib.resources.files(__package__) / "templates" / template).read_text("utf-8")
    return string.Template(text).substitute(values) if template.endswith(".in") else text


def write(files: Mapping[str, str], directory: Path) -> None:
    """Write a package's files into a directory that is new or empty: all of them, or none.

    :raises CepheidError: something is there already, or it cannot be written
    """
    try:
        if directory.is_symlink() or directory.exists():
            _refuse_what_is_there(directory)
        directory.parent.mkdir(parents=True, exist_ok=True)
        beside = directory if directory.exists() else directory.parent
        with tempfile.TemporaryDirectory(dir=beside, prefix=".new-") as temporary:
            made = Path(temporary) / "package"
            for path, text in files.items():
                (made / path).parent.mkdir(parents=True, exist_ok=True)
                (made / path).write_text(text, "utf-8")
            if directory.exists():  # where a shell may be
                for entry in sorted(made.iterdir()):
                    shutil.move(entry, directory / entry.name)
            else:
                made.rename(directory)
    except OSError as err:
        raise errors.CepheidError(
            f"The package cannot be written into {directory}: {err.filename or directory}: "
            f"{err.strerror or err}; name another directory with --directory."
        ) from err


def _refuse_what_is_there(directory: Path) -> None:
    if not directory.is_dir():
        raise errors.CepheidError(f"{directory} is there already, and is no directory.")
    if any(directory.iterdir()):
        raise errors.CepheidError(
            f"The directory {directory} is not empty, and nothing in it is overwritten; name "
            "another with --directory."
        )
