"""Heights, angles and slips measured on the networks' label maps beside the same of the reference masks.

    python tests/benchmarks/measurements.py STUDY_OR_GRID [--out CSV]
    python tests/benchmarks/measurements.py phantom [--out CSV]

STUDY_OR_GRID is a folder of study.json, cases.csv and <model>/label_maps; its data set must still be there. Every test
image is measured as in `lumbar_utils.scores.measurements`. Only levels that both maps have are compared.

Printed is one row per model and measure, over all levels but for lordosis. A unit is one level, or pair, of a patient;
its slices are averaged before:

patients, units  how many are compared
bias, low, high  mean of network - reference and 95 % limits of agreement
median           of the absolute error over units, which vertebrae under a wrong name hardly change
named            units whose vertebrae are named as in the reference: in each slice counted, prediction and reference of
                 each of the measure's levels overlap by an IoU above 0.5; named_bias, named_low, named_high: of these

CSV gets one row per model, image, level and measure: reference and network, and whether it is rightly named.

With `phantom`, the masks of 20 phantoms of 320 x 320 pixels are measured beside what they were drawn of: mean,
standard deviation and median of the absolute error over vertebrae.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from lumbar_utils import LEVELS, records
from lumbar_utils.data import folder as data_folder
from lumbar_utils.phantom.anatomy import draw_spine
from lumbar_utils.phantom.phantom import VARIATION, draw
from lumbar_utils.scores.evaluation import read_label_map
from lumbar_utils.scores.instances import MATCH_IOU
from lumbar_utils.scores.measurements import measure
from lumbar_utils.scores.metrics import overlap
from lumbar_utils.study import record_of

KEYS = ["level", "measure", "unit"]


def compare(folder: Path) -> pd.DataFrame:
    """model, case, patient, level, measure, unit, reference, network, named of the test images of a study's folder."""
    cohort = data_folder.read(Path(record_of(folder)["settings"]["dataset"]))
    cases = pd.read_csv(folder / "cases.csv", dtype={"case": str, "patient": str, "mask": str})
    models = sorted(path.parent for path in folder.glob("*/label_maps"))
    tables = []
    for _, case in cases[cases["split"] == "test"].iterrows():
        spacing_mm, true = case.get("spacing_mm", np.nan), cohort.mask(case)
        reference = measure(true, spacing_mm)
        for model in models:
            pred = read_label_map(model / "label_maps", case, true.shape)
            table = reference.merge(measure(pred, spacing_mm), on=KEYS, suffixes=("_reference", "_network"))
            table = table.rename(columns={"value_reference": "reference", "value_network": "network"}).dropna()
            named = named_levels(pred, true)
            table["named"] = [named.issuperset(name.split("-")) for name in table["level"]]
            tables.append(table.assign(model=model.name, case=case["case"], patient=case["patient"]))
    return pd.concat(tables, ignore_index=True)


