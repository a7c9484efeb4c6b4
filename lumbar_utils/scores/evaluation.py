"""Files against files: label maps on disk scored against reference masks on disk."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from lumbar_utils import LEVELS, MODELS, StudyError, freshness, records
from lumbar_utils.data.folder import Cohort, read_mask
from lumbar_utils.scores import bodies, metrics

if TYPE_CHECKING:
    from lumbar_utils.grid import Grid
    from lumbar_utils.study import Study

WHOLE = "all"  # stands for the level of a metric that is of an image
ANY = "vertebra"  # of a curve: any level against background
CASES_A_TASK = 16  # shared over the cores
WHO = ["case", "patient"]
ROWS = {
    "scores": [*WHO, "level", "model", "metric", "value"],
    "instances": [*WHO, "level", "model", "iou", "sureness", "real"],
    "bodies": [*WHO, "model", *bodies.COLUMNS],
    "pixels": [*WHO, "model", "true", "pred", "pixels"],
}


def annotated_levels(cohort: Cohort) -> dict[int, str]:
    """Value in a label map -> name, of the levels that the data set annotates."""
    return {LEVELS.index(level) + 1: level for level in cohort.annotated}


def label_maps(study: "Study | Grid", cohort: Cohort, needed: Sequence[str] = tuple(MODELS)) -> dict[str, Path]:
    """model -> folder of the label maps that lie whole in the study's folder: the networks needed, then all others.

    Raises StudyError where one of those needed has none, or where label maps are not of today's data and settings.
    """
    others = {record.parent.name for record in study.folder.glob("*/predict.json")} - {*MODELS, *needed}
    models = [*needed, *sorted(others)]
    for model in models:
        freshness.refuse_stale_label_maps(study, cohort, model)
    return {model: study.folder / model / "label_maps" for model in models}


def kept(folders: dict[str, Path], name: str) -> pd.DataFrame:
    """One table of what the training notebooks left beside each folder of label maps: <name>, a CSV file.

    A model without it, another tool's label maps say, has no row. Raises StudyError where no model has it.
    """
    files = [file for folder in folders.values() if (file := folder.with_name(name)).exists()]
    if not files:
        raise StudyError(f"no model has {name}; run the training notebooks 02 to 04 again: what is trained stays so")
    return pd.concat(map(records.read_csv, files), ignore_index=True)


def read_label_map(folder: Path, case: pd.Series, shape: tuple[int, int]) -> np.ndarray:
    """(height, width) uint8 label map that a method wrote for a case; StudyError if absent or of another size."""
    file = folder / f"{case['case']}.png"
    if not file.exists():
        raise StudyError(f"{folder} has no label map for case {case['case']}; predict every case of the test set")
    label_map = read_mask(file, {value: level for value, level in enumerate(LEVELS, 1)})
    if label_map.shape != shape:
        raise StudyError(f"label map {file} has shape {label_map.shape} but its image {shape}; write it on that grid")
    return label_map


def read_probabilities(folder: Path, case: str, shape: tuple[int, int] | None = None) -> np.ndarray | None:
    """(6, height, width) float32 in [0, 1], steps of 1/255, one map a level L1..S1; None where a method gives none.

    Raises StudyError where a pixel's six probabilities exceed one by more than they are rounded, or where the maps are
    not of `shape`.
    """
    file = folder / f"{case}.npz"
    if not file.exists():
        return None
    with np.load(file, allow_pickle=False) as content:
        steps = content["probabilities"]
    if steps.dtype != np.uint8 or steps.shape != (len(LEVELS), *(shape or steps.shape[1:])):
        raise StudyError(
            f"{file} holds {steps.dtype} of shape {steps.shape}; write uint8 of shape (6, height, width), 255 for 1, "
            "on the grid of the image"
        )
    greatest = int(steps.sum(axis=0, dtype=np.int32).max())
    if greatest > 255 + len(LEVELS) / 2:
        raise StudyError(
            f"{file}: probabilities of a pixel add up to {greatest / 255:.3f}; levels must share at most 1"
        )
    return steps.astype(np.float32) / 255


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What label maps are worth, as tidy tables; each row says of which model.

    scores : case, patient, level, model, metric, value; see `metrics.DEFINITIONS`; of a whole image, level is `all`.
    instances : case, patient, level, model, iou, sureness, real; a vertebra as one object, in either map: sureness is
        nan where it is not predicted and 1 without probabilities, real False where it is not in the reference.
    bodies : case, patient, model, and `bodies.COLUMNS`.
    pixels : case, patient, model, true, pred, pixels; how many pixels of a class (0 background, 1..6) went to which.
    curves : model, level, probability (0..255), hits, pixels over all images; `vertebra` is any level.
    reliability : model, bin, pixels, sureness, right (sums over the pixels of a bin) over all images.
    """

    scores: pd.DataFrame
    instances: pd.DataFrame
    bodies: pd.DataFrame
    pixels: pd.DataFrame
    curves: pd.DataFrame
    reliability: pd.DataFrame

    def write(self, study: "Study | Grid", cohort: Cohort, folders: dict[str, Path]) -> None:
        """Each table as <name>.csv in the study's folder, and scores.json, which says what they were made from.

        cohort, folders : as `evaluate` was given them.
        """
        names, record = [field.name for field in dataclasses.fields(self)], study.folder / "scores.json"
        made_from = freshness.scored(cohort, folders)
        record.unlink(missing_ok=True)
        for name in names:
            records.write_csv(study.folder / f"{name}.csv", getattr(self, name))
        tables = [study.folder / f"{name}.csv" for name in names]
        described = {"fingerprint": study.fingerprint, "data": {"fingerprint": cohort.fingerprint}}
        origin = freshness.origin_of_scores(described, study.folder, folders)
        records.mark_finished(record, made_from, tables, origin=origin)

    def of(self, models: Iterable[str]) -> "Evaluation":
        """The same of some models only."""
        tables = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return Evaluation(**{name: table[table["model"].isin(list(models))] for name, table in tables.items()})

    def of_cases(self, cases: Iterable[str]) -> "Evaluation":
        """The same of some cases only; curves and reliability, which are sums over all cases, stay as they are."""
        return dataclasses.replace(self, **{name: _rows_of(getattr(self, name), cases) for name in ROWS})


