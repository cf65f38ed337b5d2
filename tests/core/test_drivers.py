# SPDX-License-Identifier: Apache-2.0
import pytest

from cepheid import config, drivers, errors
from tests.distributions import Distributions
from tests.fake_agent import FakeAgent

METER = """
from oslo_config import cfg
from cepheid import errors

class Meter:
    options = [cfg.IntOpt("volts", default=230)]
    built = []

    def __init__(self, agent):
        self.volts = agent.conf.meter.volts
        self.closed = self.serves = False
        Meter.built.append(self)

    def check(self):
        if self.volts > 400:
            raise errors.CepheidError("[meter] volts is too high")

    def serve(self):
        self.serves = True

    def close(self):
        self.closed = True

class Fuse(Meter):
    def close(self):
        raise self.failure("stuck")
"""


@pytest.fixture
def distributions(tmp_path):
    (tmp_path / "site-packages").mkdir()
    distributions = Distributions(tmp_path / "site-packages")
    distributions.add("cepheid", {}, version="9.9")
    distributions.add("acme", {"cepheid.meter": {"digital": "acme_meter:Meter"}},
                      {"acme_meter": METER})  # fmt: skip
    yield distributions
    distributions.remove()


@pytest.fixture
def make_agent(tmp_path, distributions):
    agents = []

    def make(settings="", **given):
        agents.append(FakeAgent(tmp_path, given, settings))
        return agents[-1]

    yield make
    for agent in agents:
        agent.close()


def test_a_driver_is_built_on_first_use_and_shared(make_agent):
    agent = make_agent("[meter]\nvolts = 12\n")
    meter = agent.driver("meter")
    assert meter.volts == 12
    assert agent.driver("meter") is meter
    assert type(meter).built == [meter]
    assert agent.drivers.kinds == ["meter"]


def test_each_agent_has_its_own(make_agent):
    assert make_agent().driver("meter") is not make_agent().driver("meter")


def test_a_driver_that_is_given_is_used_whatever_is_configured(make_agent):
    mine = object()
    agent = make_agent("[meter]\ndriver = no_such\n", meter=mine)
    assert agent.driver("meter") is mine


def test_the_operator_names_the_driver_where_there_are_several(distributions, make_agent):
    distributions.add("zeta", {"cepheid.meter": {"analog": "acme_meter:Meter"}})
    with pytest.raises(errors.PluginError, match=r"\(not set\).*installed are: analog, digital"):
        make_agent().driver("meter")
    assert make_agent("[meter]\ndriver = analog\n").driver("meter").volts == 230


@pytest.mark.parametrize("kind", ["meter", "hypervisor"])
def test_a_driver_that_is_not_installed_is_named(make_agent, kind):
    with pytest.raises(
        errors.PluginError, match=rf"\[{kind}\] driver = no_such: no such driver is installed"
    ):
        make_agent(f"[{kind}]\ndriver = no_such\n").driver(kind)


def test_a_driver_that_two_offer_is_not_guessed(distributions, make_agent):
    distributions.add("zeta", {"cepheid.meter": {"digital": "acme_meter:Meter"}})
    with pytest.raises(errors.PluginError, match=r"by acme 1\.0 and zeta 1\.0; uninstall one"):
        make_agent().driver("meter")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_thing", "the Python module no_such_thing is missing"),
        ("import sys; sys.exit()", "it exits when it is imported"),
        ("class Meter:\n    options = 17", "has bad options"),
        ("class Meter:\n    options = ['x']", "has bad options"),
    ],
)
def test_a_broken_driver_is_named_with_its_package_and_the_reason(
    distributions, make_agent, source, reason
):
    distributions.uninstall("acme")
    distributions.add("broken", {"cepheid.meter": {"b": "b_meter:Meter"}}, {"b_meter": source})
    with pytest.raises(errors.PluginError, match=r"meter driver b of broken 1\.0") as caught:
        make_agent().driver("meter")
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "failure", ["ValueError('no volts')", "SystemExit('no volts')", "GeneratorExit('no volts')"]
)
def test_a_driver_that_cannot_be_built_is_named_with_its_package_and_the_reason(
    distributions, make_agent, failure
):
    source = f"def Meter(agent):\n    raise {failure}\n"
    distributions.add("dud", {"cepheid.fuse": {"dud": "dud_fuse:Meter"}}, {"dud_fuse": source})
    reason = r"The fuse driver dud of dud 1.0 cannot be built: \w+: no volts$"
    with pytest.raises(errors.PluginError, match=reason):
        make_agent().driver("fuse")


def test_drivers_in_use_are_checked(make_agent):
    agent = make_agent("[meter]\nvolts = 500\n")
    agent.drivers.check()
    agent.driver("meter")
    with pytest.raises(errors.CepheidError, match="volts is too high"):
        agent.drivers.check()


def test_drivers_in_use_begin_their_own_work_when_an_agent_does(make_agent):
    agent = make_agent(network=object())
    meter = agent.driver("meter")
    assert not meter.serves
    agent.drivers.serve()
    assert meter.serves


@pytest.mark.parametrize("failure", [OSError, SystemExit])
def test_closing_one_that_fails_closes_the_others(distributions, make_agent, caplog, failure):
    distributions.add("zeta", {"cepheid.fuse": {"fast": "acme_meter:Fuse"}})
    agent = make_agent("[meter]\nvolts = 1\n")
    meter = agent.driver("meter")
    agent.driver("fuse").failure = failure
    agent.drivers.close()
    assert meter.closed
    assert "The fuse driver did not close" in caplog.text
    assert agent.driver("meter") is not meter


def test_the_options_of_drivers_in_use_are_registered_with_a_new_configuration(make_agent):
    agent = make_agent("[meter]\nvolts = 12\n")
    agent.driver("meter")
    conf = config.load([str(agent.conf_file)])
    agent.drivers.prepare(conf)
    assert conf.meter.volts == 12


def test_the_bundled_kinds_have_a_default(conf):
    for kind, name in drivers.DEFAULTS.items():
        conf.register_opt(drivers.driver_option(kind), group=kind)
        assert conf[kind].driver == name
