"""Making a Gymnasium world by its name; a wrong name, a missing package or argument is one sentence."""

from __future__ import annotations

import contextlib
import difflib
import importlib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import gymnasium
from gymnasium.envs.registration import load_env_creator

# What installs a package that is not called as it is imported.
_INSTALLED_AS = {"gymnasium_robotics": "gymnasium-robotics", "Box2D": "gymnasium[box2d]", "cv2": "opencv-python"}


def make(env_id: str, kwargs: dict[str, Any]) -> tuple[gymnasium.Env[Any, Any], str]:
    """A world that shows pictures where it can, without a time limit of Gymnasium's; and its id with its version.

    Args:
        env_id: as Gymnasium names it, or `package.module:Id`.
        kwargs: the world's own arguments.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        with _said(env_id):
            importlib.import_module(module)
    spec = _spec(name)
    spec_id = f"{module}:{spec.id}" if module else spec.id
    # How long an episode is, the recipe says.
    wanted: dict[str, Any] = {"max_episode_steps": -1, "disable_env_checker": True} | kwargs
    if _may_render(spec):
        with contextlib.suppress(_NoRenderMode), _said(spec_id):
            return _made(spec, wanted | {"render_mode": "rgb_array"}), spec_id
    with _said(spec_id):
        return _made(spec, wanted), spec_id


def versions(world: Any, with_mujoco: bool) -> dict[str, str]:
    """Package -> version of what decides how a world behaves: Gymnasium, the world's own package, MuJoCo."""
    found = {}
    for package in ("gymnasium", type(world).__module__.partition(".")[0], *(["mujoco"] if with_mujoco else [])):
        # A world of one's own is in no package.
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return dict(sorted(found.items()))


class _NoRenderMode(Exception):
    """The world takes no `render_mode`."""


def _spec(name: str) -> Any:
    """What is registered under a name, the newest version where none is said."""
    known = gymnasium.registry
    if name in known:
        return known[name]
    versions_of = [spec for spec in known.values() if f"{spec.namespace}/{spec.name}".removeprefix("None/") == name]
    if versions_of:
        return max(versions_of, key=lambda spec: spec.version or 0)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"Gymnasium knows no world called {name!r}{hint} (a world of another package is said with the module that registers "
        "it, env.id=package.module:Id)"
    )


def _may_render(spec: Any) -> bool:
    """Whether it says that it renders to arrays, or says nothing."""
    with _said(spec.id):
        creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
    metadata = getattr(creator, "metadata", None)
    modes = metadata.get("render_modes") if isinstance(metadata, dict) else None
    return modes is None or "rgb_array" in modes


def _made(spec: Any, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    try:
        return gymnasium.make(spec, **kwargs)
    except TypeError as error:
        if "unexpected keyword argument 'render_mode'" in str(error):
            raise _NoRenderMode from error
        raise


@contextlib.contextmanager
def _said(env_id: str) -> Iterator[None]:
    """What goes wrong while a world is made, as a sentence for the one who named it."""
    try:
        yield
    except _NoRenderMode:
        raise
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        install = _INSTALLED_AS.get(package, package)
        raise ValueError(
            f"{env_id} needs the package {package}, which is not installed here: pip install {install!r}"
        ) from error
    except Exception as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{env_id} cannot be made: {said}") from error
