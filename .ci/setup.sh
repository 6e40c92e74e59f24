#!/usr/bin/env bash
# Everything a bare Debian or Ubuntu with Python 3.12, git and make lacks; a second run skips what is done.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.premotor-ready
if [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt .ci/setup.sh ]; then
  exit 0
fi

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }

# -- system libraries: off-screen OpenGL for MuJoCo, FFmpeg for LeRobot's reader, a compiler for PyBullet ------------
missing=()
have_library() { ldconfig -p 2>/dev/null | grep -q "$1"; }
have_library 'libEGL\.so\.1' || missing+=(libegl1)
have_library 'libGL\.so\.1' || missing+=(libgl1)
have_library 'libOSMesa\.so' || missing+=(libosmesa6)
have_library 'libavcodec\.so' || missing+=(ffmpeg)
command -v g++ >/dev/null || missing+=(g++)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Installing system libraries: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    say "These system packages are missing; install them first: sudo apt-get install -y ${missing[*]}"
    exit 1
  fi
fi

# -- Python 3.12 ------------------------------------------------------------------------------------------------------
python=
for candidate in python3.12 python3 python; do
  if command -v "$candidate" >/dev/null && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
    python=$(command -v "$candidate")
    break
  fi
done
if [ -z "$python" ]; then
  say "Python 3.12 was not found; install it (python3.12 and python3.12-venv, or pyenv) and try again."
  exit 1
fi
"$python" - <<'PY' || { say "The headers of Python 3.12 are missing (PyBullet is compiled): install python3.12-dev."; exit 1; }
import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())
PY

# -- the virtual environment ------------------------------------------------------------------------------------------
if [ ! -x .venv/bin/python ]; then
  say "Making the virtual environment .venv"
  "$python" -m venv .venv || { say "Python's venv module is missing: install python3.12-venv."; exit 1; }
fi
if ! .venv/bin/python -m uv --version >/dev/null 2>&1; then
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip -q
  .venv/bin/python -m pip install -q uv
fi
say "Installing the Python packages (the first time: about 6 GB, five to ten minutes)"
# --inexact: uv itself lives in the same environment and must stay.
VIRTUAL_ENV="$PWD/.venv" .venv/bin/python -m uv sync --quiet --group dev --inexact --python .venv/bin/python
touch "$stamp"
say "Ready: .venv/bin/premotor --help"
