# SPDX-License-Identifier: Apache-2.0
"""What Nova calls the domains of its instances."""

from __future__ import annotations


def by_template(template: str, row_id: int) -> str | None:
    """Return the name that Nova gives to the domain of an instance.

    Source: Nova's ``Instance.name``.

    :param template: ``[compute] instance_name_template``
    :param row_id: ``instances.id``
    :return: None where the name is not made of the id, or of more than that
    """
    try:
        return template % row_id
    except (TypeError, ValueError, OverflowError):
        return None
