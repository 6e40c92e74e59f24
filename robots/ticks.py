"""What the arm was sent and what it did, tick by tick, as the black box has it: where it trailed most, and curves of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robots.preview import AMBER, TEAL, colour_of

# More points than this of one curve help nobody.
MOST_POINTS = 2000


@dataclass(frozen=True)
class Ticks:
    """N ticks of J joints; the gripper is left out, it has no angle.

    Attributes:
        names: of the joints.
        at_s: (N,) on the arm's clock.
        sent, measured: (N, J) rad.
        step: (N,) the step under way, counted from 0; one more than the last on the way to the park pose.
    """

    names: tuple[str, ...]
    at_s: np.ndarray
    sent: np.ndarray
    measured: np.ndarray
    step: np.ndarray

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]]) -> Ticks | None:
        """From the lines of a black box; None where it has no ticks."""
        ticks = [line for line in lines if line["kind"] == "ticks" and len(line["arm_s"])]
        if not ticks:
            return None
        at = np.concatenate([np.asarray(line["arm_s"], dtype=np.float64) for line in ticks])
        sent, measured = (
            np.concatenate([np.asarray(line[key], dtype=np.float64) for line in ticks])[:, :-1]
            for key in ("sent", "measured")
        )
        steps = [float(line["observed_s"]) for line in lines if line["kind"] == "step"]
        ended = [float(line["arm_s"]) for line in lines if line["kind"] == "ending" and "arm_s" in line]
        step = np.maximum(np.searchsorted([*steps, *ended[-1:]], at, side="right") - 1, 0)
        said = lines[0].get("config", {}).get("guard", {}).get("joint_names") or ()
        names = (
            tuple(map(str, said))
            if len(said) == sent.shape[1]
            else tuple(f"joint {n + 1}" for n in range(sent.shape[1]))
        )
        return cls(names, at, sent, measured, step)

    @property
    def error(self) -> np.ndarray:
        """(N, J) rad, sent minus measured at the same moment: what an arm trails by, and what it sags."""
        return self.sent - self.measured

    def sentence(self) -> str:
        """Where the arm was furthest from where it was sent."""
        error = np.abs(self.error)
        tick, joint = np.unravel_index(int(error.argmax()), error.shape)
        seconds = self.at_s[-1] - self.at_s[0]
        return (
            f"{len(self.at_s)} ticks of {seconds:.1f} s on record; furthest from where it was sent: {self.names[joint]}, "
            f"{error[tick, joint]:.4f} rad (sent {self.sent[tick, joint]:.3f}, measured {self.measured[tick, joint]:.3f}) "
            f"after {self.at_s[tick] - self.at_s[0]:.1f} s; {np.median(error.max(axis=1)):.4f} rad in the median"
        )

    # -- Rerun ---------------------------------------------------------------------------------------------------------

    def log(self, recording: Any) -> None:
        """Sent and measured angles and their difference as curves, against steps and against the arm's own seconds."""
        import rerun as rr

        every = max(1, -(-len(self.at_s) // MOST_POINTS))
        times = [
            rr.TimeColumn("arm", duration=(self.at_s - self.at_s[0])[::every]),
            rr.TimeColumn("step", sequence=self.step[::every]),
        ]
        curves = (("sent", self.sent, AMBER), ("measured", self.measured, TEAL), ("error", 1000 * self.error, None))
        for joint, name in enumerate(self.names):
            for what, values, colour in curves:
                entity = f"ticks/{'error' if what == 'error' else 'joints'}/{name}" + (
                    "" if what == "error" else f"/{what}"
                )
                shown = [f"{name} {what}" if what != "error" else name]
                style = rr.SeriesLines(colors=[colour or colour_of(joint, len(self.names))], names=shown)
                recording.log(entity, style, static=True)
                recording.send_columns(entity, times, rr.Scalars.columns(scalars=values[::every, joint]))

    @staticmethod
    def view() -> Any:
        """Where the curves are shown."""
        import rerun.blueprint as rrb

        return rrb.Horizontal(
            rrb.TimeSeriesView(
                origin="ticks/joints",
                name="joints sent (amber), measured (teal), rad; choose the timeline `arm` for seconds",
                plot_legend=rrb.PlotLegend(visible=False),
            ),
            rrb.TimeSeriesView(
                origin="ticks/error", name="sent minus measured, mrad", plot_legend=rrb.PlotLegend("RightTop")
            ),
            name="the arm's ticks",
        )
