# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with files."""

from cepheid import errors


class StorageError(errors.CepheidError):
    """A file or directory is not as it must be, or cannot be read, written or removed."""


class StorageUnavailable(StorageError):
    """The storage of a directory is not there. Nothing is known of what is in it."""
