"""From painted tissues to an MR image: spin-echo contrast, partial volume, saturation, coil, noise and window."""

from typing import NamedTuple

import cv2
import numpy as np

from lumbar_utils.phantom.tissue import GRID, Scene, Shape

MIN_CANVAS = 960  # least pixels along the side of the canvas that shapes are painted on before averaging


class Tissue(NamedTuple):
    """Proton density relative to water, T1 and T2 in ms at 1.5 T, share of fat, strength of mottle and of streaks."""

    density: float
    t1: float
    t2: float
    fat: float = 0.0
    mottle: float = 0.05
    streak: float = 0.0


# T1 of marrow, fat and muscle: de Bazelaire et al. 2004 (Radiology 230:652); of cord and blood: Stanisz et al. 2005
# (Magn Reson Med 54:507). A turbo spin echo shows fat brighter than its T2 implies; T2 of fat and marrow are adapted to
# that. Flowing blood, gas and metal give almost no signal. All other values are our assumption.
TISSUES = {
    "air": Tissue(0.0, 1000, 50, mottle=0),
    "void": Tissue(0.0, 1000, 50, mottle=0),
    "gas": Tissue(0.03, 1000, 50),
    "fat": Tissue(1.0, 343, 105, 1.0, 0.06, 0.05),
    "mesentery": Tissue(0.90, 420, 90, 0.8, 0.22, 0.08),
    "bowel": Tissue(0.75, 900, 60, 0.0, 0.18),
    "chyme": Tissue(0.85, 1300, 140, 0.0, 0.18),
    "muscle": Tissue(0.85, 856, 38, 0.05, 0.08, 0.25),
    "blood": Tissue(0.10, 1441, 60),
    "fibres": Tissue(0.45, 700, 50, 0.3, 0.20, 0.75),
    "ligament": Tissue(0.16, 800, 30, 0.1, 0.10, 0.1),
    "skin": Tissue(0.45, 700, 35),
    "cortex": Tissue(0.12, 700, 30),
    "marrow": Tissue(0.88, 549, 72, 0.45, 0.15),
    "fatty marrow": Tissue(0.92, 460, 82, 0.60, 0.15),
    "red marrow": Tissue(0.85, 620, 64, 0.30, 0.15),
    "vein": Tissue(0.80, 900, 95, 0.1),
    "haemangioma": Tissue(1.0, 400, 120, 0.6, 0.20),
    "annulus": Tissue(0.55, 900, 40, 0.0, 0.12),
    "moist nucleus": Tissue(0.85, 1100, 105, 0.0, 0.10),
    "drying nucleus": Tissue(0.78, 1050, 68, 0.0, 0.12),
    "dry nucleus": Tissue(0.62, 950, 46, 0.0, 0.15),
    "fluid": Tissue(1.0, 4000, 1800, 0.0, 0.05),
    "cord": Tissue(0.78, 745, 80, 0.0, 0.04),
    "root": Tissue(0.78, 800, 85, 0.0, 0.04),
    "pile-up": Tissue(1.6, 400, 130),
}
CODES = {name: code for code, name in enumerate(TISSUES)}
# Mean and standard deviation of repetition and of echo time in ms: common settings of lumbar T1 and T2 (turbo) spin
# echo. T2-SPACE, a long train of echoes that keeps fluid bright, is approximated by a spin echo (our assumption).
SEQUENCES = {"T1": ((550, 60), (11, 1.5)), "T2": ((3500, 400), (100, 8)), "T2-SPACE": ((5000, 400), (115, 10))}
RANDOM = "random"  # instead of a sequence: the brightness of every tissue is drawn at random
# Tissues whose random signal is another's, times a factor between two limits
RELATED = {"fatty marrow": ("marrow", 0.75, 1.3), "red marrow": ("marrow", 0.75, 1.3), "vein": ("marrow", 0.75, 1.3)}
DARK = ("air", "void", "gas")
MOSTLY_DARK = ("cortex", "ligament")  # collagen and calcium give little signal in most sequences


