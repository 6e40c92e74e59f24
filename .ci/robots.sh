#!/usr/bin/env bash
# The vendors' drivers and their simulated controllers in environments of their own: .venv-robots, and .venv-franka-sim for
# the one that pins an old numpy and MuJoCo. .venv stays as it is. Again: nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv-robots/.premotor-ready
ready() {
  [ "$(cat "$stamp" 2>/dev/null)" = "$PWD" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt .ci/robots.sh ] &&
    [ -x .venv-franka-sim/bin/python ]
}
ready && exit 0
exec 9<.ci/robots.sh
flock 9
ready && exit 0

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

uv() { .venv/bin/python -m uv "$@"; }
uv --version >/dev/null 2>&1 || fail "uv was not found in .venv: run make setup first."
[ "$(uname -sm)" = "Linux x86_64" ] || fail "Franka's and Trossen's drivers are built for Linux on x86-64 only."
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)
[ "$(printf '%s\n' 2.34 "${glibc:-0}" | sort -V | head -1)" = 2.34 ] ||
  fail "Franka's driver needs glibc 2.34 or newer (Debian 12, Ubuntu 22.04); this machine has ${glibc:-none}."
# A mirror that pip was told of serves uv too.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && mirror=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null); then
  export UV_DEFAULT_INDEX="$mirror"
fi
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}" UV_PYTHON_DOWNLOADS=never
quiet=--quiet
[ -t 2 ] && quiet=
say "Installing the drivers and simulated controllers of Franka and Trossen into .venv-robots (750 MB) and .venv-franka-sim"
for place in .venv-robots .venv-franka-sim; do
  [ -x "$place/bin/python" ] || uv venv $quiet --python .venv/bin/python "$place" ||
    fail "The virtual environment $place could not be made (see above)."
done
# What the arms, the guard's limits and the streamer need, and no learning library. The pins under tool.uv hold here too.
drivers() {
  uv pip install $quiet --python .venv-robots/bin/python \
    franky-control==2.0.0 franky-sim==1.0.4 trossen-arm==1.11.0 trossen-arm-sim==0.2.3 \
    numpy mujoco mink daqp ruckig omegaconf pytest pytest-timeout
}
# No pins of ours: franka-sim has its own (numpy 1.26, MuJoCo below 3.3).
judge() { uv pip install $quiet --no-config --python .venv-franka-sim/bin/python franka-sim==1.1.7; }
for step in drivers judge; do
  $step || { say "That failed; once more."; $step; } ||
    fail "The drivers could not be installed (see above); run this again when the cause is mended."
done
printf '%s' "$PWD" >"$stamp"
