"""A robot's body: capsules around its links, and how near they are to each other and to what stands around.

Capsules, because MuJoCo's distance between a capsule and a capsule, box or plane is exact. Between convex meshes, and
between boxes, `mj_geomDistance` of MuJoCo 3.8 now and then says 0 for shapes that are decimetres apart (its issue 3383;
here 27 of 3000 random pairs of boxes), which in a guard would be a veto out of nowhere.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import mujoco
import numpy as np

from robots.capsules import cover_geom

# Beyond this nothing is near; the distance is not looked for more exactly.
FAR_M = 5.0
# A pair of links whose capsules overlap in this share of all postures, or at rest, says nothing: the capsules are fat.
ALWAYS_NEAR_SHARE, POSTURES = 0.5, 200


class Near(NamedTuple):
    """The smallest distance (m, negative where they overlap) and between which two parts it is."""

    distance_m: float
    parts: tuple[str, str]


NOTHING_NEAR = Near(FAR_M, ("nothing", "nothing"))


@dataclass(frozen=True)
class Plane:
    """Everything below a height (m, base frame) is solid: a table the arm is mounted on."""

    name: str
    height_m: float


@dataclass(frozen=True)
class Box:
    """A solid box with sides along the base frame's axes, (3,) m each."""

    name: str
    low: tuple[float, float, float]
    high: tuple[float, float, float]


class Body(Protocol):
    """What the guard needs to know of an arm's shape, in its base frame.

    Attributes:
        joint_names: J names.
        reach_m: (J,) no point of the body moves further than this per radian of each joint.
        planes: the planes among the obstacles.
        radii: (G,) m of the body's capsules; `names` says whose they are.
        moving: which of them any joint moves.
        finger_m: how far the gripper moves a part of itself from open to closed.
    """

    joint_names: tuple[str, ...]
    reach_m: np.ndarray
    planes: tuple[Plane, ...]
    radii: np.ndarray
    names: tuple[str, ...]
    moving: np.ndarray
    finger_m: float

    def near(self, joints: np.ndarray, gripper: float) -> tuple[Near, Near]:
        """The nearest two of the arm's own links, and the nearest link to a box, at joints (J,)."""
        ...

    def ends(self, joints: np.ndarray, gripper: np.ndarray) -> np.ndarray:
        """Where the capsules' axes begin and end: joints (N, J), closedness (N,) -> (N, G, 2, 3) m."""
        ...

    def condition(self, joints: np.ndarray) -> float:
        """Condition number of the tool's Jacobian, large near a singularity: (6, J) in m and rad per rad, or of fewer
        than six joints, which move the tool's position and let its orientation follow, (3, J) in m per rad."""
        ...


def clearance(body: Body, joints: np.ndarray, gripper: float) -> Near:
    """The smallest distance of all: between links, to a box, or to a plane."""
    ends = body.ends(np.asarray(joints)[None], np.array([gripper]))[0, body.moving]
    above = ends[..., 2].min(axis=1) - body.radii[body.moving]
    lowest = int(above.argmin())
    name = body.names[body.moving[lowest]]
    planes = [Near(float(above[lowest]) - plane.height_m, (name, plane.name)) for plane in body.planes]
    return min([*body.near(joints, gripper), *planes], key=lambda near: near.distance_m)


def links_outside(
    body: Body, joints: np.ndarray, gripper: float, low: Sequence[float], high: Sequence[float]
) -> tuple[float, str]:
    """How far (m, negative inside) the body reaches out of a box, and with which link."""
    ends = body.ends(np.asarray(joints)[None], np.array([gripper]))[0, body.moving]
    out = np.maximum(np.asarray(low) - ends, ends - np.asarray(high)).max(axis=(1, 2)) + body.radii[body.moving]
    worst = int(out.argmax())
    return float(out[worst]), body.names[body.moving[worst]]


