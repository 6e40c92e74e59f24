#!/usr/bin/env bash
# Everything a bare Debian or Ubuntu with Python 3.12, git and make lacks; a second run skips what is done.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

stamp=.venv/.premotor-ready
ready() {
  [ "$(cat "$stamp" 2>/dev/null)" = "$PWD" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt .ci/setup.sh ]
}
ready && exit 0
# `make demo` and `make test` side by side set up once.
exec 9<.ci/setup.sh
flock 9
ready && exit 0

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# -- Python 3.12: the system's, or one of pyenv's ----------------------------------------------------------------------
python=
for candidate in python3.12 python3 python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python; do
  # Its own name for itself, so that neither a shim nor an active environment stands between.
  if python=$("$candidate" -c 'import sys
print(getattr(sys, "_base_executable", sys.executable))
sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null); then break; fi
  python=
done
[ -n "$python" ] || fail "Python 3.12 was not found: install python3.12 and python3.12-venv, or pyenv's 3.12, and run this again."

# -- system packages: a compiler for PyBullet, off-screen OpenGL for MuJoCo, FFmpeg for LeRobot's reader ---------------
needed=() wished=()
libraries=$(ldconfig -p 2>/dev/null || true)
has() { grep -q "$1" <<<"$libraries"; }
command -v g++ >/dev/null || needed+=(g++)
"$python" -c 'import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())' || needed+=(python3.12-dev)
"$python" -c 'import venv, ensurepip' 2>/dev/null || needed+=(python3.12-venv)
has 'libEGL\.so\.1' || needed+=(libegl1)
has 'libGL\.so\.1' || needed+=(libgl1)
has 'libOSMesa\.so' || wished+=(libosmesa6)
has 'libavcodec\.so' || wished+=(ffmpeg)
missing=("${needed[@]}" "${wished[@]}")
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "Installing system packages: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    install() { apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
    apt-get update -qq || say "The package lists could not be refreshed; going on with the old ones."
    if [ ${#needed[@]} -gt 0 ]; then
      install "${needed[@]}" || fail "These system packages could not be installed: ${needed[*]}. Install them and run this again."
    fi
    # Newer releases drop some of these; each has a stand-in (EGL for OSMesa, PyAV for FFmpeg).
    for package in "${wished[@]}"; do
      install "$package" || say "$package could not be installed; it can be done without."
    done
  elif [ ${#needed[@]} -gt 0 ]; then
    fail "Some system packages are missing; install them and run this again: sudo apt-get install -y ${missing[*]}"
  else
    say "Going on without some system packages; to have them: sudo apt-get install -y ${missing[*]}"
  fi
fi

# -- the virtual environment, with uv inside ---------------------------------------------------------------------------
if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then
  say "Making the virtual environment .venv with $python"
  if ! "$python" -m venv --clear .venv; then
    rm -rf .venv
    fail "The virtual environment could not be made: install python3.12-venv and run this again."
  fi
fi
if ! .venv/bin/python -m uv --version >/dev/null 2>&1; then
  .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
  .venv/bin/python -m pip install --quiet --disable-pip-version-check uv ||
    fail "uv could not be installed: the package index cannot be reached. Check the network and run this again."
fi

# -- the packages ------------------------------------------------------------------------------------------------------
say "Installing the Python packages; the first time that is some 6 GB and takes five to ten minutes"
# A mirror that pip was told of serves uv too.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && mirror=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null); then
  export UV_DEFAULT_INDEX="$mirror"
fi
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}" UV_PYTHON_DOWNLOADS=never
quiet=--quiet
[ -t 2 ] && quiet=
# --inexact: uv itself lives in the same environment and must stay.
synchronise() { VIRTUAL_ENV="$PWD/.venv" .venv/bin/python -m uv sync $quiet --group dev --inexact --python .venv/bin/python; }
synchronise || { say "That failed; once more."; synchronise; } ||
  fail "The Python packages could not be installed (see above); run this again when the cause is mended."
.venv/bin/premotor --help >/dev/null || fail "premotor was installed but does not start (see above)."
printf '%s' "$PWD" >"$stamp"
say "Ready: .venv/bin/premotor --help"
