"""Capsules hold all of a link, and distances between them are true."""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false

from __future__ import annotations

import itertools
import time

import mujoco
import numpy as np
import pytest

from envs import panda
from envs.tabletop import HOME_JOINTS
from robots.body import Box, MujocoBody, Plane, clearance, links_outside, panda_body
from robots.capsules import Capsule, cover, cover_geom

TWO_LINKS = """
<mujoco>
  <worldbody>
    <body name="upper"><joint name="a" axis="0 1 0" range="-3 3"/><geom type="capsule" fromto="0 0 0 0.3 0 0" size="0.03"/>
      <body name="fore" pos="0.3 0 0"><joint name="b" axis="0 1 0" range="-3 3"/>
        <geom type="box" size="0.1 0.02 0.02" pos="0.1 0 0"/>
        <body name="hand" pos="0.2 0 0"><joint name="c" axis="0 1 0" range="-3 3"/>
          <geom type="cylinder" size="0.02 0.05" euler="0 90 0" pos="0.05 0 0"/><site name="tip" pos="0.1 0 0"/>
          <body name="finger" pos="0.1 0 0"><joint name="grip" type="slide" axis="0 0 1" range="0 0.03"/>
            <geom type="sphere" size="0.01"/></body>
        </body>
      </body>
    </body>
    <body name="loose" pos="0.2 0 -0.4"><freejoint/><geom type="sphere" size="0.05"/></body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def body() -> MujocoBody:
    return panda_body()


def two_links(*obstacles: Plane | Box) -> MujocoBody:
    model = mujoco.MjModel.from_xml_string(TWO_LINKS)
    return MujocoBody(model, ("a", "b", "c"), tool="tip", gripper={"grip": (0.03, 0.0)}, obstacles=obstacles)


def test_every_corner_of_every_mesh_of_the_panda_lies_in_a_capsule_of_its_link(body: MujocoBody) -> None:
    """Looked at in the world, at random postures, against MuJoCo's own poses of the meshes."""
    spec = mujoco.MjSpec()
    panda.add_panda(spec, visuals=True)
    model = spec.compile()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(0)
    for _ in range(3):
        joints, closed = rng.uniform(model.jnt_range[:7, 0], model.jnt_range[:7, 1]), float(rng.random())
        data.qpos[:7], data.qpos[7:] = joints, 0.04 * (1 - closed)
        mujoco.mj_kinematics(model, data)
        ends = body.ends(joints[None], np.array([closed]))[0]
        for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
            link, mesh = model.body(model.geom_bodyid[geom]).name, model.geom_dataid[geom]
            first = model.mesh_vertadr[mesh]
            corners = model.mesh_vert[first : first + model.mesh_vertnum[mesh]]
            corners = corners @ data.geom_xmat[geom].reshape(3, 3).T + data.geom_xpos[geom]
            mine = [k for k, name in enumerate(body.names) if name == link]
            outside = np.min([Capsule(*ends[k], float(body.radii[k])).outside(corners) for k in mine], axis=0)
            assert mine
            assert outside.max() < 1e-5, link
            assert outside.min() < -0.005  # and it is that link's, not a huge one


@pytest.mark.parametrize("shape", ["box", "cylinder", "ell"])
def test_a_cover_holds_the_whole_surface(shape: str) -> None:
    rng = np.random.default_rng(1)
    if shape == "ell":  # two long boxes at a right angle: one capsule would be three times too fat
        boxes = [
            np.array(list(itertools.product((0, 0.4), (0, 0.05), (0, 0.05)))),
            np.array(list(itertools.product((0, 0.05), (0, 0.05), (0, 0.4)))),
        ]
        corners = np.concatenate([box[list(itertools.combinations(range(8), 3))] for box in boxes])
        capsules = cover(corners)
        assert len(capsules) > 1
    else:
        size = "0.1 0.03 0.02" if shape == "box" else "0.04 0.1"
        model = mujoco.MjModel.from_xml_string(
            f'<mujoco><worldbody><geom type="{shape}" size="{size}" pos="1 2 3" euler="30 40 50"/></worldbody></mujoco>'
        )
        capsules = cover_geom(model, 0)
        data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, data)
        points = rng.uniform(-1, 1, (4000, 3)) * ([0.1, 0.03, 0.02] if shape == "box" else [0.04, 0.04, 0.1])
        if shape == "cylinder":
            points = points[np.linalg.norm(points[:, :2], axis=1) <= 0.04]
        points = points @ data.geom_xmat[0].reshape(3, 3).T + data.geom_xpos[0]
        assert np.min([c.outside(points) for c in capsules], axis=0).max() < 1e-5
        return
    weights = rng.dirichlet(np.ones(3), (len(corners), 20))
    points = np.einsum("tkc,tcx->tkx", weights, corners).reshape(-1, 3)
    assert np.min([c.outside(points) for c in capsules], axis=0).max() < 1e-6


def brute(one: np.ndarray, other: np.ndarray) -> float:
    """The distance of two segments (2, 3), by looking at many points."""
    shares = np.linspace(0, 1, 400)[:, None]
    a, b = one[0] + shares * (one[1] - one[0]), other[0] + shares * (other[1] - other[0])
    return float(np.linalg.norm(a[:, None] - b[None], axis=2).min())


