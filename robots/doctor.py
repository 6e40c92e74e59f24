"""`premotor doctor`: what works on this machine, tried and measured, and how to mend the rest.

Nothing is believed from a version number: a world is drawn, a film is read back, a recording is opened, a plan is
imagined. Each check runs in a process beside this one, because a broken driver does not raise, it crashes or hangs.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from omegaconf import DictConfig

PATIENCE_S = 180.0
ENOUGH_DISK_GB = 2.0
FRAMES = 5


class DoctorError(RuntimeError):
    """A part answered, and the answer is wrong."""


@dataclass(frozen=True)
class Check:
    """One part: how to try it, what to do when it does not work, whether the main job needs it."""

    part: str
    look: Callable[[], str]
    mend: str
    essential: bool = True


@dataclass(frozen=True)
class Finding:
    """One line of the table."""

    part: str
    works: bool
    found: str
    mend: str
    essential: bool


# -- the checks: each returns what it found, or raises ------------------------------------------------------------------


def machine() -> str:
    """Cores, memory and system."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{os.cpu_count()} cores, {memory:.0f} GB memory, {platform.system()} {platform.machine()}"


def python() -> str:
    """The interpreter."""
    if sys.version_info[:2] != (3, 12):
        raise DoctorError(f"Python {platform.python_version()}; 3.12 is what everything is tried with")
    return f"{platform.python_version()}, {sys.prefix}"


def pytorch() -> str:
    """A product on the device that would be taken."""
    import torch

    from worldmodel.checkpoint import resolve_device

    device = resolve_device("auto")
    if not torch.isfinite(torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).all():
        raise DoctorError(f"a product of ones on {device} is not finite")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{torch.__version__} on {name}, {torch.get_num_threads()} threads"


def world(simulator: str, package: str) -> str:
    """A scene of the tabletop stepped and drawn for a second at 96 px."""
    import gymnasium

    import envs

    assert envs  # importing it registers the worlds
    env = gymnasium.make(
        "premotor/Tabletop-v0", simulator=simulator, image_size=96, with_goal=False, disable_env_checker=True
    )
    env.reset(seed=0)
    draw: Any = env.unwrapped
    picture = draw.render(size=96)
    began, frames = time.perf_counter(), 0
    while time.perf_counter() - began < 1.0:
        draw.render(size=96)
        frames += 1
    drawing = frames / (time.perf_counter() - began)
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < 1.0:
        env.step(env.action_space.sample() * 0.2)
        steps += 1
    acting = steps / (time.perf_counter() - began)
    driver = _opengl() if simulator == "mujoco" else "its own renderer"
    env.close()
    if picture.std() < 5:
        raise DoctorError("the picture it draws is empty")
    return f"{_version(package)}, {driver}: {drawing:.0f} frames/s at 96 px, {acting:.0f} steps/s with pictures"


def _opengl() -> str:
    """Who draws, as the current OpenGL context says."""
    from OpenGL import GL

    said = GL.glGetString(GL.GL_RENDERER)
    name = said.decode().split(" (")[0] if isinstance(said, bytes) else "an unnamed renderer"
    return f"{os.environ.get('MUJOCO_GL', 'default').upper()} on {name}"


def write_film(path: Path) -> np.ndarray:
    """Frames (5, 64, 64, 3) uint8, ever brighter, as H.264."""
    import av

    frames = np.stack([np.full((64, 64, 3), 40 * index + 40, np.uint8) for index in range(FRAMES)])
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream("libx264", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        film.mux(stream.encode())
    return frames


def _compare(frames: np.ndarray, seen: np.ndarray) -> None:
    if seen.shape != frames.shape or np.abs(seen.astype(int) - frames.astype(int)).max() > 20:
        raise DoctorError("the film that is read back is not the one that was written")


def video() -> str:
    """A film written and read back by PyAV."""
    import av

    with tempfile.TemporaryDirectory() as folder:
        frames = write_film(Path(folder) / "film.mp4")
        with av.open(str(Path(folder) / "film.mp4")) as film:
            seen = np.stack([frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)])
    _compare(frames, seen)
    return f"PyAV {_version('av')}: H.264 written and read back"


def lerobot_video() -> str:
    """The same film read by the decoder LeRobot prefers."""
    from torchcodec.decoders import VideoDecoder

    with tempfile.TemporaryDirectory() as folder:
        frames = write_film(Path(folder) / "film.mp4")
        decoder = VideoDecoder(str(Path(folder) / "film.mp4"), dimension_order="NHWC")
        seen = decoder.get_frames_at(list(range(FRAMES))).data.numpy()
    _compare(frames, seen)
    return f"torchcodec {_version('torchcodec')}: H.264 read back"


def recording() -> str:
    """A Rerun recording written and opened again."""
    import rerun as rr

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.rrd"
        stream = rr.RecordingStream("premotor_doctor")
        stream.save(path)
        stream.log("probe", rr.TextLog("works"))
        stream.disconnect()
        found = {str(entity) for entity in rr.experimental.RrdReader(path).store().schema().entity_paths()}
    if "/probe" not in found:
        raise DoctorError(f"what was written is not there when it is read back ({', '.join(sorted(found))})")
    return f"{_version('rerun-sdk')}: recording written and read back"


