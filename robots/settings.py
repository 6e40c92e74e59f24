"""What an adapter cannot guess must be said: one sentence names every setting that is missing, with an example."""

from __future__ import annotations

from typing import Any


def require(arm: str, **settings: tuple[Any, str]) -> None:
    """Refuse settings that are missing.

    Args:
        arm: the arm's name.
        settings: name -> (its value, an example of one).

    Raises:
        ValueError: some are None or empty.
    """
    missing = [
        f"robot.{name}={example}" for name, (value, example) in settings.items() if value is None or str(value) == ""
    ]
    if missing:
        raise ValueError(f"{arm} needs to be told more, such as {' '.join(missing)}")
