"""What lies about the spine in the mid-sagittal plane, as shapes to be painted one over the other, in millimetres.

The scene runs from the belly's skin over bowel, vessels, bodies, discs and the canal to the skin of the back.
"""

from typing import NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from lumbar_utils.datasets.anatomy import NAMES, Spine, along, normal, up

# Tip of the spinal cord, in levels below the upper end plate of L1. Saifuddin et al. 1998 (Spine 23:1452): lower third
# of L1 on average, between T12 and L3.
CONUS = (0.75, 0.45)
# Width in mm of the dural sac from front to back, at the upper end plate of each level: our assumption.
SAC = {"T9": 14, "T12": 15, "L1": 15.5, "L3": 14, "L5": 12.5, "S1": 11, "S2": 6, "S3": 0.5}
# Length and height of the spinous process in mm: our assumption; the lumbar ones are long hatchets, the thoracic ones slant down.
PROCESS = {"T9": (26, 9), "T10": (25, 10), "T11": (25, 12), "T12": (26, 15), "L1": (29, 18), "L2": (30, 20), "L3": (31, 20), "L4": (29, 18), "L5": (23, 14)}  # fmt: skip
GRID = np.arange(-420.0, 220.0, 2.0)  # y of the curves that run the whole height of the body


class Shape(NamedTuple):
    """points: (n, 2). width 0 fills the closed polygon; any other draws the open line that wide."""

    tissue: str
    points: np.ndarray
    width: float = 0.0


class Scene(NamedTuple):
    """shapes: in the order of painting; skin, front: x of the back's skin and of the spine's front over GRID."""

    shapes: list[Shape]
    skin: np.ndarray
    front: np.ndarray


class Course(NamedTuple):
    """A curve along the spine, head to feet: points and unit normals to the back (n, 2), levels below T9's top (n,)."""

    points: np.ndarray
    normals: np.ndarray
    level: np.ndarray

    def beside(self, offset: np.ndarray | float) -> np.ndarray:
        """The curve moved to the back by `offset` mm."""
        return self.points + np.broadcast_to(offset, len(self.points))[:, None] * self.normals

    def strip(self, near: np.ndarray | float, far: np.ndarray | float) -> np.ndarray:
        return np.concatenate([self.beside(near), self.beside(far)[::-1]])


def draw_scene(rng: np.random.Generator, spine: Spine, variation: float) -> Scene:
    walls, fronts = _course(spine, back=True), _course(spine, back=False)
    sac_near, sac_far = _sac(rng, walls, variation)
    tips, processes = _processes(rng, spine, walls, sac_far)
    skin = tips + _fat_thickness(rng, variation)
    front = _over_grid(fronts.points)
    shapes = _belly(rng, spine, fronts, front)
    shapes += _back(rng, walls, tips, skin) + processes
    shapes += _canal(rng, walls, sac_near, sac_far, variation)
    shapes += _discs(spine) + _bodies(rng, spine, walls, fronts) + _metal(rng, spine)
    return Scene(shapes, skin, front)


def _course(spine: Spine, back: bool) -> Course:
    """Through the upper and lower corners of all bodies, on the back or the front side."""
    top, bottom = (1, 2) if back else (0, 3)
    knots = np.concatenate([[body.corners[top], body.corners[bottom]] for body in spine.vertebrae.values()])
    level = np.concatenate([[i, i + 0.75] for i in range(len(NAMES))])
    fine = np.linspace(level[0] - 0.8, level[-1] + 0.5, 260)
    points = np.stack([np.interp(fine, level, axis) for axis in knots.T], axis=1)
    before, after = fine < level[0], fine > level[-1]
    points[before] += (fine[before, None] - level[0]) * (knots[1] - knots[0]) / 0.75
    points[after] += (fine[after, None] - level[-1]) * (knots[-1] - knots[-2]) / 0.75
    points = gaussian_filter1d(points, 5, axis=0, mode="nearest")
    down = gaussian_filter1d(np.gradient(points, axis=0), 4, axis=0, mode="nearest")
    normals = np.stack([down[:, 1], -down[:, 0]], axis=1) / np.hypot(*down.T)[:, None]
    return Course(points, normals, fine)


def _over_grid(points: np.ndarray, smooth: float = 3) -> np.ndarray:
    """x over GRID of a curve that runs from head to feet."""
    order = np.argsort(points[:, 1])
    y, first = np.unique(points[order, 1], return_index=True)
    return gaussian_filter1d(np.interp(GRID, y, points[order[first], 0]), smooth, mode="nearest")


