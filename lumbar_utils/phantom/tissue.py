"""All tissue in the mid-sagittal plane, as shapes in millimetres that are painted one over the other.

From the skin of the belly over bowel, vessels, vertebrae, discs and the spinal canal to the skin of the back.
"""

from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from lumbar_utils.phantom.anatomy import NAMES, Spine, Vertebra, along, is_sacral, normal, up

# Positions along the spine: 0 is T9's upper end plate, 1 is T10's, and so on
LEVEL = {name: index for index, name in enumerate(NAMES)}
# Mean and standard deviation of the tip of the spinal cord: lower third of L1 on average, between T12 and L3 (Saifuddin
# et al. 1998, Spine 23:1452).
CONUS = (LEVEL["L1"] + 0.75, 0.45)
# Width in mm of the dural sac from front to back: our assumption.
SAC = {"T9": 13, "T12": 14, "L1": 14, "L3": 12, "L5": 11, "S1": 9.5, "S2": 5, "S3": 0.5}
# Length, height in mm and slant in degrees of the spinous processes: our assumption.
PROCESSES = {
    "T9": (26, 9, 40), "T10": (25, 10, 38), "T11": (25, 12, 35), "T12": (26, 14, 28), "L1": (30, 18, 24),
    "L2": (32, 20, 22), "L3": (33, 21, 22), "L4": (30, 18, 20), "L5": (24, 13, 16),
}  # fmt: skip
SACRAL_CREST = {"S1": 9, "S2": 7, "S3": 6, "S4": 5, "S5": 5}  # mm behind the canal: our assumption
GRID = np.arange(-420.0, 220.0, 2.0)  # y in mm at which curves through the whole trunk are sampled
FEET, HEAD, FAR = 250.0, -450.0, 500.0  # beyond any field of view


class Shape(NamedTuple):
    """One piece of tissue. points: (points, 2) in mm, a closed polygon; with a width in mm, an open line that wide."""

    tissue: str
    points: np.ndarray
    width: float = 0.0


class Scene(NamedTuple):
    """shapes: in the order of painting. skin, front: x in mm of the back's skin and of the spine's front, over GRID."""

    shapes: list[Shape]
    skin: np.ndarray
    front: np.ndarray


class Course(NamedTuple):
    """A curve along the spine from head to feet.

    points: (n, 2) in mm. normals: (n, 2), unit vectors towards the back. level: (n,), position along the spine.
    """

    points: np.ndarray
    normals: np.ndarray
    level: np.ndarray

    def beside(self, offset: np.ndarray | float) -> np.ndarray:
        """(n, 2), the curve moved towards the back by `offset` mm: a number or (n,)."""
        return self.points + np.broadcast_to(offset, len(self.points))[:, None] * self.normals

    def strip(self, near: np.ndarray | float, far: np.ndarray | float, part=slice(None)) -> np.ndarray:
        """Polygon between two offsets in mm. part: boolean mask of the points to use."""
        return np.concatenate([self.beside(near)[part], self.beside(far)[part][::-1]])

    def at(self, level: float) -> int:
        """Index of the point nearest to a position along the spine."""
        return int(np.argmin(np.abs(self.level - level)))


def draw_scene(rng: np.random.Generator, spine: Spine, variation: float) -> Scene:
    """All tissue of a patient. variation: factor on every standard deviation."""
    walls, fronts = _course(spine, corners=(1, 2)), _course(spine, corners=(0, 3))  # back walls, front walls
    front = _over_grid(fronts.points, 3)
    near, far = _sac(rng, walls, variation)
    tips, processes = _spinous_processes(rng, spine, walls, walls.beside(far))
    skin = tips + _fat_thickness(rng, variation)
    shapes = _belly(rng, front) + _pelvis(rng, fronts) + _before_the_spine(rng, fronts)
    shapes += _back(rng, walls, tips, skin) + processes + _canal(rng, walls, near, far, variation)
    shapes += _discs(spine) + _vertebral_bodies(rng, spine) + _long_ligaments(walls, fronts) + _lesions(rng, spine)
    return Scene(shapes, skin, front)


