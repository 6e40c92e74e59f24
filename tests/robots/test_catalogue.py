"""What could be driven here, found without importing or opening anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from robots import catalogue
from robots.arm import ARMS


def plugin(folder: Path, name: str, type_: str) -> None:
    """An installed plugin, as pip leaves it."""
    package = folder / name.replace("-", "_")
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('nobody may import this to list it')\n")
    (package / "config_x.py").write_text(f'@RobotConfig.register_subclass("{type_}")\nclass XConfig: ...\n')
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")


def test_every_arm_is_described() -> None:
    found = {arm.name: arm for arm in catalogue.arms()}
    assert set(found) == set(ARMS)
    for name, arm in found.items():
        assert arm.entry.about, f"{name} has no entry in robots.catalogue.KNOWN"
        assert arm.entry.tried
    assert found["mujoco"].version
    assert not found["mujoco"].entry.real


def test_a_driver_that_is_not_installed_is_none() -> None:
    assert catalogue.version("no-such-driver-4711") is None
    assert catalogue.version("") == "-"


def test_plugins_are_found_by_their_source(tmp_path: Path) -> None:
    plugin(tmp_path, "lerobot_robot_mine", "my_arm")
    plugin(tmp_path, "lerobot-robot-theirs", "their_arm")
    types = catalogue.lerobot_types([str(tmp_path)])
    assert types["my_arm"] == "lerobot_robot_mine"
    assert types["so101_follower"] == "lerobot"
    assert "their_arm" not in types  # as LeRobot itself does
    assert catalogue.overlooked_plugins([str(tmp_path)]) == ["lerobot-robot-theirs"]


@pytest.mark.slow
def test_the_types_are_those_lerobot_registers() -> None:
    import contextlib
    import importlib
    import pkgutil

    import lerobot.robots
    from lerobot.robots.config import RobotConfig

    for package in pkgutil.iter_modules(lerobot.robots.__path__, "lerobot.robots."):
        with contextlib.suppress(ImportError):
            importlib.import_module(package.name)
    ours = {name for name, by in catalogue.lerobot_types().items() if by == "lerobot"}
    assert ours == {name for name in RobotConfig.get_known_choices() if name in ours or _of_lerobot(name)}


def _of_lerobot(name: str) -> bool:
    from lerobot.robots.config import RobotConfig

    return RobotConfig.get_choice_class(name).__module__.startswith("lerobot.")


def test_ports_by_the_name_that_lasts(tmp_path: Path) -> None:
    for name in ("ttyACM0", "ttyUSB1", "tty0", "video0", "video10", "video2"):
        (tmp_path / name).touch()
    (tmp_path / "serial/by-id").mkdir(parents=True)
    (tmp_path / "serial/by-id/usb-so101").symlink_to("../../ttyACM0")
    found = catalogue.ports(tmp_path)
    assert found.serial == (f"{tmp_path}/serial/by-id/usb-so101 (ttyACM0)", f"{tmp_path}/ttyUSB1")
    assert [Path(name).name for name in found.cameras] == ["video0", "video2", "video10"]
    assert found.inputs == ()
