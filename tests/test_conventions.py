# SPDX-License-Identifier: Apache-2.0
"""What holds for the whole repository: names agree, lists are complete, tasks stay light."""

import configparser
import os
import subprocess
import sys
from importlib.metadata import distribution, entry_points
from pathlib import Path

import pytest

from cepheid import libraries
from tests.distributions import Distributions

ROOT = Path(__file__).parent.parent
SOURCES = {
    "cepheid": ROOT / "core" / "cepheid",
    "cepheid_plugins": ROOT / "plugins/cepheid_plugins",
}
NAMESPACES = (
    "cepheid.bandwidth",
    "cepheid.cli",
    "cepheid.database",
    "cepheid.hypervisor",
    "cepheid.network",
    "cepheid.notifications",
    "cepheid.observers",
    "cepheid.scheduler",
    "cepheid.tasks",
    "cepheid.testing",
    "cepheid.upgrade_checks",
    "oslo.config.opts",
)

#: Libraries that an installation of the core alone does not have.
HEAVY = (
    "alembic",
    "keystoneauth1",
    "libvirt",
    "lxml",
    "openstack",
    "oslo_db",
    "oslo_messaging",
    "oslo_upgradecheck",
    "prometheus_client",
    "pymysql",
    "sqlalchemy",
)


#: The packages that the pages for vendors show; the first is that on writing a task.
EXAMPLES = [ROOT / "examples" / name for name in ("acme-guest-dumps", "acme-bandwidth")]
EXAMPLE = EXAMPLES[0]


def setup_cfg(folder=ROOT):
    parser = configparser.ConfigParser()
    parser.read(folder / "setup.cfg")
    return parser


def declared_entry_points(folder=ROOT):
    """Return what a setup.cfg declares, as (namespace, name, object)."""
    return {
        (namespace, *(part.strip() for part in line.split("=")))
        for namespace, lines in setup_cfg(folder)["options.entry_points"].items()
        for line in lines.strip().splitlines()
    }


