"""Geometry of one patient's spine in the mid-sagittal plane, in millimetres, drawn from published distributions.

x grows towards the back (right in the image), y towards the feet (down); the origin is the centre of S1's upper end
plate. A tilt is the angle of an end plate in degrees, positive where its back edge lies higher than its front edge.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from lumbar_utils import LEVELS

# Means in mm and degrees: height of the body, depth of its upper and lower end plate, wedge of the body (positive:
# higher in front), height and wedge of the disc below it.
# Depths of T9-L5 after Panjabi et al. 1991 and 1992 (Spine 16:888, 17:299). Disc heights of L3-L5: Zhou et al. 2000
# (Eur Spine J 9:242). Heights of L1-L5: our measurement of the bodies annotated in SPIDER (van der Graaf et al. 2024,
# Sci Data 11:264). The share of each level in the lordosis, the other discs and the sacrum are our assumption.
ANATOMY = {
    "T9": (22.0, 28.0, 29.0, -3.0, 5.0, -1.0),
    "T10": (23.0, 29.0, 30.0, -3.0, 5.5, -0.5),
    "T11": (24.0, 30.0, 31.0, -3.0, 6.0, 0.0),
    "T12": (25.5, 31.5, 32.5, -3.0, 7.0, 1.0),
    "L1": (27.0, 34.1, 35.3, -2.0, 8.5, 5.0),
    "L2": (27.5, 34.6, 34.9, 0.0, 10.0, 7.0),
    "L3": (28.0, 35.2, 34.8, 1.0, 11.6, 9.0),
    "L4": (27.5, 35.5, 34.4, 2.0, 11.3, 12.0),
    "L5": (27.0, 34.7, 33.5, 8.0, 10.7, 14.0),
    "S1": (27.0, 33.5, 22.0, 18.0, 2.0, 3.0),
    "S2": (22.0, 20.5, 16.5, 2.0, 1.0, 0.0),
    "S3": (18.0, 16.0, 13.0, -9.0, 0.7, 0.0),
    "S4": (15.0, 12.5, 10.5, -14.0, 0.6, 0.0),
    "S5": (13.0, 10.0, 7.5, -14.0, 0.6, 0.0),
}
NAMES = tuple(ANATOMY)
LUMBAR = slice(NAMES.index("L1"), NAMES.index("S1"))

# Mean and standard deviation. Sacral slope and lordosis L1-S1 of standing volunteers: 41 (8) and 60 (10), Vialle et al.
# 2005 (J Bone Joint Surg Am 87:260). Lying down the lordosis is 13 degrees less (627 volunteers, PMC6680033); a slope 3
# degrees less, the narrower spreads, and a correlation of 0.8 between the two are our assumption.
SACRAL_SLOPE = (38.0, 7.5)
LORDOSIS = (47.0, 9.0)
SIZE = (1.0, 0.06)  # factor on all lengths of a patient: about the spread of both sexes in Zhou et al. 2000
LEVEL_SPREAD = 0.03  # of one level against its neighbours, relative: our assumption
NARROWEST_DISC_MM = 2.2  # the least distance of two vertebral bodies

# Share of patients with the finding (easy, typical, hard), levels where it may occur, and at most how many; a disc
# is named after the vertebra above it. Haemangioma: 11 % at autopsy (Schmorl and Junghanns 1971). Disc degeneration:
# 37 % of healthy people aged 20, 96 % aged 80 (Brinjikji et al. 2015, AJNR 36:811). All other rates are our assumption.
FINDINGS = {
    "disc degeneration": ((0.25, 0.65, 0.85), ("L5", "L4", "L3", "L2", "L1"), 3),
    "osteophytes": ((0.05, 0.30, 0.60), ("L5", "L4", "L3", "L2", "L1"), 3),
    "wedge fracture": ((0.0, 0.03, 0.08), ("T12", "L1", "L2", "L3"), 1),
    "biconcave fracture": ((0.0, 0.03, 0.08), ("L1", "L2", "L3", "L4"), 1),
    "Schmorl node": ((0.05, 0.15, 0.30), ("T12", "L1", "L2", "L3", "L4"), 2),
    "spondylolisthesis": ((0.0, 0.04, 0.10), ("L4", "L5"), 1),
    "haemangioma": ((0.03, 0.11, 0.15), ("T12", "L1", "L2", "L3", "L4", "L5"), 1),
    "transitional vertebra": ((0.0, 0.02, 0.06), ("L5", "S1"), 1),
    "metal artefact": ((0.0, 0.02, 0.06), ("L3", "L4", "L5"), 1),
}
DIFFICULTIES = ("easy", "typical", "hard")


class Vertebra(NamedTuple):
    """One vertebral body, in mm.

    corners: (4, 2), front-top, back-top, back-bottom, front-bottom. outline: (points, 2), a closed polygon.
    """

    name: str
    corners: np.ndarray
    outline: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        """(x, y), the mean of the corners."""
        return self.corners.mean(axis=0)

    @property
    def tilt(self) -> float:
        """Tilt of the upper end plate in degrees."""
        return tilt_of(self.corners[0], self.corners[1])


class Disc(NamedTuple):
    """The disc below the vertebra `above`; outline and nucleus are closed polygons (points, 2) in mm.

    water: water content, from 1 (young) to 0 (dried out).
    """

    above: str
    outline: np.ndarray
    nucleus: np.ndarray
    water: float


class Spine(NamedTuple):
    """Vertebrae T9 to S5 by name, the discs between them, and findings: dicts of finding, level, severity in [0, 1]."""

    vertebrae: dict[str, Vertebra]
    discs: list[Disc]
    findings: list[dict]


def is_sacral(name: str) -> bool:
    """Whether a vertebra belongs to the sacrum, S1 to S5."""
    return name.startswith("S")


def normal(rng: np.random.Generator, mean: float, spread: float) -> float:
    """A draw from a normal distribution, clipped at two and a half standard deviations."""
    return float(mean + spread * np.clip(rng.standard_normal(), -2.5, 2.5))


def along(tilt: float) -> np.ndarray:
    """(2,) unit vector from front to back along an end plate of a tilt in degrees."""
    return np.array([np.cos(np.radians(tilt)), -np.sin(np.radians(tilt))])


def up(tilt: float) -> np.ndarray:
    """(2,) unit vector towards the head, perpendicular to an end plate of a tilt in degrees."""
    return np.array([-np.sin(np.radians(tilt)), -np.cos(np.radians(tilt))])


def tilt_of(front: np.ndarray, back: np.ndarray) -> float:
    """Tilt in degrees of the end plate between two points (x, y)."""
    return float(np.degrees(np.arctan2(front[1] - back[1], back[0] - front[0])))


def draw_spine(rng: np.random.Generator, difficulty: str, variation: float) -> Spine:
    """A patient's spine from T9 to S5. variation: factor on every published standard deviation."""
    findings = draw_findings(rng, DIFFICULTIES.index(difficulty))
    slope, plan = _draw_plan(rng, variation)
    _apply_findings(plan, findings)
    corners = _stack(plan, slope)
    vertebrae = {}
    for i, name in enumerate(NAMES):
        vertebrae[name] = _vertebra(rng, name, corners[name], plan["sag"][i], findings)
    discs = []
    for i, (above, below) in enumerate(pairwise(NAMES)):
        discs.append(_disc(rng, vertebrae[above], vertebrae[below], plan["water"][i]))
    return Spine(vertebrae, discs, findings)


