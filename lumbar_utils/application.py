"""A trained network applied to images of any source: label maps, and a sheet of the first images with contours."""

import dataclasses
import tempfile
from pathlib import Path
from typing import NamedTuple

from torch import nn

from lumbar_utils import FURTHER, MODELS, StudyError, model_name, records
from lumbar_utils.data import sources
from lumbar_utils.data.folder import Cohort
from lumbar_utils.networks.checkpoints import trained_network, weights_file
from lumbar_utils.networks.dataset import classes_of
from lumbar_utils.networks.prediction import write_label_maps
from lumbar_utils.study import Study, record_of

SHEET = 24  # images on the sheet, which is a page


class Trained(NamedTuple):
    """A trained network. study : its input's size and other settings to apply it with. levels : those it knows.

    weights : fingerprint of their file.
    """

    study: Study
    model: str
    network: nn.Module
    levels: list[str]
    weights: str

    @property
    def classes(self) -> list[int]:
        """Output channels that were trained, background first."""
        return classes_of(self.levels)


def read_trained(folder: Path, model: str, **settings) -> Trained:
    """A network that the study in a folder trained; what its training began with is left out.

    settings : of the study, to be replaced. Raises StudyError if the study has not trained the model.
    """
    if model not in MODELS and not model.startswith(FURTHER):
        raise StudyError(f"unknown model {model!r}; allowed are {', '.join(MODELS)}, and {FURTHER}NAME")
    record = record_of(folder)
    if not records.is_complete(folder / model / "fit.json"):
        raise StudyError(f"{model} is not trained in {folder}; run its training notebook first")
    here = {"device": "auto", "workers": 0, "encoder_weights": "none", "start_from": "none", "epochs": 1}
    study = Study(**record["settings"] | here | {"dataset": "phantom"} | settings)
    levels = record["data"].get("taught", record["data"]["annotated"])
    network = trained_network(study, model, folder / model)
    return Trained(study, model, network, levels, records.fingerprint_files([weights_file(folder / model)]))


def predict_source(folder: Path, model: str, source: str, destination: Path, slices: int = 1) -> Path:
    """Write a label map for every image of a source, by a model that a study trained; returns the destination.

    folder : of that study. source : as a study's `dataset`; its masks are ignored. slices : of each volume.
    destination : new folder, which appears once it is complete: label_maps/<case>.png and .npz (see
        `prediction.predict`), cases.csv, the first images with contours (overlay.png, .pdf, .svg) and predict.json.
    Raises StudyError if the study has no such model, the source cannot be read, or `destination` exists.
    """
    refuse_existing(destination)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:  # no copy of the images stays behind
        trained = read_trained(folder, model, dataset=source, slices=slices, cache=cache)
        cohort = sources.load(trained.study)
        cohort = dataclasses.replace(cohort, cases=cohort.cases.assign(split="test", mask=""))
        with records.atomic_folder(destination) as temporary:
            label_maps = temporary / "label_maps"
            files = write_label_maps(trained.study, cohort, trained.network, trained.classes, label_maps)
            records.write_csv(temporary / "cases.csv", cohort.cases.drop(columns=["image", "mask", "split"]))
            files += [temporary / "cases.csv", *_write_sheet(cohort, model, temporary)]
            made_from = records.fingerprint(trained.weights, cohort.fingerprint)
            records.mark_finished(temporary / "predict.json", made_from, files, model=model, levels=trained.levels)
    return destination


def refuse_existing(destination: Path) -> None:
    """Raise StudyError if there is something at `destination`."""
    if destination.exists():
        raise StudyError(f"{destination} exists already; remove it, or name another folder to write into")


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
    sheet = figures.samples(examples, f"{model_name(model)} on {cohort.note}")
    return figures.save(sheet, destination, "overlay", figures.overlay_caption(model, len(examples), cohort))