def named_levels(pred: np.ndarray, true: np.ndarray) -> set[str]:
    """Levels whose prediction and reference overlap by an IoU above 0.5."""
    ious = {level: overlap(pred == value, true == value).get("iou", 0) for value, level in enumerate(LEVELS, 1)}
    return {level for level, iou in ious.items() if iou > MATCH_IOU}


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model, measure and unit; see the module."""
    rows = []
    lordosis = table["measure"] == "lordosis"  # its two are not pooled
    table = table.assign(measure=table["measure"].where(~lordosis, "lordosis " + table["level"]))
    for keys, own in table.groupby(["model", "measure", "unit"], sort=False):
        units = own["patient"] + " " + own["level"]
        named = own["named"]
        errors = (own["network"] - own["reference"]).groupby(units).mean().abs()
        limits = limits_of_agreement(own["network"], own["reference"], units)
        named_limits = limits_of_agreement(own["network"][named], own["reference"][named], units[named])
        counts = own["patient"].nunique(), len(errors)
        rows.append((*keys, *counts, *limits, errors.median(), units[named].nunique(), *named_limits))
    columns = ["model", "measure", "in", "patients", "units", "bias", "low", "high", "median"]
    return pd.DataFrame(rows, columns=[*columns, "named", "named_bias", "named_low", "named_high"])


def limits_of_agreement(
    first: np.ndarray, second: np.ndarray, units: np.ndarray | None = None
) -> tuple[float, float, float]:
    """bias, low, high : mean of first - second, and that mean -+ 1.96 standard deviations over units.

    first, second : (pairs,) two measurements of the same thing; a pair with a nan is left out.
    units : (pairs,) the patient, or the patient's vertebra, of each pair: differences within one are averaged before,
        so the limits are of a unit's mean, narrower than of one of its slices. Without, each pair is a unit.
    The limits hold for 95 % of units where differences are about normal; nan for fewer than two units.
    Sources: Bland and Altman 1986, doi 10.1016/S0140-6736(86)90837-8, and 1999, doi 10.1191/096228099673819272.
    """
    differences = pd.Series(np.subtract(first, second, dtype=float))
    if units is not None:
        differences = differences.groupby(np.asarray(units)).mean()
    bias, half = float(differences.mean()), 1.96 * float(differences.std(ddof=1))
    return bias, bias - half, bias + half


def phantom_errors(patients: int, difficulty: str = "typical") -> pd.DataFrame:
    """level, measure, unit, error: measured - true, of that many phantoms of seed 0."""
    tables = []
    for patient in range(patients):
        phantom = draw(0, patient, difficulty=difficulty)
        spine = draw_spine(np.random.default_rng([0, patient, 0]), difficulty, VARIATION[difficulty])
        outlines = {level: spine.vertebrae[level].outline for level in LEVELS}
        table = measure(phantom.mask, phantom.spacing_mm)
        true = true_values(phantom.truth, outlines)
        known = pd.DataFrame([(*key, value) for key, value in true.items()], columns=["level", "measure", "true"])
        table = table.merge(known, how="left")
        tables.append(table.assign(error=table["value"] - table["true"], patient=patient))
    return pd.concat(tables, ignore_index=True)


def true_values(truth: dict, outlines: dict[str, np.ndarray]) -> dict[tuple[str, str], float]:
    """(level, measure) -> value in mm, degrees or %, of the truth of a phantom and the outlines of its bodies.

    Discs and slips are computed from the true corners here, in another way than `measure` does it.
    """
    values, corners, levels = {}, {}, truth["levels"]
    for level, of in levels.items():
        values[level, "anterior height"] = of["front_height_mm"]
        values[level, "posterior height"] = of["back_height_mm"]
        values[level, "wedge ratio"] = of["front_height_mm"] / of["back_height_mm"]
        values[level, "depth"] = (of["upper_depth_mm"] + of["lower_depth_mm"]) / 2
        values[level, "upper end plate angle"] = of["upper_tilt_deg"]
        values[level, "lower end plate angle"] = of["lower_tilt_deg"]
        outline = outlines[level]  # 20 points a side: the 10th and the 50th are the middles of the end plates
        values[level, "middle height"] = float(np.hypot(*(outline[50] - outline[10])))
        corners[level] = {name: complex(*point) * truth["spacing_mm"] for name, point in of["corners_px"].items()}
    values["S1", "depth"] = levels["S1"]["upper_depth_mm"]
    for above, below in pairwise(LEVELS):
        pair = f"{above}-{below}"
        lower, upper = levels[above]["lower_tilt_deg"], levels[below]["upper_tilt_deg"]
        values[pair, "disc angle"] = upper - lower
        # a complex number is turned so that the bisector, or the lower end plate, lies along the real axis
        to_bisector, to_end_plate = np.exp(1j * np.radians((lower + upper) / 2)), np.exp(1j * np.radians(upper))
        fronts = corners[below]["front_top"] - corners[above]["front_bottom"]
        backs = corners[below]["back_top"] - corners[above]["back_bottom"]
        values[pair, "anterior disc height"] = (fronts * to_bisector).imag
        values[pair, "posterior disc height"] = (backs * to_bisector).imag
        middles = complex(*(outlines[below][10] - outlines[above][50]))
        values[pair, "middle disc height"] = (middles * to_bisector).imag
        values[pair, "slip"] = (backs * to_end_plate).real
        values[pair, "slip share"] = 100 * values[pair, "slip"] / levels[below]["upper_depth_mm"]
    values["L1-S1", "lordosis"] = truth["lordosis_l1_s1_deg"]
    values["L1-L5", "lordosis"] = levels["L5"]["lower_tilt_deg"] - levels["L1"]["upper_tilt_deg"]
    return values


def main(asked: argparse.Namespace) -> None:
    if asked.study == Path("phantom"):
        table = phantom_errors(20)
        errors = table.groupby(["measure", "unit"], sort=False)["error"]
        summary = errors.agg(n="count", bias="mean", sd="std", median=lambda error: error.abs().median()).reset_index()
    else:
        table = compare(asked.study)
        summary = summarise(table)
    if asked.out:
        records.write_csv(asked.out, table)
    print(summary.round(2).to_string(index=False))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path)
    main(parser.parse_args())
