"""A trained network applied to images of any source: label maps, and a sheet to look them over."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lumbar_utils import FURTHER, MODELS, StudyError, records
from lumbar_utils.data import sources
from lumbar_utils.data.folder import Cohort
from lumbar_utils.study import Study, record_of

if TYPE_CHECKING:
    from lumbar_utils.output.examples import Example

SHEET = 24  # images on the sheet: what fits on a page


def predict_source(trained: Path, model: str, source: str, destination: Path, slices: int = 1) -> Path:
    """Write a label map for every image of a source, by a model that a study trained.

    trained : folder of that study. source : as a study's `dataset`, masks are not looked at; slices : of a volume.
    destination : a new folder for label_maps/<case>.png and .npz (see `prediction.predict`), cases.csv, the first
        images with their contours as overlay.png, .pdf and .svg, and, written last, predict.json.
    Raises StudyError if `trained` holds no such model, the source cannot be read, or `destination` exists.
    """
    settings, levels = _read_study(trained, model)
    if destination.exists():
        raise StudyError(f"{destination} exists already; remove it, or name another folder to write into")
    from lumbar_utils.networks.checkpoints import trained_network
    from lumbar_utils.networks.dataset import classes_of
    from lumbar_utils.networks.prediction import write_label_maps
    from lumbar_utils.output import captions, figures

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # no copy of the images stays behind
        here = {"dataset": source, "slices": slices, "cache": cache, "device": "auto", "workers": 0}
        here |= {"encoder_weights": "none", "start_from": "none", "epochs": 1}  # what training began with may be gone
        study = Study(**settings | here)
        cohort = sources.load(study)
        cohort = dataclasses.replace(cohort, cases=cohort.cases.assign(split="test", mask=""))
        network, classes = trained_network(study, model, trained / model), classes_of(levels)
        files = write_label_maps(study, cohort, network, classes, destination / "label_maps")
        records.write_csv(destination / "cases.csv", cohort.cases.drop(columns=["image", "mask", "split"]))
        sheet = figures.samples(
            _overlays(cohort, destination / "label_maps"), f"{MODELS.get(model, model)} on {cohort.note}"
        )
    caption = captions.overlay(model, min(SHEET, len(cohort.cases)), cohort)
    files += [destination / "cases.csv", *figures.save(sheet, destination, "overlay", caption)]
    weights = records.fingerprint_files([trained / model / "checkpoints" / "best.ckpt"])
    records.mark_finished(
        destination / "predict.json", records.fingerprint(weights, cohort.fingerprint), files,
        model=model, levels=levels,
    )  # fmt: skip
    return destination


def _read_study(trained: Path, model: str) -> tuple[dict, list[str]]:
    """Settings of a study, and the levels it taught. Raises StudyError if the model is not trained in its folder."""
    if model not in MODELS and not model.startswith(FURTHER):
        raise StudyError(f"unknown model {model!r}; allowed are {', '.join(MODELS)}, and {FURTHER}NAME")
    record = record_of(trained)
    if not records.is_complete(trained / model / "fit.json"):
        raise StudyError(f"{model} is not trained in {trained}; run its training notebook first")
    return record["settings"], record["data"].get("taught", record["data"]["annotated"])


def _overlays(cohort: Cohort, folder: Path) -> "list[Example]":
    """The first images of a cohort, with the label maps in a folder to be drawn over them."""
    from lumbar_utils.output.examples import Example
    from lumbar_utils.scores.evaluation import read_label_map

    found = []
    for _, case in cohort.cases.head(SHEET).iterrows():
        image = cohort.image(case)
        found.append(Example(case["case"], image, read_label_map(folder, case, image.shape), case["spacing_mm"]))
    return found
