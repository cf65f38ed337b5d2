# SPDX-License-Identifier: Apache-2.0
import re
import sys
import warnings

import pytest

from cepheid import catalogue, config, errors, loading
from tests.distributions import TASK, Distributions
from tests.fake_agent import FakeAgent

NAMESPACE = "cepheid.tasks"


@pytest.fixture
def distributions(tmp_path):
    path = tmp_path / "site-packages"
    path.mkdir()
    distributions = Distributions(path)
    distributions.add("cepheid", {}, version="9.9")  # hides what is installed here
    yield distributions
    distributions.remove()


@pytest.fixture
def make_agent(tmp_path, distributions):
    agents = []

    def make(settings=""):
        agents.append(FakeAgent(tmp_path, settings=settings))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def states(agent):
    return {(p.name, p.distribution): p.state for p in agent.plugins}


def reason(agent, name):
    (text,) = [plugin.reason for plugin in agent.plugins if plugin.name == name]
    return text


# Broken plugins


def with_class(body):
    return f"""
import sys
import cepheid
from cepheid import errors
from cepheid.periodic_task import periodic_task
from oslo_config import cfg

class Plugin(cepheid.Task):
{body}
"""


DECORATED = """
    @periodic_task
    def broken(self, context):
        pass
"""

BROKEN = {
    "a syntax error": ("def f(:\n", "syntax error in .*broken.py, line 1: "),
    "a missing module": ("import no_such_thing", "the Python module no_such_thing is missing$"),
    "sys.exit at import": (
        "import sys\nsys.exit(3)",
        r"it exits when it is imported \(sys.exit\(3\)\)",
    ),
    "an assertion at import": ("assert 1 == 2, 'no'", "AssertionError: no"),
    "an error at import": ("1 / 0", "ZeroDivisionError: division by zero"),
    "what is no Exception at import": (
        "class PanicException(BaseException): pass\nraise PanicException('Python API call failed')",
        "^PanicException: Python API call failed$",
    ),
    "no such class": ("", "has no attribute 'Plugin'"),
    "not a class": ("def Plugin(agent): pass", "is not a subclass of cepheid.Task"),
    "not a task": ("class Plugin: pass", "is not a subclass of cepheid.Task"),
    "nothing decorated": (with_class("    pass"), "has no method decorated with periodic_task"),
    "another name": (
        TASK.format(name="other"),
        "is the task 'other'; name the entry point 'broken'",
    ),
    "two methods of one name": (
        with_class(DECORATED + DECORATED.replace("def broken", "def twice").replace(
            "periodic_task", "periodic_task(name='broken')")),
        "two periodic tasks named 'broken'",
    ),
    "an argument the decorator does not take": (
        with_class(DECORATED.replace("periodic_task", "periodic_task(ticks_between_runs=1)")),
        "ticks_between_runs",
    ),
    "options that are none": (
        with_class("    options = ['many']" + DECORATED),
        "its options are bad",
    ),
    "no list of options": (with_class("    options = 17" + DECORATED), "its options are bad"),
    "options that exit": (
        with_class("    @classmethod\n    def all_options(cls):\n        sys.exit(3)" + DECORATED),
        "its options are bad: SystemExit: 3",
    ),
    "drivers that exit": (
        with_class(
            "    class Kinds:\n        def __iter__(self):\n            sys.exit(3)\n"
            "    drivers = Kinds()" + DECORATED
        ),
        "it declares something bad: SystemExit: 3",
    ),
    "two options of one name": (
        with_class("    options = [cfg.StrOpt('x'), cfg.IntOpt('x')]" + DECORATED),
        "its options are bad: DuplicateOptError",
    ),
    "an option with a bad default": (
        with_class("    options = [cfg.IntOpt('x', default='many')]" + DECORATED),
        "DefaultValueError",
    ),
    "a constructor that raises": (
        with_class("    def __init__(self, agent):\n        raise KeyError('gone')" + DECORATED),
        "its constructor failed: KeyError: 'gone'",
    ),
    "a constructor that exits": (
        with_class("    def __init__(self, agent):\n        raise SystemExit(3)" + DECORATED),
        "its constructor failed: SystemExit: 3",
    ),
    "a constructor that raises what is no Exception": (
        with_class("    def __init__(self, agent):\n        raise GeneratorExit" + DECORATED),
        "its constructor failed: GeneratorExit",
    ),
    "a constructor that forgets its base": (
        with_class("    def __init__(self, agent):\n        pass" + DECORATED),
        r"does not call super\(\).__init__",
    ),
    "a constructor that takes nothing": (
        with_class("    def __init__(self):\n        pass" + DECORATED),
        "its constructor failed: TypeError",
    ),
    "a constructor that knows what is wrong": (
        with_class(
            "    def __init__(self, agent):\n"
            "        raise errors.CepheidError('The meter is not calibrated')" + DECORATED
        ),
        "^The meter is not calibrated$",
    ),
    "a driver that nobody offers": (
        with_class("    drivers = ('meter',)" + DECORATED),
        r"\[meter\] driver = \(not set\): no such driver is installed; installed are: none",
    ),
    "no list of drivers": (
        with_class("    drivers = 5" + DECORATED),
        "it declares something bad: TypeError: 'int' object is not iterable",
    ),
    "shared options that are none": (
        with_class("    shared_options = 7" + DECORATED),
        "its options are bad: TypeError",
    ),
    "a spacing of its own without a default": (
        with_class("    options = [cfg.IntOpt('spacing')]" + DECORATED),
        "its option spacing is None; it must be a number and have a default",
    ),
    "a spacing of its own that is text": (
        with_class("    options = [cfg.StrOpt('spacing', default='60')]" + DECORATED),
        "its option spacing is '60'; it must be a number and have a default",
    ),
    "a time limit of its own that is text": (
        with_class("    options = [cfg.StrOpt('time_limit', default='60')]" + DECORATED),
        "its option time_limit is '60'; it must be a number and have a default",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_set_aside_with_its_package_and_the_reason(
    kind, distributions, make_agent
):
    source, expected = BROKEN[kind]
    distributions.add_task("acme-broken", "broken", source, version="3.1")
    distributions.add_task("acme-good", "a_good_one")
    distributions.add_task("acme-last", "z_good_one")
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()
    broken = next(plugin for plugin in agent.plugins if plugin.name == "broken")
    assert (broken.state, broken.distribution, broken.version) == ("failed", "acme-broken", "3.1")
    assert "\n" not in broken.reason
    assert re.search(expected, broken.reason), broken.reason
    assert list(agent.tasks) == ["a_good_one", "z_good_one"]


INTERRUPTED = {
    "an import": "raise KeyboardInterrupt",
    "a constructor": with_class(
        "    def __init__(self, agent):\n        raise KeyboardInterrupt" + DECORATED
    ),
}


@pytest.mark.parametrize("place", INTERRUPTED)
def test_an_interruption_ends_the_program_whatever_is_loaded(distributions, make_agent, place):
    distributions.add_task("acme-broken", "broken", INTERRUPTED[place])
    agent = make_agent("enabled_tasks = *\n")
    with pytest.raises(KeyboardInterrupt):
        agent.load_tasks()


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("libvirt", "libvirt"),
        ("sqlalchemy", "database"),
        ("oslo_messaging", "messaging"),
        ("prometheus_client", "status"),
    ],
)
def test_a_missing_heavy_library_is_named_with_the_extra_that_brings_it(
    distributions, make_agent, monkeypatch, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    distributions.add_task("acme-heavy", "heavy", f"import {module}")
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()
    assert reason(agent, "heavy") == (
        f"the Python module {module} is missing; pip install 'cepheid[{extra}]'"
    )


def test_a_missing_library_of_a_driver_is_the_reason_of_its_tasks(
    distributions, make_agent, monkeypatch
):
    monkeypatch.setitem(sys.modules, "libvirt", None)
    distributions.add(
        "acme-hv", {"cepheid.hypervisor": {"acme": "acme_hv:Driver"}}, {"acme_hv": "import libvirt"}
    )
    distributions.add_task("acme-task", "t", with_class(
        "    drivers = ('hypervisor',)" + DECORATED.replace("broken", "t")))  # fmt: skip
    agent = make_agent("enabled_tasks = *\n[hypervisor]\ndriver = acme\n")
    agent.load_tasks()
    assert reason(agent, "t") == (
        "The hypervisor driver acme of acme-hv 1.0 cannot be loaded: "
        "the Python module libvirt is missing; pip install 'cepheid[libvirt]'"
    )


@pytest.mark.parametrize(
    ("kind", "factory", "module", "extra"),
    [
        ("database", "database.sqlalchemy_driver:database", "sqlalchemy", "database"),
        ("database", "database.sqlalchemy_driver:database", "oslo_db", "database"),
        ("hypervisor", "hypervisor.libvirt_plugin:hypervisor", "libvirt", "libvirt"),
        ("hypervisor", "hypervisor.libvirt_plugin:hypervisor", "lxml", "libvirt"),
    ],
)
def test_a_library_that_a_driver_imports_later_is_missed_at_once(
    distributions, make_agent, monkeypatch, kind, factory, module, extra
):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, f"cepheid_plugins.{factory.partition(':')[0]}", raising=False)
    distributions.add("acme-db", {f"cepheid.{kind}": {"acme": f"cepheid_plugins.{factory}"}})
    distributions.add_task("acme-task", "t", with_class(
        f"    drivers = ('{kind}',)" + DECORATED.replace("broken", "t")))  # fmt: skip
    agent = make_agent(f"enabled_tasks = *\n[{kind}]\ndriver = acme\n")
    (plugin,) = catalogue.find_tasks(agent.conf)
    catalogue.prepare(agent.conf, plugin)
    assert (plugin.state, plugin.reason) == (
        "failed",
        f"The {kind} driver acme of acme-db 1.0 cannot be loaded: "
        f"the Python module {module} is missing; pip install 'cepheid[{extra}]'",
    )