class Grid(NamedTuple):
    """The square of the image: (x, y) of its upper left corner in mm, pixels along its side, mm per pixel."""

    origin: np.ndarray
    size: int
    spacing: float

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) in mm -> in pixels (x, y); the centre of the first pixel is (0, 0)."""
        return (points - self.origin) / self.spacing - 0.5

    def canvas(self) -> "Grid":
        """The same square in finer pixels, at least 3 to the side of each of these, to average partial volumes."""
        factor = max(3, -(-MIN_CANVAS // self.size))
        return Grid(self.origin, self.size * factor, self.spacing / factor)


def paint(shapes: list[Shape], values: list[int], grid: Grid) -> np.ndarray:
    """(size, size) uint8: every shape filled with its value, over the shapes before it."""
    canvas = np.zeros((grid.size, grid.size), np.uint8)
    for shape, value in zip(shapes, values, strict=True):
        points = np.rint(grid.pixels(shape.points) * 16).astype(np.int32)
        if shape.width:
            cv2.polylines(canvas, [points], False, value, max(1, round(shape.width / grid.spacing)), shift=4)
        else:
            cv2.fillPoly(canvas, [points], value, shift=4)
    return canvas


def label_map(outlines: list[np.ndarray], grid: Grid) -> np.ndarray:
    """(size, size) uint8: k where the k-th outline, counted from 1, covers at least half of a pixel, else 0.

    Only the largest connected piece of each value is kept: coarse pixels may separate a tip from its vertebra.
    """
    shapes = [Shape("", outline) for outline in outlines]
    fine = paint(shapes, range(1, len(shapes) + 1), grid.canvas())
    mask = np.zeros((grid.size, grid.size), np.uint8)
    for value in range(1, len(shapes) + 1):
        share = cv2.resize((fine == value) * np.uint8(255), mask.shape, interpolation=cv2.INTER_AREA)
        covered = (share >= 128).view(np.uint8)
        _, pieces, boxes, _ = cv2.connectedComponentsWithStats(covered, connectivity=4)
        mask[pieces == 1 + np.argmax(boxes[1:, cv2.CC_STAT_AREA])] = value
    return mask


def render(
    rng: np.random.Generator, scene: Scene, grid: Grid, contrast: str, noise: float, spread: float
) -> np.ndarray:
    """The MR image of a scene: (size, size) uint8.

    contrast: a key of SEQUENCES, or RANDOM. noise: standard deviation of the real and of the imaginary part, relative
    to the marrow's median signal. spread: factor on the strength of ghosting and of the coil's unevenness.
    """
    water, fat, mottle, streak = _tissue_maps(rng, scene.shapes, grid, contrast)
    chemical_shift = rng.choice([-1, 1]) * rng.uniform(0.3, 1.0) / grid.spacing
    signal = water + cv2.warpAffine(
        fat, np.float32([[1, 0, 0], [0, 1, chemical_shift]]), fat.shape, borderMode=cv2.BORDER_REPLICATE
    )
    # the grain of trabeculae, and that of islands of fat
    grain = 0.7 * _smooth_noise(rng, grid, 0.6, 0.6) + 0.7 * _smooth_noise(rng, grid, 3.0, 3.0)
    signal *= np.maximum(1 + mottle * grain + streak * _streaks(rng, scene, grid), 0.05)
    signal *= _coil(rng, scene, grid, spread) * _saturation(rng, scene, grid)
    ghost = np.roll(signal, round(rng.uniform(0.15, 0.5) * grid.size), axis=0)
    signal += rng.uniform(0, 0.03) * spread * ghost
    marrow = [shape for shape in scene.shapes if shape.tissue == "marrow"]
    sigma = noise * float(np.median(signal[paint(marrow, [1] * len(marrow), grid) == 1]))
    real, imaginary = sigma * rng.standard_normal((2, *signal.shape), dtype=np.float32)
    blur = rng.uniform(0.3, 1.4) if contrast == RANDOM else 0.45  # pixels
    signal = np.hypot(cv2.GaussianBlur(signal, (0, 0), blur) + real, imaginary)
    white = np.percentile(signal, 99.5) * rng.lognormal(0.1, 0.3)
    return np.clip(signal * (255 / white), 0, 255).astype(np.uint8)


def _tissue_maps(rng: np.random.Generator, shapes: list[Shape], grid: Grid, contrast: str) -> list[np.ndarray]:
    """Signal of water, signal of fat, mottle and streak, each (size, size) float32, averaged within pixels."""
    density, t1, t2, fat, mottle, streak = np.array(list(TISSUES.values()), np.float32).T
    if contrast == RANDOM:
        signal = _random_signal(rng)
        mottle, streak = (texture * np.float32(rng.lognormal(0, 0.5)) for texture in (mottle, streak))
    else:
        (tr, tr_spread), (te, te_spread) = SEQUENCES[contrast]
        tr, te = rng.normal(tr, tr_spread), rng.normal(te, te_spread)
        signal = density * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)
        signal = signal * rng.lognormal(0, 0.07, len(signal))
    codes = paint(shapes, [CODES[shape.tissue] for shape in shapes], grid.canvas())
    maps = []
    for column in (signal * (1 - fat), signal * fat, mottle, streak):
        table = np.zeros(256, np.float32)
        table[: len(column)] = column
        maps.append(cv2.resize(cv2.LUT(codes, table), (grid.size, grid.size), interpolation=cv2.INTER_AREA))
    return maps


def _random_signal(rng: np.random.Generator) -> np.ndarray:
    """Signal of each tissue in TISSUES, drawn at random: networks trained on it generalise to unseen contrasts.

    Source of the idea: Billot et al. 2023, SynthSeg, doi 10.1016/j.media.2023.102789. The ranges are our assumption.
    """
    drawn = dict(zip(TISSUES, rng.uniform(0.03, 1, len(TISSUES)), strict=True))
    drawn["marrow"] = rng.uniform(0.25, 1)
    drawn |= {tissue: drawn[other] * rng.uniform(low, high) for tissue, (other, low, high) in RELATED.items()}
    for tissue, share in (("drying nucleus", 0.6), ("dry nucleus", 0.2)):  # between annulus and moist nucleus
        drawn[tissue] = drawn["annulus"] + share * (drawn["moist nucleus"] - drawn["annulus"])
    drawn |= {tissue: rng.uniform(0, 0.25) for tissue in MOSTLY_DARK if rng.random() < 0.85}
    drawn |= {tissue: rng.uniform(0, 0.03) for tissue in DARK}
    return np.array(list(drawn.values()))


def _smooth_noise(rng: np.random.Generator, grid: Grid, x_mm: float, y_mm: float) -> np.ndarray:
    """(size, size) float32: Gaussian noise blurred with these sigmas, of standard deviation 1."""
    noise = rng.standard_normal((grid.size, grid.size), dtype=np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), max(x_mm / grid.spacing, 0.3), sigmaY=max(y_mm / grid.spacing, 0.3))
    return noise / noise.std()


def _streaks(rng: np.random.Generator, scene: Scene, grid: Grid) -> np.ndarray:
    """Streaks of fat between the fibres of muscles, parallel to the spine."""
    noise = _smooth_noise(rng, grid, 0.7, 6.0)
    front = _along_rows(scene.front, grid) / grid.spacing
    rows, columns = np.mgrid[: grid.size, : grid.size].astype(np.float32)
    return cv2.remap(noise, columns - (front - front.mean()), rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _along_rows(curve: np.ndarray, grid: Grid) -> np.ndarray:
    """(size, 1) float32: x in mm, at each row of the image, of a curve over GRID."""
    y = grid.origin[1] + (np.arange(grid.size) + 0.5) * grid.spacing
    return np.interp(y, GRID, curve).astype(np.float32)[:, None]


def _columns_mm(grid: Grid) -> np.ndarray:
    """(1, size) float32: x in mm of each column."""
    return (grid.origin[0] + (np.arange(grid.size, dtype=np.float32) + 0.5) * grid.spacing)[None].astype(np.float32)


def _coil(rng: np.random.Generator, scene: Scene, grid: Grid, spread: float) -> np.ndarray:
    """Sensitivity of the coil in the table, (size, size) float32: it falls off to the front and to both ends."""
    table = np.percentile(_along_rows(scene.skin, grid), 70) + 12
    distance = np.maximum(table - _columns_mm(grid), 0) / rng.uniform(85, 160)
    from_middle = np.abs(np.linspace(-1, 1, grid.size)[:, None] - rng.uniform(-0.3, 0.3))
    ends = 1 - rng.uniform(0.1, 0.5) * from_middle**2.5
    uneven = 1 + 0.08 * spread * _smooth_noise(rng, grid, 45, 45)
    return (ends * uneven / (1 + distance ** rng.uniform(1.6, 2.4))).astype(np.float32)


def _saturation(rng: np.random.Generator, scene: Scene, grid: Grid) -> np.ndarray:
    """Share of the signal left by a saturation band over the belly, (size, size) float32; 1/4 of patients have none."""
    left = rng.uniform(0.05, 0.12) if rng.random() < 0.75 else 1.0
    rows = np.linspace(-grid.size / 2, grid.size / 2, grid.size)[:, None] * grid.spacing
    front = _along_rows(scene.front, grid)
    edge = front.mean() - rng.uniform(15, 45) + rng.uniform(-0.25, 0.1) * rows
    edge = np.minimum(edge, front - 8)  # the band spares the vertebrae
    return (left + (1 - left) / (1 + np.exp((edge - _columns_mm(grid)) / rng.uniform(4, 10)))).astype(np.float32)