def _at(values: dict[str, float], level: np.ndarray) -> np.ndarray:
    return PchipInterpolator([NAMES.index(name) for name in values], list(values.values()))(level.clip(0, NAMES.index("S3")))


def _sac(rng: np.random.Generator, walls: Course, variation: float) -> tuple[np.ndarray, np.ndarray]:
    """Offsets in mm of the front and the back of the dural sac from the back walls of the bodies."""
    low = 1 / (1 + np.exp(-(walls.level - NAMES.index("L5") - 0.6) / 0.35))
    near = 1.6 + low * normal(rng, 3.0, 1.3 * variation)
    width = _at(SAC, walls.level) * normal(rng, 1, 0.10 * variation)
    return near, near + np.maximum(width, 0.4)


def _processes(rng: np.random.Generator, spine: Spine, walls: Course, sac_far: np.ndarray) -> tuple[np.ndarray, list[Shape]]:
    """x over GRID of the line through the tips of the spinous processes, and the processes."""
    tips, shapes, scale = [], [], normal(rng, 1, 0.08)
    behind = walls.beside(sac_far)
    for name, (length, height) in PROCESS.items():
        slant = -normal(rng, 14 if name[0] == "L" else 38, 4)
        body, at = spine.vertebrae[name], np.argmin(np.abs(walls.level - NAMES.index(name) - 0.78))
        backwards = along(body.tilt + slant)
        root = behind[at] + 4.5 * along(body.tilt)
        length, height = length * scale * normal(rng, 1, 0.08), height * scale * normal(rng, 1, 0.10)
        shapes += _process(rng, root, backwards, up(body.tilt + slant), length, height)
        tips.append(root + backwards * length)
    for name, gap in (("S1", 9), ("S2", 7), ("S3", 6), ("S4", 5), ("S5", 5)):
        at = np.argmin(np.abs(walls.level - NAMES.index(name) - 0.4))
        tips.append(behind[at] + gap * walls.normals[at])
    tips.append(tips[-1] + (0, 40))
    return _over_grid(np.array(tips), 8) + 2, shapes


def _process(rng, root, backwards, upwards, length: float, height: float) -> list[Shape]:
    """A hatchet: narrow neck at the lamina, broad blade behind, marrow inside a dark rim."""
    t = np.linspace(0, 1, 16)
    half = height / 2 * (0.62 + 0.38 * np.sin(np.pi * (t - 0.15) / 1.3)) * np.minimum(1, 6 * np.minimum(t + 0.02, 1.02 - t)) ** 0.5
    half = half * (1 + gaussian_filter1d(0.25 * rng.standard_normal((2, 16)), 2, axis=1))
    spine = root + t[:, None] * length * backwards
    outline = np.concatenate([spine + half[0][:, None] * upwards, (spine - 1.15 * half[1][:, None] * upwards)[::-1]])
    return [Shape("marrow", outline), Shape("cortex", np.concatenate([outline, outline[:1]]), 1.3)]


def _fat_thickness(rng: np.random.Generator, variation: float) -> np.ndarray:
    """Of the fat between the processes' tips and the skin, over GRID in mm: thickest over the sacrum."""
    thick = np.clip(14 * np.exp(0.55 * variation * rng.standard_normal()), 4, 50)
    hump = np.exp(-(((GRID - normal(rng, 0, 15)) / 55) ** 2))
    return 3 + thick * (0.55 + 0.6 * hump + 0.1 * np.sin(GRID / 60 + rng.uniform(0, 6)))


