# SPDX-License-Identifier: Apache-2.0
import base64
import email.message
import hashlib
import re

from cepheid.status.messages import Request
from cepheid.status.page import PAGE, Page, policy

HTML = b"<html><style>p {}</style><p>x</p><script type='module'>go();</script></html>"


def request(**headers):
    message = email.message.Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Request("GET", "/", {}, message, b"", "127.0.0.1")


def sha256(content):
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


def test_only_what_is_in_the_page_may_run():
    parts = policy(HTML).split("; ")
    assert parts[:3] == [
        "default-src 'none'",
        f"script-src {sha256(b'go();')}",
        f"style-src {sha256(b'p {}')}",
    ]
    assert "unsafe" not in policy(HTML)
    assert policy(b"<p>").split("; ")[1:3] == ["script-src 'none'", "style-src 'none'"]


def test_a_page_that_the_client_has_is_not_sent_again():
    page = Page(HTML)
    first = page.answer(request())
    assert (first.status, first.body) == (200, HTML)
    assert first.headers["Content-Security-Policy"] == policy(HTML)
    again = page.answer(request(If_None_Match=first.headers["ETag"]))
    assert (again.status, again.body) == (304, b"")
    assert Page(HTML + b" ").answer(request(If_None_Match=first.headers["ETag"])).status == 200


def test_the_page_is_installed_and_its_policy_lets_all_of_it_run():
    body = PAGE.read_bytes()
    markup = re.sub(rb"<(script|style)>.*?</\1>", b"", body, flags=re.DOTALL)
    assert len(re.findall(rb"<script>|<style>", body)) == 2
    assert re.findall(rb"<script|<style|<link|<img|<iframe", markup) == [
        b"<link"
    ]  # its icon, in it
    assert re.findall(rb"\s(?:style|on[a-z]+)=", markup) == []
    addresses = set(re.findall(rb"https?://[^'\"\s]+", body))
    assert addresses == {b"http://www.w3.org/2000/svg"}
    assert b"innerHTML" not in body
