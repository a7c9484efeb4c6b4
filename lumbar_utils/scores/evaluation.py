"""Label maps on disk, scored against reference masks on disk, as tidy tables.

One row per case, level, model and metric; averages are taken in `summary`.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed

from lumbar_utils import LEVELS, MODELS, StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.images import read_mask
from lumbar_utils.scores import metrics
from lumbar_utils.scores.instances import COLUMNS as INSTANCE_COLUMNS
from lumbar_utils.scores.instances import match_instances

if TYPE_CHECKING:
    from lumbar_utils.study import Grid, Study

WHOLE_IMAGE = "all"  # in column `level`: the metric is of an image and not of a level
ANY_LEVEL = "vertebra"  # in column `level`: the curve is of any level against background
CASES_PER_TASK = 16  # tasks are shared over the cores
CASE = ["case", "patient"]
COLUMNS = {
    "scores": [*CASE, "level", "model", "metric", "value"],
    "instances": [*CASE, "level", "model", "iou", "confidence", "real"],
    "bodies": [*CASE, "model", *INSTANCE_COLUMNS],
    "pixels": [*CASE, "model", "true", "pred", "pixels"],
}


def annotated_levels(cohort: Cohort) -> dict[int, str]:
    """Value in a label map -> name, of the levels that the data set annotates."""
    return {LEVELS.index(level) + 1: level for level in cohort.annotated}


def label_maps(study: "Study | Grid", cohort: Cohort, needed: Sequence[str] = tuple(MODELS)) -> dict[str, Path]:
    """model -> folder of its label maps in the study's folder: the models needed, then all others.

    Raises StudyError where a model needed has none, or where label maps are not of today's data and settings.
    """
    others = {record.parent.name for record in study.folder.glob("*/predict.json")} - {*MODELS, *needed}
    models = [*needed, *sorted(others)]
    for model in models:
        freshness.refuse_stale_label_maps(study, cohort, model)
    return {model: study.folder / model / "label_maps" for model in models}


def read_model_tables(folders: dict[str, Path], name: str) -> pd.DataFrame:
    """One table of the CSV files <name> that the training notebooks wrote beside the folders of label maps.

    folders : model -> folder of label maps. A model without the file (another tool's label maps) has no rows.
    Raises StudyError where no model has it.
    """
    files = [folder.with_name(name) for folder in folders.values()]
    tables = [records.read_csv(file) for file in files if file.exists()]
    if not tables:
        raise StudyError(f"no model has {name}; run the training notebooks 02 to 04 again: trained networks are kept")
    return pd.concat(tables, ignore_index=True)


def read_label_map(folder: Path, case: pd.Series, shape: tuple[int, int]) -> np.ndarray:
    """(height, width) uint8 label map of a case, in any model's folder; StudyError if absent or of another size."""
    file = folder / f"{case['case']}.png"
    if not file.exists():
        raise StudyError(f"{folder} has no label map for case {case['case']}; predict every case of the test set")
    label_map = read_mask(file, {value: level for value, level in enumerate(LEVELS, 1)})
    if label_map.shape != shape:
        raise StudyError(f"label map {file} has shape {label_map.shape} but its image {shape}; write it on that grid")
    return label_map


def read_probabilities(folder: Path, case: str, shape: tuple[int, int] | None = None) -> np.ndarray | None:
    """(6, height, width) float32 probabilities of L1..S1 in [0, 1], steps of 1/255; None where a model gives none.

    Raises StudyError where a pixel's six probabilities add up to more than one and its rounding, or where the maps are
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
    """Scores of label maps as tidy tables; each row names its model.

    scores : case, patient, level, model, metric, value; see `metrics.DEFINITIONS`; level `all` is the whole image.
    instances : case, patient, level, model, iou, confidence, real; one level of an image as one object, in either map.
        confidence : confidence of the prediction, its mean probability; nan if not predicted, 1 without probabilities.
        real : whether it is in the reference.
    bodies : case, patient, model, and `instances.COLUMNS`; one row per vertebra, matched whatever its name.
    pixels : case, patient, model, true, pred, pixels; the confusion matrix (0 background, 1..6 = L1..S1).
    curves : model, level, probability (0..255), hits, pixels over all images; level `vertebra` is any level.
    reliability : model, bin, pixels, confidence, right (sums over the pixels of a bin) over all images.
    """

    scores: pd.DataFrame
    instances: pd.DataFrame
    bodies: pd.DataFrame
    pixels: pd.DataFrame
    curves: pd.DataFrame
    reliability: pd.DataFrame

    def write(self, study: "Study | Grid", cohort: Cohort, folders: dict[str, Path]) -> None:
        """Write each table as <name>.csv into the study's folder, and scores.json, which records their origin.

        cohort, folders : as `evaluate` was given them.
        """
        record = study.folder / "scores.json"
        made_from = freshness.scored(cohort, folders)
        record.unlink(missing_ok=True)
        for name, table in vars(self).items():
            records.write_csv(study.folder / f"{name}.csv", table)
        files = [study.folder / f"{name}.csv" for name in vars(self)]
        described = {"fingerprint": study.fingerprint, "data": {"fingerprint": cohort.fingerprint}}
        origin = freshness.origin_of_scores(described, study.folder, folders)
        records.mark_finished(record, made_from, files, origin=origin)

    @classmethod
    def read(cls, study: "Study | Grid", cohort: Cohort, folders: dict[str, Path]) -> "Evaluation":
        """The tables that `write` left in the study's folder.

        cohort, folders : as `evaluate` was given them. Raises StudyError unless the tables are scores of these.
        """
        if not records.is_finished(study.folder / "scores.json", freshness.scored(cohort, folders)):
            raise StudyError(f"{study.folder} has no scores of these label maps; run notebook 05 first")
        tables = {field.name: records.read_csv(study.folder / f"{field.name}.csv") for field in dataclasses.fields(cls)}
        tables["bodies"] = tables["bodies"].fillna({"level": "", "named": ""})  # stored as empty cells
        return cls(**tables)

    def of(self, models: Iterable[str]) -> "Evaluation":
        """The same tables with the rows of some models only."""
        chosen = list(models)
        return Evaluation(**{name: table[table["model"].isin(chosen)] for name, table in vars(self).items()})

    def of_cases(self, cases: Iterable[str]) -> "Evaluation":
        """The same tables with the rows of some cases only; curves and reliability stay those of all cases."""
        chosen, tables = list(cases), vars(self)
        return dataclasses.replace(self, **{name: tables[name][tables[name]["case"].isin(chosen)] for name in COLUMNS})


def evaluate(cohort: Cohort, folders: dict[str, Path]) -> Evaluation:
    """Score the label maps of the test cases.

    folders : model -> folder of <case>.png, and of <case>.npz with probabilities where the model gives them.
    Images are read one at a time; large test sets are shared over the cores.
    Raises StudyError for a case without a label map, a label map on another grid, unknown labels, and probabilities
    that exceed one.
    """
    test = cohort.cases[cohort.cases["split"] == "test"]
    tasks = []
    for model, folder in folders.items():
        for start in range(0, len(test), CASES_PER_TASK):
            tasks.append((model, folder, test.iloc[start : start + CASES_PER_TASK]))
    cohort = dataclasses.replace(cohort, cases=test.head(0))  # each task brings its own cases
    workers = 1 if len(tasks) < 4 else cpu_count()
    results = Parallel(workers, return_as="generator")(delayed(_score_cases)(cohort, *task) for task in tasks)
    rows: dict[str, list] = {name: [] for name in COLUMNS}
    curves: dict[str, np.ndarray] = {}
    bins: dict[str, np.ndarray] = {}
    for (model, _, _), (task_rows, task_curves, task_bins) in zip(tasks, results, strict=True):
        for name in COLUMNS:
            rows[name] += task_rows[name]
        curves[model] = curves.get(model, 0) + task_curves
        bins[model] = bins.get(model, 0) + task_bins
    tables = {name: pd.DataFrame(rows[name], columns=columns) for name, columns in COLUMNS.items()}
    tables["curves"] = _curve_table(curves, [*annotated_levels(cohort).values(), ANY_LEVEL])
    return Evaluation(**tables, reliability=_reliability_table(bins))


def _score_cases(cohort: Cohort, model: str, folder: Path, cases: pd.DataFrame) -> tuple[dict, np.ndarray, np.ndarray]:
    """Rows of each table of COLUMNS; summed curves (levels + 1, 2, 256) and calibration bins (3, 15)."""
    levels, rows = annotated_levels(cohort), {name: [] for name in COLUMNS}
    curves, bins = np.zeros((len(levels) + 1, 2, 256), np.int64), np.zeros((3, metrics.CALIBRATION_BINS))
    for _, case in cases.iterrows():
        pred, true, maps = _read_case(cohort, folder, case, levels)
        spacing_mm, key = case["spacing_mm"], (case["case"], case["patient"])
        confusion = np.bincount(7 * true.ravel().astype(np.int64) + pred.ravel(), minlength=49).reshape(7, 7)
        instances, scores = _score_levels(pred, true, maps, levels, spacing_mm)
        if maps is not None:
            case_curves, case_bins = _curves_and_bins(pred, true, maps, levels)
            curves += case_curves
            bins += case_bins
            scores += _score_probabilities(case_curves, case_bins, levels)
        rows["scores"] += [(*key, level, model, metric, value) for level, metric, value in scores]
        rows["instances"] += [(*key, level, model, *instance) for level, instance in instances.items()]
        rows["bodies"] += [(*key, model, *match) for match in match_instances(pred, true, levels, spacing_mm)]
        for real, predicted in np.argwhere(confusion).tolist():
            rows["pixels"].append((*key, model, real, predicted, int(confusion[real, predicted])))
    return rows, curves, bins


def _read_case(
    cohort: Cohort, folder: Path, case: pd.Series, levels: dict[int, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Predicted and reference label map, and the probabilities; a level that is not annotated is background in all."""
    true = cohort.mask(case)
    pred, maps = read_label_map(folder, case, true.shape), read_probabilities(folder, case["case"], true.shape)
    for label_map in (pred, true):
        label_map[~np.isin(label_map, [*levels])] = 0
    if maps is not None:
        maps[[value - 1 for value in range(1, 1 + len(LEVELS)) if value not in levels]] = 0
    return pred, true, maps


def _score_levels(
    pred: np.ndarray, true: np.ndarray, maps: np.ndarray | None, levels: dict[int, str], spacing_mm: float
) -> tuple[dict[str, tuple], list[tuple]]:
    """Level -> (iou, confidence, in the reference) of the levels in either map, and rows (level, metric, value)."""
    instances, rows = {}, []
    for value, level in levels.items():
        mask, reference = pred == value, true == value
        scores = metrics.overlap(mask, reference)
        if not scores:
            continue
        confidence, real = np.nan, int(reference.sum())
        if mask.any():
            confidence = 1.0 if maps is None else float(maps[value - 1][mask].mean())
        instances[level] = (scores["iou"], confidence, real > 0)
        if real:
            scores["area_error"] = (int(mask.sum()) - real) / real
        scores |= metrics.distances(mask, reference, spacing_mm)
        rows += [(level, metric, score) for metric, score in scores.items()]
    found = [(iou, not np.isnan(confidence), real) for iou, confidence, real in instances.values()]
    rows += [(WHOLE_IMAGE, metric, score) for metric, score in metrics.panoptic(found).items()]
    return instances, rows


def _curves_and_bins(
    pred: np.ndarray, true: np.ndarray, maps: np.ndarray, levels: dict[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Precision-recall counts of each level and of any level, and calibration bins of the vertebrae in either map."""
    curves = [metrics.precision_recall_counts(maps[value - 1], true == value) for value in levels]
    curves.append(metrics.precision_recall_counts(np.minimum(maps.sum(axis=0), 1), true > 0))
    where = (pred > 0) | (true > 0)
    predicted, real = pred[where], true[where]
    background = np.clip(1 - maps[:, where].sum(axis=0), 0, 1)
    probabilities = np.stack([background, *maps[:, where]])  # (7, pixels)
    confidence = probabilities[predicted, np.arange(len(predicted))]
    return np.stack(curves), metrics.calibration_bins(confidence, predicted == real)


def _score_probabilities(curves: np.ndarray, bins: np.ndarray, levels: dict[int, str]) -> list[tuple]:
    """Rows (level, metric, value) of what is scored on probabilities; a level without reference pixels has none."""
    rows = []
    for level, counts in zip(levels.values(), curves[:-1], strict=True):  # the last curve is of any level
        rows.append((level, "ap_pixel", metrics.average_precision(counts)))
    rows.append((WHOLE_IMAGE, "ece", metrics.calibration_error(bins)))
    return [row for row in rows if not np.isnan(row[2])]


def _curve_table(curves: dict[str, np.ndarray], levels: list[str]) -> pd.DataFrame:
    rows = pd.MultiIndex.from_product([curves, levels, range(256)], names=["model", "level", "probability"])
    counts = np.stack(list(curves.values())).swapaxes(-1, -2).reshape(-1, 2)
    return pd.DataFrame(counts, rows, ["hits", "pixels"]).reset_index()


def _reliability_table(bins: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = pd.MultiIndex.from_product([bins, range(metrics.CALIBRATION_BINS)], names=["model", "bin"])
    sums = np.stack(list(bins.values())).swapaxes(-1, -2).reshape(-1, 3)
    table = pd.DataFrame(sums, rows, ["pixels", "confidence", "right"]).reset_index()
    return table.astype({"pixels": int, "right": int})
