"""The tabletop in MuJoCo: one compiled model for all scenes, fast pictures, and futures stepped in batch.

A scene is written into the compiled model's fields (sizes, colours, masses, light, camera), so a reset costs no
compilation. Rendering goes without shadows, multisampling and reflections; docs/results.md has what that gives.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (mujoco is a binary module whose functions and enums no stub describes)

from __future__ import annotations

import atexit
import math

import mujoco
import mujoco.rollout
import numpy as np

from envs import motion, panda
from envs.kinematics import ArmKinematics, BatchedKinematics
from envs.motion import COMMAND_SIZE, Command
from envs.tabletop import (
    FINGER_TRAVEL_M,
    HOME_JOINTS,
    OBJECT_KINDS,
    PHYSICS_STEP_S,
    SCENE_SIZE,
    SUBSTEPS,
    TABLE_CENTER,
    TABLE_HALF,
    TABLE_TEXTURES,
    TEXTURE_REPEATS,
    WRIST,
    Camera,
    Scene,
    table_picture,
)

OBJECT = "object"
OBJECT_BOUND_M = 0.07
_LAG = np.array([d / k for d, k in zip(panda.SERVO_DAMPING, panda.SERVO_STIFFNESS, strict=True)])
LAG_SUBSTEPS = np.append(_LAG, [panda.FINGER_DAMPING / panda.FINGER_STIFFNESS] * 2) / PHYSICS_STEP_S
STATE_SPEC = int(mujoco.mjtState.mjSTATE_INTEGRATION)
# Size of the shadow map and samples a pixel: plain pictures go without, fine ones have MuJoCo's own defaults.
_PLAIN, _FINE = (0, 0), (4096, 4)


def _textures(spec: mujoco.MjSpec) -> None:
    """One material a table texture; the scene's brightness tints it."""
    for name in TABLE_TEXTURES:
        picture = table_picture(name)
        spec.add_texture(
            name=name,
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            width=picture.shape[1],
            height=picture.shape[0],
            nchannel=3,
            data=picture.ravel().tolist(),
        )
        material = spec.add_material(name=name, texrepeat=[TEXTURE_REPEATS[name]] * 2)
        material.textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = name


def build_model(fine_pictures: bool = False) -> mujoco.MjModel:
    """The compiled tabletop, before any scene is applied."""
    spec = mujoco.MjSpec()
    spec.option.timestep = PHYSICS_STEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 2.0
    # Enough for a squeezed object: at 20 iterations an unfinished solution shot objects out of the gripper.
    spec.option.iterations = 100
    spec.option.ls_iterations = 50
    spec.visual.quality.shadowsize, spec.visual.quality.offsamples = _FINE if fine_pictures else _PLAIN
    spec.visual.global_.offwidth = spec.visual.global_.offheight = 512
    spec.visual.map.znear = 0.02
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.15, 0.15, 0.15]
    spec.visual.headlight.specular = [0.0, 0.0, 0.0]
    _textures(spec)
    world = spec.worldbody
    world.add_light(name="lamp", pos=[0, 0, 2], dir=[0, 0, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    world.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[*TABLE_HALF, 0.02],
        pos=[*TABLE_CENTER, -0.02],
        material=TABLE_TEXTURES[0],
        contype=panda.WORLD_BIT,
        conaffinity=panda.WORLD_BIT | panda.ROBOT_BIT,
        friction=[0.8, 0.005, 0.0001],
    )
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3, 3, 0.1], pos=[0, 0, -0.4], rgba=[0.28, 0.3, 0.33, 1],
        contype=0, conaffinity=0,
    )  # fmt: skip
    world.add_camera(name="front", resolution=[96, 96])
    panda.add_panda(spec, visuals=True)
    wrist = spec.body(panda.HAND).add_camera(name="wrist", resolution=[96, 96])
    wrist.pos, wrist.quat, wrist.fovy = WRIST.position, _camera_quat(WRIST, up=(1.0, 0.0, 0.0)), WRIST.fov_deg
    body = world.add_body(name=OBJECT, pos=[0.5, 0.0, 0.03])
    body.add_freejoint(name=OBJECT)
    for name, kind in (("box", "box"), ("cylinder", "cylinder"), ("ell0", "box"), ("ell1", "box")):
        body.add_geom(
            name=f"object_{name}",
            type=mujoco.mjtGeom.mjGEOM_BOX if kind == "box" else mujoco.mjtGeom.mjGEOM_CYLINDER,
            # A shape compiled at its body's origin is taken to stay there; an ell's bars do not.
            pos=[0.0, 0.01, 0.0] if name.startswith("ell") else [0.0, 0.0, 0.0],
            # The compiled bounding boxes of the broad phase stay: they must hold the largest object a scene may ask for.
            size=[OBJECT_BOUND_M] * 3,
            mass=0.025,
            condim=6,
            solref=[0.01, 1.0],
        )
    return spec.compile()


