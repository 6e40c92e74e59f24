"""What could be driven from this machine: arms we have an adapter for, their drivers, LeRobot's robot types, and ports.

Nothing is imported and nothing is opened to find out, so this is quick and touches no device.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from robots.arm import ARMS
from robots.evdev import InputDevice
from robots.evdev import devices as input_devices


@dataclass(frozen=True)
class Entry:
    """An arm as `robot=NAME`.

    Attributes:
        about: what it is.
        real: whether something real moves.
        driver: the distribution that drives it; empty where nothing more is needed.
        install: how to get it.
        tried: what it was run against, so that nobody takes more for granted.
    """

    about: str
    real: bool
    driver: str
    install: str
    tried: str


KNOWN = {
    "mujoco": Entry("the tabletop's Panda in MuJoCo", False, "mujoco", "make setup", "every run of the tests"),
    "pybullet": Entry("the tabletop's Panda in PyBullet", False, "pybullet", "make setup", "every run of the tests"),
    "so101_emulated": Entry(
        "an SO-101 of emulated servos, LeRobot's own driver", False, "feetech-servo-sdk",
        "pip install 'lerobot[feetech]==0.6.1'", "every run of the tests",
    ),
    "so101_lockstep": Entry(
        "the emulated SO-101's body without driver and clock", False, "mujoco", "make setup", "every run of the tests"
    ),
    "lerobot": Entry(
        "any LeRobot robot, robot.type=so101_follower say", True, "feetech-servo-sdk",
        "pip install 'lerobot[feetech]==0.6.1', or what the type needs", "emulated servos; no physical arm",
    ),
    "franka": Entry(
        "Franka FR3 or Panda through franky", True, "franky-control", "pip install 'premotor[franka]'",
        "franky-sim, franka-sim; no physical arm",
    ),
    "trossen": Entry(
        "Trossen WidowX AI", True, "trossen-arm", "pip install 'premotor[trossen]'",
        "trossen-arm-sim; no physical arm",
    ),
    "ur": Entry("Universal Robots e-series", True, "ur-rtde", "pip install 'premotor[ur]'", "UNTESTED on any hardware"),
    "xarm": Entry(
        "UFACTORY xArm, Lite 6", True, "xarm-python-sdk", "pip install 'premotor[xarm]'", "UNTESTED on any hardware"
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """An arm of the table: its entry, and its driver's version where that is installed."""

    name: str
    entry: Entry
    version: str | None


def arms() -> list[Found]:
    """Every arm we have an adapter for."""
    unknown = Entry("", True, "", "", "nothing we know of")
    return [Found(name, entry := KNOWN.get(name, unknown), version(entry.driver)) for name in ARMS]


def version(distribution: str) -> str | None:
    """Of an installed distribution; `-` where none is needed."""
    if not distribution:
        return "-"
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


# -- LeRobot -----------------------------------------------------------------------------------------------------------

_REGISTERED = re.compile(r"RobotConfig\.register_subclass\(\s*(?:name\s*=\s*)?[\"']([\w-]+)[\"']")
_PLUGIN = "lerobot_robot_"


def lerobot_types(places: list[str] | None = None) -> dict[str, str]:
    """Robot types that `robot=lerobot robot.type=...` takes -> who brings them: `lerobot`, or the plugin's name.

    Read off the source, as importing every driver would take many seconds.

    Args:
        places: folders whose plugins count; the import path where nothing is said.
    """
    found: dict[str, str] = {}
    spec = importlib.util.find_spec("lerobot")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        found |= dict.fromkeys(_registered(Path(folder) / "robots"), "lerobot")
    for distribution in importlib.metadata.distributions(path=sys.path if places is None else places):
        name = str(distribution.metadata["Name"] or "")
        if name.startswith(_PLUGIN):
            found |= dict.fromkeys(_registered(_package(distribution, name)), name)
    return dict(sorted(found.items()))


def overlooked_plugins(places: list[str] | None = None) -> list[str]:
    """Plugins that are installed but that LeRobot does not discover: it goes by names with underscores only."""
    names = (
        str(found.metadata["Name"] or "")
        for found in importlib.metadata.distributions(path=sys.path if places is None else places)
    )
    return sorted({name for name in names if name.replace("-", "_").startswith(_PLUGIN) and "-" in name})


def _registered(folder: Path | None) -> list[str]:
    if folder is None or not folder.is_dir():
        return []
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        names |= set(_REGISTERED.findall(path.read_text(errors="replace")))
    return sorted(names)


def _package(distribution: importlib.metadata.Distribution, name: str) -> Path | None:
    """The folder of a plugin's package, which has its distribution's name, wherever an editable install left it."""
    beside = Path(str(distribution.locate_file(name)))
    if beside.is_dir():
        return beside
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


# -- what is plugged in ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ports:
    """What is plugged in: serial ports and cameras by the name that lasts where they have one, and input devices."""

    serial: tuple[str, ...]
    cameras: tuple[str, ...]
    inputs: tuple[InputDevice, ...]


def ports(devices: Path = Path("/dev")) -> Ports:
    """What is plugged in now."""
    serial = [path for kind in ("ttyACM*", "ttyUSB*", "tty.usb*", "cu.usb*") for path in sorted(devices.glob(kind))]
    cameras = sorted(devices.glob("video*"), key=lambda path: (len(path.name), path.name))
    return Ports(
        _lasting(serial, devices / "serial" / "by-id"),
        _lasting(cameras, devices / "v4l" / "by-id"),
        tuple(input_devices(devices / "input")),
    )


def _lasting(paths: list[Path], by_id: Path) -> tuple[str, ...]:
    names = {path.resolve(): path for path in sorted(by_id.glob("*"))}
    return tuple(f"{names[path]} ({path.name})" if path in names else str(path) for path in paths)
