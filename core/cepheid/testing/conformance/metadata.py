# SPDX-License-Identifier: Apache-2.0
"""Checks of a distribution's metadata; nothing of it is imported."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import keyword
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging import requirements

from cepheid import errors, loading
from cepheid.catalogue import NAMESPACE
from cepheid.testing.conformance.findings import (
    SKIPPED,
    WARNING,
    Finding,
    Problem,
    findings_of,
)

#: The beginning of a version. Source: PEP 440.
VERSION = re.compile(
    r"(\d+!)?\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[a-z0-9.]+)?$", re.IGNORECASE
)

#: What many distributions have in their source, and none should install.
TOO_COMMON = {"doc", "docs", "examples", "test", "tests"}


def find(name: str) -> importlib.metadata.Distribution:
    """Return an installed distribution.

    :raises PluginError: there is none of that name
    """
    try:
        return importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError) as err:
        raise errors.PluginError(
            f"No distribution {name!r} is installed in this environment; install it with pip, and "
            "give its name as 'pip list' shows it."
        ) from err


def tasks_of(distribution: importlib.metadata.Distribution) -> list[loading.Plugin]:
    """Return the tasks that a distribution offers, not loaded."""
    name = distribution.metadata["Name"]
    return [
        loading.Plugin(NAMESPACE, point.name, name, distribution.version, point)
        for point in sorted(distribution.entry_points, key=lambda point: point.name)
        if point.group == NAMESPACE
    ]


def check(distribution: importlib.metadata.Distribution) -> list[Finding]:
    """Check what the metadata says of the distribution and of its tasks' names."""
    found = findings_of("", "metadata", _problems(distribution))
    found += findings_of("", "package", _remarks(distribution), WARNING)
    if _has_tests(distribution) is None:
        why = "whether it has tests: a wheel has none, and its source is not at hand"
        found.append(Finding("", "tests", SKIPPED, why))
    else:
        found += findings_of("", "tests", _untested(distribution), WARNING)
    for plugin in tasks_of(distribution):
        found += findings_of(plugin.name, "names", _names(plugin))
    return found


def _problems(distribution: importlib.metadata.Distribution) -> Iterator[Problem]:
    metadata = distribution.metadata
    if not tasks_of(distribution):
        yield Problem(
            f"it offers no task: it has no entry point in {NAMESPACE}",
            f"declare one in [options.entry_points] {NAMESPACE} of its setup.cfg, and install it",
        )
    version = metadata["Version"] or ""
    if not VERSION.match(version) or not version.strip("0."):
        yield Problem(
            f"its version is {version or 'missing'}, which tells no release from another",
            "give it a version such as 1.0; the journal and 'cepheid task list' name it",
        )
    if metadata["Name"] == loading.BUNDLED:
        return
    yield from _requirements(distribution)
    yield from _options_of(distribution)
    if "Requires-Python" not in metadata:
        yield Problem(
            "it does not say which Python it needs",
            "add python_requires = >=3.11, or later",
        )


def _requirements(distribution: importlib.metadata.Distribution) -> Iterator[Problem]:
    for text in distribution.requires or ():
        try:
            requirements.Requirement(text)
        except requirements.InvalidRequirement as err:
            reason = str(err).partition("\n")[0]
            yield Problem(
                f"it requires {text!r}, which is no requirement: {reason}",
                "write it as PEP 508 has it, such as 'acme>=1.0'",
            )
    ours = [
        one for one in _required(distribution) if loading.normalized(one.name) == loading.BUNDLED
    ]
    if not ours:
        yield Problem(
            "it does not require cepheid, so pip may install it without, or beside one too old",
            "add 'cepheid>=0.1' to install_requires",
        )
    installed = importlib.metadata.version(loading.BUNDLED)
    for one in ours:
        if not one.specifier.contains(installed, prereleases=True):
            yield Problem(
                f"it requires {one}, and this is cepheid {installed}",
                "require the versions that it works with, such as 'cepheid>=0.1'",
            )


def _required(distribution: importlib.metadata.Distribution) -> Iterator[requirements.Requirement]:
    """Return what it requires here and without extras; what cannot be read is left out."""
    for text in distribution.requires or ():
        try:
            one = requirements.Requirement(text)
        except requirements.InvalidRequirement:
            continue
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            yield one


