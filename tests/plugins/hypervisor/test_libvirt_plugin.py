# SPDX-License-Identifier: Apache-2.0
"""What is said where libvirt's library is installed and cannot be imported."""

import sys

import pytest

from cepheid import errors
from cepheid_plugins.hypervisor.libvirt_plugin import hypervisor


def test_a_libvirt_that_cannot_be_imported_is_told_when_the_driver_is_built(monkeypatch):
    monkeypatch.setitem(sys.modules, "libvirtmod", None)
    for module in ("libvirt", "cepheid_plugins.hypervisor.libvirt_driver"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(errors.PluginError) as failed:
        hypervisor(None)
    assert str(failed.value).startswith("Domains cannot be looked after: ")
    assert "libvirtmod" in str(failed.value)
    assert str(failed.value).endswith(", or choose another [hypervisor] driver.")