def test_an_agent_none_of_whose_tasks_can_be_used_refuses_with_the_reason(
    distributions, make_agent
):
    for name in ("heavy", "slow", "other"):
        missing = "acme_engine" if name == "other" else "libvirt_of_acme"
        distributions.add_task(f"acme-{name}", name, f"import {missing}")
    agent = make_agent("enabled_tasks = heavy, slow, other\n")
    agent.load_tasks()
    with pytest.raises(errors.PluginError) as refused:
        catalogue.require_usable(agent.plugins)
    assert str(refused.value) == (
        "None of the 3 tasks that are enabled can be used; 'cepheid task list' has the reasons, "
        "such as: the Python module libvirt_of_acme is missing"
    )


@pytest.mark.parametrize("enabled", ["heavy, good", ""])
def test_an_agent_with_a_task_that_works_or_with_none_on_purpose_goes_on(
    distributions, make_agent, enabled
):
    distributions.add_task("acme-heavy", "heavy", "import libvirt_of_acme")
    distributions.add_task("acme-good", "good")
    agent = make_agent(f"enabled_tasks = {enabled}\n")
    agent.load_tasks()
    catalogue.require_usable(agent.plugins)


def test_a_task_without_a_docstring_is_a_task(distributions, make_agent):
    distributions.add_task("acme-bare", "broken", with_class(DECORATED))
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()
    assert list(agent.tasks) == ["broken"]


