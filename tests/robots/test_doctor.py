"""The doctor survives what it finds, and says how to mend it."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial

import pytest
from omegaconf import OmegaConf

from robots import doctor
from robots.doctor import Check, examine


def crash() -> str:
    os.kill(os.getpid(), signal.SIGSEGV)
    return "still here"


def noisy() -> str:
    os.write(1, b"a driver talks to the terminal")
    return "spoke"


def test_one_broken_part_does_not_hide_the_others() -> None:
    missing = partial(doctor.driver, "no-such-package", "no_such_module")
    checks = (
        Check("crashing", crash, "replace the driver"),
        Check("fine", doctor.disk, "never shown"),
        Check("absent", missing, "install it", essential=False),
    )
    crashed, fine, absent = examine(checks)
    assert (crashed.works, crashed.found) == (False, "it crashed the process that tried it")
    assert crashed.mend == "replace the driver"
    assert (fine.works, fine.mend) == (True, "")
    assert "GB free" in fine.found
    assert (absent.works, absent.found, absent.mend) == (False, "driver not installed", "install it")


def test_what_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE_S", 2.0)
    began = time.monotonic()
    (finding,) = examine((Check("hanging", partial(time.sleep, 600), "wait no longer"),))
    assert finding.found == "no answer in 2 s"
    assert time.monotonic() - began < 60


def test_parts_work_here() -> None:
    """What needs no graphics and no weights is tried for real; the whole table has its own test in end_to_end."""
    parts = ("Machine", "Python", "Video", "Rerun", "Disk")
    findings = examine(tuple(check for check in doctor.CHECKS if check.part in parts))
    assert [finding.part for finding in findings if not finding.works] == []
    assert "written and read back" in findings[parts.index("Rerun")].found


def test_every_part_that_can_fail_says_how_to_mend_it() -> None:
    assert [check.part for check in doctor.CHECKS if not check.mend] == ["Machine"]


@pytest.mark.parametrize(("essential", "code"), [(True, 1), (False, 0)])
def test_exit_code_follows_what_is_essential(
    essential: bool, code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checks = (Check("noisy", noisy, ""), Check("broken", crash, "pip install 'part[extra]'", essential))
    monkeypatch.setattr(doctor, "CHECKS", checks)
    assert doctor.main(OmegaConf.create({"json": True})) == code
    told = json.loads(capfd.readouterr().out)
    assert [(line["part"], line["works"]) for line in told] == [("noisy", True), ("broken", False)]
    assert doctor.main(OmegaConf.create({"json": False})) == code
    assert "part[extra]" in capfd.readouterr().out.replace("\n", "")