def _camera_quat(camera: Camera, up: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> np.ndarray:
    """Orientation wxyz of a camera that looks from its position to its target."""
    backward = np.asarray(camera.position) - np.asarray(camera.target)
    backward /= np.linalg.norm(backward)
    right = np.cross(np.asarray(up), backward)
    right /= np.linalg.norm(right)
    quaternion = np.zeros(4)
    mujoco.mju_mat2Quat(quaternion, np.stack([right, np.cross(backward, right), backward], axis=1).ravel())
    return quaternion


def _close_renderers(renderers: dict[int, mujoco.Renderer]) -> None:
    for renderer in renderers.values():
        renderer.close()
    renderers.clear()


class MujocoWorld:
    """One tabletop: apply a scene, place the arm, step actions, take pictures, save and restore everything.

    Args:
        fine_pictures: with shadows, reflections and multisampling; brains are trained without.
    """

    def __init__(self, fine_pictures: bool = False) -> None:
        self.model = build_model(fine_pictures)
        self._fine_pictures = fine_pictures
        self.data = mujoco.MjData(self.model)
        self.kinematics = ArmKinematics()
        self._renderers: dict[int, mujoco.Renderer] = {}
        self._site = self.model.site(panda.GRASP_SITE).id
        self._object_qpos = int(self.model.jnt_qposadr[self.model.joint(OBJECT).id])
        self._object_qvel = int(self.model.jnt_dofadr[self.model.joint(OBJECT).id])
        self._physics_size = mujoco.mj_stateSize(self.model, STATE_SPEC)
        self.state_size = SCENE_SIZE + COMMAND_SIZE + self._physics_size
        self.command = Command(HOME_JOINTS.copy(), np.zeros(3), np.zeros(3), np.asarray(0.0))

    # -- scene -----------------------------------------------------------------------------------------------------

    def apply_scene(self, scene: Scene) -> None:
        """Write a scene into the model and clear the physics; the object lies still at its place."""
        self.set_scene_fields(scene)
        mujoco.mj_resetData(self.model, self.data)
        x, y = scene.object_position
        self.place_object(np.array([x, y, scene.object_half[2] + 1e-4]), scene.object_yaw)

    def set_scene_fields(self, scene: Scene) -> None:
        """Everything of a scene that lives in the model rather than in the state."""
        self.scene = scene
        model = self.model
        parts = scene.object_parts()
        names = {"box": ["box"], "cylinder": ["cylinder"], "ell": ["ell0", "ell1"]}[scene.object_kind]
        for name in ("box", "cylinder", "ell0", "ell1"):
            geom = model.geom(f"object_{name}").id
            used = name in names
            model.geom_rgba[geom] = [*scene.object_color, 1.0 if used else 0.0]
            model.geom_contype[geom] = panda.WORLD_BIT if used else 0
            model.geom_conaffinity[geom] = (panda.WORLD_BIT | panda.ROBOT_BIT) if used else 0
            if not used:
                continue
            primitive, half, center = parts[names.index(name)]
            size = [half[0], half[2], 0.0] if primitive == "cylinder" else list(half)
            model.geom_size[geom], model.geom_pos[geom] = size, center
            model.geom_friction[geom] = [scene.object_friction, 0.01, 0.003]
        self._set_object_mass(scene)
        table = model.geom("table").id
        model.geom_matid[table] = model.material(scene.table_texture).id
        model.geom_rgba[table] = [*([min(1.0, scene.table_brightness * 1.3)] * 3), 1.0]
        azimuth = math.radians(scene.light_azimuth_deg)
        model.light_dir[0] = np.array([0.5 * math.cos(azimuth), 0.5 * math.sin(azimuth), -0.85])
        model.light_diffuse[0] = scene.light_strength
        camera = scene.front_camera()
        front = model.camera("front").id
        model.cam_pos[front], model.cam_quat[front] = camera.position, _camera_quat(camera)
        model.cam_fovy[front] = camera.fov_deg

    def _set_object_mass(self, scene: Scene) -> None:
        """Mass and inertia of the object as one box of its outline (exact for a box, close for the others)."""
        body = self.model.body(OBJECT).id
        x, y, z = scene.object_half
        mass = scene.object_mass
        self.model.body_mass[body] = mass
        self.model.body_inertia[body] = mass / 3 * np.array([y * y + z * z, x * x + z * z, x * x + y * y])
        center = np.zeros(3)
        if scene.object_kind == "ell":
            parts = scene.object_parts()
            areas = np.array([half[0] * half[1] for _, half, _ in parts])
            center = (areas[:, None] * np.array([c for _, _, c in parts])).sum(0) / areas.sum()
        self.model.body_ipos[body] = center
        self.model.body_iquat[body] = [1.0, 0.0, 0.0, 0.0]
        # Constants the solver derives from mass and inertia.
        scratch = mujoco.MjData(self.model)
        mujoco.mj_setConst(self.model, scratch)

    # -- placing ---------------------------------------------------------------------------------------------------

    def place_object(self, position: np.ndarray, yaw: float) -> None:
        """Put the object down at rest."""
        q, v = self._object_qpos, self._object_qvel
        self.data.qpos[q : q + 3] = position
        self.data.qpos[q + 3 : q + 7] = [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)]
        self.data.qvel[v : v + 6] = 0.0
        mujoco.mj_forward(self.model, self.data)

    def place_arm(self, position: np.ndarray, rpy: np.ndarray, gripper: float) -> None:
        """Put the arm at rest with its tool at a pose."""
        joints = self.kinematics.solve(HOME_JOINTS, position, panda.rotation_from_rpy(rpy), iterations=25)
        self.data.qpos[:7] = joints
        self.data.qpos[7:9] = FINGER_TRAVEL_M * (1.0 - gripper)
        self.data.qvel[:9] = 0.0
        self.command = Command(joints, np.array(position), np.array(rpy), np.asarray(gripper, dtype=np.float64))
        self.data.ctrl[:] = [*joints, *([FINGER_TRAVEL_M * (1.0 - gripper)] * 2)]
        mujoco.mj_forward(self.model, self.data)

    # -- stepping --------------------------------------------------------------------------------------------------

    def step(self, action: np.ndarray) -> None:
        """One policy step of a physical action (7,)."""
        after = motion.next_command(self.command, self.tool_position(), self.gripper(), action, self.kinematics)
        self.stream(motion.control_path(self.command, after, LAG_SUBSTEPS))
        self.command = after

    def stream(self, controls: np.ndarray) -> None:
        """Run servo targets (substeps, 9) through the physics."""
        for row in controls:
            self.data.ctrl[:] = row
            mujoco.mj_step(self.model, self.data)
        # Positions after the last substep are new, what derives from them is not yet.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)

    # -- reading ---------------------------------------------------------------------------------------------------

    def tool_position(self) -> np.ndarray:
        """Where the point between the finger tips is (3,), m."""
        return self.data.site_xpos[self._site].copy()

    def tool_rotation(self) -> np.ndarray:
        """The tool's rotation matrix (3, 3)."""
        return self.data.site_xmat[self._site].reshape(3, 3).copy()

    def gripper(self) -> np.ndarray:
        """How closed the gripper is, 0 open to 1 closed."""
        return np.asarray(np.clip(1.0 - self.data.qpos[7:9].sum() / (2 * FINGER_TRAVEL_M), 0.0, 1.0))

    def joints(self) -> np.ndarray:
        """Joint angles (7,), rad."""
        return self.data.qpos[:7].copy()

    def object_pose(self) -> np.ndarray:
        """Object position and quaternion wxyz (7,)."""
        return self.data.qpos[self._object_qpos : self._object_qpos + 7].copy()

    # -- pictures --------------------------------------------------------------------------------------------------

    def render(self, camera: str, size: int) -> np.ndarray:
        """A picture (size, size, 3) uint8 from `front` or `wrist`."""
        renderer = self._renderers.get(size)
        if renderer is None:
            renderer = self._renderers[size] = mujoco.Renderer(self.model, size, size)
            # Freed before the interpreter tears EGL down, also where nobody calls close(): the last registered runs
            # first, so this must come after the renderer has registered EGL's own end.
            atexit.register(_close_renderers, self._renderers)
        renderer.update_scene(self.data, camera)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[int(flag)] = int(self._fine_pictures)
        return renderer.render()

    def close(self) -> None:
        """Free the renderers."""
        _close_renderers(self._renderers)

    # -- saving ----------------------------------------------------------------------------------------------------

    def save(self) -> np.ndarray:
        """Scene, command and physics as one vector (state_size,) float64, complete in itself."""
        physics = np.zeros(self._physics_size)
        mujoco.mj_getState(self.model, self.data, physics, STATE_SPEC)
        return np.concatenate([self.scene.to_vector(), self.command.to_vector(), physics])

    def restore(self, state: np.ndarray) -> None:
        """Back to a saved state, its scene included."""
        if state.shape != (self.state_size,):
            raise ValueError(f"a MuJoCo tabletop state has {self.state_size} numbers; got shape {state.shape}")
        scene = Scene.from_vector(state[:SCENE_SIZE])
        if not hasattr(self, "scene") or scene != self.scene:
            self.set_scene_fields(scene)
        self.command = Command.from_vector(state[SCENE_SIZE : SCENE_SIZE + COMMAND_SIZE].copy())
        mujoco.mj_setState(self.model, self.data, state[SCENE_SIZE + COMMAND_SIZE :], STATE_SPEC)
        mujoco.mj_forward(self.model, self.data)