def test_metadata_that_cannot_be_read_is_passed_over(distributions, make_agent, caplog):
    distributions.add_task("acme-good", "good")
    distributions.add("acme-torn", {})
    (distributions.path / "acme_torn-1.0.dist-info" / "entry_points.txt").write_text(
        f"[{NAMESPACE}]\nno equals sign\n"
    )
    nameless = distributions.path / "nameless-1.0.dist-info"
    nameless.mkdir()
    (nameless / "entry_points.txt").write_text(f"[{NAMESPACE}]\nx = x:X\n")
    assert [plugin.name for plugin in loading.discover(NAMESPACE)] == ["good"]
    assert "acme_torn-1.0.dist-info cannot be read" in caplog.text


# Provenance


def test_a_plugin_is_found_with_its_distribution_and_version(distributions):
    distributions.add_task("Acme-Meters", "meter", version="2.0.1")
    (plugin,) = loading.discover(NAMESPACE)
    assert (plugin.name, plugin.distribution, plugin.version, plugin.state) == (
        "meter", "Acme-Meters", "2.0.1", "found",
    )  # fmt: skip
    assert not plugin.is_bundled
    assert plugin.load().__doc__ == "Do meter."


def test_plugins_of_other_namespaces_are_not_found(distributions):
    distributions.add("acme", {"acme.things": {"x": "acme:X"}})
    assert loading.discover(NAMESPACE) == []


