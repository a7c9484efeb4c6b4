"""What makes a result stale, for every kind of result.

A result keeps the fingerprint of what it was made from in a record beside it, or in its name. It is made again unless
that fingerprint is the same as the one computed here: of its inputs (settings, data and weights, by content), of the
code that makes it, and of the versions of the packages that compute it.
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

    Modules that only decide where, when or under which name a result is written are left out.
    """

    code: tuple[str, ...] = ()
    packages: tuple[str, ...] = records.REPORTED


PIXELS = ("numpy", "opencv-python-headless", "pillow")
VOLUMES = (*PIXELS, "scipy", "simpleitk", "nibabel", "pydicom")
NETWORKS = (*PIXELS, "torch", "torchvision", "timm", "segmentation-models-pytorch", "lightning", "albumentations")
READING = ("data/folder", "data/images", "data/split", "data/files")
CONVERTING = (*READING, "data/volumes")
MAKERS = {
    "phantom": Maker(
        ("phantom/phantom", "phantom/anatomy", "phantom/tissue", "phantom/mri"), (*PIXELS, "scipy")
    ),
    **{kind: Maker((*CONVERTING, f"data/{kind}"), VOLUMES) for kind in CONVERTED},
    "audit": Maker((*READING, "data/audit", "data/checks"), (*PIXELS, "scipy", "pandas")),
    "decoded": Maker((*READING, "data/decoding"), PIXELS),
    "training": Maker(
        (
            *READING, "data/decoding", "data/preparation", "networks/models", "networks/losses", "networks/dataset",
            "networks/augmentation", "networks/training", "networks/segmentation", "machine",
        ),
        NETWORKS,
    ),
    "added": Maker(("scores/external", *CONVERTING), VOLUMES),
    "label maps": Maker((*READING, "networks/prediction", "data/decoding"), NETWORKS),
    "robustness": Maker(("appendix/robustness", "scores/metrics"), NETWORKS),
    "cost": Maker(("appendix/cost",), NETWORKS),
    "scores": Maker(
        (*READING, "scores/evaluation", "scores/metrics", "scores/instances"), (*PIXELS, "scipy", "pandas")
    ),
    "notebook": Maker(),
}  # fmt: skip


def made_from(result: str, *inputs) -> str:
    """Fingerprint of a result. result : its kind, a key of MAKERS.

    inputs : JSON values, such as the fingerprints of settings, data and earlier results.
    """
    code, packages = MAKERS[result]
    return records.fingerprint(result, inputs, records.source_fingerprint(*code), versions(packages))


@functools.cache  # imported packages stay as they are
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Package -> its installed version."""
    return {name: importlib.metadata.version(name) for name in packages}


def trained(study: "Study", data: str, model: str) -> str:
    """Fingerprint of a trained network, and of the one that its training starts from. data : that of the cohort.

    Raises StudyError where there is no network to start from.
    """
    return made_from("training", study.fingerprint, data, model, _start(study, model))


def _start(study: "Study", model: str) -> str | None:
    """Fingerprint of what a network starts from; None at random. Phantoms need not have been made yet."""
    if study.start_from == "phantoms":
        return made_from("training", study.phantoms.fingerprint, made_from("phantom"), model)
    return record_to_start_from(study, model)["made_from"] if study.start else None


def predicted(study: "Study", data: str, model: str) -> str:
    """Fingerprint of the label maps of a trained network. data : that of the cohort."""
    return made_from("label maps", trained(study, data, model))


def scored(cohort: "Cohort", folders: dict[str, Path]) -> str:
    """Fingerprint of the scores of label maps, by their content. folders : model -> folder of label maps."""
    maps = {model: records.fingerprint_files(sorted(folder.glob("[!.]*"))) for model, folder in folders.items()}
    return made_from("scores", cohort.fingerprint, cohort.cases["case"].tolist(), maps)


def record_to_start_from(study: "Study", model: str) -> dict:
    """fit.json of the trained network that training starts from. Raises StudyError where there is none."""
    record = study.start / model / "fit.json"
    if not records.is_complete(record):
        raise StudyError(
            f"start_from={study.start} holds no trained {model}; name a study's folder in data/runs, or phantoms"
        )
    return records.read_json(record)


def refuse_stale_label_maps(study: "Study", cohort: "Cohort", model: str) -> None:
    """Raise StudyError unless a model's label maps in the study's folder are complete, and made from today's inputs.

    Label maps of another tool, and those gathered from the runs of a grid, are only compared with today's data.
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
    """What the scores in a study's folder are made from: name -> fingerprint. study : content of study.json."""
    maps = {model: records.fingerprint_files((folder / model).glob("predict.json")) for model in models}
    return {"settings": study.get("fingerprint"), "data": study.get("data", {}).get("fingerprint"), "label maps": maps}


def stale_scores(folder: Path) -> str:
    """Why the scores in a study's folder are damaged, or not of the data and label maps there today; "" if they are.

    Scores without a record, as of an export, are accepted as they are.
    """
    recorded = records.read_json(folder / "scores.json").get("origin", {})
    today = origin_of_scores(records.read_json(folder / "study.json"), folder, recorded.get("label maps", ()))
    changed = " and ".join(name for name, value in recorded.items() if value != today[name])
    if changed:
        return f"scores, tables and figures were made from other {changed} than are there today; run notebook 05 again"
    for notebook in ("05_evaluate_and_compare", "06_appendix"):
        truncated = records.truncated_files(folder / "notebooks" / f"{notebook}.json")
        if truncated:
            return f"{truncated[0]} is cut off; copy it again, or run notebook {notebook[:2]} again"
    return ""


def refuse_stale_scores(folder: Path) -> None:
    """Raise StudyError if the scores in a study's folder are stale."""
    if stale := stale_scores(folder):
        raise StudyError(f"{folder}: {stale}")