def draw_findings(rng: np.random.Generator, column: int) -> list[dict]:
    """Findings of one patient: dicts of finding, level and severity in [0, 1]. column: of the rates in FINDINGS."""
    findings = []
    for name, (rates, levels, most) in FINDINGS.items():
        # drawn in any case, so that one finding does not change the others
        present, count = rng.random() < rates[column], rng.integers(1, most + 1)
        chosen, severities = rng.choice(len(levels), count, replace=False), rng.random(count)
        if present:
            for k, severity in sorted(zip(chosen, severities, strict=True)):
                findings.append(dict(finding=name, level=levels[k], severity=round(float(severity), 3)))
    return findings


def _draw_plan(rng: np.random.Generator, variation: float) -> tuple[float, dict[str, np.ndarray]]:
    """Sacral slope in degrees, and the dimensions of all vertebrae and discs, one array over NAMES each.

    height, upper, lower (depths of the end plates), gap (height of the disc below) and slip in mm; wedge and gap_wedge
    in degrees; sag (vertebrae, 2), depth of the hollow of the upper and lower end plate in mm; water of the disc below.
    """
    columns = ("height", "upper", "lower", "wedge", "gap", "gap_wedge")
    plan = dict(zip(columns, np.array(list(ANATOMY.values())).T.copy(), strict=True))
    size = normal(rng, SIZE[0], SIZE[1] * variation)
    shared = normal(rng, 0, variation)
    slope = SACRAL_SLOPE[0] + SACRAL_SLOPE[1] * shared
    lordosis = LORDOSIS[0] + LORDOSIS[1] * (0.8 * shared + 0.6 * normal(rng, 0, variation))
    jitter = 1 + LEVEL_SPREAD * variation * rng.standard_normal((3, len(NAMES))).clip(-2, 2)
    plan["height"] *= size * normal(rng, 1, 0.03 * variation) * jitter[0]
    plan["upper"] *= size * jitter[1]
    plan["lower"] *= size * jitter[1]
    plan["gap"] *= size * normal(rng, 1, 0.09 * variation) * (1 + 2 * (jitter[2] - 1))
    share = lordosis / (plan["wedge"][LUMBAR].sum() + plan["gap_wedge"][LUMBAR].sum())
    for column in ("wedge", "gap_wedge"):
        plan[column][LUMBAR] *= share
        plan[column] += variation * rng.standard_normal(len(NAMES)).clip(-2, 2)
    plan["sag"] = np.array([[normal(rng, 1.3, 0.4 * variation), normal(rng, 2.0, 0.5 * variation)] for _ in NAMES])
    plan["slip"] = np.zeros(len(NAMES))
    plan["water"] = np.clip(normal(rng, 0.60, 0.2) + 0.1 * rng.standard_normal(len(NAMES)), 0.3, 1)
    return slope, plan


