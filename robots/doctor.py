"""`premotor doctor`: what works on this machine, in one table, and how to mend the rest."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Finding:
    """One line of the table; `essential` ones that fail make the command fail."""

    part: str
    works: bool
    found: str
    mend: str = ""
    essential: bool = True


def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _python() -> Finding:
    ok = sys.version_info[:2] == (3, 12)
    return Finding("Python", ok, platform.python_version(), "" if ok else "use Python 3.12: make setup")


def _torch() -> Finding:
    import torch

    device = "cuda: " + torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return Finding("PyTorch", True, f"{torch.__version__}, {device}, {torch.get_num_threads()} threads")


def _mujoco() -> Finding:
    import gymnasium

    import envs  # noqa: F401  registers the worlds

    env = gymnasium.make("premotor/Tabletop-v0", with_goal=False, image_size=96, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    began, frames = time.perf_counter(), 0
    while time.perf_counter() - began < 1.0:
        env.render(size=96)  # type: ignore[call-arg]
        frames += 1
    rate = frames / (time.perf_counter() - began)
    env.close()
    return Finding("MuJoCo", True, f"{_version('mujoco')}, draws {rate:.0f} frames/s at 96 px")


def _pybullet() -> Finding:
    import pybullet

    client = pybullet.connect(pybullet.DIRECT)
    pybullet.stepSimulation(physicsClientId=client)
    pybullet.disconnect(client)
    return Finding("PyBullet", True, _version("pybullet"))


def _video() -> Finding:
    import av

    frames = np.zeros((4, 64, 64, 3), np.uint8)
    frames[2] = 200
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=5)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for picture in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
        with av.open(str(path)) as container:
            seen = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    ok = len(seen) == 4 and seen[2].mean() > 150
    return Finding("Video", ok, f"PyAV {_version('av')}, H.264 written and read back")


def _torchcodec() -> Finding:
    import torchcodec  # noqa: F401

    return Finding("Video for LeRobot", True, f"torchcodec {_version('torchcodec')}", essential=False)


def _rerun() -> Finding:
    import rerun as rr

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.rrd"
        stream = rr.RecordingStream("premotor_doctor")
        stream.save(path)
        stream.log("probe", rr.TextLog("works"))
        stream.disconnect()
        size = path.stat().st_size
    return Finding("Rerun", size > 0, f"{_version('rerun-sdk')}, recording written")


def _model() -> Finding:
    import torch

    from worldmodel import load

    model = load("tabletop", "cpu")
    picture = np.zeros((1, 64, 64, 3), np.uint8)
    latent = model.encode({"observation.images.front": picture})
    ok = bool(torch.isfinite(latent).all())
    return Finding("Model tabletop", ok, f"loads, latent of {latent.shape[1]} numbers")


def _driver(part: str, package: str, module: str, mend: str) -> Callable[[], Finding]:
    def look() -> Finding:
        if importlib.util.find_spec(module) is None:
            return Finding(part, False, "driver not installed", mend, essential=False)
        return Finding(part, True, f"{package} {_version(package)}", essential=False)

    return look


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 1e9
    return Finding("Disk", free > 2, f"{free:.0f} GB free", "" if free > 2 else "free some space: recordings need it")


CHECKS: tuple[tuple[str, Callable[[], Finding], str], ...] = (
    ("Python", _python, "make setup"),
    ("PyTorch", _torch, "make setup"),
    ("MuJoCo", _mujoco, "install libegl1 libgl1 libosmesa6, or set MUJOCO_GL=osmesa"),
    ("PyBullet", _pybullet, "make setup (it is compiled: a C++ compiler and Python headers are needed)"),
    ("Video", _video, "make setup"),
    ("Video for LeRobot", _torchcodec, "install ffmpeg; without it LeRobot's own reader falls back to PyAV"),
    ("Rerun", _rerun, "make setup"),
    ("Model tabletop", _model, "the checkout lacks worldmodel/checkpoints/tabletop; get it again"),
    (
        "SO-101 (LeRobot)",
        _driver("SO-101 (LeRobot)", "feetech-servo-sdk", "scservo_sdk", "pip install 'lerobot[feetech]'"),
        "",
    ),
    ("Franka", _driver("Franka", "franky-control", "franky", "pip install franky-control"), ""),
    ("Trossen", _driver("Trossen", "trossen-arm", "trossen_arm", "pip install trossen-arm"), ""),
    ("Disk", _disk, ""),
)


def examine() -> list[Finding]:
    """Every check; one that raises becomes a finding that says so."""
    findings = []
    for part, check, mend in CHECKS:
        try:
            findings.append(check())
        except Exception as error:
            words = " ".join(str(error).split())[:120]
            essential = part not in ("Video for LeRobot",)
            findings.append(Finding(part, False, f"{type(error).__name__}: {words}", mend, essential))
    return findings


def main(cfg: DictConfig) -> int:
    """`premotor doctor`."""
    findings = examine()
    if cfg.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(title="What works here", title_justify="left")
        for column in ("", "part", "found", "how to mend it"):
            table.add_column(column)
        for finding in findings:
            sign = "[green]yes[/]" if finding.works else ("[red]no[/]" if finding.essential else "[yellow]-[/]")
            table.add_row(sign, finding.part, finding.found, finding.mend)
        Console().print(table)
    return 1 if any(finding.essential and not finding.works for finding in findings) else 0