class MujocoBody:
    """The body of an arm in a MuJoCo model: every shape of its links inside capsules.

    The arm's tree is copied without its dynamics, so that looking never touches the model one simulates.

    Args:
        model: any compiled MJCF or URDF.
        joint_names: the J joints that `joints` sets, in that order.
        tool: the site whose Jacobian says how near a singularity is.
        base: the body that stands still; positions are in its frame. The world where None.
        gripper: joint name -> (position when open, position when closed), for joints that follow the gripper.
        rest: (J,) rad, a posture known to be free; links whose capsules touch there are not compared.
        apart: pairs of links that are not compared, because the joints between them keep them apart.
        obstacles: what stands around, in the base frame.
        shapes: which of the model's shapes are covered: `all`, only those `drawn` but not touchable, only the `touched`.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joint_names: Sequence[str],
        *,
        tool: str,
        base: str | None = None,
        gripper: Mapping[str, tuple[float, float]] | None = None,
        rest: np.ndarray | None = None,
        apart: Sequence[tuple[str, str]] = (),
        obstacles: Sequence[Plane | Box] = (),
        shapes: Literal["all", "drawn", "touched"] = "all",
    ) -> None:
        self.joint_names = tuple(joint_names)
        known = [model.joint(index).name for index in range(model.njnt)]
        for name in (*self.joint_names, *(gripper or {})):
            if name not in known:
                raise ValueError(f"the model has no joint {name!r}; it has {', '.join(known)}")
        self.obstacles = tuple(obstacles)
        self.planes = tuple(o for o in self.obstacles if isinstance(o, Plane))
        self._model = _copy_tree(model, tool, base, self.obstacles, shapes)
        self._data = mujoco.MjData(self._model)
        solid = [self._model.geom(o.name).id for o in self.obstacles]
        self._parts = np.array([g for g in range(self._model.ngeom) if g not in solid], dtype=np.int64)
        if not len(self._parts):
            raise ValueError(f"no link below {base or 'the world'} has a shape; a body without shapes guards nothing")
        owner = self._model.geom_bodyid[self._parts]
        self.names = tuple(self._model.body(body).name if body else base or "base" for body in owner)
        self.radii = self._model.geom_size[self._parts, 0].copy()
        self._halves = self._model.geom_size[self._parts, 1].copy()
        self._joint_at = np.array([self._model.joint(name).qposadr[0] for name in self.joint_names])
        self._dof_at = np.array([self._model.joint(name).dofadr[0] for name in self.joint_names])
        self._fingers = [(self._model.joint(n).qposadr[0], *span) for n, span in (gripper or {}).items()]
        self._site = self._model.site(tool).id
        self.finger_m = float(sum(abs(closed - opened) for _, opened, closed in self._fingers))
        self.reach_m = self._reach()
        self._fromto = np.zeros(6)
        count = range(len(self._parts))
        loose = [joint for joint in range(self._model.njnt) if self._model.joint(joint).name not in (gripper or {})]
        own = [(i, j) for i in count for j in count[i + 1 :] if not _joined(self._model, owner[i], owner[j], loose)]
        self._own = np.array(own, dtype=np.int64).reshape(-1, 2)
        self.not_compared = self._drop_fat_pairs(rest, {frozenset(pair) for pair in apart})
        sizes = self.radii + self._halves
        self._own_spheres = sizes[self._own].sum(axis=1)
        # The foot of the arm stands where it stands; only what moves can meet an obstacle.
        self.moving = np.array([part for part in count if self._model.body_weldid[owner[part]] != 0])
        boxes = [self._model.geom(o.name).id for o in self.obstacles if isinstance(o, Box)]
        self._others = [(box, int(part)) for box in boxes for part in self.moving]

    # -- looking ---------------------------------------------------------------------------------------------------

    def near(self, joints: np.ndarray, gripper: float) -> tuple[Near, Near]:
        """The nearest two of the arm's own links, and the nearest link to a box, at joints (J,)."""
        self._pose(joints, gripper)
        return self._nearest_own(), self._nearest_obstacle()

    def clearance(self, joints: np.ndarray, gripper: float) -> Near:
        """The smallest distance of all."""
        return clearance(self, joints, gripper)

    def ends(self, joints: np.ndarray, gripper: np.ndarray) -> np.ndarray:
        """Where the capsules' axes begin and end: joints (N, J), closedness (N,) -> (N, G, 2, 3) m."""
        centers = np.empty((len(joints), len(self._parts), 3))
        axes = np.empty_like(centers)
        for index, (row, closed) in enumerate(zip(joints, gripper, strict=True)):
            self._pose(row, closed)
            centers[index] = self._data.geom_xpos[self._parts]
            axes[index] = self._data.geom_xmat[self._parts, 2::3]
        axes *= self._halves[:, None]
        return np.stack([centers - axes, centers + axes], axis=2)

    def condition(self, joints: np.ndarray) -> float:
        """Condition number of the tool's Jacobian: (6, J), or its position's (3, J) where there are fewer than six joints."""
        self._pose(joints, 0.0)
        mujoco.mj_comPos(self._model, self._data)
        jacobian = np.empty((6, self._model.nv))
        mujoco.mj_jacSite(self._model, self._data, jacobian[:3], jacobian[3:], self._site)
        rows = 6 if len(self._dof_at) >= 6 else 3
        values = np.linalg.svd(jacobian[:rows, self._dof_at], compute_uv=False)
        return float(values[0] / max(values[-1], 1e-12))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _pose(self, joints: np.ndarray, gripper: float) -> None:
        self._data.qpos[self._joint_at] = joints
        for at, opened, closed in self._fingers:
            self._data.qpos[at] = opened + gripper * (closed - opened)
        mujoco.mj_kinematics(self._model, self._data)

    def _distance(self, one: int, other: int, most: float) -> float:
        return mujoco.mj_geomDistance(self._model, self._data, one, other, most, self._fromto)

    def _nearest_own(self) -> Near:
        if not len(self._own):
            return NOTHING_NEAR
        centers = self._data.geom_xpos[self._parts]
        between = centers[self._own[:, 0]] - centers[self._own[:, 1]]
        # Spheres around the capsules say which pairs can be the nearest at all.
        least = np.sqrt(np.einsum("ij,ij->i", between, between)) - self._own_spheres
        best, pair = FAR_M, None
        for index in np.argsort(least):
            if least[index] >= best:
                break
            i, j = self._own[index]
            found = self._distance(int(self._parts[i]), int(self._parts[j]), best)
            if found < best:
                best, pair = found, (self.names[i], self.names[j])
        return NOTHING_NEAR if pair is None else Near(best, pair)

    def _nearest_obstacle(self) -> Near:
        best, pair = FAR_M, None
        for solid, part in self._others:
            found = self._distance(solid, int(self._parts[part]), best)
            if found < best:
                best, pair = found, (self.names[part], self._model.geom(solid).name)
        return NOTHING_NEAR if pair is None else Near(best, pair)

    def _drop_fat_pairs(self, rest: np.ndarray | None, apart: set[frozenset[str]]) -> tuple[tuple[str, str], ...]:
        """Leave out pairs of links that are apart, or whose capsules overlap at rest or in most postures; their names."""
        unknown = {name for pair in apart for name in pair} - set(self.names)
        if unknown:
            raise ValueError(
                f"no link {sorted(unknown)[0]!r} has a shape; they are {', '.join(sorted(set(self.names)))}"
            )
        rng = np.random.default_rng(0)
        ranges = np.array([self._model.joint(name).range for name in self.joint_names])
        ranges[ranges[:, 0] >= ranges[:, 1]] = (-np.pi, np.pi)
        postures = list(rng.uniform(ranges[:, 0], ranges[:, 1], (POSTURES, len(ranges))))
        overlaps = np.zeros(len(self._own))
        for joints in postures:
            overlaps += self._overlap(joints)
        dropped = overlaps > ALWAYS_NEAR_SHARE * POSTURES
        if rest is not None:
            dropped |= self._overlap(np.asarray(rest))
        dropped |= np.array([frozenset((self.names[i], self.names[j])) in apart for i, j in self._own], dtype=bool)
        names = sorted({(self.names[i], self.names[j]) for i, j in self._own[dropped]})
        # A link is compared with another whole or not at all.
        kept = [k for k, (i, j) in enumerate(self._own) if (self.names[i], self.names[j]) not in names]
        self._own = self._own[kept]
        return tuple(names)

    def _overlap(self, joints: np.ndarray) -> np.ndarray:
        self._pose(joints, 0.0)
        return np.array([self._distance(int(self._parts[i]), int(self._parts[j]), 0.01) <= 0.0 for i, j in self._own])

    def _reach(self) -> np.ndarray:
        """(J,) m per rad: the length of the chain beyond each joint, stretched out."""
        model = self._model
        reach = np.zeros(len(self.joint_names))
        slides = np.zeros(model.nbody)
        for joint in range(model.njnt):
            if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_SLIDE:
                slides[model.jnt_bodyid[joint]] += np.abs(model.jnt_range[joint]).max()
        for index, name in enumerate(self.joint_names):
            joint = model.joint(name)
            if model.jnt_type[joint.id] == mujoco.mjtJoint.mjJNT_SLIDE:
                reach[index] = 1.0  # metres per metre
                continue
            for geom in self._parts:
                body = int(model.geom_bodyid[geom])
                length = float(np.linalg.norm(model.geom_pos[geom])) + float(model.geom_size[geom, :2].sum())
                while body not in (0, int(joint.bodyid[0])):
                    length += float(np.linalg.norm(model.body_pos[body])) + slides[body]
                    body = int(model.body_parentid[body])
                if body:
                    reach[index] = max(reach[index], length + float(np.linalg.norm(model.jnt_pos[joint.id])))
        return reach