def _apply_findings(plan: dict[str, np.ndarray], findings: list[dict]) -> None:
    """Change the plan by the findings that alter the shape of the spine; then limit the wedge of thin discs."""
    for finding in findings:
        kind, severity, i = finding["finding"], finding["severity"], NAMES.index(finding["level"])
        height, depth = plan["height"][i], plan["upper"][i]
        if kind == "disc degeneration":
            plan["gap"][i] *= 0.85 - 0.40 * severity
            plan["water"][i] = 0.25 * (1 - severity)
        elif kind == "wedge fracture":
            loss = (0.20 + 0.20 * severity) * height
            plan["height"][i] -= loss / 2
            plan["wedge"][i] -= np.degrees(np.arctan(loss / depth))
        elif kind == "biconcave fracture":
            plan["sag"][i] += (0.10 + 0.08 * severity) * height
        elif kind == "spondylolisthesis":
            plan["slip"][i] = (0.12 + 0.20 * severity) * depth
        elif kind == "transitional vertebra" and finding["level"] == "L5":  # L5 fused with the sacrum
            plan["gap"][i] *= 0.40
            plan["water"][i] = 0.2
        elif kind == "transitional vertebra":  # S1 shaped like a lumbar vertebra, with a disc below it
            plan["gap"][i] = 7.0
            plan["lower"][i] = 0.88 * depth
            plan["upper"][i + 1] = 0.80 * depth
            plan["wedge"][i] = 6.0
    shallower = np.minimum(plan["lower"], np.roll(plan["upper"], -1))
    limit = np.degrees(np.arctan(2 * np.maximum(plan["gap"] - NARROWEST_DISC_MM, 0) / shallower))
    plan["gap_wedge"] = np.clip(plan["gap_wedge"], -limit, limit)


def _stack(plan: dict[str, np.ndarray], slope: float) -> dict[str, np.ndarray]:
    """Name -> corners (4, 2): the mobile vertebrae stacked on S1's upper end plate, the sacral ones placed below it."""
    corners, centre, tilt = {}, np.zeros(2), slope
    first_sacral = NAMES.index("S1")
    for i in reversed(range(first_sacral)):
        centre = centre + plan["gap"][i] * up(tilt - plan["gap_wedge"][i] / 2) - plan["slip"][i] * along(tilt)
        tilt = tilt - plan["gap_wedge"][i]
        lower = centre, tilt
        centre = centre + plan["height"][i] * up(tilt - plan["wedge"][i] / 2)
        tilt = tilt - plan["wedge"][i]
        corners[NAMES[i]] = _corners((centre, tilt), lower, plan["upper"][i], plan["lower"][i])
    centre, tilt = np.zeros(2), slope
    for i in range(first_sacral, len(NAMES)):
        upper = centre, tilt
        centre = centre - plan["height"][i] * up(tilt + plan["wedge"][i] / 2)
        tilt = tilt + plan["wedge"][i]
        corners[NAMES[i]] = _corners(upper, (centre, tilt), plan["upper"][i], plan["lower"][i])
        centre = centre - plan["gap"][i] * up(tilt + plan["gap_wedge"][i] / 2)
        tilt = tilt + plan["gap_wedge"][i]
    return corners


def _corners(upper: tuple, lower: tuple, upper_depth: float, lower_depth: float) -> np.ndarray:
    """Corners (4, 2) from the centre and tilt of each end plate, and their depths in mm."""
    (top, top_tilt), (bottom, bottom_tilt) = upper, lower
    top_half, bottom_half = along(top_tilt) * upper_depth / 2, along(bottom_tilt) * lower_depth / 2
    return np.stack([top - top_half, top + top_half, bottom + bottom_half, bottom - bottom_half])