def _rows_of(table: pd.DataFrame, cases: Iterable[str]) -> pd.DataFrame:
    return table[table["case"].isin(list(cases))]


def evaluate(cohort: Cohort, folders: dict[str, Path]) -> Evaluation:
    """Score label maps of the test cases.

    folders : model -> folder of <case>.png, and <case>.npz with probabilities where the method gives them.
    Images are held one at a time; work is shared over the cores where there is much of it.
    Raises StudyError for a case without a label map, a label map on another grid, unknown labels, and probabilities
    that exceed one.
    """
    test = cohort.cases[cohort.cases["split"] == "test"]
    parts = [
        (model, folder, test.iloc[start : start + CASES_A_TASK])
        for model, folder in folders.items() for start in range(0, len(test), CASES_A_TASK)
    ]  # fmt: skip
    cohort = dataclasses.replace(cohort, cases=test.head(0))
    pool = Parallel(n_jobs=1 if len(parts) < 4 else cpu_count(), return_as="generator")
    rows, sums = {name: [] for name in ROWS}, {}
    for (model, _, _), (found, curves, reliability) in zip(
        parts, pool(delayed(_score_cases)(cohort, *part) for part in parts), strict=True
    ):
        for name in ROWS:
            rows[name] += found[name]
        before = sums.get(model, (0, 0))
        sums[model] = before[0] + curves, before[1] + reliability
    tables = {name: pd.DataFrame(rows[name], columns=columns) for name, columns in ROWS.items()}
    levels = [*annotated_levels(cohort).values(), ANY]
    return Evaluation(**tables, curves=_curves(sums, levels), reliability=_reliability(sums))


