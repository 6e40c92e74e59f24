"""The front door: a table of commands, each composed by Hydra and imported only when it is called.

`premotor COMMAND [group=choice] [key=value] ...`; `premotor COMMAND --help` shows what may be said. A wrong word gets
one sentence with the nearest right one; `PREMOTOR_DEBUG=1` shows tracebacks.
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

ROOT = Path(__file__).resolve().parent
# Settings that take one number, or one for each dimension.
ONE_OR_EACH = ("initial_std", "min_std")
CONFIGS = ROOT / "configs"
# Choices of a group that are some commands' alone: in any world one may play, but only the tabletop has goals.
ALONE = {("env", "gymnasium"): ("collect",)}
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Command:
    """One command: its name (also its config's), who answers it, what it does, an example.

    One that does several things takes `premotor NAME ACTION` for `premotor NAME action=ACTION`.
    """

    name: str
    target: str
    about: str
    example: str
    actions: tuple[str, ...] = ()


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "demo", "robots.demo:main", "goal images in, rehearsed motion out: the main job",
            "premotor demo tasks.push=2",
        ),
        Command(
            "doctor", "robots.doctor:main", "what works on this machine, and how to mend the rest",
            "premotor doctor",
        ),
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
            "plan", "robots.rehearse:main", "one plan from one observation and one goal image; nothing moves",
            "premotor plan planner=icem budget.samples=200",
        ),
        Command(
            "bench", "planners.benchmark:main", "models x planners x tasks, with intervals",
            "premotor bench task=push model=tabletop planner=cem episodes=100 seed=10000 out=outputs/bench/push",
        ),
        Command(
            "run", "robots.run:main", "an arm executes what was rehearsed, watched by the guard",
            "premotor run robot=mujoco env=tabletop/reach dry_run=true",
        ),
        Command(
            "review", "robots.review:main", "what was imagined, what happened, and why",
            "premotor review verify=true",
        ),
        Command(
            "models", "worldmodel.models:main", "which brains are here, and their cards",
            "premotor models show name=tabletop", ("list", "show", "pull", "convert"),
        ),
        Command(
            "robots", "robots.commands:main", "which arms are here; one looked over, parked, let go",
            "premotor robots doctor robot=mujoco", ("list", "doctor", "picture", "home", "park", "release", "find"),
        ),
    )
}  # fmt: skip


class WordError(ValueError):
    """A command line that cannot be understood."""


# -- understanding the words -------------------------------------------------------------------------------------------


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?`, or what there is. A word may be misspelt, or be the end of a longer one."""
    known = list(known)
    whole = _closest(word, {name: name for name in known}, 0.75)
    if found := whole or _closest(_last(word), {_last(name): name for name in reversed(known)}, 0.6):
        return f"; did you mean {found}?"
    shown = [name for name in known if "." not in name] or known
    return f"; known are {', '.join(shown)}" if shown else ""


def _closest(word: str, named: dict[str, str], cutoff: float) -> str | None:
    near = difflib.get_close_matches(word, named, n=1, cutoff=cutoff)
    return named[near[0]] if near else None


def _last(word: str) -> str:
    return re.split(r"[./]", word)[-1]


@dataclass(frozen=True)
class Group:
    """A config group of a command: what it takes where nothing is said, and what else there is."""

    default: str
    choices: tuple[str, ...]


def groups(command: str) -> dict[str, Group]:
    """The command's config groups, from its defaults list and the files that lie in `configs/`."""
    from omegaconf import DictConfig, OmegaConf

    found = {}
    root = OmegaConf.load(CONFIGS / f"{command}.yaml")
    assert isinstance(root, DictConfig)
    for entry in root.get("defaults", []):
        for name, default in entry.items() if isinstance(entry, DictConfig) else ():
            files = sorted((CONFIGS / str(name)).glob("**/*.yaml"))
            choices = (file.relative_to(CONFIGS / str(name)).with_suffix("").as_posix() for file in files)
            fitting = tuple(choice for choice in choices if command in ALONE.get((str(name), choice), (command,)))
            found[str(name)] = Group(str(default), fitting)
    return found


def flags(command: str) -> set[str]:
    """The command's keys that are true or false: `--dry-run` is short for `dry_run=true`."""
    from omegaconf import OmegaConf

    root = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{command}.yaml"), resolve=False)
    assert isinstance(root, dict)
    return {str(key) for key, value in root.items() if isinstance(value, bool)}


def compose(command: str, words: Sequence[str]) -> DictConfig:
    """The command's configuration; a wrong choice, key or kind of value is refused with the nearest right one."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    known, words = groups(command), _with_action(COMMANDS[command], words)
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            parsed = [_parse(command, word, known) for word in words]
            chosen = [word for word, override in parsed if override.key_or_group in known]
            for word, override in parsed:
                _check_choice(command, word, override, known)
            base = hydra_compose(command, overrides=chosen)
            factors = [override for _, override in parsed if _is_factor(base, override)]
            for _, override in parsed:
                if override.key_or_group not in known and override not in factors:
                    _check_key(command, base, override)
            cfg = hydra_compose(command, overrides=[word for word, override in parsed if override not in factors])
            with open_dict(cfg):
                for override in factors:
                    _vary(cfg, override)
            OmegaConf.resolve(cfg)
            return cfg
    except (HydraException, OmegaConfBaseException) as error:
        raise WordError(f"{command}: {str(error).splitlines()[0]}") from None


def _with_action(command: Command, words: Sequence[str]) -> Sequence[str]:
    """The words with a leading action spelt out."""
    if not command.actions or not words or "=" in words[0] or words[0][:1] in "-~+":
        return words
    if words[0] not in command.actions:
        raise WordError(f"{command.name} has no action {words[0]!r}{nearest(words[0], command.actions)}")
    return [f"action={words[0]}", *words[1:]]


def _parse(command: str, word: str, known: dict[str, Group]) -> tuple[str, Override]:
    """A word as Hydra reads it; `model=PATH` is short for `model.name=PATH`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if word.startswith("--") and (flag := word[2:].replace("-", "_")) in flags(command):
        word = f"{flag}=true"
    if "=" not in word and not word.startswith("~"):
        name = word.lstrip("-")
        raise WordError(
            f"{command}: {word!r} is no key=value; say {name or 'key'}=... ({command} --help lists the keys)"
        )
    key, _, value = word.partition("=")
    if key == "model" and "model" in known and value not in known["model"].choices and ("/" in value or ":" in value):
        word = f"model.name={value}"
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise WordError(f"{command}: {word!r} cannot be read ({reason}); quote the value: '{key}=\"...\"'") from None
    if override.is_sweep_override():
        raise WordError(f"{command}: {word!r} looks like a list; a list is written {key}=[{value}]")
    return word, override


def _check_choice(command: str, word: str, override: Override, known: dict[str, Group]) -> None:
    group, choice = override.key_or_group, override.value()
    if group not in known:
        return
    if choice not in known[group].choices:
        said = word.partition("=")[2]
        raise WordError(f"{command}: {group} has no choice {said!r}{nearest(said, known[group].choices)}")


def _check_key(command: str, base: DictConfig, override: Override) -> None:
    """The key exists, and its value is of the kind of its default."""
    from omegaconf import DictConfig, OmegaConf

    key, node = override.key_or_group, base
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(node, DictConfig):
            outer, inner = ".".join(parts[:depth]), ".".join(parts[depth:])
            whole = f"; set it whole, {outer}={{{inner}: ...}}" if node is None else ""
            raise WordError(f"{command}: {outer} is {_value(node)} and has no key {inner!r}{whole}")
        if part not in node.keys():  # noqa: SIM118 - a key that must be given (???) is not `in` it
            if override.is_add():
                return
            outer = ".".join(parts[:depth])
            there = [f"{outer}.{name}" for name in node] if outer else _keys(base)
            raise WordError(f"{command} has no key {key!r}{nearest(key, there)}")
        if OmegaConf.is_missing(node, part):
            return
        node = node[part]
    if not override.is_delete():
        _check_kind(command, override, node)


def _check_kind(command: str, override: Override, default: Any) -> None:
    from omegaconf import DictConfig, ListConfig

    value: Any = override.value()
    if default is None or (isinstance(value, str) and "${" in value):
        return
    if value is None and isinstance(default, DictConfig):
        return  # a term left out; whoever needs the mapping says so
    if isinstance(default, float | ListConfig) and _last(override.key_or_group) in ONE_OR_EACH:
        return  # the planner knows how many there must be
    if isinstance(default, bool):
        good, kind = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        good, kind = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif isinstance(default, float):
        good, kind = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value), "a number"
    elif isinstance(default, ListConfig):
        good, kind = isinstance(value, list), "a list"
    elif isinstance(default, DictConfig) and len(default):
        inner = next(iter(default), "key")
        good, kind = isinstance(value, dict), f"a mapping; set one of its keys, {override.key_or_group}.{inner}=..."
    else:
        return
    if not good:
        key = override.key_or_group
        raise WordError(f"{command}: {key}={_value(value)} is not {kind}; its default is {_value(default)}")