def test_plugins_of_all_namespaces_with_one_beginning_are_found(distributions):
    distributions.add("acme", {"other.a": {"one": "m:One"}, "cepheid.b": {"two": "m:Two"}})
    distributions.add("zeta", {"cepheid.a": {"one": "m:One"}, "cepheid.b": {"one": "m:One"}})
    found = [
        (plugin.namespace, plugin.name, plugin.distribution)
        for plugin in loading.discover_under("cepheid.")
    ]
    assert found == [
        ("cepheid.a", "one", "zeta"),
        ("cepheid.b", "one", "zeta"),
        ("cepheid.b", "two", "acme"),
    ]


def test_what_a_library_warns_of_at_its_import_is_not_shown(distributions):
    distributions.add_task("acme", "t", "import warnings\nwarnings.warn('old')\nPlugin = 1\n")
    (plugin,) = loading.discover(NAMESPACE)
    with warnings.catch_warnings(record=True) as shown:
        assert plugin.load() == 1
    assert shown == []


def test_nothing_is_imported_to_find_plugins(distributions):
    distributions.add_task("acme", "meter", "raise SystemExit")
    assert [plugin.name for plugin in loading.discover(NAMESPACE)] == ["meter"]


def test_of_a_distribution_that_is_installed_twice_the_first_counts(distributions, tmp_path):
    distributions.add_task("acme", "meter", version="1.0")
    (tmp_path / "in-front").mkdir()
    front = Distributions(tmp_path / "in-front")
    front.add("acme", {NAMESPACE: {"gauge": "acme_gauge:Plugin"}}, version="2.0")
    found = [(plugin.name, plugin.version) for plugin in loading.discover(NAMESPACE)]
    front.remove()
    assert found == [("gauge", "2.0")]


# Which are enabled


@pytest.fixture
def many(distributions):
    """Two bundled tasks, and four of vendors."""
    distributions.uninstall("cepheid")
    distributions.add(
        "cepheid",
        {NAMESPACE: {"sync": "ours:Sync", "reap": "ours:Reap"}},
        {
            "ours": TASK.format(name="sync").replace("Plugin", "Sync")
            + TASK.format(name="reap").replace("Plugin", "Reap")
        },
        version="9.9",
    )
    for name in ("poll_bandwidth", "poll_volumes", "audit"):
        distributions.add_task(f"acme-{name}", name)
    return distributions


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", "reap sync"),
        ("enabled_tasks = bundled\n", "reap sync"),
        ("enabled_tasks = *\n", "audit poll_bandwidth poll_volumes reap sync"),
        ("enabled_tasks = poll_*, sync\n", "poll_bandwidth poll_volumes sync"),
        ("enabled_tasks = bundled, audit\n", "audit reap sync"),
        ("enabled_tasks = *\ndisabled_tasks = poll_*\n", "audit reap sync"),
        ("enabled_tasks = *\ndisabled_tasks = bundled\n", "audit poll_bandwidth poll_volumes"),
        ("enabled_tasks = no_such_*\n", ""),
        ("enabled_tasks =\n", ""),
        ("[sync]\nenabled = false\n", "reap"),
        ("[sync]\nspacing = -1\n", "reap"),
    ],
)
def test_enabled_and_disabled_tasks_are_names_and_patterns(many, make_agent, settings, expected):
    agent = make_agent(settings)
    agent.load_tasks()
    assert " ".join(agent.tasks) == expected
    assert sorted(plugin.name for plugin in agent.plugins) == [
        "audit", "poll_bandwidth", "poll_volumes", "reap", "sync",
    ]  # fmt: skip