def model() -> str:
    """The shipped model encodes a picture and imagines a population of futures."""
    import torch

    from worldmodel import load
    from worldmodel.checkpoint import SHIPPED, read_card

    brain = load("tabletop")
    size = int(read_card(SHIPPED / "tabletop")["architecture"]["image_size"])
    pictures = {key: np.full((1, size, size, 3), 128, np.uint8) for key in brain.required_keys if "images" in key}
    with torch.inference_mode():
        latent = brain.encode(pictures)
        actions = torch.zeros(1, 128, 5, brain.action_space.size, device=brain.device)
        brain.predict(latent, actions)
        began = time.perf_counter()
        futures = brain.predict(latent, actions)
        finite = bool(torch.isfinite(futures).all())
    if not finite:
        raise DoctorError("its futures are not finite")
    return f"loads, imagines 128 futures of 5 steps in {1000 * (time.perf_counter() - began):.0f} ms"


def driver(package: str, module: str) -> str:
    """Whether an arm's driver is installed and can be imported; without an arm no more can be said."""
    if importlib.util.find_spec(module) is None:
        raise DoctorError("driver not installed")
    importlib.import_module(module)
    return f"{package} {_version(package)}"


def disk() -> str:
    """Room where results would be written."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    if free < ENOUGH_DISK_GB:
        raise DoctorError(f"{free:.1f} GB free, {ENOUGH_DISK_GB:g} needed")
    return f"{free:.0f} GB free"


def _version(package: str) -> str:
    return importlib.metadata.version(package)


SETUP = "make setup"
INSTALL = f"{os.path.relpath(sys.executable)} -m uv pip install"
CHECKS = (
    Check("Machine", machine, ""),
    Check("Python", python, SETUP),
    Check("PyTorch", pytorch, SETUP),
    Check("MuJoCo", partial(world, "mujoco", "mujoco"), "apt-get install libegl1 libgl1; or libosmesa6 and MUJOCO_GL=osmesa"),
    Check("PyBullet", partial(world, "pybullet", "pybullet"), f"{SETUP}: compiled with g++ and python3.12-dev", False),
    Check("Video", video, SETUP),
    Check("Video, LeRobot's", lerobot_video, "apt-get install ffmpeg; until then films are read by PyAV", False),
    Check("Rerun", recording, SETUP),
    Check("Model tabletop", model, "git checkout worldmodel/checkpoints"),
    Check("Arm SO-101", partial(driver, "feetech-servo-sdk", "scservo_sdk"), f"{INSTALL} 'lerobot[feetech]'", False),
    Check("Arm Franka", partial(driver, "franky-control", "franky"), f"{INSTALL} franky-control", False),
    Check("Arm Trossen", partial(driver, "trossen-arm", "trossen_arm"), f"{INSTALL} trossen-arm", False),
    Check("Disk", disk, "make room: recordings and films need it"),
)  # fmt: skip


# -- running them -------------------------------------------------------------------------------------------------------


def examine(checks: Iterable[Check], told: Callable[[str], None] = lambda part: None) -> list[Finding]:
    """Run every check, whatever the others do; `told` hears which part is next."""
    findings, beside = [], _beside()
    for check in checks:
        told(check.part)
        try:
            found, works = beside.submit(check.look).result(PATIENCE_S), True
        except BrokenProcessPool:
            found, works = "it crashed the process that tried it", False
            beside = _beside()
        except TimeoutError:
            found, works = f"no answer in {PATIENCE_S:.0f} s", False
            _end(beside)
            beside = _beside()
        except Exception as error:
            found, works = " ".join(str(error).split()) or type(error).__name__, False
        findings.append(Finding(check.part, works, found[:200], "" if works else check.mend, check.essential))
    _end(beside)
    return findings


def _beside() -> ProcessPoolExecutor:
    """A process that prints nothing, to crash or hang in our place."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_quiet)


def _quiet() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _end(beside: ProcessPoolExecutor) -> None:
    """End its process even where it hangs."""
    processes = list((beside._processes or {}).values())
    beside.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
        process.join()


def main(cfg: DictConfig) -> int:
    """`premotor doctor`: 0 when everything essential works, 1 otherwise."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if cfg.json:
        findings = examine(CHECKS)
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return _verdict(findings)
    console = Console(highlight=False)
    with console.status("") as status:
        findings = examine(CHECKS, told=lambda part: status.update(f"trying {part} ..."))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("", "part", "what was found", "how to mend it"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        sign = "[green]ok[/]" if finding.works else "[red]no[/]" if finding.essential else "[yellow]-[/]"
        table.add_row(sign, f"[bold]{finding.part}[/]", escape(finding.found), f"[cyan]{escape(finding.mend)}[/]")
    console.print(table)
    broken = [finding.part for finding in findings if finding.essential and not finding.works]
    console.print(
        f"\n[red]The main job needs {', '.join(broken)}: mend it first.[/]"
        if broken
        else "\n[green]Everything the main job needs works here:[/] premotor demo. [dim]- marks what can be added.[/]"
    )
    return _verdict(findings)


def _verdict(findings: list[Finding]) -> int:
    return int(any(finding.essential and not finding.works for finding in findings))
