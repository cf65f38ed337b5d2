# SPDX-License-Identifier: Apache-2.0
import pytest

from cepheid import wording


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mysql+pymysql://nova:s3cret@db/nova is gone", "mysql+pymysql://nova:***@db/nova is gone"),
        ("rabbit://a:s3cret@h1,b:s3cret@h2/", "rabbit://a:***@h2/"),
        ("http://:s3c@ret@h/", "http://:***@h/"),
        ("mysql://nova:s3/cr@et@db/nova", "mysql://nova:***@db/nova"),
        ("password=s3cret", "password=***"),
        ("{'admin_pass': 's3cret'}", "{'admin_pass': '***'}"),
        ("https://host:8080/path", "https://host:8080/path"),
        ("a@b: c", "a@b: c"),
    ],
)
def test_passwords_are_not_shown(text, told):
    assert wording.shown(text) == told


def test_a_long_text_is_cut_and_no_password_comes_of_it():
    text = "x" * (wording.MAX_TEXT - 10) + " db://u:" + "s3cret" * 1000 + "@host " + "y" * 5000
    told = wording.shown(text)
    assert len(told) <= wording.MAX_TEXT
    assert told.endswith(" db://u:*…")


@pytest.mark.parametrize(
    ("found", "told"),
    [(None, ""), ("active", "active"), (4, "4"), (False, "false"), ({"a": "ü"}, '{"a": "ü"}')],
)
def test_values_are_told_in_words(found, told):
    assert wording.value(found) == told


def test_counters_are_told_by_name():
    assert wording.counters({"skipped": 1, "done": 3}) == "done 3, skipped 1"
    assert wording.counters({}) == ""
