# SPDX-License-Identifier: Apache-2.0
"""Who may ask for what, and what is answered."""

import email.message
import json

import pytest

from cepheid import errors
from cepheid.status import endpoints, health
from cepheid.status.messages import Request, Response, data, text
from cepheid.status.token import TokenFile

FINE = health.Check("timers", "ok", "they turn on time")
BAD = health.Check("journal", "failed", "disk I/O error")


def request(path="/healthz", method="GET", body=b"", peer="127.0.0.1", query=None, **headers):
    message = email.message.Message()
    for name, value in {"Host": "localhost:9723", **headers}.items():
        message[name.replace("_", "-")] = value
    return Request(method, path, query or {}, message, body, peer)


@pytest.fixture
def token(tmp_path):
    return TokenFile(tmp_path / "token")


@pytest.fixture
def ran():
    return []


@pytest.fixture
def made(conf, token, ran):
    def run(task, dry_run):
        ran.append((task, dry_run))
        return data(200, {"state": "ended"})

    reads = {path: lambda asked: text(200, "fine") for path in
             ("/", "/overview.json", "/healthz", "/readyz", "/metrics")}  # fmt: skip
    return lambda: endpoints.Endpoints(conf, token, reads, run)


def post(token, body=b'{"dry_run": true}', **headers):
    return request(
        "/tasks/a_task/run",
        "POST",
        body,
        **{
            "Authorization": f"Bearer {token.read()}",
            "Content_Type": "application/json",
            **headers,
        },
    )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST.:9723", 200),
        ("127.0.0.1:9723", 200),
        ("[::1]:9723", 200),
        ("host1", 200),
        ("proxy.example.org", 200),
        ("evil.example.org", 421),
        ("localhost.evil.example.org", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("", 421),
        ("[", 421),
        ("localhost@evil.example.org", 421),
    ],
)
def test_a_name_that_is_not_the_servers_leads_nowhere(made, conf, host, status):
    conf.set_override("allowed_hosts", ["Proxy.example.org"], group="status")
    assert made().answer(request(Host=host)).status == status


def test_a_request_without_a_host_or_with_two_is_refused(made):
    none = request()
    del none.headers["Host"]
    assert made().answer(none).status == 421
    two = request()
    two.headers["Host"] = "evil.example.org"
    assert made().answer(two).status == 421


@pytest.mark.parametrize("peer", ["192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7", "fe80::1%eth0"])
def test_another_machine_gets_health_and_metrics_only(made, token, ran, peer):
    for path in ("/healthz", "/readyz", "/metrics"):
        assert made().answer(request(path, peer=peer)).status == 200
    # Whatever it calls this host; it gets nothing else by any name.
    assert made().answer(request("/metrics", peer=peer, Host="h.example.org")).status == 200
    for path in ("/", "/overview.json", "/elsewhere"):
        assert made().answer(request(path, peer=peer)).status == 403
    asked = post(token)
    assert made().answer(Request(**{**vars(asked), "peer": peer})).status == 403
    assert ran == []


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_gets_everything(made, peer):
    assert made().answer(request("/overview.json", peer=peer)).status == 200


def test_the_token_runs_a_task(made, token, ran):
    assert made().answer(post(token)).status == 200
    assert made().answer(post(token, b'{"dry_run": false}')).status == 200
    assert ran == [("a_task", True), ("a_task", False)]


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x", "Basic eDp5"])
def test_nothing_is_run_without_the_token(made, token, ran, value):
    answer = made().answer(post(token, Authorization=value))
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="cepheid"')
    assert token.read() not in answer.body.decode()
    assert ran == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example.org"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9724"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_page_of_another_site_runs_nothing(made, token, ran, headers):
    assert made().answer(post(token, **headers)).status == 403
    assert ran == []


def test_the_page_of_this_server_may_ask(made, token, ran):
    headers = {"Origin": "http://localhost:9723", "Sec_Fetch_Site": "same-origin"}
    assert made().answer(post(token, **headers)).status == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"dry_run": true}', "text/plain", 415),
        (b'{"dry_run": true}', "application/x-www-form-urlencoded", 415),
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"dry_run": 1}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 16000, "application/json", 400),
    ],
)
def test_a_request_that_is_not_clear_runs_nothing(made, token, ran, body, kind, status):
    assert made().answer(post(token, body, Content_Type=kind)).status == status
    assert ran == []


def test_says_what_there_is(made):
    missing = made().answer(request("/elsewhere"))
    assert missing.status == 404
    assert b"/readyz" in missing.body
    assert made().answer(request("/healthz", "POST")).status == 405
    assert made().answer(request("/tasks/a/run")).status == 405
    assert made().answer(request("/tasks/a/b/run", "POST")).status == 404


def test_reading_can_need_the_token_too(made, conf, token):
    conf.set_override("token_for_reading", True, group="status")
    held = {"Authorization": f"Bearer {token.read()}"}
    for path in ("/overview.json", "/metrics"):
        assert made().answer(request(path)).status == 401
        assert made().answer(request(path, **held)).status == 200
    for path in ("/", "/healthz", "/readyz"):
        assert made().answer(request(path)).status == 200


def test_what_goes_wrong_is_an_answer_and_kept_for_the_log(conf, token):
    def fail(asked):
        raise RuntimeError("the password is secret")

    def refuse(asked):
        raise errors.JournalError("the journal cannot be used")

    made = endpoints.Endpoints(conf, token, {"/a": fail, "/b": refuse}, lambda *a: Response(200))
    answer = made.answer(request("/a"))
    assert (answer.status, b"secret" in answer.body) == (500, False)
    assert isinstance(made.failure, RuntimeError)
    assert made.answer(request("/b")).status == 503


def test_a_token_file_that_is_unsafe_by_now_runs_nothing(made, token, ran):
    asked = post(token)
    token.path.chmod(0o644)
    answer = made().answer(asked)
    assert (answer.status, ran) == (503, [])
    assert "is not safe" in json.loads(answer.body)["error"]


def test_tells_in_lines_or_in_json_whether_the_agent_is_ready():
    answer = endpoints.readyz(request("/readyz"), [FINE, BAD])
    assert answer.status == 503
    assert answer.body.decode().splitlines() == [
        "not ready",
        "timers: ok: they turn on time",
        "journal: failed: disk I/O error",
    ]
    assert endpoints.readyz(request("/readyz"), [FINE]).status == 200
    for asked in (request(Accept="application/json"), request(query={"format": "json"})):
        assert json.loads(endpoints.readyz(asked, [BAD]).body) == {
            "ready": False,
            "checks": [{"name": "journal", "state": "failed", "text": "disk I/O error"}],
        }


def test_a_document_that_the_client_has_is_not_sent_again():
    first = endpoints.tagged(request(), {"at": 1, "runs": [1]}, ["at"])
    tag = first.headers["ETag"]
    again = endpoints.tagged(request(If_None_Match=tag), {"at": 2, "runs": [1]}, ["at"])
    assert (again.status, again.body) == (304, b"")
    other = endpoints.tagged(request(If_None_Match=tag), {"at": 2, "runs": [2]}, ["at"])
    assert other.status == 200
