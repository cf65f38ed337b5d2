# SPDX-License-Identifier: Apache-2.0
"""The agent for tests, which is the kit's."""

from cepheid.testing.agent import FakeAgent
from cepheid.testing.clock import PATIENCE_SECONDS, FakeClock, LowestRandom, eventually

__all__ = ["PATIENCE_SECONDS", "FakeAgent", "FakeClock", "LowestRandom", "eventually"]