def _course(spine: Spine, corners: tuple[int, int]) -> Course:
    """The smooth curve through two corners, an upper and a lower one, of all vertebrae."""
    knots = np.concatenate([vertebra.corners[list(corners)] for vertebra in spine.vertebrae.values()])
    knots = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])
    knot_levels = np.concatenate([[-0.75], *[[i, i + 0.75] for i in range(len(NAMES))], [len(NAMES) + 0.5]])
    level = np.linspace(knot_levels[0], knot_levels[-1] - 0.3, 260)
    points = np.stack([np.interp(level, knot_levels, axis) for axis in knots.T], axis=1)
    points = gaussian_filter1d(points, 5, axis=0, mode="nearest")
    down = gaussian_filter1d(np.gradient(points, axis=0), 4, axis=0, mode="nearest")
    return Course(points, np.stack([down[:, 1], -down[:, 0]], axis=1) / np.hypot(*down.T)[:, None], level)


def _over_grid(points: np.ndarray, smooth: float) -> np.ndarray:
    """x in mm over GRID of a curve (n, 2) from head to feet, smoothed over so many steps of GRID."""
    y, order = np.unique(points[:, 1], return_index=True)
    return gaussian_filter1d(np.interp(GRID, y, points[order, 0]), smooth, mode="nearest")


def _line(x: np.ndarray) -> np.ndarray:
    """(n, 2), the curve of x over GRID."""
    return np.stack([x, GRID], axis=1)


def _random_curve(rng: np.random.Generator, count: int, spread_mm: float, smooth: float) -> np.ndarray:
    """(count,) offsets in mm: noise of that standard deviation, smoothed."""
    return gaussian_filter1d(spread_mm * rng.standard_normal(count), smooth)


def _blob(rng: np.random.Generator, centre, radii, roughness: float = 0.12, tilt: float = 0.0) -> np.ndarray:
    """A closed, smooth outline (40, 2) about a centre. radii: mm along and across a tilt in degrees."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 1 + gaussian_filter1d(roughness * 3 * rng.standard_normal(40), 3, mode="wrap")
    across, upwards = np.cos(angle) * radius * radii[0], np.sin(angle) * radius * radii[1]
    return np.asarray(centre) + across[:, None] * along(tilt) + upwards[:, None] * up(tilt)


def _with_cortex(tissue: str, outline: np.ndarray, rim_mm: float) -> list[Shape]:
    """The filled outline, and the cortex around it."""
    return [Shape(tissue, outline), Shape("cortex", np.concatenate([outline, outline[:1]]), rim_mm)]


def _sac(rng: np.random.Generator, walls: Course, variation: float) -> tuple[np.ndarray, np.ndarray]:
    """Offsets in mm of the front and the back of the dural sac from the back walls of the vertebrae."""
    low = 1 / (1 + np.exp((LEVEL["L5"] + 0.6 - walls.level) / 0.35))
    near = 1.6 + low * normal(rng, 3.0, 1.3 * variation)
    width = np.interp(walls.level, [LEVEL[name] for name in SAC], list(SAC.values()))
    return near, near + gaussian_filter1d(width, 5) * normal(rng, 1, 0.10 * variation)


def _spinous_processes(
    rng: np.random.Generator, spine: Spine, walls: Course, behind: np.ndarray
) -> tuple[np.ndarray, list[Shape]]:
    """x in mm over GRID of the line through the tips of the spinous processes, and the processes.

    behind: (n, 2), the back of the dural sac.
    """
    tips, shapes, scale = [], [], normal(rng, 1, 0.08)
    for name, (length, height, slant) in PROCESSES.items():
        tilt = spine.vertebrae[name].tilt
        root, downwards = behind[walls.at(LEVEL[name] + 0.78)] + 4.5 * along(tilt), tilt - normal(rng, slant, 4)
        length, height = length * scale * normal(rng, 1, 0.08), height * scale * normal(rng, 1, 0.10)
        shapes += _with_cortex("marrow", _process(rng, root, downwards, length, height), 1.0)
        tips.append(root + length * along(downwards))
    for name, gap in SACRAL_CREST.items():
        at = walls.at(LEVEL[name] + 0.4)
        tips.append(behind[at] + gap * walls.normals[at])
    tips.append(tips[-1] + (0, 40))
    return _over_grid(np.array(tips), 8) + 2, shapes


def _process(rng: np.random.Generator, root: np.ndarray, tilt: float, length: float, height: float) -> np.ndarray:
    """Outline (40, 2) of a spinous process: narrow at the lamina, broad behind."""
    t = np.linspace(0, 1, 20)
    uneven = gaussian_filter1d(3.0 * rng.standard_normal((2, 20)), 1.5, axis=1)
    half = (height / 2 * np.interp(t, [0, 0.45], [0.6, 1]) + uneven) * np.minimum(1, 7 * np.minimum(t, 1 - t)) ** 0.4
    middle = root + t[:, None] * length * along(tilt)
    return np.concatenate([middle + half[0][:, None] * up(tilt), (middle - 1.1 * half[1][:, None] * up(tilt))[::-1]])


def _fat_thickness(rng: np.random.Generator, variation: float) -> np.ndarray:
    """Thickness in mm over GRID of the fat between the processes' tips and the skin: thickest over the sacrum."""
    thick = np.clip(14 * np.exp(0.55 * variation * rng.standard_normal()), 4, 50)
    hump = np.exp(-(((GRID - normal(rng, 0, 15)) / 55) ** 2))
    return 3 + thick * (0.55 + 0.6 * hump + 0.1 * np.sin(GRID / 60 + rng.uniform(0, 6)))


