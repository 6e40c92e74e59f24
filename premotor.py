"""The front door: a table of commands, each composed by Hydra and imported only when it is called.

`premotor COMMAND [group=choice] [key=value] ...`; `premotor COMMAND --help` shows what may be said. A wrong word gets
one sentence with the nearest right one; `PREMOTOR_DEBUG=1` shows tracebacks.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIGS = Path(__file__).parent / "configs"
BAD_INPUT, INTERRUPTED = 2, 130


@dataclass(frozen=True)
class Command:
    """One command: its name (also its config's), who answers it, what it does, an example."""

    name: str
    target: str
    about: str
    example: str


COMMANDS = {
    command.name: command
    for command in (
        Command("demo", "robots.demo:main", "goal images in, rehearsed motion out: the main job", "premotor demo"),
        Command("doctor", "robots.doctor:main", "what works on this machine, and how to mend the rest", "premotor doctor"),
        Command(
            "collect", "envs.collect:main", "seeded play into a LeRobotDataset v3; killed at will, it resumes",
            "premotor collect env=tabletop/push episodes=200 seed=3 out=data/play",
        ),
        Command(
            "pretrain", "worldmodel.pretrain:main", "an encoder from video alone",
            "premotor pretrain data=data/play minutes=10",
        ),
        Command(
            "adapt", "worldmodel.adapt:main", "a world model from recorded episodes",
            "premotor adapt data=data/play minutes=20 out=outputs/adapt/mine",
        ),
        Command(
            "plan", "robots.rehearse:main", "one plan from one observation and one goal image",
            "premotor plan planner=cem budget.samples=200",
        ),
        Command(
            "bench", "planners.benchmark:main", "models x planners x tasks, with intervals",
            "premotor bench task=push model=tabletop planner=cem episodes=100 seed=10000 out=outputs/bench/push",
        ),
        Command(
            "run", "robots.run:main", "an arm executes what was rehearsed, watched by the guard",
            "premotor run robot=mujoco",
        ),
        Command(
            "review", "robots.review:main", "what was imagined, what happened, and why",
            "premotor review verify=true",
        ),
        Command("models", "worldmodel.models:main", "which brains are here, and their cards", "premotor models"),
    )
}  # fmt: skip


class WordError(ValueError):
    """A command line that cannot be understood."""


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or what there is."""
    known = list(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def groups() -> dict[str, list[str]]:
    """Config groups and their choices: {`env`: [`tabletop/push`, ...], ...}."""
    found: dict[str, list[str]] = {}
    for path in sorted(CONFIGS.glob("*/**/*.yaml")):
        group, *rest = path.relative_to(CONFIGS).with_suffix("").parts
        found.setdefault(group, []).append("/".join(rest))
    return found


def compose(command: str, overrides: Sequence[str]) -> DictConfig:
    """The command's configuration with overrides applied; wrong words are refused with the nearest right one."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        base = hydra_compose(command)
        _check_words(command, base, overrides)
        try:
            return hydra_compose(command, overrides=list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            raise WordError(f"{command}: {str(error).splitlines()[0]}") from None


def _check_words(command: str, base: DictConfig, overrides: Sequence[str]) -> None:
    from omegaconf import DictConfig, OmegaConf

    known_groups = groups()
    used = {name for name in known_groups if name in base}
    for word in overrides:
        key, equals, value = word.partition("=")
        if not equals:
            raise WordError(f"{command}: {word!r} is no key=value{nearest(word, [f'{k}=...' for k in base])}")
        key = key.lstrip("+~")
        if key in used and not value.startswith(("{", "[")):
            # A key that is both a group and a choice inside it (model=tabletop) is read as the group.
            if value not in known_groups[key]:
                raise WordError(f"{command}: {key} has no choice {value!r}{nearest(value, known_groups[key])}")
            continue
        node: Any = base
        parts = key.split(".")
        for depth, part in enumerate(parts):
            if not isinstance(node, DictConfig) or part not in node:
                if isinstance(node, DictConfig) and word.startswith("+"):
                    break
                where = ".".join(parts[:depth])
                choices = [f"{where}.{k}" if where else str(k) for k in node] if isinstance(node, DictConfig) else []
                raise WordError(f"{command} has no key {key!r}{nearest(key, choices)}")
            node = node[part] if not OmegaConf.is_missing(node, part) else None
            if isinstance(node, str | int | float | None) and depth + 1 < len(parts):
                raise WordError(f"{command}: {'.'.join(parts[: depth + 1])} is a single value, not a group of keys")
            if key.startswith("env.variation."):
                break  # one of many factors; `Variation.of` names the nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("PREMOTOR_DEBUG") == "1"
    if not words or words[0] in ("-h", "--help", "help"):
        _show_commands()
        return 0
    name, *overrides = words
    try:
        if name not in COMMANDS:
            raise WordError(f"premotor has no command {name!r}{nearest(name, COMMANDS)}")
        if any(word in ("-h", "--help") for word in overrides):
            _show_help(COMMANDS[name])
            return 0
        cfg = compose(name, overrides)
        module, _, function = COMMANDS[name].target.partition(":")
        return int(getattr(importlib.import_module(module), function)(cfg))
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C; what was finished is kept.", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, FileNotFoundError) as error:
        if debug:
            raise
        print(f"premotor: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except RuntimeError as error:
        if debug:
            raise
        print(f"premotor {name} failed: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _show_commands() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("[bold]premotor[/bold]: a robot rehearses an action in a learned world model before it performs it.\n")
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for command in COMMANDS.values():
        table.add_row(f"[bold cyan]{command.name}[/]", command.about)
    console.print(table)
    console.print("\n[dim]premotor COMMAND --help[/dim] shows a command's keys, groups and an example.")


def _show_help(command: Command) -> None:
    from omegaconf import DictConfig, OmegaConf
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    base = compose(command.name, [])
    console.print(f"[bold]premotor {command.name}[/bold]: {command.about}\n")
    console.print(f"  [green]{escape(command.example)}[/green]\n")
    known = {name: choices for name, choices in groups().items() if name in base}
    if known:
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
        for name, choices in known.items():
            table.add_row(f"[bold cyan]{name}[/]", escape(" | ".join(choices)))
        console.print("[bold]groups[/bold] (group=choice)")
        console.print(table)
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    for key, value in base.items():
        if key in known and isinstance(value, DictConfig):
            value = OmegaConf.to_container(value)
            assert isinstance(value, dict)
            for inner, number in value.items():
                table.add_row(f"[cyan]{key}.{inner}[/]", escape(str(number)))
        elif isinstance(value, DictConfig):
            for inner, number in value.items():
                table.add_row(f"[cyan]{key}.{inner}[/]", escape(str(number)))
        else:
            table.add_row(f"[cyan]{key}[/]", escape(str(value)))
    console.print("[bold]keys[/bold] (key=value) and their defaults")
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