def _score_cases(cohort: Cohort, model: str, folder: Path, cases: pd.DataFrame) -> tuple[dict, np.ndarray, np.ndarray]:
    """Rows of each table of ROWS; sums that curves (levels + 1, 2, 256) and reliability (3, bins) are made of."""
    levels, rows = annotated_levels(cohort), {name: [] for name in ROWS}
    curves, reliability = np.zeros((len(levels) + 1, 2, 256), np.int64), np.zeros((3, metrics.BINS))
    for _, case in cases.iterrows():
        true = cohort.mask(case)
        pred, maps = read_label_map(folder, case, true.shape), read_probabilities(folder, case["case"], true.shape)
        for label_map in (pred, true):  # a level that is not annotated is no error, and no background that was missed
            label_map[~np.isin(label_map, [*levels])] = 0
        if maps is not None:
            maps[[value - 1 for value in range(1, 1 + len(LEVELS)) if value not in levels]] = 0
        who = (case["case"], case["patient"])
        confusion = np.bincount(7 * true.ravel().astype(np.int64) + pred.ravel(), minlength=49).reshape(7, 7)
        rows["pixels"] += [
            (*who, model, *map(int, pair), int(confusion[tuple(pair)])) for pair in np.argwhere(confusion)
        ]
        found = bodies.take_apart(pred, true, levels, case["spacing_mm"])
        rows["bodies"] += [(*who, model, *row) for row in found]
        instances, scores = _score_levels(pred, true, confusion, maps, levels, case["spacing_mm"])
        if maps is not None:
            counts = [metrics.precision_recall_counts(maps[value - 1], true == value) for value in levels]
            curves += [*counts, metrics.precision_recall_counts(np.minimum(maps.sum(axis=0), 1), true > 0)]
            average = [(level, "ap_pixel", metrics.average_precision(count)) for level, count in
                       zip(levels.values(), counts, strict=True)]  # fmt: skip
            scores += [row for row in average if not np.isnan(row[2])]
            bins = metrics.calibration(*_sureness(pred, true, maps))
            reliability += bins
            scores += [(WHOLE, "ece", metrics.calibration_error(bins))] if bins[0].sum() else []
        rows["instances"] += [(*who, level, model, *instance) for level, instance in instances.items()]
        rows["scores"] += [(*who, level, model, metric, value) for level, metric, value in scores]
    return rows, curves, reliability


def _score_levels(
    pred: np.ndarray, true: np.ndarray, confusion: np.ndarray, maps: np.ndarray | None, levels: dict[int, str],
    spacing_mm: float,
) -> tuple[dict[str, tuple], list[tuple]]:  # fmt: skip
    """Level -> (iou, sureness, real) of what either map holds, and rows (level, metric, value)."""
    instances, rows = {}, []
    for value, level in levels.items():
        real, predicted = int(confusion[value].sum()), int(confusion[:, value].sum())
        scores = metrics.overlap_of(int(confusion[value, value]), predicted, real)
        if not scores:
            continue
        inside = pred == value
        sureness = np.nan if not predicted else 1.0 if maps is None else float(maps[value - 1][inside].mean())
        instances[level] = (scores["iou"], sureness, real > 0)
        scores |= {"area_error": (predicted - real) / real} if real else {}
        scores |= metrics.distances(inside, true == value, spacing_mm)
        rows += [(level, metric, score) for metric, score in scores.items()]
    whole = metrics.panoptic([(iou, not np.isnan(sure), real) for iou, sure, real in instances.values()])
    return instances, rows + [(WHOLE, metric, score) for metric, score in whole.items()]


def _sureness(pred: np.ndarray, true: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probability of the class each pixel was given, and whether it is right; of pixels of a vertebra in either map."""
    where = (pred > 0) | (true > 0)
    chosen, real = pred[where], true[where]
    every = np.concatenate([np.clip(1 - maps[:, where].sum(axis=0, keepdims=True), 0, 1), maps[:, where]])
    return np.take_along_axis(every, chosen[None].astype(np.int64), axis=0)[0], chosen == real


def _curves(sums: dict[str, tuple], levels: list[str]) -> pd.DataFrame:
    tables = [
        pd.DataFrame({"model": model, "level": level, "probability": range(256), "hits": hits, "pixels": pixels})
        for model, (curves, _) in sums.items() for level, (hits, pixels) in zip(levels, curves, strict=True)
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def _reliability(sums: dict[str, tuple]) -> pd.DataFrame:
    tables = [
        pd.DataFrame({"model": model, "bin": range(metrics.BINS), "pixels": pixels.astype(int), "sureness": sureness,
                      "right": right.astype(int)})
        for model, (_, (pixels, sureness, right)) in sums.items()
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True)
