"""A trained network applied to images of any source: label maps, and a sheet of the first images with contours."""

import dataclasses
import tempfile
from pathlib import Path

from lumbar_utils import FURTHER, MODELS, StudyError, records
from lumbar_utils.data import sources
from lumbar_utils.data.folder import Cohort
from lumbar_utils.study import Study, record_of

SHEET = 24  # images on the sheet, which is a page


def predict_source(trained: Path, model: str, source: str, destination: Path, slices: int = 1) -> Path:
    """Write a label map for every image of a source, by a model that a study trained; returns the destination.

    trained : folder of that study. source : as a study's `dataset`; its masks are ignored. slices : of each volume.
    destination : new folder for label_maps/<case>.png and .npz (see `prediction.predict`), cases.csv, the first
        images with contours as overlay.png, .pdf and .svg, and, written last, predict.json.
    Raises StudyError if `trained` holds no such model, the source cannot be read, or `destination` exists.
    """
    settings, levels = read_trained(trained, model)
    refuse_existing(destination)
    from lumbar_utils.networks.checkpoints import trained_network, weights_file
    from lumbar_utils.networks.dataset import classes_of
    from lumbar_utils.networks.prediction import write_label_maps

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # no copy of the images stays behind
        here = {"dataset": source, "slices": slices, "cache": cache}
        study = Study(**settings | here)
        cohort = sources.load(study)
        cohort = dataclasses.replace(cohort, cases=cohort.cases.assign(split="test", mask=""))
        network, classes = trained_network(study, model, trained / model), classes_of(levels)
        files = write_label_maps(study, cohort, network, classes, destination / "label_maps")
        records.write_csv(destination / "cases.csv", cohort.cases.drop(columns=["image", "mask", "split"]))
        files += [destination / "cases.csv", *_write_sheet(cohort, model, destination)]
    weights = records.fingerprint_files([weights_file(trained / model)])
    records.mark_finished(
        destination / "predict.json", records.fingerprint(weights, cohort.fingerprint), files,
        model=model, levels=levels,
    )  # fmt: skip
    return destination


def refuse_existing(destination: Path) -> None:
    """Raise StudyError if there is something at `destination`."""
    if destination.exists():
        raise StudyError(f"{destination} exists already; remove it, or name another folder to write into")


def read_trained(trained: Path, model: str) -> tuple[dict, list[str]]:
    """Settings to apply a study's network with, and the levels it knows; what its training began with is left out.

    Raises StudyError if the study has not trained the model.
    """
    if model not in MODELS and not model.startswith(FURTHER):
        raise StudyError(f"unknown model {model!r}; allowed are {', '.join(MODELS)}, and {FURTHER}NAME")
    record = record_of(trained)
    if not records.is_complete(trained / model / "fit.json"):
        raise StudyError(f"{model} is not trained in {trained}; run its training notebook first")
    here = {"device": "auto", "workers": 0, "encoder_weights": "none", "start_from": "none", "epochs": 1}
    return record["settings"] | here, record["data"].get("taught", record["data"]["annotated"])


def _write_sheet(cohort: Cohort, model: str, destination: Path) -> list[Path]:
    """Draw the first images with their label maps as contours; returns the files."""
    from lumbar_utils.output import figures
    from lumbar_utils.output.viewer import Example
    from lumbar_utils.scores.evaluation import read_label_map

    examples = []
    for _, case in cohort.cases.head(SHEET).iterrows():
        image = cohort.image(case)
        label_map = read_label_map(destination / "label_maps", case, image.shape)
        examples.append(Example(case["case"], image, label_map, case["spacing_mm"]))
    sheet = figures.samples(examples, f"{MODELS.get(model, model)} on {cohort.note}")
    return figures.save(sheet, destination, "overlay", figures.overlay_caption(model, len(examples), cohort))
