"""A phantom of mid-sagittal lumbar MRI: one synthetic image per patient, with its mask and its true measures.

Patient k is a function of (seed, k, size, difficulty, contrast) alone, however many patients or processes there are.
The size changes the pixels and not the anatomy, the contrast the image and not the mask.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import joblib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from lumbar_utils import LEVELS, StudyError
from lumbar_utils.phantom.anatomy import DIFFICULTIES, Spine, draw_spine, field_of_view, tilt_of
from lumbar_utils.phantom.mri import RANDOM, SEQUENCES, Grid, label_map, render
from lumbar_utils.phantom.tissue import draw_scene
from lumbar_utils.records import atomic_folder

# Noise: standard deviation relative to the marrow's signal, lowest and highest. Variation: factor on all spreads
NOISE = {"easy": (0.02, 0.06), "typical": (0.04, 0.14), "hard": (0.10, 0.30)}
VARIATION = {"easy": 0.6, "typical": 1.0, "hard": 1.35}
MIXED = "T1 or T2"
ANY = "any"  # random contrast for half of the patients, one of SEQUENCES for the others
CONTRASTS = (*SEQUENCES, MIXED, RANDOM, ANY)
PATIENTS_PER_WORKER = 20  # fewer are drawn in the time that starting a process takes


@dataclass(frozen=True)
class Phantom:
    """One patient.

    image, mask: (size, size) uint8; mask 0 background, 1..6 L1..S1. contrast: T1, T2, T2-SPACE or random.
    truth: corners in px, sizes in mm, angles in degrees, findings with their levels; can be written as JSON.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing_mm: float
    contrast: str
    truth: dict


def draw(seed: int, patient: int, size: int = 320, difficulty: str = "typical", contrast: str = MIXED) -> Phantom:
    """Patient number `patient` of the set `seed`.

    size: pixels along the side of the image; the field of view does not depend on it.
    contrast: T1, T2, T2-SPACE or random, of the same anatomy; "T1 or T2" draws one of the two, "any" one of the four.
    Raises StudyError for an unknown difficulty or contrast.
    """
    if difficulty not in DIFFICULTIES:
        raise StudyError(f"difficulty {difficulty!r} is unknown; allowed are {', '.join(DIFFICULTIES)}")
    if contrast not in CONTRASTS:
        raise StudyError(f"contrast {contrast!r} is unknown; allowed are {', '.join(CONTRASTS)}")
    anatomy, scanner = np.random.default_rng([seed, patient, 0]), np.random.default_rng([seed, patient, 1])
    variation = VARIATION[difficulty]
    spine = draw_spine(anatomy, difficulty, variation)
    scene = draw_scene(anatomy, spine, variation)
    side_mm, corner = field_of_view(anatomy, spine)
    grid = Grid(corner, size, side_mm / size)
    contrast = _draw_contrast(scanner, contrast)
    image = render(scanner, scene, grid, contrast, scanner.uniform(*NOISE[difficulty]), variation)
    mask = label_map([spine.vertebrae[level].outline for level in LEVELS], grid)
    return Phantom(image, mask, grid.spacing, contrast, _truth(spine, grid, contrast))


def _draw_contrast(rng: np.random.Generator, contrast: str) -> str:
    """The contrast of one patient: a key of SEQUENCES, or RANDOM."""
    t1_or_t2 = str(rng.choice(["T1", "T2"]))  # drawn in any case, so that the draws after it stay the same
    if contrast == MIXED:
        return t1_or_t2
    if contrast != ANY:
        return contrast
    if rng.random() < 0.5:
        return RANDOM
    return str(rng.choice(list(SEQUENCES)))


