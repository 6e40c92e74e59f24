#!/usr/bin/env bash
# Premotor with other people's planners in an environment of its own, .venv-peers; .venv stays as it is. Again: nothing to do.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv-peers/.premotor-ready
ready() {
  [ "$(cat "$stamp" 2>/dev/null)" = "$PWD" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt .ci/peers.sh ]
}
ready && exit 0
exec 9<.ci/peers.sh
flock 9
ready && exit 0

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

uv() { .venv/bin/python -m uv "$@"; }
uv --version >/dev/null 2>&1 || fail "uv was not found in .venv: run make setup first."
# A mirror that pip was told of serves uv too.
if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && mirror=$(.venv/bin/python -m pip config get global.index-url 2>/dev/null); then
  export UV_DEFAULT_INDEX="$mirror"
fi
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}" UV_PYTHON_DOWNLOADS=never
quiet=--quiet
[ -t 2 ] && quiet=
say "Installing other people's planners into .venv-peers; what .venv has is not downloaded again"
[ -x .venv-peers/bin/python ] || uv venv $quiet --python .venv/bin/python .venv-peers ||
  fail "The virtual environment .venv-peers could not be made (see above)."
# The pins under tool.uv in pyproject.toml hold here too.
install() { uv pip install $quiet --python .venv-peers/bin/python --editable '.[peers]'; }
install || { say "That failed; once more."; install; } ||
  fail "The planners could not be installed (see above); run this again when the cause is mended."
printf '%s' "$PWD" >"$stamp"
