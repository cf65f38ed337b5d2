# SPDX-License-Identifier: Apache-2.0
"""What is read from a hypervisor's capabilities."""

import pytest

from cepheid_plugins.hypervisor import capabilities
from cepheid_plugins.hypervisor.driver import BadDefinition

TEXT = """
<capabilities>
  <host>
    <cpu>
      <arch>x86_64</arch><model>Nehalem</model><vendor>Intel</vendor>
      <topology sockets='2' dies='1' cores='8' threads='2'/>
      <feature name='vmx'/><feature name='aes'/><feature name='aes'/>
    </cpu>
    <topology><cells num='2'><cell id='0'/><cell id='1'/></cells></topology>
  </host>
  <guest>
    <os_type>hvm</os_type>
    <arch name='x86_64'><domain type='qemu'/><domain type='kvm'/></arch>
  </guest>
  <guest><os_type>hvm</os_type><arch name='i686'><domain type='qemu'/></arch></guest>
</capabilities>
"""


def test_the_cpus_are_described_as_nova_does_and_features_sorted_once_each():
    assert capabilities.cpu_info(capabilities.parse(TEXT)) == {
        "arch": "x86_64",
        "model": "Nehalem",
        "vendor": "Intel",
        "topology": {"cells": 2, "sockets": 2, "cores": 8, "threads": 2},
        "features": ["aes", "vmx"],
    }


def test_what_the_hypervisor_does_not_tell_is_none():
    info = capabilities.cpu_info(capabilities.parse("<capabilities><host/></capabilities>"))
    assert (info["arch"], info["model"], info["features"]) == (None, None, [])
    assert info["topology"] == {"cells": 1, "sockets": None, "cores": None, "threads": None}


def test_every_kind_of_domain_is_listed():
    assert capabilities.supported_instances(capabilities.parse(TEXT)) == (
        ("x86_64", "qemu", "hvm"),
        ("x86_64", "kvm", "hvm"),
        ("i686", "qemu", "hvm"),
    )


@pytest.mark.parametrize("text", ["", "<capabilities>", "<domain/>", "no XML"])
def test_another_text_is_refused(text):
    with pytest.raises(BadDefinition):
        capabilities.parse(text)


def test_a_file_that_the_text_names_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    root = capabilities.parse(
        f'<!DOCTYPE capabilities [<!ENTITY e SYSTEM "file://{tmp_path}/secret">]>'
        "<capabilities><host><uuid>&e;</uuid></host></capabilities>"
    )
    assert not root.findtext("./host/uuid")
