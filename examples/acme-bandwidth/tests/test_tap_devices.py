# SPDX-License-Identifier: Apache-2.0
"""The file of devices: its lines, and what is no such file."""

import pytest
from acme_bandwidth.tap_devices import Traffic, parse, read

from cepheid_plugins.bandwidth.driver import MeterError

LINE = "  tap7da997bc-21:9223372036854775807 9 0 0 0 0 0 0     42   1 0 0 0 0 0 0"


def test_a_line_has_a_device_and_sixteen_numbers():
    assert parse([LINE]).counters == {"tap7da997bc-21": Traffic(42, 2**63 - 1)}


@pytest.mark.parametrize(
    "line",
    [LINE[:-2], LINE + " 1", LINE.replace("42", "-1"), LINE.replace("775807", "775808"), "", "x"],
)
def test_any_other_line_is_malformed_and_the_rest_counts(line):
    reading = parse([line, LINE])
    assert len(reading.counters) == len(reading.malformed) == 1


@pytest.mark.parametrize("text", ["", "nonsense\n", LINE + "\n" + LINE + "\n"])
def test_another_kind_of_file_is_an_error(tmp_path, text):
    (tmp_path / "dev").write_text(text)
    with pytest.raises(MeterError, match="not of the form"):
        read(tmp_path / "dev")