def _wavy(rng: np.random.Generator, centre, radii, roughness: float = 0.12, tilt: float = 0.0) -> np.ndarray:
    """A closed, smooth blob."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 1 + gaussian_filter1d(roughness * 3 * rng.standard_normal(40), 3, mode="wrap")
    blob = np.stack([np.cos(angle) * radii[0], np.sin(angle) * radii[1]], axis=1) * radius[:, None]
    return np.asarray(centre) + blob[:, :1] * along(tilt) - blob[:, 1:] * up(tilt)


def _belly(rng: np.random.Generator, spine: Spine, fronts: Course, front: np.ndarray) -> list[Shape]:
    """Belly wall, bowel, the great vessel, and the fat before the spine and the sacrum."""
    depth = rng.uniform(85, 150) + 12 * np.sin(GRID / 90 + rng.uniform(0, 6))
    wall = gaussian_filter1d(front, 25, mode="nearest") - depth
    everything = np.array([(-400, -450), (400, -450), (400, 250), (-400, 250)], float)
    shapes = [Shape("fat", everything), Shape("viscera", np.concatenate([_line(wall), [(400, 250), (400, -450)]]))]
    for _ in range(rng.integers(16, 26)):
        y = rng.uniform(-260, 60)
        x = np.interp(y, GRID, front) - rng.uniform(28, 110)
        kind = rng.choice(["bowel", "fat", "gas", "muscle"], p=[0.45, 0.3, 0.1, 0.15])
        shapes += [Shape(kind, _wavy(rng, (x, y), rng.uniform(5, 16, 2), 0.2, rng.uniform(-60, 60)))]
    pelvis = np.concatenate([fronts.beside(-1)[fronts.level > NAMES.index("L5")], [(40, 250), (-130, 250), (-75, 20), (-45, -5)]])
    shapes.append(Shape("fat", pelvis))
    for _ in range(rng.integers(3, 8)):
        at, away = rng.uniform(0.15, 1), rng.uniform(22, 60)
        centre = fronts.points[fronts.level > NAMES.index("S1")][int(at * 60)] + (-away, 0.3 * away)
        radii = rng.uniform(4, 14, 2)
        shapes.append(Shape("muscle", _wavy(rng, centre, radii + 2.0)))
        shapes.append(Shape(str(rng.choice(["gas", "bowel", "viscera"])), _wavy(rng, centre, radii)))
    fat = normal(rng, 5, 1.5) + gaussian_filter1d(8 * rng.standard_normal(len(fronts.level)), 12)
    shapes.append(Shape("fat", fronts.strip(3, -np.maximum(fat, 1.5))))
    if rng.random() < 0.6:
        shapes += _vessel(rng, fronts, np.maximum(fat, 1.5))
    return shapes


def _vessel(rng: np.random.Generator, fronts: Course, fat: np.ndarray) -> list[Shape]:
    """The aorta or the caval vein before the bodies, as far as it stays in the slice, dark by flow."""
    top, bottom = NAMES.index("T9") + rng.uniform(-2, 3.5), NAMES.index("L4") + rng.uniform(-1.5, 0.6)
    taper = np.clip(np.minimum(fronts.level - top, bottom - fronts.level) / 0.8, 0, 1) ** 0.5
    width = rng.uniform(11, 19) * taper
    centre = -fat - 10 + gaussian_filter1d(6 * rng.standard_normal(len(fat)), 20)
    inside = (fronts.level > top) & (fronts.level < bottom)
    part = Course(fronts.points[inside], fronts.normals[inside], fronts.level[inside])
    near, far = (centre + width / 2)[inside], (centre - width / 2)[inside]
    return [Shape("muscle", part.strip(near + 1, far - 1)), Shape("blood", part.strip(near, far))]


def _line(x: np.ndarray) -> np.ndarray:
    return np.stack([x, GRID], axis=1)


def _back(rng: np.random.Generator, walls: Course, tips: np.ndarray, skin: np.ndarray) -> list[Shape]:
    """Muscle and ligaments between the processes, fat under the skin with its septa, and the air behind."""
    inner = walls.beside(4)
    outer = _line(tips)
    shapes = [Shape("fat", np.concatenate([inner, _line(skin)[::-1]]))]
    shapes.append(Shape("septum", np.concatenate([inner, outer[::-1]])))
    for _ in range(rng.integers(14, 24)):
        i = rng.integers(40, len(walls.level) - 45)
        at = walls.points[i] + walls.normals[i] * rng.uniform(22, 46)
        shapes.append(Shape(str(rng.choice(["fat", "muscle"])), _wavy(rng, at, (rng.uniform(1.5, 4), rng.uniform(5, 13)), 0.25, rng.uniform(-25, 25))))
    for _ in range(rng.integers(25, 60)):
        y = rng.uniform(GRID[60], GRID[-10])
        x = np.interp(y, GRID, tips) + rng.uniform(2, 45)
        t = np.linspace(0, rng.uniform(6, 22), 8)
        lean = normal(rng, 0.5, 0.35)
        shapes.append(Shape("septum", np.stack([x + lean * t + 0.8 * np.sin(t / 3), y + t], axis=1), 0.5))
    shapes.append(Shape("ligament", outer, 2.2))
    shapes.append(Shape("skin", _line(skin), 2.0))
    shapes.append(Shape("air", np.concatenate([_line(skin + 1), [(500, 250), (500, -450)]])))
    return shapes


def _canal(rng, walls: Course, near: np.ndarray, far: np.ndarray, variation: float) -> list[Shape]:
    """Ligaments, epidural fat with its pads behind the sac, dura, fluid, cord and the roots of the horse's tail."""
    phase = (walls.level % 1) - 0.55
    pads = 1.2 + 3.6 * np.exp(-((phase / 0.22) ** 2)) * np.interp(walls.level, [2, 5, 9, 10], [0.3, 1, 1, 0.6])
    low = np.interp(walls.level, [8.5, 10, 13], [0, 3, 2])
    shapes = [Shape("ligament", walls.strip(0, far + pads + low + 1.6)), Shape("fat", walls.strip(0.8, far + pads + low))]
    shapes += [Shape("ligament", walls.strip(near - 0.5, far + 0.5)), Shape("fluid", walls.strip(near, far))]
    conus = NAMES.index("L1") + normal(rng, CONUS[0], CONUS[1] * variation)
    cord = np.clip((conus - walls.level) / 0.9, 0, 1) ** 0.7 * normal(rng, 7.2, 0.5) + 0.2
    middle = near + (far - near) * 0.52
    above = walls.level < conus
    part = Course(walls.points[above], walls.normals[above], walls.level[above])
    shapes.append(Shape("cord", part.strip((middle - cord / 2)[above], (middle + cord / 2)[above])))
    for _ in range(rng.integers(7, 12)):
        start, end = conus - rng.uniform(0, 0.8), rng.uniform(NAMES.index("L4"), NAMES.index("S2"))
        inside = (walls.level > start) & (walls.level < end)
        lie = rng.uniform(0.55, 0.95) + 0.05 * gaussian_filter1d(rng.standard_normal(len(near)), 8) * 5
        sunk = np.clip((walls.level - start) / 1.2, 0, 1)
        offset = near + (far - near) * (0.5 + (lie - 0.5) * sunk).clip(0.08, 0.94)
        shapes.append(Shape("root", walls.beside(offset)[inside], rng.uniform(0.5, 1.0)))
    return shapes


