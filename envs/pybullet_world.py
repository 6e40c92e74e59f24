"""The tabletop in PyBullet: the second opinion on what a brain learned in MuJoCo.

It is built from the same description (scene, camera, robot file, contact shapes, motion), so that what differs is the
physics and the light. Every policy step ends in a canonical state: contact caches emptied and positions written back
from their numbers. What `save` returns is thus all there is, and a restored world goes on as the first one did.
"""

from __future__ import annotations

import functools
import math
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pybullet
from PIL import Image

from envs import motion, panda
from envs.kinematics import ArmKinematics
from envs.motion import COMMAND_SIZE, CONTROLS, Command
from envs.pybullet_shapes import Parts, arm_description, triangles
from envs.tabletop import (
    FINGER_TRAVEL_M,
    HOME_JOINTS,
    JOINT_NAMES,
    PHYSICS_STEP_S,
    SCENE_SIZE,
    TABLE_CENTER,
    TABLE_HALF,
    TABLE_TEXTURES,
    TEXTURE_REPEATS,
    WRIST,
    Camera,
    Scene,
    table_picture,
)

# Position motors: the share of the remaining way a joint goes in one physics step. A target that moves is trailed by
# (1 - gain) / gain steps of motion; `motion.control_path` sends it ahead by as much.
ARM_GAIN, FINGER_GAIN = 0.25, 0.25
LAG_SUBSTEPS = np.array([(1.0 - ARM_GAIN) / ARM_GAIN] * 7 + [(1.0 - FINGER_GAIN) / FINGER_GAIN] * 2)
TORQUE = [87.0] * 4 + [12.0] * 3 + [panda.FINGER_FORCE] * 2
# Bullet multiplies two bodies' friction where MuJoCo takes the greater one. The object keeps its own; the others are
# divided by it in each scene, so that the products come out as MuJoCo's maxima.
FINGER_FRICTION, ROBOT_FRICTION, TABLE_FRICTION = 1.2, 0.4, 0.8
SPINNING_FRICTION = 0.01
SOLVER_ITERATIONS = 100
# MuJoCo's ambient light, its headlight without a direction, and a share of its sheen: the pictures' mean is the same.
AMBIENT = 0.48
_NEAR_M, _FAR_M = 0.02, 6.0
_FLOOR_M = -0.4
# Positions and rates of nine joints, the object's pose (xyz, quaternion xyzw) and twist.
_PHYSICS_SIZE = 2 * CONTROLS + 7 + 6


class _Client:
    """PyBullet's functions for one physics server inside this process (the package's own wrapper prints)."""

    def __init__(self) -> None:
        self._number = pybullet.connect(pybullet.DIRECT)
        if self._number < 0:
            raise RuntimeError(
                "PyBullet opens no more physics servers in this process; close worlds that are done with"
            )
        # Once: by `close`, or when the world is forgotten.
        self._end = weakref.finalize(self, pybullet.disconnect, self._number)

    def __getattr__(self, name: str) -> Any:
        return functools.partial(getattr(pybullet, name), physicsClientId=self._number)

    def close(self) -> None:
        self._end()