def _truth(spine: Spine, grid: Grid, contrast: str) -> dict:
    """What is known of the patient without measuring; corners are (x, y) in px, the first pixel's centre at (0, 0)."""
    names = ("front_top", "back_top", "back_bottom", "front_bottom")
    levels = {}

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return round(float(np.hypot(*(a - b))), 3)

    for level in LEVELS:
        corners = spine.vertebrae[level].corners
        front_top, back_top, back_bottom, front_bottom = corners
        levels[level] = {
            "corners_px": dict(zip(names, grid.pixels(corners).round(3).tolist(), strict=True)),
            "front_height_mm": distance(front_top, front_bottom),
            "middle_height_mm": distance((front_top + back_top) / 2, (front_bottom + back_bottom) / 2),
            "back_height_mm": distance(back_top, back_bottom),
            "upper_depth_mm": distance(front_top, back_top),
            "lower_depth_mm": distance(front_bottom, back_bottom),
            "upper_tilt_deg": round(tilt_of(front_top, back_top), 3),
            "lower_tilt_deg": round(tilt_of(front_bottom, back_bottom), 3),
        }
    slope, top = levels["S1"]["upper_tilt_deg"], levels["L1"]["upper_tilt_deg"]
    return {
        "spacing_mm": grid.spacing,
        "contrast": contrast,
        "sacral_slope_deg": slope,
        "lordosis_l1_s1_deg": round(slope - top, 3),
        "levels": levels,
        "findings": spine.findings,
    }


def generate(
    folder: Path,
    patients: int = 514,
    seed: int = 0,
    size: int = 320,
    difficulty: str = "typical",
    contrast: str = MIXED,
    workers: int | None = None,
) -> Path:
    """Write a data set in the canonical form (images, masks, truth, cases.csv, dataset.json); returns its folder.

    workers: processes; None for one per core, or fewer for few patients. The folder appears once it is complete.
    Raises FileExistsError where the folder exists, StudyError for an unknown difficulty or contrast.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; remove it, or write the phantom into another folder")
    # loky's processes start from notebooks and scripts of any form; one worker is this process
    workers = workers or max(1, min(joblib.cpu_count(), patients // PATIENTS_PER_WORKER))
    with atomic_folder(folder) as unfinished:
        for part in ("images", "masks", "truth"):
            (unfinished / part).mkdir()
        jobs = (delayed(_save)(unfinished, patient, seed, size, difficulty, contrast) for patient in range(patients))
        rows = Parallel(n_jobs=workers, return_as="generator")(jobs)
        cases = list(tqdm(rows, total=patients, desc="drawing phantoms", unit="image", mininterval=1))
        pd.DataFrame(cases).to_csv(unfinished / "cases.csv", index=False)
        description = json.dumps(_description(seed, difficulty, contrast), indent=2)
        (unfinished / "dataset.json").write_text(description, encoding="utf-8")
    return folder


def _save(folder: Path, patient: int, seed: int, size: int, difficulty: str, contrast: str) -> dict:
    """Draw one patient, write the three files, and return the row of the table of cases."""
    phantom = draw(seed, patient, size, difficulty, contrast)
    case = f"phantom_{patient + 1:04d}"
    image, mask = f"images/{case}.png", f"masks/{case}.png"
    for path, pixels in ((image, phantom.image), (mask, phantom.mask)):
        (folder / path).write_bytes(cv2.imencode(".png", pixels)[1])  # OpenCV's own writing may leave a part, unsaid
    (folder / "truth" / f"{case}.json").write_text(json.dumps(phantom.truth, indent=1), encoding="utf-8")
    findings = ";".join(f"{finding['finding']} {finding['level']}" for finding in phantom.truth["findings"])
    return dict(
        case=case, patient=case, slice=0, mid_sagittal="true", image=image, mask=mask,
        spacing_mm=round(phantom.spacing_mm, 5), contrast=phantom.contrast, findings=findings,
    )  # fmt: skip


def _description(seed: int, difficulty: str, contrast: str) -> dict:
    return {
        "name": f"phantom of mid-sagittal lumbar MRI, {contrast}, {difficulty}, seed {seed}",
        "licence": "CC0 1.0",
        "labels": dict(enumerate(("background", *LEVELS))),
        "annotated_levels": list(LEVELS),
        "not_annotated": [],
        "synthetic": True,
    }