def _keys(node: DictConfig, before: str = "") -> Iterator[str]:
    """Every key, outer ones first, inner ones dotted."""
    from omegaconf import DictConfig

    yield from (f"{before}{key}" for key in node)
    for key, value in node.items():
        if isinstance(value, DictConfig):
            yield from _keys(value, f"{before}{key}.")


def _is_factor(base: DictConfig, override: Override) -> bool:
    """Whether this is one factor of a variation that is only named so far: `env.variation.light_strength=[0.5,0.7]`."""
    from omegaconf import OmegaConf

    outer, _, factor = override.key_or_group.rpartition(".")
    return bool(factor) and _last(outer) == "variation" and isinstance(OmegaConf.select(base, outer), str)


def _vary(cfg: DictConfig, override: Override) -> None:
    """The named variation as {base: name, factor: value}; the world itself knows which factors there are."""
    from omegaconf import DictConfig, OmegaConf

    outer, _, factor = override.key_or_group.rpartition(".")
    here = OmegaConf.select(cfg, outer)
    if not isinstance(here, DictConfig):
        OmegaConf.update(cfg, outer, {"base": here})
    OmegaConf.update(cfg, f"{outer}.{factor}", override.value())


# -- answering ---------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    # A planner, a brain or a world of one's own lies where one stands; it must not be taken for a room of ours.
    sys.path[:] = [str(ROOT), *(place for place in sys.path if place != str(ROOT))]
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        return _answer(words)
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C; what was finished is kept.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough (`premotor models | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ValueError, OSError, RuntimeError, ModuleNotFoundError) as error:
        if os.environ.get("PREMOTOR_DEBUG") == "1":
            raise
        print(f"premotor: {_sentence(error)}", file=sys.stderr)
        return BAD_INPUT if isinstance(error, ValueError | FileNotFoundError) else FAILED
    except Exception as error:  # a defect of ours, or a setting of a kind nobody thought of: one sentence all the same
        if os.environ.get("PREMOTOR_DEBUG") == "1":
            raise
        said = " ".join(str(error).split())
        print(f"premotor: {type(error).__name__}: {said} (PREMOTOR_DEBUG=1 shows where)", file=sys.stderr)
        return FAILED


def _answer(words: list[str]) -> int:
    if words[:1] == ["--version"]:
        from importlib.metadata import version

        print(version("premotor"))
        return 0
    helped = [word for word in words if word in ("-h", "--help", "help")]
    name, *overrides = [word for word in words if word not in helped] or [""]
    if not name:
        _show_commands()
        return 0
    if name not in COMMANDS:
        raise WordError(f"there is no command {name!r}{nearest(name, COMMANDS)}")
    cfg = compose(name, overrides)
    if helped:
        _show_help(COMMANDS[name], cfg)
        return 0
    module, _, function = COMMANDS[name].target.partition(":")
    return int(getattr(importlib.import_module(module), function)(cfg))


def _sentence(error: Exception) -> str:
    """An error on one line; what no room of ours has said for people comes with the way to see where."""
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ModuleNotFoundError):
        return f"{said}; `make setup` installs what is missing"
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    place = Path(last.tb_frame.f_code.co_filename) if last else ROOT
    ours = place.is_relative_to(ROOT) and ".venv" not in place.relative_to(ROOT).parts
    return said if ours else f"{said} (PREMOTOR_DEBUG=1 shows where)"


# -- help --------------------------------------------------------------------------------------------------------------


def _show_commands() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("\n[bold]premotor[/]: a robot rehearses an action in a learned world model before it performs it.\n")
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    for command in COMMANDS.values():
        table.add_row(f"[bold cyan]{command.name}[/]", command.about)
    console.print(table)
    console.print(
        "\npremotor COMMAND [green]group=choice key=value[/] ...; "
        "[bold]premotor COMMAND --help[/] shows what may be said.\n"
    )


def _show_help(command: Command, cfg: DictConfig) -> None:
    from omegaconf import DictConfig
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"\n[bold]premotor {command.name}[/]: {command.about}\n\n  [green]{escape(command.example)}[/]\n")
    known = groups(command.name)
    if known:
        table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
        for name, group in known.items():
            shown = (f"[bold]{escape(c)}[/]" if c == group.default else escape(c) for c in group.choices)
            inner = cfg.get(name)
            table.add_row(f"[bold cyan]{name}[/]", " | ".join(shown))
            if isinstance(inner, DictConfig):
                table.add_row("", f"[dim]{escape(' '.join(_short(f'{name}.{key}', inner[key]) for key in inner))}[/]")
        console.print("[bold]groups[/], group=choice, or group.key=value for one key of a choice (default bold)")
        console.print(table)
        console.print()
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    notes = _notes(CONFIGS / f"{command.name}.yaml")
    for name, group in known.items():
        notes = _notes(CONFIGS / name / f"{group.default}.yaml") | notes
    for key, value in cfg.items():
        if key not in known:
            table.add_row(f"[cyan]{key}[/]", escape(_value(value)), f"[dim]{escape(notes.get(str(key), ''))}[/]")
    console.print("[bold]keys[/], key=value, and their defaults")
    console.print(table)
    console.print()


def _notes(path: Path) -> dict[str, str]:
    """What the comments of a config file say about its keys."""
    return dict(re.findall(r"^(\w+):[^#\n]*#\s*(.+)$", path.read_text(), re.MULTILINE))


def _value(value: Any) -> str:
    """A value as it would be typed."""
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if isinstance(plain, dict):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in plain.items()) + "}"
    if isinstance(plain, list):
        return "[" + ",".join(map(_value, plain)) + "]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(plain), str(plain))


def _short(key: str, value: Any) -> str:
    """key=value, or the key alone where the value is long."""
    text = _value(value)
    return f"{key}={text}" if len(text) <= 24 else key


if __name__ == "__main__":
    sys.exit(main())