def _belly(rng: np.random.Generator, front: np.ndarray) -> list[Shape]:
    """Air before the belly, its wall of skin, fat and muscle, and the bowel. front: x of the spine over GRID."""
    wall = gaussian_filter1d(front, 25) - rng.uniform(85, 150) - 12 * np.sin(GRID / 90 + rng.uniform(0, 6))
    thick = np.clip(15 * np.exp(0.5 * rng.standard_normal()), 5, 40)
    shapes = [Shape("air", np.array([(-FAR, HEAD), (FAR, HEAD), (FAR, FEET), (-FAR, FEET)]))]
    for tissue, outside in (("skin", thick + 9), ("fat", thick + 7), ("muscle", 7), ("mesentery", 0)):
        shapes.append(Shape(tissue, np.concatenate([_line(wall - outside), [(FAR, FEET), (FAR, HEAD)]])))
    for _ in range(rng.integers(45, 70)):
        y = rng.uniform(-270, 90)
        x = rng.uniform(np.interp(y, GRID, wall) + 8, np.interp(y, GRID, front) - 26)
        shapes += _bowel(rng, (x, y), rng.uniform(4, 13, 2))
    return shapes


def _bowel(rng: np.random.Generator, centre, radii: np.ndarray) -> list[Shape]:
    """One loop of bowel: its wall and its content."""
    loop, content = _blob(rng, (0, 0), radii, 0.16, rng.uniform(-80, 80)), rng.choice(3, p=[0.55, 0.3, 0.15])
    inside = Shape(("bowel", "chyme", "gas")[content], centre + loop * (1 - 1.6 / radii.mean()))
    return [Shape("bowel", centre + loop), inside]


def _pelvis(rng: np.random.Generator, fronts: Course) -> list[Shape]:
    """Fat before the sacrum with rectum, sigmoid and small vessels, and before it the bladder or the uterus."""
    sacrum = fronts.beside(-1)[fronts.at(LEVEL["L5"] + 0.3) :]
    t = np.linspace(0, 1, 30)
    edge = sacrum[0] + np.outer(t, (rng.uniform(-70, -25), 190))
    edge[:, 0] += _random_curve(rng, 30, 18, 4) * np.minimum(1, 5 * t)
    shapes = [Shape("fat", np.concatenate([sacrum, [(90, FEET)], edge[::-1]]))]
    for _ in range(rng.integers(3, 8)):
        shapes += _bowel(rng, rng.choice(sacrum[40:]) + rng.uniform((-55, 0), (-20, 25)), rng.uniform(5, 13, 2))
    for _ in range(rng.integers(0, 8)):
        centre = rng.choice(sacrum[40:]) + rng.uniform((-50, 0), (-8, 20))
        shapes.append(Shape("muscle", _blob(rng, centre, rng.uniform(1, 2.2, 2))))
    if rng.random() < 0.6:
        organ = _blob(rng, sacrum[-1] + rng.uniform((-95, -15), (-60, 30)), rng.uniform(18, 34, 2))
        shapes.append(Shape("chyme" if rng.random() < 0.5 else "muscle", organ))
    return shapes


