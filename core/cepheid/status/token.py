# SPDX-License-Identifier: Apache-2.0
"""The token that a request must carry to act: a file that only the agent's user can read."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

from cepheid import errors

FILE_NAME = "cepheid-status-token"

#: Bytes of randomness in a token that is made here.
TOKEN_BYTES = 32

#: A shorter one could be guessed.
MIN_LENGTH = 16


class TokenFile:
    """Holds the token. It is read whenever it is needed, so another may be put there at any time.

    :param path: made with a new token where it is missing
    :raises ConfigError: it cannot be made, or is not safe to use
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        except OSError as err:
            raise errors.ConfigError(
                f"[status] token_file = {self.path} cannot be made: {err.strerror}."
            ) from err
        else:
            try:
                with open(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
            except OSError as err:
                self.path.unlink(missing_ok=True)
                raise errors.ConfigError(
                    f"[status] token_file = {self.path} cannot be written: {err.strerror}."
                ) from err
        self.read()

    def read(self) -> str:
        """Return the token.

        :raises ConfigError: the file cannot be read or is not safe to use
        """
        try:
            # Not to wait for a writer, should it be a pipe.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:
                found = os.fstat(descriptor)
                token = file.read(4096) if stat.S_ISREG(found.st_mode) else b""
        except OSError as err:
            raise errors.ConfigError(
                f"[status] token_file = {self.path} cannot be read: {err.strerror}."
            ) from err
        if not stat.S_ISREG(found.st_mode):
            raise errors.ConfigError(f"[status] token_file = {self.path} is not a file.")
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o077:
            raise errors.ConfigError(
                f"[status] token_file = {self.path} is not safe: it must belong to the agent's "
                "user or root and have mode 0600. Remove it, and the agent makes another when it "
                "starts."
            )
        try:
            text = token.decode("ascii").strip()
        except UnicodeDecodeError:
            text = ""
        if len(text) < MIN_LENGTH or not text.isprintable() or " " in text:
            raise errors.ConfigError(
                f"[status] token_file = {self.path} holds no token of {MIN_LENGTH} printable "
                "characters or more. Remove it, and the agent makes another when it starts."
            )
        return text

    def admits(self, authorization: str) -> bool:
        """Tell whether an Authorization header carries the token, in constant time.

        :raises ConfigError: the file cannot be read or is not safe to use
        """
        scheme, _, given = authorization.partition(" ")
        known = self.read().encode("ascii")
        # Compared whatever the scheme is, and as bytes: a header may hold anything.
        is_same = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), known)
        return is_same and scheme.lower() == "bearer"
