"""How well a loop of reading and sending keeps its time on the emulated SO-101.

    python -m robots.emulated.loop --seconds 60

measures, sends and looks at its camera at the arm's rate, through LeRobot's unmodified driver, and prints the report.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from robots.arm import Arm, JointTarget, connect
from robots.cadence import Cadence, CadenceReport
from robots.priority import go_first
from robots.stream import MotionBounds, Streamer


def keep_time(arm: Arm, seconds: float, look_every: int = 6, seed: int = 0) -> tuple[CadenceReport, np.ndarray]:
    """Measure and command at the arm's rate while it wanders about its home pose, looking every few ticks.

    Returns:
        the cadence's report, and milliseconds that each tick worked, (ticks,).
    """
    rng, rest = np.random.default_rng(seed), arm.home_joints
    streamer = Streamer(MotionBounds.slow(len(rest), 0.6), arm.rate_hz, arm.hold())
    cadence, worked = Cadence(arm.rate_hz), []
    for tick in range(round(seconds * arm.rate_hz)):
        if not streamer.moving:
            streamer.aim(JointTarget.still(rest + rng.uniform(-0.2, 0.2, len(rest)), float(rng.uniform(0.2, 0.8))))
        cadence.wait()
        began = time.perf_counter()
        arm.measure()
        arm.command(streamer.tick())
        if look_every and tick % look_every == 0:
            arm.observe()
        worked.append(1000 * (time.perf_counter() - began))
    return cadence.report, np.array(worked)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print, park."""
    parser = argparse.ArgumentParser(prog="python -m robots.emulated.loop", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=30.0, help="targets a second")
    parser.add_argument("--ordinary", action="store_true", help="ask for no priority")
    said = parser.parse_args(words)
    with connect("so101_emulated", rate_hz=said.rate) as arm:
        print(f"the loop runs with {'no priority' if said.ordinary else go_first(waits_busily=True)}")
        arm.go(arm.home_joints)
        report, worked = keep_time(arm, said.seconds)
        print(report.sentence())
        for at, period in report.gaps:
            print(f"  gap of {1000 * period:.0f} ms after {at:.1f} s")
        middle, most = np.percentile(worked, [50, 99])
        print(f"a tick works {middle:.2f} ms (median), {most:.2f} ms (99 %), {worked.max():.1f} ms (longest)")
        arm.park()
        arm.release()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
