# SPDX-License-Identifier: Apache-2.0
import os

import pytest

from cepheid import errors
from cepheid.status.token import TokenFile


def test_makes_a_token_that_only_its_user_can_read(tmp_path):
    path = tmp_path / "token"
    token = TokenFile(path).read()
    assert len(token) >= 40
    assert path.stat().st_mode & 0o777 == 0o600
    assert TokenFile(path).read() == token


def test_admits_the_token_and_nothing_else(tmp_path):
    file = TokenFile(tmp_path / "token")
    token = file.read()
    assert file.admits(f"Bearer {token}")
    assert file.admits(f"bearer {token} ")
    for header in ("", token, "Bearer", "Bearer ", f"Basic {token}", f"Bearer {token}x",
                   f"Bearer {token[:-1]}", "Bearer \udcff\xe9"):  # fmt: skip
        assert not file.admits(header)


def test_another_token_counts_at_once(tmp_path):
    file = TokenFile(tmp_path / "token")
    old = file.read()
    file.path.write_text("another-token-of-some-length\n")
    assert not file.admits(f"Bearer {old}")
    assert file.admits("Bearer another-token-of-some-length")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_refuses_a_file_that_others_can_use(tmp_path, mode):
    file = TokenFile(tmp_path / "token")
    file.path.chmod(mode)
    with pytest.raises(errors.ConfigError, match="is not safe"):
        file.admits(f"Bearer {file.path.read_text().strip()}")


@pytest.mark.parametrize("text", ["", "\n", "short", "with spaces in it, so none", "\xff" * 40])
def test_refuses_what_is_no_token(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(errors.ConfigError, match="holds no token"):
        TokenFile(path)


def test_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(errors.ConfigError, match="is not a file"):
        TokenFile(tmp_path / "pipe")
    with pytest.raises(errors.ConfigError, match="cannot be made"):
        TokenFile(tmp_path / "nowhere" / "token")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_refuses_a_file_of_another_user(tmp_path):
    file = TokenFile(tmp_path / "token")
    os.chown(file.path, 65534, 65534)
    with pytest.raises(errors.ConfigError, match="is not safe"):
        file.read()
