"""What PyBullet is told of shapes: the robot's file rewritten for it, and triangles for what one sees of the rest."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree

import numpy as np

from envs import panda

Parts = list[tuple[str, tuple[float, float, float], tuple[float, float, float]]]
_CYLINDER_SIDES = 32


def arm_description() -> str:
    """The robot file as PyBullet shall read it: the light meshes to see, the primitives to touch, likely inertias."""
    root = ElementTree.parse(panda.urdf_path()).getroot()
    for link in root.findall("link"):
        name = link.attrib["name"]
        for tag in ("contact", "collision"):
            for element in link.findall(tag):
                link.remove(element)
        inertial, visual = link.find("inertial"), link.find("visual")
        if inertial is not None:
            mass, inertia = inertial.find("mass"), inertial.find("inertia")
            assert mass is not None
            assert inertia is not None
            if name == "panda_grasptarget":
                mass.set("value", "0.001")
            value = str(panda.link_inertia(float(mass.attrib["value"])))
            inertia.attrib.update({axis: value if axis in ("ixx", "iyy", "izz") else "0" for axis in inertia.attrib})
        if visual is not None:
            mesh, material = visual.find("geometry/mesh"), visual.find("material")
            assert mesh is not None
            mesh.set("filename", str(panda.mesh_path(mesh.attrib["filename"])))
            if material is not None:
                visual.remove(material)
            color = " ".join(map(str, panda.link_color(name)))
            material = ElementTree.SubElement(visual, "material", name=f"{name}_color")
            ElementTree.SubElement(material, "color", rgba=color)
        for shape, size, position, euler in panda.CONTACT_SHAPES.get(name, []):
            collision = ElementTree.SubElement(link, "collision")
            ElementTree.SubElement(collision, "origin", xyz=_words(position), rpy=_words(euler))
            geometry = ElementTree.SubElement(collision, "geometry")
            if shape == "box":
                ElementTree.SubElement(geometry, "box", size=_words(tuple(2 * s for s in size)))
            else:
                ElementTree.SubElement(geometry, "capsule", radius=str(size[0]), length=str(2 * size[1]))
    return ElementTree.tostring(root, encoding="unicode")


def _words(numbers: tuple[float, ...]) -> str:
    return " ".join(str(number) for number in numbers)


def triangles(parts: Parts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles of boxes and cylinders, three rows each: vertices (N, 3), normals (N, 3), texture coordinates (N, 2).

    Bullet's own cylinder has rounded shading where its rim is sharp, and its own box repeats no texture over a face.
    A box's texture lies over its x and y.
    """
    vertices: list[np.ndarray] = []
    normals: list[np.ndarray] = []
    uvs: list[np.ndarray] = []

    def quad(corners: np.ndarray, facing: np.ndarray, half: np.ndarray, center: np.ndarray) -> None:
        for index in (0, 1, 2, 0, 2, 3):
            vertices.append(corners[index] * half + center)
            normals.append(facing[index] if facing.ndim == 2 else facing)
            uvs.append((corners[index, :2] + 1) / 2)

    ring = np.linspace(0.0, 2 * math.pi, _CYLINDER_SIDES + 1)
    rim = np.stack([np.cos(ring), np.sin(ring), np.zeros_like(ring)], axis=1)
    up = np.array([0.0, 0.0, 1.0])
    for kind, half, center in parts:
        size, middle = np.array(half), np.array(center)
        if kind == "box":
            for axis in range(3):
                for sign in (-1.0, 1.0):
                    facing, a = np.zeros(3), np.zeros(3)
                    facing[axis], a[(axis + 1) % 3] = sign, 1.0
                    b = np.cross(facing, a)
                    corners = np.array([facing - a - b, facing + a - b, facing + a + b, facing - a + b])
                    quad(corners, facing, size, middle)
            continue
        for a, b in itertools.pairwise(rim):
            quad(np.array([a - up, b - up, b + up, a + up]), np.array([a, b, b, a]), size, middle)
            quad(np.array([up, a + up, b + up, up]), up, size, middle)
            quad(np.array([-up, b - up, a - up, -up]), -up, size, middle)
    return np.array(vertices), np.array(normals), np.array(uvs)
