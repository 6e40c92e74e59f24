"""Tests of real drivers against simulated controllers go before others on a shared machine."""

from __future__ import annotations

import pytest

from tests.hardware.servers import hurry


@pytest.fixture(scope="session", autouse=True)
def _in_a_hurry() -> None:
    hurry()
