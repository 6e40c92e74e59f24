"""One thread, no network and no more priority than others for every test: two workers share two cores fairly."""

import os
from collections.abc import Generator

import pytest

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["LP_NUM_THREADS"] = "0"
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    """What a fixture makes, made without a lasting gain in priority."""
    try:
        return (yield)
    finally:
        _step_back()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """The test itself, likewise."""
    try:
        return (yield)
    finally:
        _step_back()


def _step_back() -> None:
    """Undo what SVT-AV1 does, with which LeRobot encodes videos: where it is root it gives the thread that calls it the
    highest real-time priority, for good. Every test and process begun from there would starve the rest of the machine,
    the kernel's own threads included, which carry the bytes of an emulated servo bus."""
    if hasattr(os, "SCHED_OTHER") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