def _copy_tree(
    model: mujoco.MjModel, tool: str, base: str | None, obstacles: Sequence[Plane | Box], shapes: str
) -> mujoco.MjModel:
    """The bodies below the base, capsules for shapes, and the obstacles; the base is the copy's world."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    root = 0 if base is None else model.body(base).id
    copies = {root: spec.worldbody}
    touchable = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    wanted = {"all": np.ones(model.ngeom, dtype=bool), "drawn": ~touchable, "touched": touchable}[shapes]
    for body in range(root, model.nbody):
        name = model.body(body).name or f"body{body}"
        joints = range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body])
        if body != root:
            parent = int(model.body_parentid[body])
            # What lies around loose is no part of the arm.
            if parent not in copies or any(model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE for j in joints):
                continue
            copy = copies[parent].add_body(name=name, pos=model.body_pos[body], quat=model.body_quat[body])
            copy.mass, copy.inertia, copy.explicitinertial = 1.0, [1.0] * 3, True  # never used; a joint must have some
            copies[body] = copy
            for joint in joints:
                copy.add_joint(
                    name=model.joint(joint).name, type=int(model.jnt_type[joint]), pos=model.jnt_pos[joint],
                    axis=model.jnt_axis[joint], range=model.jnt_range[joint],
                    limited=bool(model.jnt_limited[joint]), ref=float(model.qpos0[model.jnt_qposadr[joint]]),
                )  # fmt: skip
        if int(model.site(tool).bodyid[0]) == body:
            site = model.site(tool)
            copies[body].add_site(name=tool, pos=site.pos, quat=site.quat)
        if body == 0:
            continue  # the world's own shapes are obstacles, and those are declared
        capsules = [c for geom in np.flatnonzero((model.geom_bodyid == body) & wanted) for c in cover_geom(model, geom)]
        for index, capsule in enumerate(capsules):
            copies[body].add_geom(
                name=f"{name} {index}", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[capsule.radius, 0.0, 0.0],
                # A ball is a capsule of no length, but a segment needs a direction.
                fromto=[*capsule.start, *(capsule.end if capsule.half > 1e-6 else capsule.end + [0, 0, 2e-6])],
            )  # fmt: skip
    for obstacle in obstacles:
        if isinstance(obstacle, Plane):
            size, place, kind = np.array([5.0, 5.0, 1.0]), np.array([0.0, 0.0, obstacle.height_m]), "PLANE"
        else:
            low, high = np.array(obstacle.low), np.array(obstacle.high)
            if (low >= high).any():
                raise ValueError(f"obstacle {obstacle.name}: low {obstacle.low} is not below high {obstacle.high}")
            size, place, kind = (high - low) / 2, (high + low) / 2, "BOX"
        shape = mujoco.mjtGeom.mjGEOM_PLANE if kind == "PLANE" else mujoco.mjtGeom.mjGEOM_BOX
        spec.worldbody.add_geom(name=obstacle.name, type=shape, size=size, pos=place)
    return spec.compile()


def _joined(model: mujoco.MjModel, one: int, other: int, joints: Sequence[int]) -> bool:
    """Whether two bodies are one rigid piece, neighbours at one of these joints, or moved by other joints only."""

    def above(body: int) -> list[int]:
        """The bodies from this one to the base that have one of the joints."""
        chain = []
        while body:
            if any(int(model.jnt_bodyid[joint]) == body for joint in joints):
                chain.append(body)
            body = int(model.body_parentid[body])
        return chain

    return len(set(above(one)) ^ set(above(other))) <= 1


def panda_body(obstacles: Sequence[Plane | Box] = (Plane("table", 0.0),)) -> MujocoBody:
    """The Panda with its gripper, standing on the table of the tabletop."""
    from envs import panda
    from envs.tabletop import FINGER_TRAVEL_M, HOME_JOINTS, JOINT_NAMES

    spec = mujoco.MjSpec()
    panda.add_panda(spec, visuals=True)
    fingers = {str(name): (FINGER_TRAVEL_M, 0.0) for name in panda.FINGER_JOINTS}
    # Link 7 turns in the fork of link 5 within millimetres of its capsule; the range of joint 6 is what keeps them apart.
    return MujocoBody(
        spec.compile(), JOINT_NAMES, tool=panda.GRASP_SITE, gripper=fingers, rest=HOME_JOINTS,
        apart=[("panda_link5", "panda_link7")], obstacles=obstacles, shapes="drawn",
    )  # fmt: skip


def so101_body(obstacles: Sequence[Plane | Box] = (Plane("table", 0.0),)) -> MujocoBody:
    """The SO-101 with its gripper, standing on a table."""
    from envs import so101

    return MujocoBody(
        so101.arm_model(), so101.JOINT_NAMES, tool=so101.TOOL_SITE, rest=so101.HOME_JOINTS, obstacles=obstacles,
        gripper={so101.GRIPPER: (so101.GRIPPER_OPEN, so101.GRIPPER_CLOSED)},
    )  # fmt: skip