def test_the_nearest_links_are_found_and_their_distance_is_true(body: MujocoBody) -> None:
    rng = np.random.default_rng(2)
    compared = {(body.names[i], body.names[j]) for i, j in body._own}
    assert ("panda_link0", "panda_hand") in compared
    assert not any("link6" in a and "link7" in b for a, b in compared)  # neighbours
    assert ("panda_leftfinger", "panda_rightfinger") not in compared  # they are meant to meet
    assert body.not_compared == (("panda_link5", "panda_link7"),)
    for _ in range(20):
        joints = rng.uniform(-1.5, 1.5, 7)
        ends = body.ends(joints[None], np.array([0.3]))[0]
        truth = min(brute(ends[i], ends[j]) - body.radii[i] - body.radii[j] for i, j in body._own)
        assert body.near(joints, 0.3)[0].distance_m == pytest.approx(truth, abs=1e-3)


def test_an_arm_folded_onto_itself_is_seen(body: MujocoBody) -> None:
    folded = np.array([0.0, 1.7, 0.0, -3.0, 0.0, 0.0, 0.785])
    near, _ = body.near(folded, 0.0)
    assert near.distance_m < 0.0
    assert body.near(HOME_JOINTS, 0.0)[0].distance_m > 0.004


def test_the_table_and_the_workspace_box_of_the_links(body: MujocoBody) -> None:
    low = np.array([0.0, 0.6, 0.0, -2.5, 0.0, 3.1, 0.785])  # the hand comes down
    tool = body.ends(low[None], np.array([0.0]))[0, :, :, 2].min()
    assert tool < 0.05
    assert clearance(body, low, 0.0).parts[1] == "table"
    outside, name = links_outside(body, HOME_JOINTS, 0.0, (-0.3, -0.3, 0.0), (0.3, 0.3, 1.0))
    assert outside > 0.1
    assert name in body.names
    assert links_outside(body, HOME_JOINTS, 0.0, (-0.35, -0.6, -0.05), (0.95, 0.6, 1.0))[0] < 0


def test_no_point_moves_further_than_reach_says(body: MujocoBody) -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        joints = rng.uniform(-2.5, 2.5, 7)
        step = rng.normal(0.0, 0.05, 7)
        ends = body.ends(np.stack([joints, joints + step]), np.array([0.5, 0.5]))
        assert np.linalg.norm(ends[1] - ends[0], axis=-1).max() <= np.abs(step) @ body.reach_m + 1e-9


def test_near_a_stretched_arm_the_condition_number_grows(body: MujocoBody) -> None:
    assert body.condition(HOME_JOINTS) < 15
    assert body.condition(np.array([0.0, 0.0, 0.0, -0.0698, 0.0, 1.57, 0.0])) > 60


def test_any_mjcf_becomes_a_body() -> None:
    body = two_links(Plane("floor", -0.2), Box("wall", (0.9, -1.0, -1.0), (1.0, 1.0, 1.0)))
    straight = np.zeros(3)
    assert set(body.names) == {"upper", "fore", "hand", "finger"}
    own, walls = body.near(straight, 0.0)
    assert own.parts == ("upper", "hand")
    assert walls.parts[1] == "wall"
    assert walls.distance_m == pytest.approx(0.9 - 0.61, abs=0.01)
    assert clearance(body, np.array([0.5, 0.0, 0.0]), 0.0).parts[1] == "floor"
    assert clearance(body, np.array([0.5, 0.0, 0.0]), 0.0).distance_m < 0
    assert body.near(np.array([0.0, 2.5, 0.0]), 0.0)[0].distance_m == pytest.approx(0.069, abs=0.02)
    assert body.near(np.array([0.0, 2.9, 0.3]), 0.0)[0].distance_m < 0.01  # folded back
    assert body.finger_m == pytest.approx(0.03)
    lifted = body.ends(np.zeros((2, 3)), np.array([0.0, 1.0]))[:, -1, 0, 2]
    assert lifted[0] - lifted[1] == pytest.approx(0.03)


def test_what_is_no_body_is_refused() -> None:
    model = mujoco.MjModel.from_xml_string(TWO_LINKS)
    with pytest.raises(ValueError, match="no joint 'elbow'; it has a, b, c, grip"):
        MujocoBody(model, ("a", "elbow"), tool="tip")
    with pytest.raises(ValueError, match="a body without shapes guards nothing"):
        MujocoBody(panda.kinematic_model(), panda_body().joint_names, tool=panda.GRASP_SITE)
    with pytest.raises(ValueError, match="no link 'wrist'"):
        MujocoBody(model, ("a", "b", "c"), tool="tip", apart=[("upper", "wrist")])
    with pytest.raises(ValueError, match="wall: low"):
        two_links(Box("wall", (1.0, 0.0, 0.0), (0.0, 1.0, 1.0)))


def test_a_look_takes_well_under_half_a_millisecond(body: MujocoBody) -> None:
    took = []
    for _ in range(200):
        began = time.process_time()  # what it costs, not what else the machine does meanwhile
        body.near(HOME_JOINTS, 0.0)
        body.condition(HOME_JOINTS)
        took.append(time.process_time() - began)
    assert np.median(took) < 0.0005
