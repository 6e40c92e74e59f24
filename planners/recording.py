"""Rollouts as a Rerun recording: what was seen, imagined and done side by side. The only module that knows Rerun.

Colours mean the same everywhere: amber is what is planned or imagined, teal what happened, violet the goal.
"""

from __future__ import annotations

import os
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pybullet_data
import rerun as rr
import rerun.blueprint as rrb

from planners.observation import IMAGES, STATE
from planners.rollout import ARRIVED, Arrays, PlanRecord, Rollout, StepRecord

AMBER, TEAL, VIOLET, GREY, RED = (255, 176, 46), (38, 198, 176), (180, 124, 255), (140, 146, 158), (240, 84, 84)
_FAINT_AMBER = (*AMBER, 70)
_AXES = ((239, 98, 98), (112, 201, 96), (88, 146, 255))
_BASE, _PANDA_JOINTS = "panda_link0", 7
JOINTS = "observation.joints"
_HALF = (0.022, 0.022, 0.022)
_TRUTH = "observation.environment_state"
_LANDSCAPE = "search/landscape"


def write_rrd(
    rollouts: Rollout | Sequence[Rollout],
    path: str | Path,
    urdf: str | Path | None = None,
    landscape: np.ndarray | None = None,
    also: Callable[[rr.RecordingStream], None] | None = None,
    tabs: Sequence[rrb.Container] = (),
) -> Path:
    """Write one rollout, or several one after the other, to a `.rrd` file with its layout.

    Args:
        rollouts: what to show.
        path: the file; it appears whole or not at all.
        urdf: the arm whose joints `observation.joints` are. If not given, the Panda where there are as many joints as it
            has, and for another arm only the way of its tool.
        landscape: (h, w, 3) uint8, the picture of the energy landscape around the first step's plan, if one was made.
        also: logs what a rollout does not know into the same recording.
        tabs: where that is shown, beside the curves.
    """
    many = [rollouts] if isinstance(rollouts, Rollout) else list(rollouts)
    if not many or not any(rollout.steps for rollout in many):
        raise ValueError("there is nothing to show: no rollout has a step")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    recording = rr.RecordingStream("premotor", recording_id=path.stem)
    recording.save(unfinished, default_blueprint=blueprint(many, landscape=landscape is not None, tabs=tabs))
    try:
        recording.send_recording_name(_title(many[0]) if len(many) == 1 else f"{_title(many[0])}, {len(many)} episodes")
        _log_styles(recording, many)
        first = next(step.observation.get(JOINTS) for rollout in many for step in rollout.steps)
        known = urdf is not None or first is None or len(first) == _PANDA_JOINTS
        arm = _Arm(recording, Path(urdf) if urdf else _panda()) if known else None
        step = 0
        for number, rollout in enumerate(many):
            step = _log_rollout(recording, arm, rollout, step, f"episode {number + 1} of {len(many)}")
        if landscape is not None:
            recording.log(_LANDSCAPE, rr.Image(landscape).compress(jpeg_quality=92), static=True)
        if also is not None:
            also(recording)
        recording.flush()
    finally:
        recording.disconnect()
    os.replace(unfinished, path)
    return path


