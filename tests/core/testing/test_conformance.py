# SPDX-License-Identifier: Apache-2.0
"""What the checks of a package take for right and wrong, without running it."""

import ast
import importlib.metadata
import sys
import uuid

import pytest
from oslo_config import cfg

import cepheid
from cepheid.periodic_task import periodic_task
from cepheid.run import Change
from cepheid.testing.conformance import footprint, metadata, options
from cepheid.testing.conformance.findings import FAILED, OK, Problem, findings_of
from cepheid.testing.conformance.source import Source
from cepheid.testing.conformance.trial import Asked, _untouched, whole
from cepheid.testing.conformance.watch import Act


def task(summary="Sweep the floor.", own=(), spacing=600):
    class Sweep(cepheid.Task):
        __doc__ = summary
        options = own

        @periodic_task(spacing=spacing)
        def sweep(self, context):
            pass

    return Sweep


def source(text):
    parsed = Source([], None)
    parsed._trees.append(("sweep.py", ast.parse(text)))
    return parsed


def said(problems):
    return " | ".join(problem.what for problem in problems)


@pytest.mark.parametrize(
    "summary",
    ["Process what is left.", "Pass it on.", "Focus on it.", "Sync them.\n\nAnd more.", "Fix it."],
)
def test_a_summary_is_one_line_in_the_imperative(summary):
    assert list(options.docstring(task(summary))) == []


@pytest.mark.parametrize(
    ("summary", "wrong"),
    [
        (None, "no docstring"),
        ("Sweeps the floor.", "not in the imperative: Sweeps"),
        ("Sweeping the floor.", "not in the imperative: Sweeping"),
        ("This task sweeps.", "not in the imperative: This"),
        ("Sweep the floor", "full stop"),
        ("Sweep the floor.\nAnd the stairs.", "goes on in the second"),
        ("sweep the floor.", "capital"),
    ],
)
def test_any_other_summary_is_wrong(summary, wrong):
    assert wrong in said(options.docstring(task(summary)))


@pytest.mark.parametrize(
    "option",
    [
        cfg.IntOpt("age_days", help="How old a thing may be."),
        cfg.IntOpt("limit", help="The most things that are swept."),
        cfg.FloatOpt("low", help="Sweep below this ratio of dust to floor."),
        cfg.IntOpt("wait", help="Seconds until it is swept again."),
        cfg.StrOpt("path", help="The directory that is swept."),
        cfg.IntOpt("spacing", default=5, help="Seconds between two runs."),
    ],
    ids=lambda option: option.name,
)
def test_an_option_is_a_sentence_with_a_unit(option):
    assert list(options.options(task(own=[option]), {})) == []


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        (cfg.IntOpt("limit", help="How far it may go."), "in which unit"),
        (cfg.StrOpt("path", help="Path"), "no full sentence"),
        (cfg.StrOpt("path"), "no full sentence"),
        (cfg.StrOpt("spacing", help="How often it is swept."), "an option of every task"),
        (cfg.StrOpt("shelf_password", help="What opens the shelf."), "a secret"),
    ],
)
def test_any_other_option_is_wrong(option, wrong):
    assert wrong in said(options.options(task(own=[option]), {}))


def test_an_old_name_belongs_to_one_task():
    old = cfg.DeprecatedOpt("dust", group="DEFAULT")
    option = cfg.StrOpt("dust_path", deprecated_opts=[old], help="Where the dust goes to.")
    mine, other = task(own=[option]), task(own=[option])
    assert "[DEFAULT] dust is one of the task mop" in said(options.options(mine, {"mop": other}))


@pytest.mark.parametrize(("seconds", "wrong"), [(0, ""), (5, ""), (1, "every 1"), (-1, "off")])
def test_a_spacing_leaves_the_host_at_rest(seconds, wrong):
    problems = said(options.spacing(task(spacing=seconds)))
    assert wrong in problems
    assert bool(wrong) == bool(problems)


def test_a_task_may_explain_itself_and_tell_metrics_and_no_more():
    class Better(task()):
        def explain(self, subject):
            return []

        def metrics(self):
            return []

    class Worse(Better):
        def periodic_tasks(self, context=None, raise_on_error=False):
            return 1.0

    assert list(options.shape(Better)) == []
    assert "Worse replaces periodic_tasks" in said(options.shape(Worse))


@pytest.mark.parametrize(
    "text",
    [
        "from datetime import datetime as when\nwhen.now()",
        "import datetime\ndatetime.datetime.utcnow()",
        "from time import monotonic as since\nsince()",
        "import random\nrandom.choice([1])",
    ],
)
def test_another_clock_or_chance_is_found_whatever_it_is_called(text):
    (problem,) = source(text).clocks()
    assert problem.where == "sweep.py:2"


def test_a_name_of_ones_own_is_no_clock():
    text = "def now(): ...\nnow()\nself.agent.clock.utcnow()\ndatetime.fromtimestamp(1)"
    assert list(source(text).clocks()) == []


