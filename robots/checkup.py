"""One arm looked over before a day's work: driver, device, calibration, pose, health, cameras, clock and time; no motion."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from robots import catalogue, preflight
from robots.arm import Arm, Health, Reading
from robots.cadence import Cadence, CadenceReport
from robots.limits import Limits
from robots.preflight import Preflight
from robots.side import Side

# What a joint's motor may have before a day begins. Our choice: STS3215 servos switch themselves off at 70 degrees (their
# data sheet), motors of larger arms later.
WARM_C, LOADED = 55.0, 0.8
# A rehearsal that keeps less of its periods will not keep time with a planner beside it, either.
IN_TIME = 0.95
# The wall clock of a machine without a battery starts here or earlier.
SANE_WALL_S = 1_700_000_000.0


def driver(name: str) -> tuple[None, str]:
    """The driver is installed."""
    entry = catalogue.KNOWN.get(name)
    if entry is None:
        return None, "an adapter of your own"
    found = catalogue.version(entry.driver)
    if found is None:
        raise ValueError(f"{entry.driver} is not installed: {entry.install}")
    return None, f"{entry.driver} {found}" if entry.driver else "part of this software"


def device(arm: Arm) -> tuple[None, str]:
    """What answered."""
    words = f"{arm.name}, {arm.identity}; {len(arm.joint_names)} joints at {arm.rate_hz:g} Hz"
    return None, f"{words}; {arm.description}" if arm.description else words


def calibration(arm: Arm) -> tuple[None, str]:
    """Of what turns the device's units into radians."""
    return None, f"hash {arm.calibration_hash}" if arm.calibration_hash else "kept by the device itself"


def clock(arm: Arm) -> tuple[None, str]:
    """The arm's clock runs forward, at the pace of this machine's, and the date is one."""
    if time.time() < SANE_WALL_S:
        raise ValueError(f"this machine believes it is {time.strftime('%d %B %Y')}; set its clock, records go by it")
    before, mine = arm.now(), time.monotonic()
    time.sleep(0.05)
    passed, real = arm.now() - before, time.monotonic() - mine
    if passed < 0:
        raise ValueError(f"the arm's clock ran backwards by {-passed:.3f} s")
    if arm.lockstep:
        return None, "simulated time, which passes only while the arm moves"
    if not 0.5 * real <= passed <= 2 * real:
        raise ValueError(f"the arm's clock went {passed:.3f} s in {real:.3f} s; ages cannot be told from it")
    return None, f"{time.strftime('%d %B %Y, %H:%M:%S')}; the arm's clock keeps pace"


def state(arm: Arm) -> tuple[Health, str]:
    """What the device says of itself; its faults are the caller's to judge first."""
    said = arm.health()
    if said.faults:
        raise ValueError("; ".join(said.faults))
    words = []
    if said.voltage_v is not None:
        words.append(f"{said.voltage_v:.1f} V")
    for what, values, most, unit in (
        ("temperature", said.temperature_c, WARM_C, " C"),
        ("load", {name: 100 * value for name, value in said.load.items()}, 100 * LOADED, " %"),
    ):
        if not values:
            continue
        worst = max(values, key=lambda name: values[name])
        if values[worst] > most:
            raise ValueError(f"{what} of {worst} is {values[worst]:.0f}{unit}, above {most:g}{unit} at rest; look why")
        words.append(f"{what} at most {values[worst]:.0f}{unit} ({worst})")
    return said, ", ".join(words) or "the device says nothing of itself"


# -- cameras -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CameraFound:
    """What one camera delivered.

    Attributes:
        fps: new pictures a second; 0 when it never changed.
        age_s: of the oldest picture that was handed out, where the arm says.
        shape: of its pictures.
        spread: between the darkest and the brightest value of the last one.
    """

    fps: float
    age_s: float | None
    shape: tuple[int, ...]
    spread: int