def _vertebra(
    rng: np.random.Generator, name: str, corners: np.ndarray, sag: np.ndarray, findings: list[dict]
) -> Vertebra:
    """A body with concave end plates and walls, rounded corners, and the findings that change only its outline."""
    upper_sag, lower_sag = sag
    if is_sacral(name):
        lower_sag = 0.2
    if is_sacral(name) and name != "S1":
        upper_sag = 0.2
    severity = {finding["finding"]: finding["severity"] for finding in findings if finding["level"] == name}
    t = np.linspace(0, 1, 20, endpoint=False)
    hollows = [  # mm towards the inside along each side: upper end plate, back wall, lower end plate, front wall
        upper_sag * np.sin(np.pi * t) ** 0.8,
        normal(rng, 0.9, 0.3) * np.sin(np.pi * t) ** 2,
        lower_sag * np.sin(np.pi * (1 - (1 - t) ** 1.2)),
        normal(rng, 1.6, 0.4) * np.sin(np.pi * t),
    ]
    place, width = rng.uniform(0.35, 0.65), rng.uniform(0.06, 0.11)
    if "Schmorl node" in severity:
        side = 0 if rng.random() < 0.5 else 2
        depth = 3.5 + 3.5 * severity["Schmorl node"]
        hollows[side] = hollows[side] + depth * np.exp(-(((t - place) / width) ** 2) / 2)
    sides = []
    for side, hollow in enumerate(hollows):
        start, step = corners[side], corners[(side + 1) % 4] - corners[side]
        inward = np.array([-step[1], step[0]]) / np.hypot(*step)
        sides.append(start + t[:, None] * step + hollow[:, None] * inward)
    outline = np.concatenate(sides)
    if "osteophytes" in severity:
        outline = _add_osteophytes(rng, outline, corners, severity["osteophytes"])
    outline = outline + gaussian_filter1d(0.35 * rng.standard_normal(outline.shape), 2, axis=0, mode="wrap")
    return Vertebra(name, corners, gaussian_filter1d(outline, 0.9, axis=0, mode="wrap"))


def _add_osteophytes(rng: np.random.Generator, outline: np.ndarray, corners: np.ndarray, severity: float) -> np.ndarray:
    """Beaks at the corners along the end plates: long in front, short at the back, never into the disc."""
    forward = corners[0] - corners[1]
    for corner, sign, reach in ((0, 1, 1.0), (3, 1, 1.0), (1, -1, 0.35), (2, -1, 0.35)):
        length = reach * rng.uniform(0.5, 1) * (2 + 4 * severity)
        near = np.exp(-(((outline - corners[corner]) ** 2).sum(axis=1)) / (2 * 2.5**2))
        outline = outline + sign * length * near[:, None] * forward / np.hypot(*forward)
    return outline


def _disc(rng: np.random.Generator, above: Vertebra, below: Vertebra, water: float) -> Disc:
    """The space between two bodies; its outline reaches into both, which are painted over it."""
    front_top, back_top = above.corners[3], above.corners[2]
    front_bottom, back_bottom = below.corners[0], below.corners[1]
    bulge, overlap = 0.0, 1  # mm
    if not is_sacral(above.name):
        bulge, overlap = 0.8 + (1 - water) * rng.uniform(0.3, 2.8), 9
    forward = (front_top - back_top) / np.hypot(*(front_top - back_top))
    t = np.linspace(0, 1, 9)[:, None]
    swelling = bulge * np.sin(np.pi * t) * forward
    front = front_top + t * (front_bottom - front_top) + swelling
    back = back_bottom + t * (back_top - back_bottom) - swelling
    into = up(tilt_of(front_top, back_top)) * overlap
    outline = np.concatenate(
        [front, [front_bottom - into], [back_bottom - into], back, [back_top + into], [front_top + into]]
    )
    centre = (front.mean(axis=0) + 1.12 * back.mean(axis=0)) / 2.12
    half_depth = 0.32 * np.hypot(*(front_top - back_top))
    half_height = 0.5 * np.hypot(*((front_top + back_top - front_bottom - back_bottom) / 2)) + 0.6
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.8 * half_depth
    nucleus = centre + across[:, None] * -forward + (np.sin(angle) * half_height)[:, None] * up(above.tilt)
    return Disc(above.name, outline, nucleus, float(water))


def field_of_view(rng: np.random.Generator, spine: Spine) -> tuple[float, np.ndarray]:
    """Side of the square field in mm and (x, y) of its upper left corner; L1 to S1 always lie inside, with a margin."""
    labelled = np.concatenate([spine.vertebrae[level].outline for level in LEVELS])
    (left, top), (right, bottom) = labelled.min(axis=0), labelled.max(axis=0)
    side = max(rng.uniform(250, 330), bottom - top + 52)
    above = 12 + (side - (bottom - top) - 52) * rng.random()
    middle = rng.uniform(0.45, 0.66) * side
    return float(side), np.array([(left + right) / 2 - middle, top - above])
