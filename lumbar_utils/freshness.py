"""What makes a result stale: the one place that decides it, for every kind of result.

A result keeps the fingerprint of what it was made from beside it, or in its name. It is fresh while the fingerprint
computed here is the same: of its inputs (settings, data and weights, by content), of the code that makes it, and of the
versions of the packages that compute it. Anything else is made again.
"""

import functools
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lumbar_utils import StudyError, records
from lumbar_utils.study import CONVERTED

if TYPE_CHECKING:
    from lumbar_utils.data.folder import Cohort
    from lumbar_utils.study import Study


class Maker(NamedTuple):
    """The modules that make a kind of result (none: the whole package), and the packages that compute or draw it.

    Modules that only decide where, when or under which name a result is written are not listed.
    """

    code: tuple[str, ...] = ()
    packages: tuple[str, ...] = records.REPORTED


PIXELS = ("numpy", "opencv-python-headless", "pillow")
NETWORKS = (*PIXELS, "torch", "torchvision", "timm", "segmentation-models-pytorch", "lightning", "albumentations")
READING = ("data/folder", "data/pixels", "data/split", "data/textfiles")
CONVERTING = (*READING, "data/files", "data/labels", "data/volumes", "data/writing")
MAKERS = {
    "phantom": Maker(
        ("phantom/phantom", "phantom/anatomy", "phantom/surroundings", "phantom/mri"), (*PIXELS, "scipy")
    ),
    **{
        kind: Maker((*CONVERTING, f"data/{kind}"), (*PIXELS, "scipy", "simpleitk", "pydicom")) for kind in CONVERTED
    },
    "audit": Maker(
        (
            *READING, "data/audit/__init__", "data/audit/kinds", "data/audit/cases", "data/audit/geometry",
            "data/audit/likeness",
        ),
        (*PIXELS, "scipy", "pandas"),
    ),
    "decoded": Maker((*READING, "data/decoding"), PIXELS),
    "training": Maker(
        (
            *READING, "data/decoding", "data/preparation", "networks/models", "networks/losses", "networks/dataset",
            "networks/training", "networks/devices",
        ),
        NETWORKS,
    ),
    "added": Maker(("scores/external", *CONVERTING), (*PIXELS, "simpleitk")),
    "label maps": Maker((*READING, "networks/prediction", "data/decoding"), NETWORKS),
    "robustness": Maker(("appendix/robustness", "scores/metrics"), NETWORKS),
    "cost": Maker(("appendix/cost",), NETWORKS),
    "scores": Maker(
        (*READING, "scores/evaluation", "scores/metrics", "scores/instances"), (*PIXELS, "scipy", "pandas")
    ),
    "notebook": Maker(),
}  # fmt: skip


def made_from(result: str, *inputs) -> str:
    """Fingerprint of a result of a kind in MAKERS.

    inputs : what is particular to this result, as JSON values: fingerprints of settings, data and earlier results.
    """
    code, packages = MAKERS[result]
    return records.fingerprint(result, inputs, records.source_fingerprint(*code), versions(packages))


@functools.cache  # what is imported stays as it is
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Package -> its installed version."""
    return {name: importlib.metadata.version(name) for name in packages}


def trained(study: "Study", data: str, model: str) -> str:
    """Fingerprint of a trained network. data : fingerprint of the cohort.

    The network that training starts from counts by what it was made from. Raises StudyError where there is none.
    """
    return made_from("training", study.fingerprint, data, model, _start(study, model))


def _start(study: "Study", model: str) -> str | None:
    """Fingerprint of what a network starts from; of phantoms that nobody may have drawn yet, of what draws them."""
    if study.start_from == "phantoms":
        return made_from("training", study.phantoms.fingerprint, made_from("phantom"), model)
    return record_to_start_from(study, model)["made_from"] if study.start else None


def predicted(study: "Study", data: str, model: str) -> str:
    """Fingerprint of the label maps of a trained network. data : fingerprint of the cohort."""
    return made_from("label maps", trained(study, data, model))


def scored(cohort: "Cohort", folders: dict[str, Path]) -> str:
    """Fingerprint of the scores of label maps; these count by content. folders : model -> folder of label maps."""
    maps = {model: records.fingerprint_files(sorted(folder.glob("[!.]*"))) for model, folder in folders.items()}
    return made_from("scores", cohort.fingerprint, cohort.cases["case"].tolist(), maps)


def record_to_start_from(study: "Study", model: str) -> dict:
    """fit.json of the trained network that training starts from. Raises StudyError where there is none."""
    record = study.start / model / "fit.json"
    if not records.is_complete(record):
        raise StudyError(f"start_from={study.start} holds no trained {model}; name a study's folder in data/runs")
    return records.read_json(record)


def refuse_stale_label_maps(study: "Study", cohort: "Cohort", model: str) -> None:
    """Raise StudyError unless a model's label maps in the study's folder are whole, and made from today's inputs.

    Label maps of another tool, and those gathered from the runs of a grid, belong to the data that they were added for.
    """
    folder = study.folder / model
    if not records.is_complete(folder / "predict.json"):
        raise StudyError(f"{model} has no label maps in {folder}; run its training notebook first")
    record = records.read_json(folder / "predict.json")
    if "data" in record and record["data"] != cohort.fingerprint:
        raise StudyError(
            f"the label maps of {model} in {folder} are stale: they were added for other data; add them again by "
            "--add, or remove that folder"
        )
    if "data" not in record and record["made_from"] != predicted(study, cohort.fingerprint, model):
        raise StudyError(
            f"the label maps of {model} in {folder} are stale: data, settings, code or packages have changed since "
            "they were made; run its training notebook again"
        )


def origin_of_scores(study: dict, folder: Path, models: Iterable[str]) -> dict:
    """What the scores in a study's folder are made from: name -> fingerprint. study : what study.json says."""
    made = {model: [file for file in [folder / model / "predict.json"] if file.exists()] for model in models}
    maps = {model: records.fingerprint_files(record) for model, record in made.items()}
    return {"settings": study.get("fingerprint"), "data": study.get("data", {}).get("fingerprint"), "label maps": maps}


def stale_scores(folder: Path) -> str:
    """Why the scores in a study's folder are not of what lies there today, or not whole; "" if they are.

    Scores without a record, as of an export, are taken as they are.
    """
    recorded = records.read_json(folder / "scores.json").get("origin", {})
    today = origin_of_scores(records.read_json(folder / "study.json"), folder, recorded.get("label maps", ()))
    changed = [name for name, value in recorded.items() if value != today[name]]
    if not changed:
        halves = records.truncated_files(folder / "notebooks" / "05_evaluate_and_compare.json")
        return f"{halves[0]} is cut off; copy it again, or run notebook 05 again" if halves else ""
    other = " and ".join(changed)
    return f"scores, tables and figures were made from other {other} than are there today; run notebook 05 again"


def refuse_stale_scores(folder: Path) -> None:
    """Raise StudyError for a study whose scores are stale."""
    if stale := stale_scores(folder):
        raise StudyError(f"{folder}: {stale}")