def blueprint(
    rollouts: Sequence[Rollout], *, landscape: bool = False, tabs: Sequence[rrb.Container] = ()
) -> rrb.Blueprint:
    """The layout: the arm and four pictures on the left, why and how on the right, the energy landscape behind a tab."""
    pictures = [
        rrb.Spatial2DView(origin="pictures/now", name="now"),
        rrb.Spatial2DView(origin="pictures/imagined_now", name="imagined for now"),
        rrb.Spatial2DView(origin="pictures/imagined_end", name="imagined end"),
        rrb.Spatial2DView(origin="pictures/goal", name="goal"),
    ]
    if any(IMAGES + "wrist" in rollout.steps[0].observation for rollout in rollouts if rollout.steps):
        pictures.insert(1, rrb.Spatial2DView(origin="pictures/wrist", name="wrist, now"))
    scene = rrb.Spatial3DView(
        origin="/",
        contents=["arm/**", "scene/**"],
        name="arm: planned (amber) and executed (teal) path of the tool",
        background=rrb.Background(color=(24, 26, 31)),
        line_grid=rrb.LineGrid3D(visible=True, spacing=0.1, color=(255, 255, 255, 26)),
        spatial_information=rrb.SpatialInformation(target_frame=_BASE),
        eye_controls=rrb.EyeControls3D(position=(1.1, -0.62, 0.52), look_target=(0.42, 0.0, 0.14), eye_up=(0, 0, 1)),
    )

    def curves(origin: str, name: str, legend: bool = False) -> rrb.TimeSeriesView:
        return rrb.TimeSeriesView(origin=origin, name=name, plot_legend=rrb.PlotLegend("RightTop", visible=legend))

    why: rrb.Vertical | rrb.Tabs = rrb.Vertical(
        rrb.Horizontal(
            rrb.TextDocumentView(origin="about", name="about"),
            curves("distance", "distance to the goal (cm)"),
        ),
        rrb.Horizontal(
            rrb.BarChartView(
                origin="search/cost_per_iteration",
                name="this search: best cost after each iteration",
                plot_legend=rrb.PlotLegend(visible=False),
            ),
            curves("cost", "cost of the plan, by term", legend=True),
        ),
        rrb.Tabs(
            rrb.Horizontal(
                curves("action/translation", "translation (cm)"),
                curves("action/rotation", "rotation (deg)"),
                curves("action/gripper", "gripper closing"),
                name="actions",
            ),
            rrb.Horizontal(
                curves("state/position", "tool position (m)"),
                curves("state/rotation", "tool rotation (deg)"),
                curves("state/gripper", "gripper closedness"),
                name="state",
            ),
            rrb.Horizontal(
                curves("time", "time for a decision (ms)", legend=True),
                curves("doubt", "uncertainty of the plan (1 = calibrated)", legend=True),
                name="time and doubt",
            ),
            *tabs,
        ),
        rrb.TextLogView(origin="events", name="events"),
        row_shares=[3, 3, 3, 2],
        name="why and how",
    )
    if landscape:
        view = rrb.Spatial2DView(origin=_LANDSCAPE, name="energy landscape around the first action")
        why = rrb.Tabs(why, view, active_tab=0)
    return rrb.Blueprint(
        rrb.Horizontal(rrb.Vertical(scene, rrb.Horizontal(*pictures), row_shares=[9, 4]), why, column_shares=[10, 9]),
        rrb.TimePanel(timeline="step", state="collapsed", fps=5.0),
        rrb.BlueprintPanel(state="hidden"),
        rrb.SelectionPanel(state="hidden"),
        auto_views=False,
    )


class _Arm:
    """The arm's shapes, logged once, and its joints, logged at every step."""

    def __init__(self, recording: rr.RecordingStream, source: Path) -> None:
        self._recording = recording
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / source.name
            local.write_text(_with_absolute_meshes(source))
            self._tree = rr.urdf.UrdfTree.from_file_path(local, entity_path_prefix="arm")
            self._tree.log_urdf_to_recording(recording)
        self._turning = [joint for joint in self._tree.joints() if joint.joint_type in ("revolute", "continuous")]
        self._sliding = [joint for joint in self._tree.joints() if joint.joint_type == "prismatic"]

    def log(self, observation: Arrays) -> None:
        """Pose the arm as observed."""
        joints = observation.get(JOINTS)
        if joints is None:
            return
        for joint, angle in zip(self._turning, joints, strict=False):
            self._recording.log(f"arm/joints/{joint.name}", joint.compute_transform(float(angle), clamp=True))
        for joint in self._sliding:
            opening = joint.limit_upper * (1.0 - float(observation[STATE][6])) if STATE in observation else 0.0
            self._recording.log(f"arm/joints/{joint.name}", joint.compute_transform(opening, clamp=True))


def _panda() -> Path:
    return Path(pybullet_data.getDataPath()) / "franka_panda" / "panda.urdf"


def _with_absolute_meshes(urdf: Path) -> str:
    """The robot's file with meshes a viewer finds: absolute, the light ones, and shown once."""
    root = ElementTree.parse(urdf).getroot()
    for link in root.findall("link"):
        for collision in link.findall("collision"):
            link.remove(collision)
        for visual in link.iterfind("visual"):
            material = visual.find("material")
            if material is None:
                material = ElementTree.SubElement(visual, "material")
            dark = "hand" in link.attrib["name"] or "finger" in link.attrib["name"]
            material.attrib["name"] = "dark" if dark else "light"
            for old in list(material):
                material.remove(old)
            ElementTree.SubElement(material, "color", rgba="0.25 0.27 0.3 1" if dark else "0.8 0.82 0.86 1")
        for mesh in link.iterfind("visual/geometry/mesh"):
            name = mesh.attrib["filename"].removeprefix("package://")
            light = urdf.parent / name.replace("/visual/", "/collision/")
            mesh.set("filename", str(light if light.is_file() else urdf.parent / name))
    return ElementTree.tostring(root, encoding="unicode")


