# SPDX-License-Identifier: Apache-2.0
"""Clean virtual environments, with wheels of cepheid and of a vendor's package."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

#: What cepheid's wheel is built from. Built elsewhere, nothing of an earlier build gets into it.
SOURCES = ("core", "plugins", "etc", "setup.cfg", "pyproject.toml", "README.rst", "LICENSE")

#: The extras that the wheels of :func:`dependencies` are enough for.
EXTRAS = ("database", "libvirt")


def dependencies() -> Path:
    """Return a directory of wheels of all that is needed; fetch them where it is missing."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    wanted = [
        *setup["options"]["install_requires"].split(),
        *(name for extra in EXTRAS for name in setup["options.extras_require"][extra].split()),
        "setuptools>=70.1",  # builds wheels by itself
        "pytest",  # runs the tests of a package
        "ruff",  # and looks at its style
    ]
    digest = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cepheid-tests"
    path = cache / f"wheels-{digest}-python{sys.version_info.minor}"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as fetched:
            _pip(sys.executable, "wheel", "-q", "--wheel-dir", f"{fetched}/wheels", *wanted)
            with contextlib.suppress(OSError):  # somebody else was faster
                os.rename(f"{fetched}/wheels", path)
    return path


def build(folder: Path, into: Path) -> Path:
    """Build the wheel of a package, and return it."""
    source = into / f"source-{folder.name}"
    if folder == ROOT:
        source.mkdir(parents=True)
        for name in SOURCES:
            _copy(ROOT / name, source / name)
    else:
        _copy(folder, source)
    wheels = into / "wheels" / folder.name
    _offline(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(source))
    (wheel,) = wheels.glob("*.whl")
    return wheel


def offline() -> dict[str, str]:
    """Return an environment in which every pip, also of an isolated build, has what is fetched."""
    return {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(dependencies())}


class Environment:
    """A virtual environment of its own with what is installed from wheels."""

    def __init__(self, path: Path, *requirements: str) -> None:
        self.path = path
        subprocess.run([sys.executable, "-m", "venv", path], check=True, stdin=subprocess.DEVNULL)
        self.python = str(path / "bin" / "python")
        self.install(*requirements)

    def install(self, *requirements: str) -> None:
        """Install wheels, or what there are wheels of in :func:`dependencies`."""
        _offline(self.python, "install", *requirements)

    def uninstall(self, name: str) -> None:
        """Uninstall a package, if it is there."""
        _pip(self.python, "uninstall", "-q", "--yes", name)

    def installed(self) -> set[str]:
        """Return the names of what is installed."""
        listed = json.loads(_pip(self.python, "list", "--format", "json"))
        return {package["name"].lower() for package in listed}


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        leftovers = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        shutil.copytree(source, target, ignore=leftovers)
    else:
        shutil.copy(source, target)


def _offline(python: str, command: str, *words: str) -> None:
    _pip(python, command, "-q", "--no-index", "--find-links", str(dependencies()), *words)


def _pip(python: str, command: str, *words: str) -> str:
    done = subprocess.run(
        [python, "-m", "pip", "--disable-pip-version-check", command, *words],
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
