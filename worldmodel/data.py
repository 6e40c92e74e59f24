"""Windows of recorded episodes: drawn by index, each with a goal and a twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.corpus import frozen_cameras, gathered
from worldmodel.decoding import DatasetError
from worldmodel.interface import ActionSpace

__all__ = ["GROUP", "DatasetError", "Episodes", "Moments", "Windows"]


# Actions a window carries beyond its own end: what proposals are learned from.
LOOKAHEAD = 6
# Windows of a batch that come from one scene.
GROUP = 4
# How often a twin is the same moment of an episode with the same motion and the object elsewhere, where there is one.
ECHO_SHARE = 0.6
# How often a twin is one of a window's own moments rather than of its goal.
OWN_TWIN_SHARE = 0.6
# How many numbers of the state say where the arm is, and among how many moments a twin is looked for.
PLACE = 3
TWIN_CANDIDATES = 256
# From how many scenes on whole ones are held out.
ENOUGH_SCENES = 20


@dataclass(frozen=True)
class Windows:
    """A batch of windows of T + 1 frames, each with a later frame of its episode (the goal) and a twin.

    A twin is a moment of another episode in a scene that looks the same, with the arm nearly where the window (or its
    goal) has it: what differs is where the other things are. Windows come in groups of GROUP from one scene.

    Attributes:
        pictures: (N, T + 1, C, H, W, 3) uint8.
        states: (N, T + 1, P) physical.
        actions: (N, T, A) in [-1, 1].
        later_actions: (N, T + LOOKAHEAD, A): the actions again and those after the window, as far as the goal is later.
        goal_pictures: (N, C, H, W, 3) uint8.
        goal_states: (N, P) physical.
        goal_steps: (N,) steps from the window's first frame to the goal.
        twin_pictures: (N, C, H, W, 3) uint8.
        twin_states: (N, P) physical.
        found, goal_found, twin_found: (N, T + 1, F), (N, F), (N, F) what frozen eyes find in these pictures, where that
            is kept.
    """

    pictures: Tensor
    states: Tensor
    actions: Tensor
    later_actions: Tensor
    goal_pictures: Tensor
    goal_states: Tensor
    goal_steps: Tensor
    twin_pictures: Tensor
    twin_states: Tensor
    found: Tensor | None = None
    goal_found: Tensor | None = None
    twin_found: Tensor | None = None


@dataclass(frozen=True)
class Moments:
    """Which frames a batch of windows is made of.

    Attributes:
        window: (N, T + 1) frame indices.
        goal, twin: (N,) frame indices.
        last: (N,) the last frame of the window's episode.
    """

    window: Tensor
    goal: Tensor
    twin: Tensor
    last: Tensor

    @property
    def goal_steps(self) -> Tensor:
        """(N,) steps from the window's first frame to the goal."""
        return self.goal - self.window[:, 0]


@dataclass(frozen=True)
class Origin:
    """A dataset that frames come from.

    Attributes:
        root: its folder.
        fingerprint: of what it contains.
        pictures: (frames, C, H, W, 3) uint8, memory-mapped, also of episodes that are left out.
    """

    root: Path
    fingerprint: str
    pictures: np.ndarray