class BatchedFutures:
    """Many futures of one saved state at once, on all cores, with the same motion as `MujocoWorld.step`."""

    def __init__(self, threads: int) -> None:
        self.world = MujocoWorld()
        self.kinematics = BatchedKinematics()
        self._pool = mujoco.rollout.Rollout(nthread=threads)
        self._data = [mujoco.MjData(self.world.model) for _ in range(max(1, threads))]

    def step(self, physics: np.ndarray, command: Command, actions: np.ndarray) -> tuple[np.ndarray, Command]:
        """One policy step for N futures of the scene the world holds.

        Args:
            physics: full physics states (N, P).
            command: commands with leading axis N.
            actions: physical actions (N, 7).
        """
        tool, gripper = self.measure(physics)
        after = motion.next_command(command, tool, gripper, actions, self.kinematics)
        controls = motion.control_path(command, after, LAG_SUBSTEPS)
        states, _ = self._pool.rollout(
            self.world.model,
            self._data,
            physics[:, : self.full_size],
            np.ascontiguousarray(controls),
            nstep=SUBSTEPS,
            initial_warmstart=None,
        )
        return np.asarray(states)[:, -1], after

    @property
    def full_size(self) -> int:
        """Numbers in a full physics state (time, positions, velocities, activations)."""
        return mujoco.mj_stateSize(self.world.model, int(mujoco.mjtState.mjSTATE_FULLPHYSICS))

    def measure(self, physics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tool positions (N, 3) and gripper closedness (N,) of full physics states (N, P)."""
        tool, _, _ = self.kinematics.forward(physics[:, 1:8])
        return tool, np.clip(1.0 - physics[:, 8:10].sum(1) / (2 * FINGER_TRAVEL_M), 0.0, 1.0)

    def states(self, physics: np.ndarray) -> np.ndarray:
        """`observation.state` (N, 7) of full physics states (N, P): tool position, roll, pitch, yaw, closedness."""
        tool, rotation, _ = self.kinematics.forward(physics[:, 1:8])
        _, gripper = self.measure(physics)
        return np.concatenate([tool, panda.tool_rpy(rotation), gripper[:, None]], axis=1)

    def object_positions(self, physics: np.ndarray) -> np.ndarray:
        """Object positions (N, 3) of full physics states (N, P)."""
        return physics[:, 10:13]


assert OBJECT_KINDS == ("box", "cylinder", "ell"), "mujoco_world builds one geom set per kind"