def _options_of(distribution: importlib.metadata.Distribution) -> Iterator[Problem]:
    """Check the entry points by which oslo.config's generator finds the options."""
    for point in distribution.entry_points:
        if point.group == "oslo.config.opts" and not _is_there(distribution, point.module):
            yield Problem(
                f"oslo.config.opts names {point.value}, and there is no module {point.module}",
                "name the task's class: acme_task = acme.acme_task:AcmeTask.list_opts",
                f"entry point {point.name} = {point.value}",
            )


def _is_there(distribution: importlib.metadata.Distribution, module: str) -> bool:
    """Tell whether there is a module's file, installed or in a source tree; nothing is imported."""
    top, *below = module.split(".")
    stems = ("/".join([top, *below]), "/".join([top, *below, "__init__"]))
    names = {stem + suffix for stem in stems for suffix in importlib.machinery.all_suffixes()}
    if names & {path.as_posix() for path in distribution.files or ()}:
        return True
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or not below:
        return spec is not None
    roots = [Path(location).parent for location in spec.submodule_search_locations or ()]
    return any((root / name).is_file() for root in roots for name in names)


def undeclared(
    distribution: importlib.metadata.Distribution, imports: Mapping[str, str]
) -> Iterator[Problem]:
    """Return the imports of other distributions that it does not require, nor cepheid.

    :param imports: where each package is imported
    """
    offered = importlib.metadata.packages_distributions()
    declared = {loading.normalized(distribution.metadata["Name"]), loading.BUNDLED}
    for one in (distribution, find(loading.BUNDLED)):
        declared.update(loading.normalized(other.name) for other in _required(one))
    for package, where in sorted(imports.items()):
        providers = {loading.normalized(name) for name in offered.get(package, ())}
        if providers and not providers & declared:
            yield Problem(
                f"it imports {package}, and does not require {min(providers)}",
                f"add {min(providers)} to install_requires",
                where,
            )


def _remarks(distribution: importlib.metadata.Distribution) -> Iterator[Problem]:
    metadata = distribution.metadata
    names = ("License", "License-Expression", "License-File")
    classifiers = metadata.get_all("Classifier") or []
    if not any(metadata[name] for name in names if name in metadata) and not any(
        one.startswith("License ::") for one in classifiers
    ):
        yield Problem("it names no licence", "add license = Apache-2.0, or what it is under")
    if "Summary" not in metadata or not metadata["Summary"]:
        yield Problem("it has no summary", "add a description of one line")
    # Without RECORD it is a source tree, of which all is listed.
    files = distribution.files if distribution.read_text("RECORD") else None
    top = {path.parts[0] for path in files or () if path.suffix == ".py"}
    for name in sorted(top & TOO_COMMON):
        yield Problem(
            f"it installs a package {name!r} of all packages' own",
            "leave it out: exclude = tests* in [options.packages.find]",
        )
    if not metadata.json.get("description"):
        yield Problem(
            "it has no README, or does not show it", "add long_description = file: README.rst"
        )


def _untested(distribution: importlib.metadata.Distribution) -> Iterator[Problem]:
    if not _has_tests(distribution):
        yield Problem(
            "its source has no tests",
            "write some with cepheid.testing; the page 'Testing a task' shows how",
        )


def _has_tests(distribution: importlib.metadata.Distribution) -> bool | None:
    """Tell whether it has tests; None where that cannot be known."""
    if any(path.name.startswith("test_") for path in distribution.files or ()):
        return True
    try:
        source = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    folder = str(source.get("url", "")).removeprefix("file://")
    if not folder or "dir_info" not in source or not Path(folder).is_dir():
        return None
    return any(Path(folder).glob("**/test_*.py"))


def _names(plugin: loading.Plugin) -> Iterator[Problem]:
    point = plugin.entry_point
    where = f"entry point {point.name} = {point.value}"
    if not point.name.isidentifier() or keyword.iskeyword(point.name) or not point.name.islower():
        yield Problem(
            f"{point.name!r} is no name of a method and of a group of options alike",
            "name the task in lower case with underscores, as poll_volume_usage",
            where,
        )
    if point.module.rpartition(".")[2] != point.name:
        yield Problem(
            f"the task is in the module {point.module}, which is not named as the task",
            f"put it into a module {point.name}, so that the name leads to the file",
            where,
        )