def look_through(arm: Arm, seconds: float, interrupted: Callable[[], bool] = lambda: False) -> dict[str, CameraFound]:
    """Observe for a while as fast as it goes, and see what each camera delivers."""
    digests: dict[str, list[bytes]] = {}
    ages: dict[str, float] = {}
    began, last = time.monotonic(), None
    while time.monotonic() - began < seconds and not interrupted():
        last = arm.observe()
        for camera, picture in last.pictures.items():
            digests.setdefault(camera, []).append(hashlib.blake2b(picture.tobytes(), digest_size=8).digest())
            if camera in last.camera_s:
                ages[camera] = max(ages.get(camera, 0.0), arm.now() - last.camera_s[camera])
    took = time.monotonic() - began
    return {
        camera: _camera(camera, seen, took, ages.get(camera), cast(Reading, last)) for camera, seen in digests.items()
    }


def _camera(camera: str, seen: list[bytes], took: float, age: float | None, last: Reading) -> CameraFound:
    picture = last.pictures[camera]
    new = sum(one != other for one, other in pairwise(seen))
    return CameraFound(new / took, age, picture.shape, int(picture.max()) - int(picture.min()))


def cameras(found: dict[str, CameraFound], limits: Limits, *, simulated: bool) -> tuple[None, str]:
    """Every camera shows something, and something new."""
    words = []
    for name, camera in found.items():
        if camera.spread < 8:
            raise ValueError(f"{name} is one flat colour; is the lens covered or the camera dead?")
        size = f"{name} {camera.shape[1]}x{camera.shape[0]}"
        if simulated:  # a drawing of a scene at rest is the same every time
            words.append(f"{size}, drawn on demand")
            continue
        if camera.fps == 0:
            raise ValueError(f"{name} gives the same picture again and again: it is frozen; plug it in anew")
        if camera.age_s is not None and camera.age_s > limits.observation_age_s:
            raise ValueError(
                f"{name} hands out pictures {camera.age_s:.2f} s old (limit {limits.observation_age_s:g} s); lower its "
                "resolution, or give it a USB port of its own"
            )
        age = "" if camera.age_s is None else f", at most {1000 * camera.age_s:.0f} ms old"
        words.append(f"{size}, {camera.fps:.1f} new pictures/s{age}")
    return None, "; ".join(words) or "no camera"


# -- time --------------------------------------------------------------------------------------------------------------


def rehearse(arm: Arm, seconds: float, interrupted: Callable[[], bool] = lambda: False) -> CadenceReport:
    """Keep the arm's rate for a while, measuring at every tick and sending nothing."""
    cadence, ticks = Cadence(arm.rate_hz), max(2, round(seconds * arm.rate_hz))
    for _ in range(ticks):
        if interrupted():
            break
        cadence.wait()
        arm.measure()
    return cadence.report


def in_time(report: CadenceReport) -> tuple[None, str]:
    """The arm's rate was kept."""
    if report.ticks and report.within < IN_TIME * report.ticks:
        raise ValueError(f"the loop does not keep time: {report.sentence()}; end other programs, or lower the rate")
    return None, f"nothing sent: {report.sentence()}"


# -- all of it ---------------------------------------------------------------------------------------------------------


def examine(
    arm: Arm,
    limits: Limits,
    checks: Preflight,
    *,
    rehearse_s: float,
    camera_s: float,
    folder: Path,
    confirmed: bool,
    interrupted: Callable[[], bool] = lambda: False,
) -> bool:
    """Every check of a connected arm, one line each; whether the device itself reports a fault."""
    side = cast(Side, SimpleNamespace(about=arm, observe=arm.observe))
    checks.check("device", lambda: device(arm))
    checks.check("calibration", lambda: calibration(arm))
    before = len(checks.failed)
    checks.check("health", lambda: state(arm))
    sick = len(checks.failed) > before
    checks.check("clock", lambda: clock(arm))
    checks.check("readings", lambda: preflight.observation(side, ()))
    checks.check("limits fit", lambda: preflight.start_pose(side, limits))
    checks.check("cameras", lambda: cameras(look_through(arm, camera_s, interrupted), limits, simulated=arm.simulated))
    checks.check("loop", lambda: in_time(rehearse(arm, rehearse_s, interrupted)))
    checks.check("disk", lambda: preflight.disk(folder))
    if not arm.simulated:
        checks.check("rated stop", lambda: preflight.rated_stop(confirmed))
    checks.say(f"    {'if killed':14s} {arm.when_killed}")
    if arm.untested:
        checks.say(f"    {'note':14s} {arm.untested}")
    return sick
