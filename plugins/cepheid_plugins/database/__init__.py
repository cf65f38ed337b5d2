# SPDX-License-Identifier: Apache-2.0
"""The inventory: tables as in Nova's cell database, and the queries on them."""
