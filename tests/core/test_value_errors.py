# SPDX-License-Identifier: Apache-2.0
"""Bad files and values, named so that they can be put right."""

import pytest

from cepheid import config, errors
from tests.fake_agent import FakeAgent


def refusal(*arguments):
    with pytest.raises(errors.ConfigError) as caught:
        config.load(*arguments)
    return str(caught.value)


def test_text_that_is_no_number_is_named_with_what_is_wanted(tmp_path):
    file = tmp_path / "cepheid.conf"
    file.write_text("[DEFAULT]\nnative_workers = 5m\n")
    said = refusal([str(file)])
    assert said == f"[DEFAULT] native_workers in {file}: write a whole number, not '5m'"


def test_a_spacing_is_in_seconds(tmp_path):
    agent = FakeAgent(tmp_path, settings="[sync_power_states]\nspacing = 5m\n")
    with pytest.raises(errors.ConfigError) as caught:
        agent.load_tasks()
    agent.close()
    place = f"[sync_power_states] spacing in {agent.conf_file}"
    assert str(caught.value) == f"{place}: write a whole number of seconds, not '5m'"


def test_the_file_that_is_not_utf_8_is_named_among_others(tmp_path):
    (tmp_path / "10.conf").write_text("[DEFAULT]\n")
    other = tmp_path / "20.conf"
    other.write_bytes(b"[DEFAULT]\nhost = \xff\n")
    told = f"{other} cannot be read: it is not UTF-8 at byte 17. Save it as UTF-8."
    assert refusal([], [str(tmp_path)]) == told
    assert refusal([str(tmp_path / "10.conf"), str(other)]) == told
