"""`premotor robots`: which arms there are, one looked over or through, moved home or to its park posture slowly, or let go.

The exit codes are those of `premotor run`: 0 done, 3 refused, 5 stopped by the operator, 6 fault.
"""

from __future__ import annotations

import contextlib
import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robots import catalogue, checkup, hashes, preflight, slowly
from robots.arm import ARMS, Arm, connect, find
from robots.blackbox import BlackBox
from robots.body import Body
from robots.consent import Approver, Consent, Enable, Standing, Unneeded, enable
from robots.exits import Exit
from robots.keys import Keys
from robots.limits import Limits
from robots.operator import Operator
from robots.preflight import Preflight

if TYPE_CHECKING:
    from omegaconf import DictConfig

ACTIONS = ("list", "doctor", "picture", "home", "park", "release", "find")
# How near to its park posture an arm is parked, rad: a held arm sags a little.
PARKED_RAD = 0.1
Say = Callable[[str], None]


def main(cfg: DictConfig) -> int:
    """`premotor robots ACTION robot=NAME ...`; returns the exit code."""
    from rich.console import Console

    action = str(cfg.action)
    if action not in ACTIONS:
        near = difflib.get_close_matches(action, ACTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(ACTIONS)}"
        raise ValueError(f"robots has no action {action!r}; {hint}")
    console = Console(highlight=False)

    def say(line: str) -> None:
        with contextlib.suppress(OSError):  # a reader that went away is no reason to leave an arm moving
            console.print(line, markup=False, soft_wrap=True)

    if action == "list":
        list_arms(say)
        return Exit.DONE
    with Operator() as operator, Keys() as keys:
        try:
            if action == "find":
                return find_ports(keys, say, lambda: operator.stop_requested)
            return int(_with_arm(action, cfg, operator, keys, say))
        except KeyboardInterrupt:
            say("stopped by the operator")
            return Exit.STOPPED


# -- what there is -----------------------------------------------------------------------------------------------------


def list_arms(say: Say) -> None:
    """Arms, drivers, LeRobot types, ports."""
    say("arms (robot=NAME)")
    for found in catalogue.arms():
        kind = "real" if found.entry.real else "simulated"
        driver = found.version and f"{found.entry.driver} {found.version}".strip()
        say(f"  {found.name:15s} {kind:10s} {found.entry.about}")
        say(f"  {'':15s} {'':10s} driver: {driver or f'not installed; {found.entry.install}'}")
        say(f"  {'':15s} {'':10s} run against: {found.entry.tried}")
    others = [name for name in catalogue.KNOWN if name not in ARMS]
    if others:
        say(f"  without an adapter here: {', '.join(others)}")
    types = catalogue.lerobot_types()
    plugins = {name: by for name, by in types.items() if by != "lerobot"}
    say("\nLeRobot robot types (robot=lerobot robot.type=TYPE)")
    say("  " + (", ".join(name for name in types if name not in plugins) or "LeRobot is not installed; make setup"))
    for name, by in plugins.items():
        say(f"  {name} (plugin {by})")
    for name in catalogue.overlooked_plugins():
        say(
            f"  {name} is installed, but LeRobot overlooks names with hyphens; its author must name it with underscores"
        )
    here = catalogue.ports()
    say(f"\nserial ports: {', '.join(here.serial) or 'none'}")
    say(f"cameras: {', '.join(here.cameras) or 'none'}")
    shown = (f"{found.path} ({found.name}{'' if found.readable else ', not readable'})" for found in here.inputs)
    say(f"pedals, gamepads, keyboards (hold=PATH): {', '.join(shown) or 'none'}")


def find_ports(
    keys: Keys, say: Say, stopped: Callable[[], bool], devices: Path = Path("/dev"), timeout_s: float = 120.0
) -> Exit:
    """Which port is the arm's: the one that goes when it is unplugged."""
    before = _everything(devices)
    say("there are: " + (", ".join(sorted(before)) or "no serial ports, cameras or input devices"))
    if not keys.reading:
        say("run this on a terminal to find out which is which: it asks to unplug the device and says what went")
        return Exit.DONE
    for wanted, question in (("y", "unplug the device, then press y"), ("y", "plug it in again, then press y")):
        say(f"{question} (q quits)")
        if keys.wait(wanted + "q", timeout_s, stopped) != "y":
            return Exit.STOPPED
        time.sleep(0.5)
        now = _everything(devices)
        gone, come = sorted(before - now), sorted(now - before)
        if not (gone or come):
            say("nothing changed: it has no port on this machine, or the wrong plug was pulled")
            return Exit.REFUSED
        if gone:
            say(f"it was: {', '.join(gone)}")
        if come:
            say(f"it is: {', '.join(come)}; names under by-id stay the same over a restart")
        before = now
    return Exit.DONE


def _everything(devices: Path) -> set[str]:
    here = catalogue.ports(devices)
    return {*here.serial, *here.cameras, *(f"{found.path} ({found.name})" for found in here.inputs)}


# -- one arm -----------------------------------------------------------------------------------------------------------


