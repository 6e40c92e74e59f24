"""Names for everything that decides a run, so that a record says exactly which software, limits, arm and model it was."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from robots.arm import Arm
from robots.limits import Limits

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("worldmodel", "envs", "planners", "robots", "configs")


@functools.cache
def software() -> str:
    """16 hex digits of this software's own source and configuration files; changes when any byte of them does."""
    files = [ROOT / "premotor.py"]
    for room in ROOMS:
        files += [path for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".yaml")]
    return of_files(files, ROOT)


def of_files(files: Iterable[Path], root: Path) -> str:
    """16 hex digits of files, by their names below `root` and their contents."""
    digest = hashlib.sha256()
    for path in sorted(path for path in files if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def of(arm: Arm, limits: Limits, model: str = "") -> dict[str, str]:
    """The header's hashes.

    Args:
        arm: which arm, by its own word.
        limits: what the guard holds requests against.
        model: digest of the model's weights; empty where there is none.
    """
    return {
        "software_hash": software(),
        "limits_hash": limits.hash,
        "calibration_hash": arm.calibration_hash,
        "arm_identity": arm.identity,
        "model_hash": model,
    }