def run_python(*arguments, **environment):
    """Run Python in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(section, option):
    return [line for line in setup_cfg()[section][option].splitlines() if line.strip()]


def ours(namespace):
    return [
        point
        for point in entry_points(group=namespace)
        if point.dist is not None and point.dist.name == "cepheid"
    ]


TASKS = [point.name for point in ours("cepheid.tasks")]


def test_there_are_tasks():
    assert TASKS


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_every_entry_point_loads(namespace):
    points = ours(namespace)
    assert points
    for point in points:
        point.load()


def test_the_installed_entry_points_are_those_of_setup_cfg():
    installed = {(p.group, p.name, p.value) for p in distribution("cepheid").entry_points}
    assert installed == declared_entry_points(), "run '.venv/bin/pip install -e . --no-deps'"


@pytest.mark.parametrize("name", TASKS)
def test_a_tasks_names_agree(name):
    (point,) = [point for point in ours("cepheid.tasks") if point.name == name]
    assert point.module == f"cepheid_plugins.tasks.{name}"
    assert point.load().task_name() == name
    assert (ROOT / "tests" / "plugins" / "tasks" / f"test_{name}.py").exists()
    assert (ROOT / "doc" / "source" / "tasks" / f"{name}.rst").exists()
    index = (ROOT / "doc" / "source" / "tasks" / "index.rst").read_text()
    assert f"   {name}\n" in index


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_a_first_line_for_the_list(name):
    (point,) = [point for point in ours("cepheid.tasks") if point.name == name]
    first = point.load().__doc__.splitlines()[0]
    assert first.endswith(".")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_describes_its_options_in_sentences(name):
    (point,) = [point for point in ours("cepheid.tasks") if point.name == name]
    assert [o.name for o in point.load().all_options() if not (o.help or "").endswith(".")] == []


def test_every_task_module_is_an_entry_point():
    modules = {path.stem for path in (SOURCES["cepheid_plugins"] / "tasks").glob("*.py")}
    assert modules - {"__init__"} == set(TASKS)


def test_the_package_list_equals_the_tree():
    packages = set()
    for name, path in SOURCES.items():
        for init in path.rglob("__init__.py"):
            parts = init.parent.relative_to(path).parts
            packages.add(".".join((name, *parts)))
    assert set(listed("options", "packages")) == packages


def test_what_is_no_module_is_package_data():
    found = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in SOURCES.items()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    data = setup_cfg()["options.package_data"]
    assert found == {
        f"{package.replace('.', '/')}/{file}" for package in data for file in data[package].split()
    }


def test_every_extra_that_an_error_names_exists():
    extras = distribution("cepheid").metadata.get_all("Provides-Extra")
    assert set(libraries.EXTRAS.values()) <= set(extras)


@pytest.mark.parametrize("module", ["cepheid.cli.app", "cepheid.service"])
def test_the_core_needs_itself_alone(module):
    blocked = "".join(f"sys.modules[{library!r}] = None; " for library in HEAVY)
    run_python("-c", f"import sys; {blocked}import {module}")


@pytest.mark.parametrize("name", TASKS)
def test_a_task_and_its_options_need_the_core_alone(name):
    blocked = "\n".join(f"sys.modules[{library!r}] = None" for library in HEAVY)
    script = (
        f"import sys\n{blocked}\n"
        "from importlib.metadata import entry_points\n"
        f"(point,) = [p for p in entry_points(group='cepheid.tasks') if p.name == {name!r}]\n"
        "print(*(option.name for option in point.load().all_options()))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "spacing" in done.stdout.split()


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("core", "plugins", "tests", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_source_file_names_its_licence_and_fits(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    relative = path.relative_to(ROOT).as_posix()
    if "/tasks/" in relative and relative.startswith("plugins"):
        assert len(lines) <= 300


def test_the_generator_knows_every_namespace_of_options():
    generator = (ROOT / "etc" / "cepheid" / "cepheid-config-generator.conf").read_text()
    for point in ours("oslo.config.opts"):
        if point.name != "cepheid.network.neutron":  # keystoneauth's, as its version has them
            assert f"namespace = {point.name}\n" in generator


def test_the_sample_equals_the_generated_one(tmp_path):
    run_python(
        "-c",
        "import sys; from oslo_config import generator; generator.main(sys.argv[1:])",
        f"--config-file={ROOT / 'etc' / 'cepheid' / 'cepheid-config-generator.conf'}",
        f"--output-file={tmp_path / 'sample'}",
    )
    sample = (ROOT / "etc" / "cepheid" / "cepheid.conf.sample").read_text()
    assert (tmp_path / "sample").read_text() == sample, "run 'make sample' and commit the result"


def test_the_sample_says_nothing_of_the_machine_it_was_made_on():
    import socket

    text = (ROOT / "etc" / "cepheid" / "cepheid.conf.sample").read_text()
    assert f"host = {socket.gethostname()}\n" not in text
    assert str(ROOT) not in text


def install_example(folder, site):
    """Let a package be found, from where it is: what belongs into PYTHONPATH for that."""
    points = {}
    for namespace, name, value in declared_entry_points(folder):
        points.setdefault(namespace, {})[name] = value
    site.mkdir()
    installed = Distributions(site)
    metadata = setup_cfg(folder)["metadata"]
    installed.add(metadata["name"], points, version=metadata["version"])
    installed.remove()
    return os.pathsep.join([str(site), str(folder)])


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_an_examples_own_tests_pass(folder, tmp_path):
    path = install_example(folder, tmp_path / "site")
    options = ("-q", "-p", "no:cacheprovider", f"--rootdir={folder}", "-c", os.devnull)
    assert " passed" in run_python("-m", "pytest", *options, str(folder), PYTHONPATH=path)


def test_the_package_on_the_page_about_writing_a_task_works(tmp_path):
    (name,) = {name for _, name, _ in declared_entry_points(EXAMPLE)}
    dumps, conf = tmp_path / "dumps", tmp_path / "cepheid.conf"
    dumps.mkdir()
    path = install_example(EXAMPLE, tmp_path / "site")
    for age_days in (0, 90):
        dump = dumps / f"web-{age_days}"
        dump.touch()
        os.utime(dump, (dump.stat().st_mtime - age_days * 86400,) * 2)
    conf.write_text(
        f"[DEFAULT]\nstate_path = {tmp_path}\nenabled_tasks = {name}\n[{name}]\npath = {dumps}\n"
    )
    command = ("-m", "cepheid", "--config-file", str(conf), "task", "run", name)
    output = ("-f", "value", "-c", "Target", "-c", "Outcome")

    planned = run_python(*command, "--dry-run", *output, PYTHONPATH=path)
    assert planned == f"{dumps}/web-90 planned\n"
    assert len(list(dumps.iterdir())) == 2

    assert run_python(*command, *output, PYTHONPATH=path) == f"{dumps}/web-90 done\n"
    assert [left.name for left in dumps.iterdir()] == ["web-0"]