def _before_the_spine(rng: np.random.Generator, fronts: Course) -> list[Shape]:
    """A layer of fat, and the part of the aorta or the vena cava that lies in the slice, dark because of flow."""
    count = len(fronts.level)
    fat = np.maximum(normal(rng, 5, 1.5) + _random_curve(rng, count, 8, 12), 1.5)
    shapes = [Shape("fat", fronts.strip(3, -fat))]
    top, bottom = LEVEL["T9"] + rng.uniform(-2, 3.5), LEVEL["L4"] + rng.uniform(-1.5, 0.6)
    taper = np.clip(np.minimum(fronts.level - top, bottom - fronts.level) / 0.8, 0, 1) ** 0.5
    centre, half = -fat - 10 + _random_curve(rng, count, 6, 20), rng.uniform(5.5, 9.5) * taper
    if rng.random() < 0.6:
        shapes.append(Shape("muscle", fronts.strip(centre + half + 1, centre - half - 1, taper > 0)))
        shapes.append(Shape("blood", fronts.strip(centre + half, centre - half, taper > 0)))
    return shapes


def _back(rng: np.random.Generator, walls: Course, tips: np.ndarray, skin: np.ndarray) -> list[Shape]:
    """Muscle and ligaments between the processes, the fat under the skin with its septa, and the air behind."""
    inner, outer = walls.beside(4), _line(tips)
    lowest = walls.points[walls.at(LEVEL["S4"]), 1]
    shapes = [Shape("fat", np.concatenate([inner, [(inner[-1, 0], FEET)], _line(skin)[::-1]]))]
    shapes.append(Shape("fibres", np.concatenate([inner[inner[:, 1] < lowest], outer[lowest > GRID][::-1]])))
    for _ in range(rng.integers(14, 24)):
        centre = walls.beside(rng.uniform(22, 46))[rng.integers(40, len(walls.level) - 45)]
        islet = _blob(rng, centre, rng.uniform((1.5, 5), (4, 13)), 0.25, rng.uniform(-25, 25))
        shapes.append(Shape("fat" if rng.random() < 0.5 else "muscle", islet))
    for _ in range(rng.integers(25, 60)):
        y, t = rng.uniform(GRID[60], GRID[-10]), np.linspace(0, rng.uniform(6, 22), 8)
        x = np.interp(y, GRID, tips) + rng.uniform(2, 45) + normal(rng, 0.5, 0.35) * t + 0.8 * np.sin(t / 3)
        shapes.append(Shape("fibres", np.stack([x, y + t], axis=1), 0.5))
    shapes += [Shape("ligament", outer[lowest > GRID], 2.2), Shape("skin", _line(skin), 2.0)]
    return [*shapes, Shape("air", np.concatenate([_line(skin + 1), [(FAR, FEET), (FAR, HEAD)]]))]


def _canal(rng: np.random.Generator, walls: Course, near: np.ndarray, far: np.ndarray, variation: float) -> list[Shape]:
    """Epidural fat with its pads between the laminae, dura, fluid, spinal cord and cauda equina.

    near, far: (n,) offsets in mm of the front and the back of the dural sac from the back walls.
    """
    level = walls.level
    between_laminae = np.exp(-((((level + 0.35) % 1 - 0.5) / 0.20) ** 2)) * np.interp(
        level, [2, 5, 9, 11], [0.3, 1, 1, 0]
    )
    pads = 0.8 + normal(rng, 5.0, 1.0) * between_laminae + np.interp(level, [8.5, 10, 13], [0, 3, 2])
    shapes = [Shape("ligament", walls.strip(0, far + pads + 1.6)), Shape("fat", walls.strip(0.8, far + pads))]
    sac = level < LEVEL["S3"]
    shapes += [Shape("ligament", walls.strip(near - 0.5, far + 0.5, sac)), Shape("fluid", walls.strip(near, far, sac))]
    conus, middle = normal(rng, CONUS[0], CONUS[1] * variation), near + 0.52 * (far - near)
    cord = np.clip((conus - level) / 0.9, 0, 1) ** 0.7 * normal(rng, 3.6, 0.25)
    shapes.append(Shape("cord", walls.strip(middle - cord, middle + cord, cord > 0)))
    for _ in range(rng.integers(9, 16)):
        start, end = conus - rng.uniform(0, 0.8), rng.uniform(LEVEL["L4"], LEVEL["S2"])
        depth = rng.uniform(0.05, 0.45) + _random_curve(rng, len(level), 0.25, 8)
        sunk = np.clip((level - start) / 1.2, 0, 1) * depth
        root = walls.beside(near + (far - near) * (0.5 + sunk).clip(0.08, 0.94))
        shapes.append(Shape("root", root[(level > start) & (level < end)], rng.uniform(0.6, 1.3)))
    return shapes