class PybulletWorld:
    """One tabletop: apply a scene, place the arm, step actions, take pictures, save and restore everything."""

    state_size = SCENE_SIZE + COMMAND_SIZE + _PHYSICS_SIZE

    def __init__(self) -> None:
        self.scene: Scene
        self.command = Command(HOME_JOINTS.copy(), np.zeros(3), np.zeros(3), np.asarray(0.0))
        self.kinematics = ArmKinematics()
        self._client = _Client()
        self._client.setTimeStep(PHYSICS_STEP_S)
        self._client.setGravity(0, 0, -9.81)
        self._client.setPhysicsEngineParameter(
            numSolverIterations=SOLVER_ITERATIONS, deterministicOverlappingPairs=1, warmStartingFactor=0.0
        )
        self._object = -1
        # Between policy steps the world is in a canonical state, and this is it; None while a stream has left it.
        self._canonical: np.ndarray | None = None
        with tempfile.TemporaryDirectory() as folder:
            self._load_table(Path(folder))
            self._load_arm(Path(folder))

    # -- building --------------------------------------------------------------------------------------------------

    def _load_table(self, folder: Path) -> None:
        client = self._client
        half = (*TABLE_HALF, 0.02)
        self._table = client.createMultiBody(
            0.0,
            client.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half),
            self._visual([("box", half, (0.0, 0.0, 0.0))], [1.0] * 4),
            basePosition=[*TABLE_CENTER, -half[2]],
        )
        floor = client.createVisualShape(pybullet.GEOM_BOX, halfExtents=[3, 3, 0.01], rgbaColor=[0.28, 0.3, 0.33, 1])
        client.createMultiBody(0.0, -1, floor, basePosition=[0, 0, _FLOOR_M - 0.01])
        self._textures = {}
        for name in TABLE_TEXTURES:
            file = folder / f"{name}.png"
            repeats = TEXTURE_REPEATS[name]
            Image.fromarray(np.tile(table_picture(name), (repeats, repeats, 1))).save(file)
            self._textures[name] = client.loadTexture(str(file))

    def _visual(self, parts: Parts, color: list[float]) -> int:
        vertices, normals, uvs = triangles(parts)
        return self._client.createVisualShape(
            pybullet.GEOM_MESH,
            vertices=vertices.tolist(),
            normals=normals.tolist(),
            uvs=uvs.tolist(),
            indices=list(range(len(vertices))),
            rgbaColor=color,
        )

    def _load_arm(self, folder: Path) -> None:
        client = self._client
        file = folder / "panda.urdf"
        file.write_text(arm_description(), encoding="utf-8")
        self._arm = client.loadURDF(str(file), useFixedBase=True)
        links: dict[str, int] = {}
        joints: dict[str, int] = {}
        for index in range(client.getNumJoints(self._arm)):
            info = client.getJointInfo(self._arm, index)
            joints[info[1].decode()], links[info[12].decode()] = index, index
        self._joints = [joints[name] for name in (*JOINT_NAMES, *panda.FINGER_JOINTS)]
        self._fingers = self._joints[7:]
        self._tool, self._hand = links["panda_grasptarget"], links[panda.HAND]
        for link in range(-1, client.getNumJoints(self._arm)):
            client.changeDynamics(self._arm, link, linearDamping=0.0, angularDamping=0.0, jointDamping=0.0)
            client.setCollisionFilterGroupMask(self._arm, link, panda.ROBOT_BIT, panda.WORLD_BIT)
        for link in self._fingers:
            client.changeDynamics(self._arm, link, spinningFriction=SPINNING_FRICTION)
        coupling = client.createConstraint(
            self._arm, self._fingers[0], self._arm, self._fingers[1], pybullet.JOINT_GEAR, [0, 1, 0], [0] * 3, [0] * 3
        )
        client.changeConstraint(coupling, gearRatio=-1, erp=0.2, maxForce=2 * panda.FINGER_FORCE)

    # -- scene -----------------------------------------------------------------------------------------------------

    def apply_scene(self, scene: Scene) -> None:
        """Build a scene; the object lies still at its place, the arm stands as it stood."""
        self._build_scene(scene)
        self.place_object(np.array([*scene.object_position, scene.object_half[2] + 1e-4]), scene.object_yaw)
        self._settle()

    def _build_scene(self, scene: Scene) -> None:
        """Everything of a scene that is not in the physics: shapes, colours, frictions, light and camera."""
        client = self._client
        if self._object >= 0:
            client.removeBody(self._object)
        self.scene = scene
        self._center, inertia = _mass_center(scene), _inertia(scene)
        parts = scene.object_parts()
        kinds = [pybullet.GEOM_BOX if kind == "box" else pybullet.GEOM_CYLINDER for kind, _, _ in parts]
        shape = client.createCollisionShapeArray(
            shapeTypes=kinds,
            halfExtents=[list(half) for _, half, _ in parts],
            radii=[half[0] for _, half, _ in parts],
            lengths=[2 * half[2] for _, half, _ in parts],
            collisionFramePositions=[list(center) for _, _, center in parts],
        )
        self._object = client.createMultiBody(
            scene.object_mass,
            shape,
            self._visual(parts, [*scene.object_color, 1.0]),
            baseInertialFramePosition=list(self._center),
        )
        friction = scene.object_friction
        client.changeDynamics(
            self._object, -1, lateralFriction=friction, spinningFriction=SPINNING_FRICTION, linearDamping=0.0,
            angularDamping=0.0, localInertiaDiagonal=list(inertia),
        )  # fmt: skip
        client.changeDynamics(self._table, -1, lateralFriction=max(TABLE_FRICTION, friction) / friction)
        for link in range(-1, client.getNumJoints(self._arm)):
            own = FINGER_FRICTION if link in self._fingers else ROBOT_FRICTION
            client.changeDynamics(self._arm, link, lateralFriction=max(own, friction) / friction)
        brightness = min(1.0, scene.table_brightness * 1.3)
        client.changeVisualShape(
            self._table, -1, textureUniqueId=self._textures[scene.table_texture], rgbaColor=[*[brightness] * 3, 1.0]
        )

    # -- placing ---------------------------------------------------------------------------------------------------

    def place_object(self, position: np.ndarray, yaw: float) -> None:
        """Put the object down at rest."""
        middle = position + panda.rotation_from_rpy(np.array([0.0, 0.0, yaw])) @ self._center
        quaternion = [0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)]
        self._client.resetBasePositionAndOrientation(self._object, middle.tolist(), quaternion)

    def place_arm(self, position: np.ndarray, rpy: np.ndarray, gripper: float) -> None:
        """Put the arm at rest with its tool at a pose."""
        joints = self.kinematics.solve(HOME_JOINTS, position, panda.rotation_from_rpy(rpy), iterations=25)
        self.command = Command(joints, np.array(position), np.array(rpy), np.asarray(gripper, dtype=np.float64))
        self._write_joints(np.append(joints, [FINGER_TRAVEL_M * (1.0 - gripper)] * 2), np.zeros(CONTROLS))
        self._settle()

    # -- stepping --------------------------------------------------------------------------------------------------

    def step(self, action: np.ndarray) -> None:
        """One policy step of a physical action (7,)."""
        after = motion.next_command(self.command, self.tool_position(), self.gripper(), action, self.kinematics)
        self.stream(motion.control_path(self.command, after, LAG_SUBSTEPS))
        self.command = after
        self._settle()

    def stream(self, controls: np.ndarray) -> None:
        """Run servo targets (substeps, 9) through the physics."""
        client = self._client
        gains = [ARM_GAIN] * 7 + [FINGER_GAIN] * 2
        for row in controls:
            client.setJointMotorControlArray(
                self._arm, self._joints, pybullet.POSITION_CONTROL, targetPositions=row.tolist(), forces=TORQUE,
                positionGains=gains, velocityGains=[1.0] * CONTROLS,
            )  # fmt: skip
            client.stepSimulation()
        self._canonical = None

    # -- reading ---------------------------------------------------------------------------------------------------

    def tool_position(self) -> np.ndarray:
        """Where the point between the finger tips is (3,), m."""
        return np.array(self._client.getLinkState(self._arm, self._tool, computeForwardKinematics=1)[4])

    def tool_rotation(self) -> np.ndarray:
        """The tool's rotation matrix (3, 3)."""
        quaternion = self._client.getLinkState(self._arm, self._tool, computeForwardKinematics=1)[5]
        return np.array(pybullet.getMatrixFromQuaternion(quaternion)).reshape(3, 3)

    def gripper(self) -> np.ndarray:
        """How closed the gripper is, 0 open to 1 closed."""
        opening = sum(state[0] for state in self._client.getJointStates(self._arm, self._fingers))
        return np.asarray(np.clip(1.0 - opening / (2 * FINGER_TRAVEL_M), 0.0, 1.0))

    def joints(self) -> np.ndarray:
        """Joint angles (7,), rad."""
        return np.array([state[0] for state in self._client.getJointStates(self._arm, self._joints[:7])])

    def object_pose(self) -> np.ndarray:
        """Object position and quaternion wxyz (7,)."""
        mass_center, (x, y, z, w) = self._client.getBasePositionAndOrientation(self._object)
        turn = np.array(pybullet.getMatrixFromQuaternion((x, y, z, w))).reshape(3, 3)
        return np.array([*(np.array(mass_center) - turn @ self._center), w, x, y, z])

    # -- pictures --------------------------------------------------------------------------------------------------

    def render(self, camera: str, size: int) -> np.ndarray:
        """A picture (size, size, 3) uint8 from `front` or `wrist`."""
        if camera == "front":
            view, up = self.scene.front_camera(), np.array([0.0, 0.0, 1.0])
            eye, target = np.array(view.position), np.array(view.target)
        else:
            view: Camera = WRIST
            state = self._client.getLinkState(self._arm, self._hand, computeForwardKinematics=1)
            turn = np.array(pybullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)
            eye, target = (np.array(state[4]) + turn @ np.array(point) for point in (view.position, view.target))
            up = turn[:, 0]
        azimuth = math.radians(self.scene.light_azimuth_deg)
        _, _, pixels, _, _ = self._client.getCameraImage(
            size,
            size,
            viewMatrix=pybullet.computeViewMatrix(eye.tolist(), target.tolist(), up.tolist()),
            projectionMatrix=pybullet.computeProjectionMatrixFOV(view.fov_deg, 1.0, _NEAR_M, _FAR_M),
            lightDirection=[-0.5 * math.cos(azimuth), -0.5 * math.sin(azimuth), 0.85],
            lightColor=[1.0, 1.0, 1.0],
            lightAmbientCoeff=AMBIENT,
            lightDiffuseCoeff=self.scene.light_strength,
            lightSpecularCoeff=0.0,
            shadow=0,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            renderer=pybullet.ER_TINY_RENDERER,
        )
        picture = np.frombuffer(bytes(pixels), np.uint8) if isinstance(pixels, tuple) else np.asarray(pixels, np.uint8)
        return picture.reshape(size, size, 4)[..., :3].copy()

    def close(self) -> None:
        """End the physics client."""
        self._client.close()

    # -- saving ----------------------------------------------------------------------------------------------------

    def save(self) -> np.ndarray:
        """Scene, command and physics as one vector (state_size,) float64, complete in itself."""
        if self._canonical is None:
            self._settle()
        assert self._canonical is not None
        return np.concatenate([self.scene.to_vector(), self.command.to_vector(), self._canonical])

    def restore(self, state: np.ndarray) -> None:
        """Back to a saved state, its scene included."""
        if state.shape != (self.state_size,):
            raise ValueError(f"a PyBullet tabletop state has {self.state_size} numbers; got shape {state.shape}")
        scene = Scene.from_vector(state[:SCENE_SIZE])
        if not hasattr(self, "scene") or scene != self.scene:
            self._build_scene(scene)
        self.command = Command.from_vector(state[SCENE_SIZE : SCENE_SIZE + COMMAND_SIZE].copy())
        self._write(state[SCENE_SIZE + COMMAND_SIZE :].copy())

    def _settle(self) -> None:
        """Make the state canonical: read it as numbers, and write those numbers back."""
        client = self._client
        states = client.getJointStates(self._arm, self._joints)
        position, quaternion = client.getBasePositionAndOrientation(self._object)
        linear, angular = client.getBaseVelocity(self._object)
        rates = [[state[i] for state in states] for i in (0, 1)]
        self._write(np.array([*rates[0], *rates[1], *position, *quaternion, *linear, *angular]))

    def _write(self, physics: np.ndarray) -> None:
        joints, rates, pose, twist = np.split(physics, [CONTROLS, 2 * CONTROLS, 2 * CONTROLS + 7])
        self._write_joints(joints, rates)
        self._client.resetBasePositionAndOrientation(self._object, pose[:3].tolist(), pose[3:].tolist())
        self._client.resetBaseVelocity(self._object, twist[:3].tolist(), twist[3:].tolist())
        self._forget_contacts()
        self._canonical = physics

    def _write_joints(self, positions: np.ndarray, rates: np.ndarray) -> None:
        for joint, position, rate in zip(self._joints, positions.tolist(), rates.tolist(), strict=True):
            self._client.resetJointState(self._arm, joint, position, rate)

    def _forget_contacts(self) -> None:
        """Empty Bullet's contact caches: a new filter, though the same, makes it drop the pairs it remembers.

        All pairs have the object or the table in them, since the arm does not touch itself.
        """
        for body in (self._object, self._table):
            self._client.setCollisionFilterGroupMask(body, -1, panda.WORLD_BIT, panda.WORLD_BIT | panda.ROBOT_BIT)


def _mass_center(scene: Scene) -> np.ndarray:
    """Where the object's mass is centred (3,) in its own frame."""
    parts = scene.object_parts()
    areas = np.array([half[0] * half[1] for _, half, _ in parts])
    return (areas[:, None] * np.array([center for _, _, center in parts])).sum(0) / areas.sum()


def _inertia(scene: Scene) -> np.ndarray:
    """The object's principal inertias (3,), of one box of its outline, as in MuJoCo."""
    x, y, z = scene.object_half
    return scene.object_mass / 3 * np.array([y * y + z * z, x * x + z * z, x * x + y * y])