def _discs(spine: Spine) -> list[Shape]:
    shapes = []
    for disc in spine.discs:
        sacral = disc.above[0] == "S"
        shapes.append(Shape("annulus", disc.outline))
        if not sacral:
            grade = "moist" if disc.water > 0.6 else "drying" if disc.water > 0.3 else "dry"
            shapes.append(Shape(f"{grade} nucleus", disc.nucleus))
            middle = disc.nucleus.mean(axis=0)
            shapes.append(Shape("annulus", middle + 0.75 * (disc.nucleus[[16, 0]] - middle), 0.8))
    return shapes


def _bodies(rng: np.random.Generator, spine: Spine, walls: Course, fronts: Course) -> list[Shape]:
    """Marrow within its cortex, the basivertebral vein, haemangiomas, and the long ligaments before and behind."""
    shapes = []
    for body in spine.vertebrae.values():
        shapes.append(Shape("marrow", body.outline))
        if body.name[0] != "S":
            front, back = body.corners[[0, 3]].mean(axis=0), body.corners[1:3].mean(axis=0)
            inwards, down = (front - back) * rng.uniform(0.18, 0.32), -up(body.tilt) * rng.uniform(1.2, 2.4)
            tip = back + inwards + rng.normal(0, 0.6, 2)
            shapes.append(Shape("vein", np.stack([back - 0.05 * inwards - down, tip, back - 0.05 * inwards + down])))
        shapes.append(Shape("cortex", np.concatenate([body.outline, body.outline[:1]]), 1.1 if body.name[0] != "S" else 0.9))
    for found in spine.findings:
        if found["finding"] == "haemangioma":
            body, radius = spine.vertebrae[found["level"]], 3.0 + 4.0 * found["severity"]
            centre = body.centre + rng.uniform(-1, 1, 2) * (6, 3)
            shapes.append(Shape("haemangioma", _wavy(rng, centre, (radius, 0.9 * radius), 0.1)))
    free = walls.level < NAMES.index("S1") + 0.5
    shapes.append(Shape("ligament", walls.beside(0.6)[free], 1.0))
    shapes.append(Shape("ligament", fronts.beside(-0.6)[free], 1.2))
    return shapes


def _metal(rng: np.random.Generator, spine: Spine) -> list[Shape]:
    """Signal lost about a metal implant behind the canal, with a bright edge where the signal piles up."""
    shapes = []
    for found in spine.findings:
        if found["finding"] == "metal artefact":
            body, radius = spine.vertebrae[found["level"]], 9 + 7 * found["severity"]
            centre = body.centre + along(body.tilt - 10) * (42 + radius)
            shapes.append(Shape("pile-up", _wavy(rng, centre, (radius * 1.15, radius * 1.3), 0.2)))
            shapes.append(Shape("void", _wavy(rng, centre, (radius, radius * 1.2), 0.2)))
    return shapes
