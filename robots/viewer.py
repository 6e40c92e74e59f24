"""The Rerun program, called as a program: verify and mend a recording, open it for a person on this machine only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import rerun_sdk

# The native program itself: the Python wrapper of the same name would leave it orphaned when it is ended.
PROGRAM = Path(next(iter(rerun_sdk.__path__))) / "rerun_cli" / ("rerun.exe" if sys.platform == "win32" else "rerun")
LOCAL = "127.0.0.1"


def called(program: str) -> str:
    """How a program of this environment is called from here: by its bare name where that finds it, else by its path."""
    own = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if found is not None and Path(found).resolve() == own.resolve():
        return program
    return os.path.relpath(own) if own.is_relative_to(Path.cwd()) else str(own)


def verify(path: Path) -> tuple[bool, str]:
    """Whether a recording is whole, and what was found in one sentence."""
    if not path.is_file():
        return False, f"no recording at {path}"
    done = subprocess.run([str(PROGRAM), "rrd", "verify", str(path)], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return True, f"whole, {path.stat().st_size / 1e6:.1f} MB"
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return False, f"damaged: {lines[-1] if lines else 'it cannot be read'}"


def repair(path: Path) -> tuple[bool, str]:
    """Keep every message of a recording that can still be read; the damaged file stays beside it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as whole:
        done = subprocess.run(
            [str(PROGRAM), "rrd", "merge", str(path)], stdout=whole, stderr=subprocess.PIPE, check=False
        )
    fresh = Path(whole.name)
    if done.returncode != 0 or not verify(fresh)[0]:
        fresh.unlink()
        words = done.stderr.decode(errors="replace").strip().splitlines()
        return False, f"cannot be repaired: {words[-1] if words else 'nothing in it can be read'}"
    fresh.chmod(0o644)
    damaged = path.with_suffix(".damaged.rrd")
    os.replace(path, damaged)
    os.replace(fresh, path)
    return True, f"repaired; the damaged file is kept as {damaged.name}"


def has_screen() -> bool:
    """Whether a window can be shown here."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def command(path: Path, *, web: bool) -> list[str]:
    """How the viewer is called: it listens on this machine only, which is not Rerun's default."""
    call = [str(PROGRAM), str(path), "--bind", LOCAL, "--port", "auto"]
    return [*call, "--serve-web", "--web-viewer-port", "0"] if web else call


def open_recording(path: Path) -> subprocess.Popen[bytes]:
    """Show a recording: in a window, or without a screen as a page served to this machine only."""
    return subprocess.Popen(command(path, web=not has_screen()))
