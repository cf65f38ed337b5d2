# SPDX-License-Identifier: Apache-2.0
"""The agent's overview on a terminal: ``cepheid status`` and ``cepheid top``."""
