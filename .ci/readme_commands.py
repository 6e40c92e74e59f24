"""Run the README's commands that say they can run offline: fenced blocks that open with ```bash run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```bash run\n(.*?)^```", re.MULTILINE | re.DOTALL)


def main() -> int:
    """Every command on its own line; the first that fails stops."""
    commands = [
        line for block in BLOCK.findall((ROOT / "README.md").read_text()) for line in block.splitlines() if line.strip()
    ]
    if not commands:
        print("README.md has no ```bash run block: nothing it says was checked.", file=sys.stderr)
        return 1
    environment = os.environ | {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
    for command in commands:
        began = time.monotonic()
        done = subprocess.run(
            command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {time.monotonic() - began:5.1f} s  {command}")
        if done.returncode != 0:
            print(done.stdout[-2000:], done.stderr[-2000:], file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
