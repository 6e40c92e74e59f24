"""Run franka-sim on one loopback address, in the environment that holds it: `python franka_sim_server.py ADDRESS FR3_XML`.

It is told to enforce the motion limits of a real control box; not its bound of 20 lost packets in a row, which on a shared
machine without a real-time kernel judges the machine. Its own command line would listen on every interface, and would fetch
the arm's model from the network; here franky-sim's model is used, with the flange that franka-sim looks for put in.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def with_flange(source: Path, folder: Path) -> Path:
    """A copy of franky-sim's FR3 whose meshes are found from anywhere and whose hand hangs on a `link8`."""
    tree = ElementTree.parse(source)
    compiler = tree.getroot().find("compiler")
    assert compiler is not None
    compiler.set("meshdir", str(source.parent / "meshes"))
    wrist = next(body for body in tree.iter("body") if body.get("name") == "fr3_link7")
    hand = next(body for body in wrist.findall("body") if body.get("name") == "hand")
    wrist.remove(hand)
    flange = ElementTree.SubElement(wrist, "body", name="fr3_link8", pos=hand.get("pos", "0 0 0.107"))
    hand.set("pos", "0 0 0")
    flange.append(hand)
    target = folder / "fr3.xml"
    tree.write(target)
    return target


def main() -> None:
    """Serve until interrupted."""
    address, source = sys.argv[1], Path(sys.argv[2])
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FR3_MJCF"] = str(with_flange(source, Path(folder)))
        os.environ["MUJOCO_GL"] = "disable"
        from franka_sim import FrankaSimServer

        server = FrankaSimServer(
            host=address, enforce_motion_limits=True, enforce_comm_constraints=False, gripper_object_width=0.04
        )
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.start()
        except KeyboardInterrupt:
            pass
        finally:
            server.stop()


if __name__ == "__main__":
    main()