class Episodes:
    """All frames of one or more datasets in one row of bytes, with where each episode begins.

    Attributes:
        pictures: (frames, C, H, W, 3) uint8, memory-mapped.
        states, actions: (frames, P), (frames, A); actions in [-1, 1].
        truth: (frames, n) `observation.environment_state` for probes, or None.
        probed: (frames, P) the arm's state for probes, also where it is not learned from, or None.
        video_only: whether states and actions were left unread (they are zeros then).
        starts, lengths: (episodes,).
        scenes: (episodes,) which episodes share a scene's looks; a dataset that says nothing of it is one scene.
        motions: (episodes,) which episodes share the arm's motion, frame by frame; where nothing is said, none do.
        conventions: what the actions were found to mean, None for video alone.
        remarks: sentences about what was left out or looks wrong.
        origins: the datasets, in the order of their frames.
    """

    def __init__(
        self,
        roots: Sequence[Path | str],
        cameras: Sequence[str],
        action_space: ActionSpace,
        *,
        video_only: bool = False,
        state_size: int = 7,
        image_size: int | None = None,
        stride: int = 1,
        rate_hz: float | None = None,
        episode_frames: int = 64,
        first: int | None = None,
    ) -> None:
        """Read, check and decode.

        Args:
            roots: LeRobotDatasets; for video alone also folders of videos.
            cameras: whose pictures; a folder of videos is one camera.
            action_space: bounds and rate of the actions (of every `stride`-th frame).
            video_only: leave states and actions unread.
            state_size: numbers in the state that is not read then.
            image_size: side of the pictures; None keeps a dataset's own.
            stride: every so manieth frame is taken, the skipped ones' actions joined to its.
            rate_hz: for video alone, pictures a second; None keeps a dataset's own rate.
            episode_frames: most pictures of an episode cut from a video file.
            first: only so many episodes of each are taken.
        """
        if not roots:
            raise DatasetError("no dataset was given; say data=DIR (premotor collect makes one)")
        self.cameras = tuple(cameras)
        self.action_space = action_space
        self.video_only = video_only
        parts, self.conventions = gathered(
            [Path(root) for root in roots], self.cameras, action_space,
            blind_state_size=state_size if video_only else None, image_size=image_size, stride=stride,
            rate_hz=rate_hz, episode_frames=episode_frames,
        )  # fmt: skip
        if first is not None:
            parts = [_first_of(part, first, root) for part, root in zip(parts, roots, strict=True)]
        for name in ("pictures", "states"):
            sizes = {part[name].shape[1:] for part in parts}
            if len(sizes) > 1:
                raise DatasetError(f"the datasets' {name} differ in size: {', '.join(map(str, sorted(sizes)))}")
        rows = self._rows = [_rows_of_longer(part["lengths"]) for part in parts]
        self.pictures = _Joined([part["pictures"] for part in parts], rows)
        self.states, self.actions = (
            torch.from_numpy(np.concatenate([part[name][kept] for part, kept in zip(parts, rows, strict=True)]))
            for name in ("states", "actions")
        )
        self.truth, self.probed = (_all_or_none(parts, rows, name) for name in ("truth", "probed"))
        whole = [part["lengths"] > 1 for part in parts]
        lengths = np.concatenate([part["lengths"][kept] for part, kept in zip(parts, whole, strict=True)])
        if not len(lengths):
            raise DatasetError("every episode has only one frame; nothing happens in them: record longer ones")
        self.lengths = torch.from_numpy(lengths)
        self.starts = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)[:-1]]))
        shared = [
            (part.get("scenes", _scenes(part["recipe"], len(kept)))[kept], _motions(part["recipe"], len(kept))[kept])
            for part, kept in zip(parts, whole, strict=True)
        ]
        self.scenes, self.motions = (_numbered(each) for each in zip(*shared, strict=True))
        self.fingerprints = [str(part["fingerprint"]) for part in parts]
        self.origins = [
            Origin(Path(root), str(part["fingerprint"]), part["pictures"])
            for root, part in zip(roots, parts, strict=True)
        ]
        self._found: _Joined | None = None
        self.recipes = [part["recipe"] for part in parts]
        short = sum(int((~kept).sum()) for kept in whole)
        self.remarks = [sentence for part in parts for sentence in part.get("remarks", [])]
        if short:
            self.remarks.append(f"{short} episode(s) of one frame were left out: nothing happens in them")
        self.remarks += [] if video_only else frozen_cameras(self.pictures, self.states.numpy(), lengths, self.cameras)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def image_size(self) -> int:
        """Side of the pictures, px."""
        return int(self.pictures.shape[2])

    def split(self, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
        """Episode indices for training and held out, by a seeded shuffle; of many scenes, whole ones are held out."""
        generator = torch.Generator().manual_seed(seed)
        scenes = int(self.scenes.max()) + 1
        if scenes >= ENOUGH_SCENES:
            kept_out = torch.randperm(scenes, generator=generator)[: max(1, round(held_out * scenes))]
            out = torch.isin(self.scenes, kept_out)
            return (~out).nonzero()[:, 0], out.nonzero()[:, 0]
        order = torch.randperm(len(self), generator=generator)
        count = max(1, round(held_out * len(self)))
        if count >= len(self):
            raise DatasetError(f"{len(self)} episode(s) are too few to hold any out; collect more")
        return order[count:].sort().values, order[:count].sort().values

    def frames_of(self, episodes: Tensor) -> Tensor:
        """Frame indices of all moments of the given episodes, one after the other."""
        spans = zip(self.starts[episodes].tolist(), self.lengths[episodes].tolist(), strict=True)
        return torch.cat([torch.arange(start, start + length) for start, length in spans])

    def frames(self, indices: Tensor) -> Tensor:
        """Pictures (*, C, H, W, 3) at frame indices (*)."""
        flat = self.pictures[indices.reshape(-1).numpy()]
        return torch.from_numpy(flat).reshape(*indices.shape, *flat.shape[1:])

    def keep(self, found: Sequence[np.ndarray]) -> None:
        """Know from now on what frozen eyes find: (frames, F) for the pictures of every origin."""
        self._found = _Joined(found, self._rows)

    def findings(self, indices: Tensor) -> Tensor | None:
        """What frozen eyes find (*, F) in frames (*), where that is kept."""
        if self._found is None:
            return None
        return torch.from_numpy(self._found[indices.reshape(-1).numpy()]).unflatten(0, indices.shape)

    def draw(
        self,
        episodes: Tensor,
        count: int,
        steps: int,
        reach: int,
        generator: torch.Generator,
        *,
        twins_by_state: bool = True,
    ) -> Windows:
        """`count` random windows, as `choose` chooses them, with their pictures."""
        at = self.choose(episodes, count, steps, reach, generator, twins_by_state=twins_by_state)
        later = torch.minimum(at.window[:, :1] + torch.arange(steps + LOOKAHEAD), at.last[:, None])
        return Windows(
            pictures=self.frames(at.window),
            states=self.states[at.window],
            actions=self.actions[at.window[:, :-1]],
            later_actions=self.actions[later],
            goal_pictures=self.frames(at.goal),
            goal_states=self.states[at.goal],
            goal_steps=at.goal_steps,
            twin_pictures=self.frames(at.twin),
            twin_states=self.states[at.twin],
            found=self.findings(at.window),
            goal_found=self.findings(at.goal),
            twin_found=self.findings(at.twin),
        )

    def choose(
        self,
        episodes: Tensor,
        count: int,
        steps: int,
        reach: int,
        generator: torch.Generator,
        *,
        group: int = GROUP,
        twins_by_state: bool = True,
    ) -> Moments:
        """`count` random windows of `steps` steps from the given episodes, each with a goal 1..reach steps on.

        Args:
            episodes: to draw from; those too short are left out.
            count: windows.
            steps: of a window.
            reach: the farthest goal.
            generator: decides.
            group: so many in a row come from one scene.
            twins_by_state: else a twin is any moment of the scene's other episodes: for learning from video alone.
        """
        usable = episodes[self.lengths[episodes] > steps]
        if not len(usable):
            raise DatasetError(f"no episode is longer than the window of {steps} steps; collect longer episodes")
        groups = _Groups(self.scenes, usable)
        first_of_group = torch.randint(len(usable), ((count + group - 1) // group,), generator=generator)
        episode = groups.companions(usable[first_of_group], group, generator).flatten()[:count]
        length, start = self.lengths[episode], self.starts[episode]
        first = (torch.rand(count, generator=generator) * (length - steps)).long()
        ahead = 1 + (torch.rand(count, generator=generator) * reach).long()
        goal = start + torch.minimum(first + ahead, length - 1)
        window = (start + first)[:, None] + torch.arange(steps + 1)
        own = window[torch.arange(count), torch.randint(steps + 1, (count,), generator=generator)]
        anchor = torch.where(torch.rand(count, generator=generator) < OWN_TWIN_SHARE, own, goal)
        twin = self._twins(groups, episode, anchor, generator, twins_by_state)
        if twins_by_state:
            twin = self._echoes(usable, episode, anchor, twin, generator)
        return Moments(window, goal, twin, start + length - 1)

    def _twins(
        self, groups: _Groups, episode: Tensor, anchor: Tensor, generator: torch.Generator, by_state: bool
    ) -> Tensor:
        other = groups.companions(episode, TWIN_CANDIDATES if by_state else 2, generator)[:, 1:]
        moment = self.starts[other] + (torch.rand(other.shape, generator=generator) * self.lengths[other]).long()
        apart = (self.states[moment][..., :PLACE] - self.states[anchor][:, None, :PLACE]).square().sum(-1)
        # Itself is no twin, unless the scene has no other episode: then a moment far from this one has to do.
        own = other == episode[:, None]
        apart = torch.where(own, 1e3 + apart.max() - (moment - anchor[:, None]).abs(), apart)
        return moment.gather(1, apart.argmin(1, keepdim=True))[:, 0]

    def _echoes(
        self, usable: Tensor, episode: Tensor, anchor: Tensor, twin: Tensor, generator: torch.Generator
    ) -> Tensor:
        """(N,) twins, some exchanged for the anchor's own moment in an episode with the same motion."""
        if int(self.motions[-1]) + 1 == len(self.motions):  # each its own
            return twin
        other = _Groups(self.motions, usable).companions(episode, 2, generator)[:, 1]
        moment = anchor - self.starts[episode]
        wanted = torch.rand(len(episode), generator=generator) < ECHO_SHARE
        there = (other != episode) & (moment < self.lengths[other])
        return torch.where(wanted & there, self.starts[other] + moment, twin)


class _Groups:
    """Which of the chosen episodes share a scene (or whatever else is numbered in `scenes`)."""

    def __init__(self, scenes: Tensor, chosen: Tensor) -> None:
        self.scenes = scenes
        order = torch.argsort(scenes[chosen], stable=True)
        self.members = chosen[order]
        self.counts = torch.bincount(scenes[chosen], minlength=int(scenes.max()) + 1)
        self.begins = torch.cumsum(self.counts, 0) - self.counts
        self.rank = torch.zeros(len(scenes), dtype=torch.long)
        self.rank[self.members] = torch.arange(len(chosen)) - self.begins[scenes[self.members]]

    def companions(self, episode: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """(N,) -> (N, count): the episode itself, then random others of its scene (itself where there are none)."""
        scene = self.scenes[episode][:, None]
        number = self.counts[scene]
        onward = 1 + (torch.rand(len(episode), count, generator=generator) * (number - 1)).long()
        onward[:, 0] = 0
        return self.members[self.begins[scene] + (self.rank[episode][:, None] + onward) % number]


def _scenes(recipe: dict[str, Any] | None, episodes: int) -> np.ndarray:
    """(episodes,) the scene of each, as the collection says; all one where it says nothing, or shares none."""
    together = (recipe or {}).get("episodes_per_scene")
    if not isinstance(together, int) or together < 2:
        return np.zeros(episodes, dtype=np.int64)
    return np.arange(episodes, dtype=np.int64) // together


def _motions(recipe: dict[str, Any] | None, episodes: int) -> np.ndarray:
    """(episodes,) the motion of each, as the collection says; each its own where it says nothing."""
    together = (recipe or {}).get("episodes_per_motion")
    return np.arange(episodes, dtype=np.int64) // (together if isinstance(together, int) and together > 1 else 1)


def _first_of(part: dict[str, Any], episodes: int, root: Path | str) -> dict[str, Any]:
    """A dataset's first episodes, under a fingerprint of their own."""
    has = len(part["lengths"])
    if not 1 <= episodes <= has:
        raise DatasetError(f"episodes is {episodes}; {root} has {has}")
    frames = int(part["lengths"][:episodes].sum())
    by_frame = {name: part[name] for name in ("pictures", "states", "actions", "probed", "truth")}
    return {
        **part,
        **{name: None if rows is None else rows[:frames] for name, rows in by_frame.items()},
        **{name: part[name][:episodes] for name in ("lengths", "scenes") if name in part},
        "fingerprint": part["fingerprint"] if episodes == has else f"{part['fingerprint']}-first{episodes}",
    }


def _all_or_none(parts: Sequence[dict[str, Any]], rows: Sequence[np.ndarray | slice], name: str) -> Tensor | None:
    """What all datasets tell alike, in one row; None where one says nothing of it."""
    told = [part[name][kept] for part, kept in zip(parts, rows, strict=True) if part[name] is not None]
    alike = len(told) == len(parts) and len({each.shape[1] for each in told}) == 1
    return torch.from_numpy(np.concatenate(told)) if alike else None


def _rows_of_longer(lengths: np.ndarray) -> np.ndarray | slice:
    """Frame indices of the episodes of more than one frame; all of them as a slice, which copies nothing."""
    if (lengths > 1).all():
        return slice(None)
    return np.flatnonzero(np.repeat(lengths > 1, lengths))


def _numbered(parts: Sequence[np.ndarray]) -> Tensor:
    """Numbers of several datasets in one row, those of each after those before."""
    rows, seen = [], 0
    for part in parts:
        if len(part):
            rows.append(part + seen)
            seen = int(rows[-1].max()) + 1
    return torch.from_numpy(np.concatenate(rows))


class _Joined:
    """Arrays, or chosen rows of them, read as one along their first axis, without copying them into memory."""

    def __init__(self, arrays: Sequence[np.ndarray], rows: Sequence[np.ndarray | slice]) -> None:
        self.arrays = arrays
        self.rows = rows
        counts = [
            len(array) if isinstance(kept, slice) else len(kept) for array, kept in zip(arrays, rows, strict=True)
        ]
        self.ends = np.cumsum(counts)
        self.begins = self.ends - counts
        self.shape = (int(self.ends[-1]), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        out = np.empty((len(rows), *self.shape[1:]), self.arrays[0].dtype)
        owner = np.searchsorted(self.ends, rows, side="right")
        for number, array in enumerate(self.arrays):
            mine = owner == number
            inside, kept = rows[mine] - self.begins[number], self.rows[number]
            out[mine] = array[inside if isinstance(kept, slice) else kept[inside]]
        return out