def test_a_task_that_is_not_enabled_has_the_reason(many, make_agent):
    agent = make_agent("disabled_tasks = sync\n[reap]\nspacing = -5\n")
    agent.load_tasks()
    assert reason(agent, "audit") == "not named in enabled_tasks"
    assert reason(agent, "sync") == "named in disabled_tasks"
    assert reason(agent, "reap") == "[reap] spacing is negative"
    assert {plugin.state for plugin in agent.plugins} == {"disabled"}


def test_a_task_that_is_not_enabled_is_not_imported(distributions, make_agent):
    distributions.add_task("acme", "meter", "raise SystemExit")
    agent = make_agent()
    agent.load_tasks()
    assert states(agent) == {("meter", "acme"): "disabled"}


@pytest.mark.parametrize("option", ["enabled_tasks", "disabled_tasks"])
def test_a_name_that_nobody_provides_is_an_error(many, make_agent, option):
    agent = make_agent(f"{option} = sync, poll_bandwith\n")
    with pytest.raises(errors.ConfigError, match=f"{option} names the task 'poll_bandwith'"):
        agent.load_tasks()


def test_a_value_that_is_none_is_named(many, make_agent):
    agent = make_agent("[sync]\nspacing = often\n")
    with pytest.raises(errors.ConfigError, match=r"\[sync\] spacing in .*cepheid.conf: .*often"):
        agent.load_tasks()


# Conflicts and replacement


@pytest.fixture
def rivals(distributions):
    """Two offer ``tick``; between them, as they are listed, is another."""
    distributions.add_task("acme-tasks", "tick", version="1.5")
    distributions.add_task("middle", "tock")
    distributions.add_task("zeta", "tick", version="2.5")
    return distributions


def test_a_name_that_two_distributions_offer_is_an_error_for_that_name(rivals, make_agent):
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()
    assert states(agent) == {
        ("tick", "acme-tasks"): "in conflict",
        ("tick", "zeta"): "in conflict",
        ("tock", "middle"): "enabled",
    }
    assert {plugin.reason for plugin in agent.plugins if plugin.name == "tick"} == {
        "offered by acme-tasks 1.5 and zeta 2.5; choose one with [task_providers] tick"
    }


@pytest.mark.parametrize("spelling", ["zeta", "Zeta", "ZETA"])
def test_the_operator_chooses_a_provider(rivals, make_agent, spelling):
    agent = make_agent(f"enabled_tasks = *\n[task_providers]\ntick = {spelling}\n")
    agent.load_tasks()
    assert states(agent) == {
        ("tick", "acme-tasks"): "replaced",
        ("tick", "zeta"): "enabled",
        ("tock", "middle"): "enabled",
    }
    assert agent.tasks["tick"].distribution == "zeta"
    replaced = next(plugin for plugin in agent.plugins if plugin.state == "replaced")
    assert replaced.reason == "by zeta 2.5, as [task_providers] tick says"