@pytest.mark.parametrize(
    ("handler", "wrong"),
    [
        ("except:\n    pass", "catches everything"),
        ("except (ValueError, BaseException):\n    pass", "catches everything"),
        ("except Exception:\n    log()", "catches every error"),
        ("except Exception as err:\n    raise Other() from err", ""),
        ("except BaseException:\n    undo()\n    raise", ""),
        ("except (OSError, ValueError):\n    pass", ""),
    ],
)
def test_what_is_caught_is_named_or_raised_again(handler, wrong):
    problems = said(source(f"try:\n    go()\n{handler}").catches())
    assert wrong in problems
    assert bool(wrong) == bool(problems)


def test_a_directory_that_is_deleted_with_what_is_in_it_is_one_thing():
    def deleted(*paths):
        return whole([Act("file", f"deletes {p}", p, "", "run", True) for p in paths])

    assert deleted("/dumps/a", "/dumps/b") == {"/dumps/a", "/dumps/b"}
    assert deleted("/dumps/web/a", "/dumps/web/b", "/dumps/web") == {"/dumps/web"}


def test_a_footprint_that_stays_the_same_is_no_problem():
    assert list(footprint.differences(footprint.take(), footprint.take())) == []


def test_a_check_without_problems_is_a_line_that_says_so():
    assert [one.result for one in findings_of("sweep", "names", [])] == [OK]
    twice = [Problem("wrong", "mend it")] * 2
    assert [one.result for one in findings_of("sweep", "names", twice)] == [FAILED]


@pytest.mark.parametrize(
    "text",
    [
        "import socket\nsocket.create_connection(address, 5)",
        "import socket\nsocket.create_connection(*where)",
        "from urllib.request import urlopen\nurlopen(url, None, 5)",
        "import http.client\nhttp.client.HTTPConnection(host, port, 5)",
        "import smtplib\nsmtplib.SMTP(host, timeout=5)",
        "import subprocess\nsubprocess.run(words, timeout=5)",
    ],
)
def test_a_time_out_may_be_given_at_its_place(text):
    assert list(source(text).sleeps()) == []


@pytest.mark.parametrize(
    "text",
    [
        "import socket\nsocket.create_connection(address)",
        "from urllib.request import urlopen\nurlopen(url, None)",
        "import subprocess\nsubprocess.run(words, 5, None)",
    ],
)
def test_what_is_given_none_may_wait_for_ever(text):
    assert "without timeout=" in said(source(text).sleeps())


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ.get('A')",
        "import os\nos.getenv('A')",
        "from os import environ, getenv\nenviron['A']",
        "from os import getenv\ngetenv('A')",
    ],
)
def test_a_variable_of_the_environment_is_no_configuration(text):
    (problem,) = source(text).global_conf()
    assert problem.where == "sweep.py:2"


def test_a_program_may_be_given_the_environment():
    text = "import os, subprocess\nsubprocess.run(words, env={**os.environ, 'LC_ALL': 'C'})"
    assert list(source(text).global_conf()) == []


def test_a_domain_is_untouched_only_where_calls_are_about_others():
    one, other = (str(uuid.UUID(int=n)) for n in (1, 2))
    done = [Change(one, outcome="done")]

    def asked(about):
        return [Asked("hypervisor", "stop", "run", "sweep.py:1", True, about)]

    assert _untouched(asked("all"), done) == []
    assert _untouched(asked(one), done) == []
    assert _untouched(asked(other), done) == [one]


@pytest.fixture
def acme(distributions):
    """A function that gives the metadata of a package with such lines in it."""

    def add(lines="", options="acme_pack.sub.sweep:Sweep.list_opts"):
        package = distributions.path / "acme_pack" / "sub"
        package.mkdir(parents=True)
        for folder in (package.parent, package):
            (folder / "__init__.py").write_text("raise SystemExit('imported')")
        (package / "sweep.py").write_text("raise SystemExit('imported')")
        distributions.add("acme", {"oslo.config.opts": {"acme": options}})
        (file,) = distributions.path.glob("acme-*/METADATA")
        file.write_text(file.read_text() + lines)
        return importlib.metadata.distribution("acme")

    return add


def test_the_module_of_options_is_looked_for_without_importing_its_package(acme):
    assert "there is no module" not in said(metadata._problems(acme()))
    assert "acme_pack" not in sys.modules


@pytest.mark.parametrize("module", ["acme_pack.sub.mop", "acme_pack.mop.sweep", "mop"])
def test_a_module_of_options_that_is_not_there_is_wrong(acme, module):
    problems = said(metadata._problems(acme(options=f"{module}:Sweep.list_opts")))
    assert f"there is no module {module}" in problems


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("cepheid>=0.0.1", ""),
        ("cepheid>=900; python_version < '3'", "does not require cepheid"),
        ("cepheid; extra == 'agent'", "does not require cepheid"),
        ("cepheid>=900", "it requires cepheid>=900, and this is"),
        ("cepheid >= = 1", "which is no requirement"),
    ],
)
def test_a_package_requires_a_cepheid_that_it_works_with(acme, line, wrong):
    distribution = acme(f"Requires-Dist: {line}\n")
    problems = said(metadata._requirements(distribution))
    assert wrong in problems
    assert bool(wrong) == bool(problems)
    assert list(metadata.undeclared(distribution, {})) == []


def test_the_metadata_of_cepheid_itself_is_well():
    found = metadata.check(importlib.metadata.distribution("cepheid"))
    assert {one.result for one in found} <= {"ok", "skipped"}