def _log_styles(recording: rr.RecordingStream, rollouts: Sequence[Rollout]) -> None:
    """What never changes: the frame of the scene, the colours and names of the curves."""

    def series(path: str, name: str, colour: tuple[int, ...], width: float = 2.0) -> None:
        recording.log(path, rr.SeriesLines(colors=[colour], names=[name], widths=[width]), static=True)

    for name in ("table", "planned", "elites", "executed", "tool", "object", "goal_object", "goal_tool"):
        recording.log(f"scene/{name}", rr.CoordinateFrame(frame=_BASE), static=True)
    recording.log(
        "scene/table",
        rr.Boxes3D(
            centers=[(0.5, 0.0, -0.006)], half_sizes=[(0.35, 0.45, 0.005)], colors=[(58, 62, 72)], fill_mode="solid"
        ),
        static=True,
    )
    for axis, colour in zip("xyz", _AXES, strict=True):
        pale = tuple((c + 2 * 128) // 3 for c in colour)
        series(f"action/translation/{axis}", axis, colour)
        series(f"action/translation/{axis}_executed", f"{axis} executed", pale, 1.0)
        series(f"state/position/{axis}", axis, colour)
    for axis, colour in zip(("roll", "pitch", "yaw"), _AXES, strict=True):
        pale = tuple((c + 2 * 128) // 3 for c in colour)
        series(f"action/rotation/{axis}", axis, colour)
        series(f"action/rotation/{axis}_executed", f"{axis} executed", pale, 1.0)
        series(f"state/rotation/{axis}", axis, colour)
    series("action/gripper/closing", "closing", AMBER)
    series("action/gripper/closing_executed", "executed", TEAL, 1.0)
    series("state/gripper/closedness", "closedness", TEAL)
    series("distance/goal", "distance", TEAL, 3.0)
    series("time/decision", "decision", TEAL)
    series("time/search", "of which search", AMBER)
    series("doubt/next", "next step", TEAL)
    series("doubt/end", "end of the plan", AMBER)
    palette = (AMBER, TEAL, VIOLET, GREY, RED)
    terms = dict.fromkeys(name for r in rollouts for s in r.steps if s.plan for name in s.plan.terms)
    for index, term in enumerate(terms):
        series(f"cost/{term}", term, palette[index % len(palette)])
    if len(terms) > 1:
        series("cost/total", "total", (235, 235, 240), 3.0)


def _log_rollout(recording: rr.RecordingStream, arm: _Arm | None, rollout: Rollout, first: int, number: str) -> int:
    """Log from step `first` on; returns where the next rollout may begin."""
    recording.set_time("step", sequence=first)
    recording.set_time("time", duration=0.2 * first)
    recording.log("about", rr.TextDocument(_about(rollout, number), media_type="text/markdown"))
    recording.log("events", rr.TextLog(f"{number}: {_title(rollout)}", level="INFO", color=VIOLET))
    _log_goal(recording, rollout)
    rate = float(rollout.about.get("rate_hz", 5.0))
    executed: list[np.ndarray] = []
    expected: np.ndarray | None = None
    for index, step in enumerate(rollout.steps):
        recording.set_time("step", sequence=first + index)
        recording.set_time("time", duration=(first + index) / rate)
        _log_seen(recording, arm, step.observation, step.picture, executed, expected)
        _log_step(recording, step)
        expected = step.plan.frames[0] if step.plan is not None and step.plan.frames is not None else None
    last = first + len(rollout.steps)
    if not rollout.final:
        return last
    recording.set_time("step", sequence=last)
    recording.set_time("time", duration=last / rate)
    _log_seen(recording, arm, rollout.final, rollout.final.get("picture"), executed, expected)
    _clear_plan(recording)
    success = rollout.outcome.get("success")
    if success is not None:
        words = (
            f"{'success' if success else 'failure'}, {rollout.outcome.get('final_distance_cm', float('nan')):.1f} cm"
        )
        recording.log("events", rr.TextLog(f"end: {words}", level="INFO" if success else "WARN"))
    return last + 1


def _clear_plan(recording: rr.RecordingStream) -> None:
    """Nothing is planned any more."""
    for path in ("scene/planned", "scene/elites"):
        recording.log(path, rr.LineStrips3D([]))
    recording.log("pictures/imagined_end", rr.Clear(recursive=False))


def _log_goal(recording: rr.RecordingStream, rollout: Rollout) -> None:
    goal = rollout.goal
    if pictures := rollout.goal_pictures:
        alike = [picture for picture in pictures if picture.shape[0] == pictures[0].shape[0]]
        recording.log("pictures/goal", _image(np.concatenate(alike, 1)))
    low, high = (goal.get(f"region.{side}", np.empty(0))[:3] for side in ("low", "high"))
    if len(low) == 3 and np.isfinite([low, high]).all():
        frame = rr.components.FillMode.MajorWireframe
        recording.log("scene/region", rr.CoordinateFrame(frame=_BASE), static=True)
        recording.log("scene/region", rr.Boxes3D(mins=[low], sizes=[high - low], colors=[VIOLET], fill_mode=frame))
    thing, state = goal.get(_TRUTH), goal.get(STATE)
    if thing is not None:
        recording.log("scene/goal_object", _box(thing, (*VIOLET, 255), _HALF, rr.components.FillMode.MajorWireframe))
    if state is not None:
        recording.log("scene/goal_tool", rr.Points3D([state[:3]], colors=[VIOLET], radii=[0.008]))


def _log_seen(
    recording: rr.RecordingStream,
    arm: _Arm | None,
    observation: Arrays,
    picture: np.ndarray | None,
    executed: list[np.ndarray],
    expected: np.ndarray | None,
) -> None:
    """What was there at one moment; `executed` collects the tool's way."""
    front = observation.get(IMAGES + "front") if picture is None else picture
    if front is not None:
        recording.log("pictures/now", _image(front))
    if IMAGES + "wrist" in observation:
        recording.log("pictures/wrist", _image(observation[IMAGES + "wrist"]))
    recording.log("pictures/imagined_now", rr.Clear(recursive=False) if expected is None else _image(expected))
    if arm is not None:
        arm.log(observation)
    state = observation.get(STATE)
    if state is not None:
        executed.append(state[:3])
        recording.log("scene/tool", rr.Points3D([state[:3]], colors=[TEAL], radii=[0.006]))
        recording.log("scene/executed", rr.LineStrips3D([np.stack(executed)], colors=[TEAL], radii=[0.0025]))
        for axis, value in zip("xyz", state[:3], strict=True):
            recording.log(f"state/position/{axis}", rr.Scalars(float(value)))
        for axis, value in zip(("roll", "pitch", "yaw"), np.rad2deg(state[3:6]), strict=True):
            recording.log(f"state/rotation/{axis}", rr.Scalars(float(value)))
        recording.log("state/gripper/closedness", rr.Scalars(float(state[6])))
    thing = observation.get(_TRUTH)
    if thing is not None:
        recording.log("scene/object", _box(thing, TEAL, _HALF, rr.components.FillMode.Solid))


def _log_step(recording: rr.RecordingStream, step: StepRecord) -> None:
    """What was decided, why, and what came of it."""
    for kind, action in (("", step.action), ("_executed", step.executed)):
        for axis, value in zip("xyz", 100 * action[:3], strict=True):
            recording.log(f"action/translation/{axis}{kind}", rr.Scalars(float(value)))
        for axis, value in zip(("roll", "pitch", "yaw"), np.rad2deg(action[3:6]), strict=True):
            recording.log(f"action/rotation/{axis}{kind}", rr.Scalars(float(value)))
        recording.log(f"action/gripper/closing{kind}", rr.Scalars(float(action[6])))
    recording.log("time/decision", rr.Scalars(step.act_ms))
    if "goal_distance_m" in step.judged:
        recording.log("distance/goal", rr.Scalars(round(100 * step.judged["goal_distance_m"], 3)))
    for event in step.events:
        recording.log("events", rr.TextLog(event, level="INFO" if event.startswith(ARRIVED) else "WARN"))
    if step.plan is None or step.plan.held:
        _clear_plan(recording)
        return
    plan = step.plan
    if plan.branch is not None:
        recording.log("events", rr.TextLog(f"gripper: {plan.branch}", level="DEBUG"))
    if STATE in step.observation:
        _log_paths(recording, plan, step.observation[STATE][:3])
    if plan.frames is not None:
        recording.log("pictures/imagined_end", _image(plan.frames[-1]))
    costs = plan.cost_per_iteration
    if len(costs) > 1:
        bars = rr.BarChart(costs, color=AMBER, abscissa=np.arange(1.0, len(costs) + 1), widths=[0.6] * len(costs))
        recording.log("search/cost_per_iteration", bars)
    recording.log("time/search", rr.Scalars(plan.plan_ms))
    for name, value in plan.terms.items():
        recording.log(f"cost/{name}", rr.Scalars(value))
    if len(plan.terms) > 1:
        recording.log("cost/total", rr.Scalars(plan.cost))
    if plan.uncertainty is not None:
        recording.log("doubt/next", rr.Scalars(float(plan.uncertainty[0])))
        recording.log("doubt/end", rr.Scalars(float(plan.uncertainty[-1])))


def _log_paths(recording: rr.RecordingStream, plan: PlanRecord, tool: np.ndarray) -> None:
    """The planned way of the tool, and those of the elites it was chosen from."""

    def ways(actions: np.ndarray) -> np.ndarray:
        """(..., H, A) -> (..., H + 1, 3): where the tool would be if it went exactly as told."""
        moved = np.cumsum(actions[..., :3], axis=-2)
        return tool + np.concatenate([np.zeros_like(moved[..., :1, :]), moved], axis=-2)

    finite = np.isfinite(plan.elite_costs)
    recording.log("scene/elites", rr.LineStrips3D(ways(plan.elites[finite]), colors=[_FAINT_AMBER], radii=[0.0008]))
    recording.log("scene/planned", rr.LineStrips3D([ways(plan.actions)], colors=[AMBER], radii=[0.003]))


def _box(
    pose: np.ndarray, colour: tuple[int, ...], half: tuple[float, ...], fill: rr.components.FillMode
) -> rr.Boxes3D:
    """A box at position and quaternion wxyz (7,)."""
    w, x, y, z = (float(value) for value in pose[3:7])
    return rr.Boxes3D(
        centers=[pose[:3]],
        half_sizes=[half],
        quaternions=[rr.Quaternion(xyzw=(x, y, z, w))],
        colors=[colour],
        fill_mode=fill,
    )


def _image(picture: np.ndarray) -> rr.EncodedImage | rr.Image:
    # JPEG would smear a picture whose every pixel is seen.
    return rr.Image(picture) if picture.shape[0] <= 96 else rr.Image(picture).compress(jpeg_quality=92)


def _title(rollout: Rollout) -> str:
    words = [str(rollout.about[key]) for key in ("task", "simulator", "model", "planner") if key in rollout.about]
    return ", ".join(words) or "rollout"


def _about(rollout: Rollout, number: str) -> str:
    """A page for the reader, in Markdown."""
    outcome = rollout.outcome
    verdict = {True: "reached", False: "not reached", None: "not judged"}[outcome.get("success")]
    lines = [f"## {rollout.about.get('task', 'rollout')}: {verdict}", ""]
    if "final_distance_cm" in outcome:
        lines += [f"**{outcome['final_distance_cm']:.1f} cm** from the goal at the end, "
                  f"{outcome.get('start_distance_cm', float('nan')):.1f} cm at the start", ""]  # fmt: skip
    named = [
        f"{key} **{rollout.about[key]}**" for key in ("simulator", "model", "planner", "seed") if key in rollout.about
    ]
    futures = [step.plan.futures for step in rollout.steps if step.plan is not None]
    lines += [f"{number}  ·  " + "  ·  ".join(named), ""]
    lines += [
        f"{len(rollout.steps)} steps, {np.median([step.act_ms for step in rollout.steps]):.0f} ms a decision (median)"
    ]
    lines += [f"{int(np.median(futures))} futures a plan"] if futures else []
    lines += [
        "",
        "*amber: planned or imagined, teal: happened, violet: goal; curves: x red, y green, z blue, executed thin*",
    ]
    return "\n".join(lines)