def test_a_providers_name_may_be_spelt_as_python_packages_may(rivals, make_agent):
    agent = make_agent("enabled_tasks = *\n[task_providers]\ntick = Acme_Tasks\n")
    agent.load_tasks()
    assert agent.tasks["tick"].distribution == "acme-tasks"


def test_a_provider_that_does_not_offer_it_is_named(rivals, make_agent):
    agent = make_agent("enabled_tasks = *\n[task_providers]\ntock = zeta\n")
    agent.load_tasks()
    assert states(agent)["tock", "middle"] == "failed"
    assert reason(agent, "tock") == "[task_providers] tock names zeta, which does not offer it"


def test_a_bundled_task_is_replaced_by_choosing_another_provider(many, make_agent):
    many.add_task("acme-sync", "sync")
    agent = make_agent("[task_providers]\nsync = acme-sync\n")
    agent.load_tasks()
    assert agent.tasks["sync"].distribution == "acme-sync"
    assert states(agent)["sync", "cepheid"] == "replaced"


# One task


def test_one_task_is_loaded_without_the_others_enabled_or_not(many, make_agent):
    agent = make_agent()
    assert agent.load_task("audit").name == "audit"
    assert agent.tasks == {}


def test_an_unknown_task_is_named_with_the_remedy(many, make_agent):
    with pytest.raises(errors.PluginError, match="no task 'no_such'; 'cepheid task list' shows"):
        make_agent().load_task("no_such")


def test_one_task_that_cannot_be_used_is_named_with_the_reason(distributions, make_agent):
    distributions.add_task("acme", "broken", "import no_such_thing")
    with pytest.raises(
        errors.PluginError, match=r"broken of acme 1.0 cannot be used \(failed\): the Python module"
    ):
        make_agent().load_task("broken")


def test_one_task_in_conflict_is_not_guessed(rivals, make_agent):
    with pytest.raises(errors.PluginError, match=r"\(in conflict\): offered by acme-tasks 1.5 and"):
        make_agent().load_task("tick")


# Loading again


def reload(agent, settings):
    agent.conf_file.write_text(
        f"[DEFAULT]\nstate_path = {agent.state_path}\nhost = host1\nobservers =\n{settings}"
    )
    agent.load_tasks(config.load([str(agent.conf_file)]))


def test_tasks_that_stay_are_the_same_objects_with_the_new_configuration(many, make_agent):
    agent = make_agent()
    agent.load_tasks()
    before = dict(agent.tasks)
    reload(agent, "disabled_tasks = reap\nenabled_tasks = bundled, audit\n[sync]\nspacing = 7\n")
    assert list(agent.tasks) == ["audit", "sync"]
    assert agent.tasks["sync"] is before["sync"]
    assert agent.tasks["sync"].conf.spacing == 7
    assert agent.tasks["sync"].seconds_to_next_run() == 7
    reload(agent, "")
    assert list(agent.tasks) == ["reap", "sync"]
    assert agent.tasks["reap"] is not before["reap"]


@pytest.mark.parametrize("error", ["ValueError", "SystemExit", "GeneratorExit"])
def test_a_task_that_does_not_take_new_options_is_set_aside_and_built_anew_at_the_next_reload(
    many, make_agent, error
):
    many.add_task("acme-picky", "picky", with_class(f"""
    def configure(self, conf):
        super().configure(conf)
        if self.conf.spacing == 7:
            raise {error}("seven")
""" + DECORATED.replace("broken", "picky")))  # fmt: skip
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()
    before = agent.tasks["picky"]
    reload(agent, "enabled_tasks = *\n[picky]\nspacing = 7\n[sync]\nspacing = 7\n")
    assert states(agent)["picky", "acme-picky"] == "failed"
    assert reason(agent, "picky") == f"it does not take its options: {error}: seven"
    assert "picky" not in agent.tasks
    assert agent.tasks["sync"].conf.spacing == 7
    reload(agent, "enabled_tasks = *\n")
    assert states(agent)["picky", "acme-picky"] == "enabled"
    assert agent.tasks["picky"] is not before