def _discs(spine: Spine) -> list[Shape]:
    """Annulus and, above the sacrum, a nucleus in up to three rings, and in moist discs the intranuclear cleft."""
    rings = [("dry nucleus", 1.25, 0.0), ("drying nucleus", 1.1, 0.4), ("moist nucleus", 0.95, 0.65)]
    shapes = []
    for disc in spine.discs:
        shapes.append(Shape("annulus", disc.outline))
        if is_sacral(disc.above):
            continue
        middle = disc.nucleus.mean(axis=0)
        for tissue, size, least_water in rings:
            if disc.water >= least_water:
                shapes.append(Shape(tissue, middle + size * (disc.nucleus - middle)))
        if disc.water >= 0.65:
            shapes.append(Shape("drying nucleus", middle + 0.5 * (disc.nucleus[[16, 0]] - middle), 0.8))
    return shapes


def _vertebral_bodies(rng: np.random.Generator, spine: Spine) -> list[Shape]:
    """Marrow with islands, the basivertebral vein above the sacrum, and the cortex."""
    shapes = []
    for vertebra in spine.vertebrae.values():
        sacral = is_sacral(vertebra.name)
        marrow, cortex = _with_cortex("marrow", vertebra.outline, 0.6 if sacral else 0.9)
        shapes += [marrow, *_islands(rng, vertebra)]
        if not sacral:
            front, back = vertebra.corners[[0, 3]].mean(axis=0), vertebra.corners[1:3].mean(axis=0)
            half = rng.uniform(0.8, 2.2) * up(vertebra.tilt)
            tip = back + (front - back) * rng.uniform(0.10, 0.30) + rng.normal(0, 0.8, 2)
            shapes.append(Shape("vein", np.stack([back + half, tip, back - half])))
        shapes.append(cortex)
    return shapes


def _islands(rng: np.random.Generator, vertebra: Vertebra) -> list[Shape]:
    """Islands of fatty and of red marrow, well within the body."""
    corners = vertebra.corners
    wide, high = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    shapes = []
    for _ in range(rng.integers(3, 9)):
        centre = vertebra.centre + rng.uniform(-0.65, 0.65) * wide + rng.uniform(-0.6, 0.6) * high
        kind = "fatty marrow" if rng.random() < 0.5 else "red marrow"
        shapes.append(Shape(kind, _blob(rng, centre, rng.uniform(0.8, 3.0, 2), 0.25)))
    return shapes


def _long_ligaments(walls: Course, fronts: Course) -> list[Shape]:
    """The posterior and the anterior longitudinal ligament, down to the middle of S1."""
    part = walls.level < LEVEL["S1"] + 0.5
    return [Shape("ligament", walls.beside(0.6)[part], 1.0), Shape("ligament", fronts.beside(-0.6)[part], 1.2)]


def _lesions(rng: np.random.Generator, spine: Spine) -> list[Shape]:
    """Haemangiomas, and metal behind the canal: no signal around it, and a bright rim of displaced signal."""
    shapes = []
    for finding in spine.findings:
        vertebra, severity = spine.vertebrae[finding["level"]], finding["severity"]
        if finding["finding"] == "haemangioma":
            radius, centre = 3 + 4 * severity, vertebra.centre + rng.uniform((-6, -2), (6, 2))
            shapes.append(Shape("haemangioma", _blob(rng, centre, (radius, 0.75 * radius))))
        elif finding["finding"] == "metal artefact":
            radius = 9 + 7 * severity
            centre = vertebra.centre + along(vertebra.tilt - 10) * (42 + radius)
            shapes.append(Shape("pile-up", _blob(rng, centre, (radius * 1.15, radius * 1.3), 0.2)))
            shapes.append(Shape("void", _blob(rng, centre, (radius, radius * 1.2), 0.2)))
    return shapes
