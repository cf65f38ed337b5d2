# SPDX-License-Identifier: Apache-2.0
"""A new package: the names it may have, what is written, and what is never overwritten."""

import ast
import configparser
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cepheid import errors
from cepheid.cli.app import App
from cepheid.scaffold import package
from cepheid.scaffold.names import MAX_CHARACTERS, Names, author_lines
from tests.distributions import Distributions

ROOT = Path(__file__).parent.parent.parent.parent

#: Names of both kinds, with the package that follows; the longest and the shortest among them.
GOOD = {
    ("list_guests", "acme-guests"): "acme_guests",
    ("a", "x1"): "x1",
    ("l2_cache_of_9", "Acme.Guests_and--More"): "acme_guests_and_more",
    ("t" * MAX_CHARACTERS, "d" * MAX_CHARACTERS): "d" * MAX_CHARACTERS,
}


@pytest.mark.parametrize(("task", "distribution"), GOOD)
def test_the_package_is_named_after_the_distribution(task, distribution):
    assert Names.of(task, distribution).package == GOOD[task, distribution]


def test_the_class_is_named_after_the_task():
    assert Names("sync_l2_caches", "acme").task_class == "SyncL2Caches"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        ("ListGuests", "small letters"),
        ("list-guests", "small letters"),
        ("list__guests", "single underscores"),
        ("_list", "begins with a letter"),
        ("2lists", "begins with a letter"),
        ("", "begins with a letter"),
        ("list_guests\n", "small letters"),
        ("l\u00efst", "small letters"),
        ("import", "no word of Python's"),
        ("t" * (MAX_CHARACTERS + 1), "too long"),
        ("run_now", "every task has an attribute of that name"),
        ("conf", "every task has an attribute of that name"),
        ("hypervisor", "every task has an attribute of that name"),
        ("database", r"\[database\] is a group of Cepheid's own options"),
        ("task_providers", r"\[task_providers\] is a group"),
        ("sync_power_states", "already, of cepheid .*--replace"),
    ],
)
def test_a_task_is_not_given_a_name_that_it_cannot_have(task, reason):
    with pytest.raises(errors.CepheidError, match=reason) as refused:
        Names.of(task, "acme-guests")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("distribution", "reason"),
    [
        ("-acme", "begins and ends with a letter or digit"),
        ("acme_", "begins and ends with a letter or digit"),
        ("acme guests", "letters, digits"),
        ("acme/../guests", "letters, digits"),
        ("", "letters, digits"),
        ("acme\n", "letters, digits"),
        ("9lives", "begin it with a letter"),
        ("class", "no name for one"),
        ("json", "the Python module json is another's"),
        ("tests", "the Python module tests is another's"),
        ("Cepheid", "the Python module cepheid is another's"),
        ("cepheid.plugins", "the Python module cepheid_plugins is another's"),
        ("d" * (MAX_CHARACTERS + 1), "too long"),
        ("oslo.config", r"oslo.config \S+ is installed already"),
        ("oslo-config", r"oslo-config \S+ is installed already"),
        ("sqlite_utils_of_acme.", "begins and ends"),
    ],
)
def test_a_distribution_is_not_given_a_name_that_it_cannot_have(distribution, reason):
    with pytest.raises(errors.CepheidError, match=reason) as refused:
        Names.of("list_guests", distribution)
    assert "\n" not in str(refused.value)


def test_a_module_that_is_installed_under_another_name_is_not_hidden(tmp_path):
    installed = Distributions(tmp_path)
    try:
        installed.add("other", {}, {"acme_guests": ""})
        with pytest.raises(errors.CepheidError, match="acme-guests is installed already"):
            Names.of("list_guests", "acme-guests")
    finally:
        installed.remove()


def test_only_a_task_that_is_there_can_be_replaced():
    assert Names.of("sync_power_states", "acme-power", replace=True)
    with pytest.raises(errors.NoSuchTask):
        Names.of("list_guests", "acme-guests", replace=True)


@pytest.mark.parametrize(
    ("author", "lines"),
    [
        ("", ""),
        ("  ", ""),
        ("Ada", "author = Ada\n"),
        ("Ada L. <ada@acme.example>", "author = Ada L.\nauthor_email = ada@acme.example\n"),
        ("ada@acme.example", "author_email = ada@acme.example\n"),
        ("ACME, Inc. (Höör)", "author = ACME, Inc. (Höör)\n"),
    ],
)
def test_an_author_is_a_name_an_address_or_both(author, lines):
    assert author_lines(author) == lines


def test_an_author_of_two_lines_adds_none_to_setup_cfg():
    with pytest.raises(errors.CepheidError, match="one line"):
        author_lines("Ada\nversion = 9")


def python(*arguments, cwd, path=""):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(params=GOOD, ids="-".join)
def written(request, tmp_path):
    """A package that was written, and its names."""
    names = Names.of(*request.param)
    package.write(package.render(names, "Ada <ada@acme.example>"), tmp_path / "new")
    return tmp_path / "new", names


