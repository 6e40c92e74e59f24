"""Pictures for people: frames side by side, a film, and a contact sheet of what was wanted, done and imagined."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from planners.observation import IMAGES
from planners.rollout import Arrays, Rollout

_INK, _QUIET, _PAPER, _GOOD, _BAD = (28, 30, 36), (110, 116, 128), (250, 250, 248), (20, 140, 110), (196, 64, 64)
_GAP = 10


def side_by_side(frames: Sequence[np.ndarray | None], captions: Sequence[str] = (), size: int = 256) -> np.ndarray:
    """Frames (h, w, 3) uint8 of any size in one row of squares, captions under them; None leaves a blank."""
    caption_height = 24 if captions else 0
    width = len(frames) * size + (len(frames) + 1) * _GAP
    sheet = Image.new("RGB", (_even(width), _even(size + 2 * _GAP + caption_height)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, frame in enumerate(frames):
        left = _GAP + index * (size + _GAP)
        _paste(sheet, draw, frame, (left, _GAP), size)
        if index < len(captions):
            draw.text((left, size + _GAP + 5), captions[index], fill=_QUIET, font=_font(14))
    return np.asarray(sheet)


def film(rollout: Rollout, size: int = 256) -> list[np.ndarray]:
    """One frame for every moment of a rollout: goal, now, what was imagined for now, and the plan's imagined end."""
    goal = goal_picture(rollout)
    expected: np.ndarray | None = None
    task = str(rollout.about.get("task", "goal"))
    captions = [f"goal: {task}", "now", "imagined for now", "imagined end of the plan"]
    frames = []
    for index, step in enumerate(rollout.steps):
        plan = step.plan
        has_frames = plan is not None and plan.frames is not None
        end = plan.frames[-1] if plan is not None and plan.frames is not None else None
        words = [*captions]
        words[1] = f"step {index + 1} of {len(rollout.steps)}"
        frames.append(side_by_side([goal, _seen(step.observation, step.picture), expected, end], words, size))
        expected = plan.frames[0] if plan is not None and has_frames and plan.frames is not None else None
    if rollout.final:
        words = [*captions]
        words[1] = _verdict(rollout)[0]
        frames.append(
            side_by_side([goal, _seen(rollout.final, rollout.final.get("picture")), expected, None], words, size)
        )
    return frames


def write_mp4(frames: Sequence[np.ndarray], path: str | Path, fps: float = 5.0) -> Path:
    """Frames (h, w, 3) uint8 of one size -> H.264 that every player shows; the file appears whole or not at all."""
    if not frames:
        raise ValueError("a film needs at least one frame")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    height, width = (_even(side) for side in frames[0].shape[:2])
    with av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("h264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}
        for frame in frames:
            if frame.shape != frames[0].shape:
                raise ValueError(f"the frames of a film have one size; got {frames[0].shape} and {frame.shape}")
            padded = np.pad(frame, ((0, height - frame.shape[0]), (0, width - frame.shape[1]), (0, 0)), mode="edge")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        container.mux(stream.encode())
    os.replace(unfinished, path)
    return path


def contact_sheet(rollouts: Sequence[Rollout], path: str | Path, title: str = "", size: int = 200) -> Path:
    """A PNG with a row per rollout: goal | start | end | the end as it was imagined a plan's horizon before."""
    if not rollouts:
        raise ValueError("a contact sheet needs at least one rollout")
    heads = ("goal", "start", "end", "imagined end")
    top = 84 if title else 48
    side = 230
    width = side + len(heads) * (size + _GAP)
    sheet = Image.new("RGB", (width, top + len(rollouts) * (size + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_GAP + 6, 14), title, fill=_INK, font=_font(24, bold=True))
    for column, head in enumerate(heads):
        draw.text((side + column * (size + _GAP), top - 30), head, fill=_QUIET, font=_font(16))
    for row, rollout in enumerate(rollouts):
        y = top + row * (size + _GAP)
        _describe(draw, rollout, (_GAP + 6, y))
        for column, frame in enumerate(_moments(rollout)):
            _paste(sheet, draw, frame, (side + column * (size + _GAP), y), size)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    sheet.save(unfinished, format="PNG", optimize=True)
    os.replace(unfinished, path)
    return path


def goal_picture(rollout: Rollout) -> np.ndarray | None:
    """The goal as people see it."""
    return _seen(rollout.goal, rollout.goal.get("picture"))


def _moments(rollout: Rollout) -> list[np.ndarray | None]:
    start = rollout.steps[0] if rollout.steps else None
    return [
        goal_picture(rollout),
        _seen(start.observation, start.picture) if start is not None else None,
        _seen(rollout.final, rollout.final.get("picture")),
        _imagined_end(rollout),
    ]


def _imagined_end(rollout: Rollout) -> np.ndarray | None:
    """The last moment as the earliest plan that looked that far imagined it."""
    for index, step in enumerate(rollout.steps):
        frames = step.plan.frames if step.plan is not None else None
        if frames is not None and index + len(frames) >= len(rollout.steps):
            return frames[len(rollout.steps) - index - 1]
    return None


def _seen(observation: Arrays, picture: np.ndarray | None) -> np.ndarray | None:
    """The picture for people, else the first camera's."""
    if picture is not None:
        return picture
    cameras = sorted(key for key in observation if key.startswith(IMAGES))
    return observation[cameras[0]] if cameras else None


def _describe(draw: ImageDraw.ImageDraw, rollout: Rollout, at: tuple[int, int]) -> None:
    """The words beside a row."""
    x, y = at
    verdict, colour = _verdict(rollout)
    draw.text((x, y + 6), str(rollout.about.get("task", "rollout")), fill=_INK, font=_font(20, bold=True))
    draw.text((x, y + 34), verdict, fill=colour, font=_font(16, bold=True))
    outcome = rollout.outcome
    lines = [f"{name} {rollout.about[name]}" for name in ("model", "planner", "seed") if name in rollout.about]
    if "start_distance_cm" in outcome:
        lines.insert(0, f"start {outcome['start_distance_cm']:.1f} cm from the goal")
    for index, line in enumerate(lines):
        draw.text((x, y + 66 + 21 * index), line, fill=_QUIET, font=_font(15))


def _verdict(rollout: Rollout) -> tuple[str, tuple[int, int, int]]:
    outcome = rollout.outcome
    if "success" not in outcome:
        return "not judged", _QUIET
    distance = f", {outcome['final_distance_cm']:.1f} cm" if "final_distance_cm" in outcome else ""
    return (f"reached{distance}", _GOOD) if outcome["success"] else (f"not reached{distance}", _BAD)


def _paste(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, frame: np.ndarray | None, at: tuple[int, int], size: int
) -> None:
    if frame is None:
        draw.rectangle((*at, at[0] + size - 1, at[1] + size - 1), fill=(232, 232, 228))
        return
    picture = Image.fromarray(frame)
    scale = size / max(picture.size)
    smooth = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), smooth)
    sheet.paste(picture, (at[0] + (size - picture.width) // 2, at[1] + (size - picture.height) // 2))


def _font(points: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and so is the same everywhere."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), points)


def _even(side: int) -> int:
    return side + side % 2
