"""An arm is looked over before a day's work: each thing that can be wrong is found and said."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from robots import checkup
from robots.arm import Health, Reading
from robots.cadence import CadenceReport
from robots.checkup import CameraFound
from robots.limits import Limits
from robots.preflight import Preflight
from robots.simulated import MujocoArm


@pytest.fixture(scope="module")
def limits() -> Limits:
    return Limits.load()


@pytest.fixture(scope="module")
def arm() -> MujocoArm:
    arm = MujocoArm()
    arm.connect()
    return arm


class Looked(MujocoArm):
    """An arm whose camera gives what a test says, one after the other."""

    simulated = False

    def __init__(self, pictures: list[np.ndarray], age_s: float = 0.0) -> None:
        super().__init__(pace="real")
        self.pictures, self.age_s, self.looks = pictures, age_s, 0

    def observe(self) -> Reading:
        time.sleep(0.005)
        picture = self.pictures[min(self.looks, len(self.pictures) - 1)]
        self.looks += 1
        now = self.now()
        return Reading({"observation.images.front": picture}, now, now, {"front": now - self.age_s})


def noise(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(count)]


def test_a_healthy_arm_passes_every_check(arm: MujocoArm, limits: Limits, tmp_path: Path) -> None:
    said: list[str] = []
    checks = Preflight(said.append)
    sick = checkup.examine(
        arm, limits, checks, rehearse_s=0.2, camera_s=0.1, folder=tmp_path, confirmed=False
    )  # fmt: skip
    assert not sick
    assert [sentence for sentence in checks.failed if not sentence.startswith("loop")] == []
    names = [line[4:18].strip() for line in said]
    assert names == [
        "device", "calibration", "health", "clock", "readings", "limits fit", "cameras", "loop", "disk", "if killed",
    ]  # fmt: skip


def test_a_camera_that_delivers(limits: Limits) -> None:
    arm = Looked(noise(500))
    found = checkup.look_through(arm, 0.2)
    assert found["front"].fps == pytest.approx(arm.looks / 0.2, rel=0.3)
    _, words = checkup.cameras(found, limits, simulated=False)
    assert "new pictures/s" in words


def test_a_frozen_a_flat_and_a_late_camera(limits: Limits) -> None:
    def why(pictures: list[np.ndarray], age_s: float = 0.0) -> str:
        with pytest.raises(ValueError, match=r".+") as refused:
            checkup.cameras(checkup.look_through(Looked(pictures, age_s), 0.05), limits, simulated=False)
        return str(refused.value)

    assert "frozen" in why(noise(1))
    assert "one flat colour" in why([np.full((8, 8, 3), 100, np.uint8)])
    assert "pictures 0.8" in why(noise(500), age_s=0.8)


def test_a_drawing_of_a_still_scene_is_no_frozen_camera(limits: Limits) -> None:
    _, words = checkup.cameras({"front": CameraFound(0.0, 0.0, (8, 8, 3), 200)}, limits, simulated=True)
    assert "drawn on demand" in words


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (Health(faults=("servo 3: overload",)), "servo 3: overload"),
        (Health(temperature_c={"elbow": 61.0, "wrist": 30.0}), "temperature of elbow is 61 C, above 55 C"),
        (Health(load={"elbow": 0.9}), "load of elbow is 90 %, above 80 %"),
    ],
)
def test_an_unwell_device_is_said(health: Health, words: str) -> None:
    class Unwell(MujocoArm):
        def health(self) -> Health:
            return health

    with pytest.raises(ValueError, match=words):
        checkup.state(Unwell())


def test_a_well_device_says_how_it_is() -> None:
    class Well(MujocoArm):
        def health(self) -> Health:
            return Health(temperature_c={"elbow": 31.0}, load={"elbow": 0.1}, voltage_v=12.1)

    _, words = checkup.state(Well())
    assert words == "12.1 V, temperature at most 31 C (elbow), load at most 10 % (elbow)"


def test_clocks_that_are_none() -> None:
    class Back(MujocoArm):
        def now(self) -> float:
            return -time.monotonic()

    class Still(MujocoArm):
        def now(self) -> float:
            return 5.0

    with pytest.raises(ValueError, match="ran backwards"):
        checkup.clock(Back(pace="real"))
    with pytest.raises(ValueError, match="ages cannot be told"):
        checkup.clock(Still(pace="real"))


def test_a_loop_that_does_not_keep_time_is_said() -> None:
    report = CadenceReport(0.01)
    for number in range(100):
        report.add(0.01 if number % 5 else 0.09)
    with pytest.raises(ValueError, match=r"80\.00 % of 100 periods within 5 ms"):
        checkup.in_time(report)


def test_the_rehearsal_measures_and_sends_nothing() -> None:
    class Mute(MujocoArm):
        rate_hz = 50.0

        def measure(self):  # type: ignore[no-untyped-def]
            return None

        def command(self, target: object) -> None:
            raise AssertionError("nothing may be sent")

    report = checkup.rehearse(Mute(), 0.3)
    assert report.ticks == 14
    assert report.period_s == pytest.approx(0.02)


def test_drivers_by_name() -> None:
    assert "mujoco" in checkup.driver("mujoco")[1]
    assert "of your own" in checkup.driver("my_arm:MyArm")[1]