def _with_arm(action: str, cfg: DictConfig, operator: Operator, keys: Keys, say: Say) -> Exit:
    from omegaconf import OmegaConf

    if missing := sorted(OmegaConf.missing_keys(cfg.robot)):
        raise ValueError(f"robot={cfg.robot.name} needs a value: say {missing[0]}=...")
    robot = OmegaConf.to_container(cfg.robot, resolve=True)
    assert isinstance(robot, dict)
    name, dry, numbers = str(robot.get("name")), bool(cfg.dry_run), _Numbers.of(cfg)
    checks = Preflight(say, operator.interruptible)
    limits = checks.check("limits", lambda: _limits(cfg))
    checks.check("driver", lambda: checkup.driver(name))
    settings = {str(key): value for key, value in robot.items()}
    watching = action in ("doctor", "picture") or dry
    arm = checks.check("arm", lambda: _connect(name, settings, watching=watching)) if checks.passed else None
    if arm is None or limits is None:
        return _refused(checks, say)
    with arm:
        if action == "doctor":
            return _doctor(cfg, numbers, arm, limits, checks, operator, say)
        if action == "picture":
            return _picture(cfg, arm, say)
        if action == "release":
            return _release(cfg, arm, keys, operator, say)
        return _move(action, cfg, numbers.speed, arm, limits, checks, keys, operator, say, dry=dry)


def _doctor(
    cfg: DictConfig, numbers: _Numbers, arm: Arm, limits: Limits, checks: Preflight, operator: Operator, say: Say
) -> Exit:
    sick = checkup.examine(
        arm, limits, checks, rehearse_s=numbers.rehearse_s, camera_s=numbers.camera_s,
        folder=_folder(cfg), confirmed=bool(cfg.rated_stop_confirmed), interrupted=lambda: operator.stop_requested,
    )  # fmt: skip
    if operator.stop_requested:
        say("\nstopped by the operator; nothing moved")
        return Exit.STOPPED
    if checks.passed:
        say(f"\n{arm.name} is ready; nothing moved")
        return Exit.DONE
    say(f"\n{len(checks.failed)} of the checks failed; nothing moved")
    return Exit.FAULT if sick else Exit.REFUSED


def _picture(cfg: DictConfig, arm: Arm, say: Say) -> Exit:
    """What each camera sees now, as files; an arm held where it shall be gives a goal that way."""
    from PIL import Image

    seen = arm.observe().pictures
    if not seen:
        say(f"refused: {arm.name} has no camera; name one with robot.cameras")
        return Exit.REFUSED
    folder = _folder(cfg) / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-picture"
    folder.mkdir(parents=True, exist_ok=True)
    for camera, picture in seen.items():
        place = folder / f"{camera}.png"
        Image.fromarray(picture).save(place)
        say(f"{place}: {picture.shape[1]} x {picture.shape[0]}; as a goal: premotor run goal={place}")
    return Exit.DONE


def _move(
    action: str,
    cfg: DictConfig,
    speed: float | None,
    arm: Arm,
    limits: Limits,
    checks: Preflight,
    keys: Keys,
    operator: Operator,
    say: Say,
    *,
    dry: bool,
) -> Exit:
    joints = np.asarray(arm.home_joints if action == "home" else arm.park_joints, dtype=np.float64)
    speed = arm.park_speed if speed is None else speed
    body = arm.body
    checks.check("limits fit", lambda: _same_joints(arm, limits))
    checks.check("health", lambda: checkup.state(arm))
    if not arm.simulated and not dry:
        checks.check("rated stop", lambda: preflight.rated_stop(bool(cfg.rated_stop_confirmed)))
    hand = checks.check("hand", lambda: _hand(cfg, arm, keys)) if checks.passed else None
    journey = checks.check("way", lambda: _way(arm, limits, body, joints, speed)) if checks.passed else None
    if journey is None or hand is None:
        return _refused(checks, say)
    if body is None:
        say(f"    {'note':14s} no shape of this arm is known: the way was not looked at for collisions")
    if dry:
        say(f"\ndry run, nothing sent: would move {arm.name} {action}")
        return Exit.DONE
    answer = _asked(f"move {arm.name} {action}", cfg, arm, keys, operator, say)
    if answer is not None:
        return answer
    folder = _folder(cfg) / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{action}"
    about = {"command": f"robots {action}", "arm": arm.name, **hashes.of(arm, limits)}
    with (
        contextlib.closing(Consent(hand, keys)) as consent,
        BlackBox(folder / "blackbox.jsonl", queued=True, **about) as box,
    ):
        if keys.reading:
            say(consent.about)
        box.commit("approval", action=action, joints=joints, speed=speed, margins=journey.margins)
        code, reason = slowly.go(arm, limits, journey, box, lambda: _standing(operator, consent), say)
        say(f"\n{action}: {code.name.lower()}, {reason}; the arm is held where it is")
        try:
            box.close(code=int(code), outcome=code.name.lower(), reason=reason)
        except OSError as error:
            box.abandon()
            say(f"fault: the end of the record could not be written: {error}")
            return Exit.FAULT
    say(f"record: {folder}; premotor review run={folder}")
    return code