def test_what_is_written_is_as_the_projects_linter_wants_it(written):
    directory, _ = written
    python("-m", "ruff", "check", "--no-cache", ".", cwd=directory)
    python("-m", "ruff", "format", "--no-cache", "--check", ".", cwd=directory)


def test_what_is_written_names_itself_alike_everywhere(written):
    directory, names = written
    setup = configparser.ConfigParser()
    setup.read(directory / "setup.cfg")
    assert setup["metadata"]["name"] == names.distribution
    assert setup["metadata"]["author_email"] == "ada@acme.example"
    assert setup["options"]["packages"] == names.package
    module = directory / names.package / f"{names.task}.py"
    (task,) = [
        node for node in ast.parse(module.read_text()).body if isinstance(node, ast.ClassDef)
    ]
    points = setup["options.entry_points"]
    assert (
        points["cepheid.tasks"].strip()
        == f"{names.task} = {names.package}.{names.task}:{task.name}"
    )
    assert names.task in [node.name for node in task.body if isinstance(node, ast.FunctionDef)]
    for path in directory.rglob("*"):
        assert path.is_dir() or "$" not in path.read_text().replace("$state_path", "")


def test_the_rules_are_the_projects():
    ours, theirs = (
        tomllib.loads((folder / name).read_text())["tool"]["ruff"]
        for folder, name in (
            (ROOT, "pyproject.toml"),
            (ROOT / "core/cepheid/scaffold/templates", "pyproject.toml.in"),
        )
    )
    for rule in ("select", "ignore"):
        assert theirs["lint"][rule] == ours["lint"][rule]
    for rule in ("line-length", "target-version"):
        assert theirs[rule] == ours[rule]


def test_the_licence_is_the_projects():
    copy = ROOT / "core/cepheid/scaffold/templates/LICENSE"
    assert copy.read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    "given",
    [("list_guests", "acme-guests", False), ("t" * MAX_CHARACTERS, "d" * MAX_CHARACTERS, False),
     ("poll_volume_usage", "acme-volumes", True)],
    ids=["usual", "longest", "replacing"],
)  # fmt: skip
def test_what_is_written_passes_its_own_tests(tmp_path, given):
    task, distribution, replace = given
    names = Names.of(task, distribution, replace)
    package.write(package.render(names, replace=replace), tmp_path / "new")
    printed = python(
        "-W", "error::pytest.PytestWarning", "-m", "pytest", "-q", "-p", "no:cacheprovider",
        cwd=tmp_path / "new",
    )  # fmt: skip
    assert " passed" in printed
    readme = (tmp_path / "new" / "README.rst").read_text()
    assert (f"[task_providers]\n   {task} = {distribution}\n" in readme) is replace


# The command.


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    """Run 'cepheid task new' in a directory of its own: exit status, output, errors."""
    monkeypatch.chdir(tmp_path)

    def new(*words):
        status = App().run(["task", "new", *words])
        return (status, *capsys.readouterr())

    return new


def test_the_command_says_what_it_wrote_and_what_comes_next(new, tmp_path):
    status, printed, said = new("list_guests", "--dist", "acme-guests")
    assert (status, printed.split()[0]) == (0, "acme-guests/acme_guests/list_guests.py")
    assert {tmp_path / line for line in printed.splitlines()} == {
        path for path in tmp_path.rglob("*") if path.is_file()
    }
    assert "cd acme-guests\n" in said
    assert "cepheid task check acme-guests\n" in said


def test_a_directory_that_is_empty_may_be_written_into_and_stays_the_same_one(new, tmp_path):
    (tmp_path / "here").mkdir()
    inode = (tmp_path / "here").stat().st_ino
    assert new("list_guests", "--dist", "acme-guests", "--directory", "here")[0] == 0
    assert (tmp_path / "here").stat().st_ino == inode
    assert {path.name for path in (tmp_path / "here").iterdir()} > {"setup.cfg", "acme_guests"}
    assert not list((tmp_path / "here").glob(".new-*"))


@pytest.mark.parametrize(
    "there", ["a file", "a link that leads nowhere", "a directory with a file"]
)
def test_nothing_that_is_there_is_overwritten(new, tmp_path, there):
    target = tmp_path / "acme-guests"
    if there == "a file":
        target.write_text("mine")
    elif there == "a directory with a file":
        target.mkdir()
        (target / "setup.cfg").write_text("mine")
    else:
        target.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    status, printed, said = new("list_guests", "--dist", "acme-guests")
    assert (status, printed, len(said.splitlines())) == (1, "", 1)
    assert "acme-guests is" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("ListGuests", "--dist", "acme-guests"), "small letters"),
        (("list_guests", "--dist", "json"), "another's"),
        (("list_guests", "--dist", "acme", "--author", "a\nb"), "one line"),
        (("list_guests", "--dist", "acme", "--directory", "file/below"), " file: File exists"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(new, tmp_path, words, reason):
    (tmp_path / "file").touch()
    status, printed, said = new(*words)
    assert (status, printed, len(said.splitlines())) == (1, "", 1)
    assert said.startswith("cepheid: ")
    assert reason in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