def test_a_task_that_knows_why_it_does_not_take_new_options_is_set_aside_in_its_words(
    many, make_agent, monkeypatch
):
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()

    def refuse(conf):
        raise errors.CepheidError("The meter is not calibrated")

    monkeypatch.setattr(agent.tasks["audit"], "configure", refuse)
    reload(agent, "enabled_tasks = *\n")
    assert reason(agent, "audit") == "The meter is not calibrated"
    assert "sync" in agent.tasks


def test_a_task_that_was_installed_meanwhile_is_found(many, make_agent):
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()
    many.add_task("acme-new", "new_one")
    many.uninstall("acme-audit")
    reload(agent, "enabled_tasks = *\n")
    assert list(agent.tasks) == ["new_one", "poll_bandwidth", "poll_volumes", "reap", "sync"]


def test_a_task_whose_provider_changes_is_another_object(many, make_agent):
    agent = make_agent()
    agent.load_tasks()
    ours = agent.tasks["sync"]
    many.add_task("acme-sync", "sync")
    reload(agent, "[task_providers]\nsync = acme-sync\n")
    assert agent.tasks["sync"] is not ours
    assert agent.tasks["sync"].distribution == "acme-sync"


def test_a_task_whose_provider_changes_in_a_run_has_its_own_options(many, make_agent):
    agent = make_agent()
    agent.load_tasks()
    many.add_task("acme-sync", "sync")

    def replace(task, context):
        reload(agent, "[task_providers]\nsync = acme-sync\n[sync]\nspacing = 7\n")

    agent.runner.run(agent.tasks["sync"], "sync", replace)
    assert agent.tasks["sync"].distribution == "acme-sync"
    assert agent.tasks["sync"].conf.spacing == 7


def test_a_package_upgraded_under_a_live_agent_is_told(many, make_agent, caplog):
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()
    many.uninstall("acme-audit")
    many.add_task("acme-audit", "audit", version="2.0")
    reload(agent, "enabled_tasks = *\n")
    assert "acme-audit 2.0 is installed now, 1.0 stays loaded" in caplog.text


@pytest.mark.parametrize("settings", ["enabled_tasks = no_such\n", "[sync]\nspacing = often\n"])
def test_a_bad_configuration_changes_nothing(many, make_agent, settings):
    agent = make_agent()
    agent.load_tasks()
    before = dict(agent.tasks)
    with pytest.raises(errors.ConfigError):
        reload(agent, settings)
    assert agent.tasks == before
    assert agent.tasks["sync"].conf.spacing == 60


def test_tasks_that_stay_are_kept_at_every_reload(distributions, make_agent):
    distributions.add_task("acme-one", "one")
    agent = make_agent("enabled_tasks = *\n")
    agent.load_tasks()
    task = agent.tasks["one"]
    for _ in range(3):
        agent.load_tasks(config.load([str(agent.conf_file)]))
        assert agent.tasks["one"] is task
        assert states(agent)["one", "acme-one"] == "enabled"


# Observers


@pytest.mark.parametrize("failure", ["ValueError", "SystemExit", "GeneratorExit"])
@pytest.mark.parametrize("place", ["the import", "the constructor"])
def test_an_observer_that_cannot_be_built_is_told_of_and_stops_nobody(
    distributions, make_agent, caplog, place, failure
):
    bad = f"raise {failure}('no')" if place == "the import" else (
        f"def Watch(agent):\n    raise {failure}('no')")  # fmt: skip
    for name, source in {"bad": bad, "good": "def Watch(agent):\n    return 'good'"}.items():
        distributions.add(
            f"acme-{name}",
            {"cepheid.observers": {name: f"acme_watch_{name}:Watch"}},
            {f"acme_watch_{name}": source},
        )
    agent = make_agent("observers = bad, good\n")
    assert agent.runner.observers == ["good"]
    assert "The observer bad of acme-bad 1.0: " in caplog.text