def _release(cfg: DictConfig, arm: Arm, keys: Keys, operator: Operator, say: Say) -> Exit:
    away = np.abs(arm.measure().joints - arm.park_joints)
    worst = int(away.argmax())
    parked = away[worst] <= PARKED_RAD
    if not parked and not bool(cfg.force):
        say(
            f"refused: {arm.joint_names[worst]} is {away[worst]:.2f} rad from where the arm is parked, and an arm that is "
            "let go there may drop; park it first (premotor robots park), or hold it by hand and say force=true"
        )
        return Exit.REFUSED
    if cfg.dry_run:
        say(f"dry run, nothing sent: would let go of {arm.name}")
        return Exit.DONE
    where = "it is parked" if parked else f"it is NOT parked ({away[worst]:.2f} rad away) and may drop: hold it by hand"
    answer = _asked(f"let go of {arm.name}; {where}", cfg, arm, keys, operator, say)
    if answer is not None:
        return answer
    try:
        arm.release()
    except Exception as error:
        say(f"fault: {arm.name} could not be let go: {error}")
        return Exit.FAULT
    say(f"{arm.name} is let go")
    return Exit.DONE


# -- parts of it -------------------------------------------------------------------------------------------------------


def _limits(cfg: DictConfig) -> tuple[Limits, str]:
    from robots.brain import plain

    limits = Limits.from_mapping(plain(cfg.guard), "guard")
    return limits, f"{len(limits.joint_names)} joints, hash {limits.hash}"


def _connect(name: str, settings: Mapping[str, Any], *, watching: bool) -> tuple[Arm, str]:
    kept = {key: value for key, value in settings.items() if key != "name"}
    if not getattr(find(name), "simulated", False):
        kept.pop("pace", None)  # only a simulated arm has a choice of time
    arm = connect(name, watching=watching, **kept)
    return arm, f"{arm.name} answers"


def _same_joints(arm: Arm, limits: Limits) -> tuple[None, str]:
    if tuple(arm.joint_names) != limits.joint_names:
        raise ValueError(
            f"the limits are for {', '.join(limits.joint_names)}; {arm.name} has {', '.join(arm.joint_names)}; "
            "choose the limits file of this arm with guard="
        )
    return None, "they are for this arm"


def _way(arm: Arm, limits: Limits, body: Body | None, joints: np.ndarray, speed: float) -> tuple[slowly.Journey, str]:
    journey = slowly.look(arm, limits, body, joints, speed)
    return journey, journey.sentence(limits.joint_names)


def _asked(what: str, cfg: DictConfig, arm: Arm, keys: Keys, operator: Operator, say: Say) -> Exit | None:
    """None when it may be done; otherwise how the command ends."""
    if bool(cfg.confirm) or arm.simulated:
        return None
    if not keys.reading:
        say(f"refused: nobody here can say yes to this: {what}. Run it on a terminal, or say confirm=true")
        return Exit.REFUSED
    approver = Approver("plan", simulated=False, keys=keys, say=say, stopped=lambda: operator.stop_requested)
    answer = approver.ask(what)
    if answer.yes:
        return None
    say(f"{answer.sentence}; nothing moved")
    return Exit.STOPPED


def _hand(cfg: DictConfig, arm: Arm, keys: Keys) -> tuple[Enable, str]:
    """The button to hold, where one was named: a slow movement that was looked at whole does not need one."""
    if cfg.hold is None:
        slow = "no button needs to be held for a slow movement that was looked at whole; hold= names one"
        source: Enable = Unneeded() if arm.simulated else Unneeded(slow)
        return source, source.about
    source = enable(
        str(cfg.hold), simulated=arm.simulated, keys=keys, button=None if cfg.button is None else str(cfg.button)
    )
    return source, source.about


def _standing(operator: Operator, consent: Consent) -> Standing:
    """What a person's hands say: Ctrl-C, keys, the button."""
    return Standing(False, True, "stopped by the operator") if operator.stop_requested else consent.poll()


def _folder(cfg: DictConfig) -> Path:
    return Path(str(cfg.out))


@dataclass(frozen=True)
class _Numbers:
    """The command line's numbers, refused before any device is opened."""

    speed: float | None
    rehearse_s: float
    camera_s: float

    @classmethod
    def of(cls, cfg: DictConfig) -> _Numbers:
        found: dict[str, float] = {}
        for name, least, most, unit in (
            ("speed", 0.01, 1.0, "rad/s"), ("rehearse_s", 0.1, 600.0, "seconds"), ("camera_s", 0.1, 600.0, "seconds"),
        ):  # fmt: skip
            value = cfg[name]
            if value is None and name == "speed":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
                raise ValueError(f"{name}={value} cannot be; give {least:g} to {most:g} {unit}")
            found[name] = float(value)
        return cls(found.get("speed"), found["rehearse_s"], found["camera_s"])


def _refused(checks: Preflight, say: Say) -> Exit:
    say(f"\nrefused: {checks.failed[0] if checks.failed else 'a check is missing'}; nothing moved")
    return Exit.REFUSED
