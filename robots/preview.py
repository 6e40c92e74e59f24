"""A plan before it is approved: a ghost of the arm along it, what it comes near to, and the verdict, in Rerun and as a PNG.

Colours mean what they mean in every recording: amber is what is planned, teal where the arm is, red a limit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from robots.limits import Limits

AMBER, TEAL, GREY, RED = (255, 176, 46), (38, 198, 176), (140, 146, 158), (240, 84, 84)
# A ghost at so many moments is smooth to look at and quick to write.
MOMENTS = 60
# What margins are measured in, by the end of their name: (factor, unit, digits).
UNITS = {
    "_m": (100.0, " cm", 1),
    "_rad": (1.0, " rad", 3),
    "_share": (100.0, " %", 0),
    "_s": (1.0, " s", 2),
    "": (1.0, "", 0),
}


class Shape(Protocol):
    """An arm's shape as capsules (`robots.body` has them): `radii` (G,) m, and whose they are."""

    radii: np.ndarray
    names: tuple[str, ...]

    def ends(self, joints: np.ndarray, gripper: np.ndarray) -> np.ndarray:
        """Where their axes begin and end: joints (N, J), closedness (N,) -> (N, G, 2, 3) m."""
        ...


class Forward(Protocol):
    """Where an arm's tool is."""

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool position (3,) m and rotation (3, 3) at joint angles (J,)."""
        ...


class Checked(Protocol):
    """A plan that was looked at (`robots.plancheck.PlanCheck`)."""

    @property
    def ok(self) -> bool: ...
    @property
    def sentences(self) -> Sequence[str]: ...
    @property
    def margins(self) -> Mapping[str, float]: ...
    @property
    def joints(self) -> np.ndarray:
        """(N, J) rad, the ticks as they would be streamed."""
        ...

    @property
    def gripper(self) -> np.ndarray:
        """(N,) closedness."""
        ...

    @property
    def targets(self) -> np.ndarray:
        """(H, J) rad, where each step comes to rest."""
        ...


@dataclass(frozen=True)
class Course:
    """A plan in numbers, as both pictures show it.

    Attributes:
        time_s: (N,).
        joints, velocity, acceleration, jerk: (N, J) rad, rad/s, rad/s^2, rad/s^3, by the ticks' own differences.
        position_share: (N, J) how much of the way from the middle of its range to its margin a joint has gone.
        velocity_share, acceleration_share, jerk_share: (N, J) of what is allowed.
        tool: (N, 3) m.
        stops: (H, 3) m, the tool where each step comes to rest.
    """

    time_s: np.ndarray
    joints: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray
    position_share: np.ndarray
    velocity_share: np.ndarray
    acceleration_share: np.ndarray
    jerk_share: np.ndarray
    tool: np.ndarray
    stops: np.ndarray

    @classmethod
    def of(cls, check: Checked, limits: Limits, kinematics: Forward, rate_hz: float) -> Course:
        """From the ticks of a plan that was checked.

        Raises:
            ValueError: there is nothing to show.
        """
        joints = np.asarray(check.joints, dtype=np.float64)
        if joints.ndim != 2 or len(joints) < 2:
            raise ValueError("there is no movement to show: the plan was refused before its first step")
        if joints.shape[1] != len(limits.joint_names):
            raise ValueError(f"the plan moves {joints.shape[1]} joints, the limits are for {len(limits.joint_names)}")
        # From rest, as if the first tick had been sent before, too.
        rates = [joints]
        for _ in range(3):
            rates.append(np.diff(rates[-1], axis=0, prepend=rates[-1][:1]) * rate_hz)
        velocity, acceleration, jerk = rates[1:]
        low = np.asarray(limits.joint_low) + limits.joint_margin_rad
        high = np.asarray(limits.joint_high) - limits.joint_margin_rad
        bounds = limits.bounds
        return cls(
            time_s=np.arange(len(joints)) / rate_hz,
            joints=joints, velocity=velocity, acceleration=acceleration, jerk=jerk,
            position_share=np.abs(joints - (low + high) / 2) / ((high - low) / 2),
            velocity_share=np.abs(velocity) / np.asarray(bounds.velocity),
            acceleration_share=np.abs(acceleration) / np.asarray(bounds.acceleration),
            jerk_share=np.abs(jerk) / np.asarray(bounds.jerk),
            tool=np.array([kinematics.forward(row)[0] for row in joints]),
            stops=np.array([kinematics.forward(row)[0] for row in check.targets]).reshape(-1, 3),
        )  # fmt: skip

    @property
    def shares(self) -> dict[str, np.ndarray]:
        """What is shown as a share of its limit, (N, J) each."""
        return {
            "position": self.position_share,
            "velocity": self.velocity_share,
            "acceleration": self.acceleration_share,
            "jerk": self.jerk_share,
        }


def words(check: Checked, course: Course | None, title: str = "") -> list[str]:
    """The verdict and the margins, one line each."""
    verdict = "may be approved" if check.ok else "REFUSED: nothing of it will be sent"
    lines = [f"{title}: {verdict}" if title else verdict]
    if course is not None:
        way = float(np.linalg.norm(np.diff(course.tool, axis=0), axis=1).sum())
        lines.append(
            f"{len(course.stops)} steps in {course.time_s[-1]:.1f} s; the tool goes {100 * way:.1f} cm, from "
            f"({_place(course.tool[0])}) to ({_place(course.tool[-1])}) m"
        )
    lines += [margin(name, value) for name, value in sorted(check.margins.items())]
    return [*lines, *(f"- {sentence}" for sentence in check.sentences)]


def write(
    folder: str | Path,
    check: Checked,
    limits: Limits,
    kinematics: Forward,
    shape: Shape,
    rate_hz: float,
    title: str = "plan",
) -> list[Path]:
    """`preview.rrd` and `preview.png` of a plan; each appears whole or not at all.

    Args:
        folder: where to.
        check: the plan as the guard saw it.
        limits: what it was held against.
        kinematics: of the arm.
        shape: of the arm.
        rate_hz: of the ticks.
        title: what it is about, in a few words.
    """
    from robots.preview_picture import write_png

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    course = Course.of(check, limits, kinematics, rate_hz)
    told = words(check, course, title)
    return [
        write_rrd(folder / "preview.rrd", check, course, limits, shape, told),
        write_png(folder / "preview.png", check, course, limits, shape, told),
    ]


# -- Rerun -------------------------------------------------------------------------------------------------------------


def write_rrd(path: Path, check: Checked, course: Course, limits: Limits, shape: Shape, told: Sequence[str]) -> Path:
    """The recording; `premotor review` opens it."""
    import rerun as rr

    unfinished = path.with_name(f".{path.name}.unfinished")
    recording = rr.RecordingStream("premotor", recording_id=f"preview-{os.getpid()}-{path.parent.name}")
    recording.save(unfinished, default_blueprint=blueprint())
    try:
        recording.send_recording_name(told[0])
        text = "\n".join(f"- {line.removeprefix('- ')}" for line in told[1:])
        recording.log("verdict", rr.TextDocument(f"### {told[0]}\n{text}\n", media_type="text/markdown"), static=True)
        _log_scene(recording, course, limits)
        _log_ghost(recording, check, course, shape)
        _log_curves(recording, course, limits)
        recording.flush()
    finally:
        recording.disconnect()
    os.replace(unfinished, path)
    return path


def blueprint() -> Any:
    """The layout: the ghost on the left, verdict and curves on the right."""
    import rerun.blueprint as rrb

    def curves(name: str, what: str) -> Any:
        return rrb.TimeSeriesView(
            origin=f"curves/{name}", name=what, plot_legend=rrb.PlotLegend("RightTop", visible=name == "joints")
        )

    scene = rrb.Spatial3DView(
        origin="/",
        contents=["scene/**", "ghost/**"],
        name="where the arm is (teal), the plan (amber), the workspace (grey)",
        background=rrb.Background(color=(24, 26, 31)),
        line_grid=rrb.LineGrid3D(visible=True, spacing=0.1, color=(255, 255, 255, 26)),
        eye_controls=rrb.EyeControls3D(position=(1.35, -0.95, 0.75), look_target=(0.3, 0.0, 0.25), eye_up=(0, 0, 1)),
    )
    return rrb.Blueprint(
        rrb.Horizontal(
            scene,
            rrb.Vertical(
                rrb.TextDocumentView(origin="verdict", name="verdict"),
                rrb.Tabs(curves("joints", "joint positions (rad)"), curves("position", "position, % of its range")),
                curves("velocity", "speed, % of what is allowed"),
                rrb.Tabs(curves("acceleration", "acceleration, %"), curves("jerk", "jerk, %")),
                row_shares=[4, 3, 3, 3],
            ),
            column_shares=[11, 9],
        ),
        rrb.TimePanel(timeline="plan", state="collapsed"),
        rrb.BlueprintPanel(state="hidden"),
        rrb.SelectionPanel(state="hidden"),
        auto_views=False,
    )


def _log_scene(recording: Any, course: Course, limits: Limits) -> None:
    import rerun as rr

    low, high = np.asarray(limits.workspace_low), np.asarray(limits.workspace_high)
    recording.log(
        "scene/workspace",
        rr.Boxes3D(
            centers=[(low + high) / 2],
            half_sizes=[(high - low) / 2],
            colors=[GREY],
            radii=[0.001],
            fill_mode="majorwireframe",
        ),
        static=True,
    )
    recording.log("scene/path", rr.LineStrips3D([course.tool], colors=[AMBER], radii=[0.003]), static=True)
    if len(course.stops):
        recording.log("scene/stops", rr.Points3D(course.stops, colors=[AMBER], radii=[0.006]), static=True)
    recording.log("scene/start", rr.Points3D([course.tool[0]], colors=[TEAL], radii=[0.008]), static=True)


def _log_ghost(recording: Any, check: Checked, course: Course, shape: Shape) -> None:
    """The arm where it is, and at moments along the plan."""
    import rerun as rr

    moments = np.unique(np.linspace(0, len(course.joints) - 1, MOMENTS).round().astype(int))
    ends = shape.ends(course.joints[moments], np.asarray(check.gripper)[moments])
    recording.log("scene/now", _capsules(ends[0], shape.radii, TEAL, "densewireframe"), static=True)
    tools = course.tool[moments]
    for moment, where, tool in zip(moments, ends, tools, strict=True):
        recording.set_time("plan", duration=float(course.time_s[moment]))
        recording.log("ghost/arm", _capsules(where, shape.radii, AMBER, "transparentfillmajorwireframe"))
        recording.log("ghost/tool", rr.Points3D([tool], colors=[RED], radii=[0.007]))


def _capsules(
    ends: np.ndarray,
    radii: np.ndarray,
    colour: tuple[int, ...],
    fill: Literal["densewireframe", "transparentfillmajorwireframe"],
) -> Any:
    """Capsules (G, 2, 3) as Rerun has them: each along its own z, turned to where it points."""
    import rerun as rr

    axes = ends[:, 1] - ends[:, 0]
    lengths = np.linalg.norm(axes, axis=1)
    return rr.Capsules3D(
        lengths=lengths,
        radii=radii,
        translations=ends[:, 0],
        quaternions=[_turn(axis, length) for axis, length in zip(axes, lengths, strict=True)],
        colors=[colour],
        fill_mode=fill,
        line_radii=[0.0005],
    )


def _turn(axis: np.ndarray, length: float) -> np.ndarray:
    """The quaternion xyzw that turns z to an axis (3,) of that length."""
    if length < 1e-9:
        return np.array([0.0, 0.0, 0.0, 1.0])
    x, y, z = axis / length
    if z < -1.0 + 1e-9:
        return np.array([1.0, 0.0, 0.0, 0.0])
    scale = math.sqrt(2.0 * (1.0 + z))
    return np.array([-y / scale, x / scale, 0.0, scale / 2.0])


def _log_curves(recording: Any, course: Course, limits: Limits) -> None:
    import rerun as rr

    # At a few hundred ticks a second every one of them is a point; more than a few thousand help nobody.
    every = max(1, len(course.time_s) // 2000)
    times = [rr.TimeColumn("plan", duration=course.time_s[::every])]
    shown = {"joints": course.joints, **{name: 100.0 * share for name, share in course.shares.items()}}
    for view, values in shown.items():
        for index, joint in enumerate(limits.joint_names):
            entity = f"curves/{view}/{joint}"
            recording.log(
                entity, rr.SeriesLines(colors=[colour_of(index, len(limits.joint_names))], names=[joint]), static=True
            )
            recording.send_columns(entity, times, rr.Scalars.columns(scalars=values[::every, index]))
        if view != "joints":
            entity = f"curves/{view}/limit"
            recording.log(entity, rr.SeriesLines(colors=[RED], names=["limit"], widths=[2.0]), static=True)
            both = [rr.TimeColumn("plan", duration=course.time_s[[0, -1]])]
            recording.send_columns(entity, both, rr.Scalars.columns(scalars=[100.0, 100.0]))


def colour_of(index: int, count: int) -> tuple[int, int, int]:
    """A joint's own colour."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(0.08 + 0.84 * index / max(count, 1), 0.55, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def margin(name: str, value: float) -> str:
    """`tool in workspace: 1.9 cm left`."""
    ending, (factor, unit, digits) = next(item for item in UNITS.items() if name.endswith(item[0]))
    shown = round(factor * value, digits) + 0.0  # no "-0"
    return (
        f"{name.removesuffix(ending).replace('_', ' ')}: {shown:.{digits}f}{unit} {'left' if shown >= 0 else 'too far'}"
    )


def _place(position: np.ndarray) -> str:
    return ", ".join(f"{value:.3f}" for value in position)
