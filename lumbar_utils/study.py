"""Every choice of a study in one frozen record, with three profiles and refusal of what is unknown or wrong."""

import difflib
import functools
import html
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lumbar_utils import StudyError, records
from lumbar_utils.machine import best_device

ROOT = Path(__file__).resolve().parents[1]  # notebooks, data and figures lie beside the package
DATA = ROOT / "data"
CONVERTED = ("composite", "spider", "dicom", "nifti")  # sources that are first written into the canonical folder

PROFILES = {
    # seconds, for tests: too short to learn anything
    "smoke": dict(
        phantom_patients=14, phantom_size=96, height=64, width=64, epochs=2, batch_size=4, learning_rate=1e-3,
        images_per_epoch=0, unet_channels=4, hrnet="hrnet_w18_small", efficientnet="efficientnet-b0",
    ),
    # a coffee break on two CPU cores: 192 x 192 pixels, a narrow U-Net and a small HRNet
    "quick": dict(
        phantom_patients=514, phantom_size=320, height=192, width=192, epochs=9, batch_size=4, learning_rate=4e-3,
        images_per_epoch=360, unet_channels=16, hrnet="hrnet_w18_small", efficientnet="efficientnet-b0",
    ),
    # images of patients on two CPU cores: as quick, four times as long
    "patients": dict(
        phantom_patients=514, phantom_size=320, height=192, width=192, epochs=36, batch_size=4, learning_rate=4e-3,
        images_per_epoch=360, unet_channels=16, hrnet="hrnet_w18_small", efficientnet="efficientnet-b0",
    ),
    # the paper's 514 images, the full-size networks; wants a GPU
    "paper": dict(
        phantom_patients=514, phantom_size=320, height=320, width=320, epochs=60, batch_size=16, learning_rate=2e-3,
        images_per_epoch=360, unet_channels=64, hrnet="hrnet_w18", efficientnet="efficientnet-b0",
    ),
}  # fmt: skip
START_LENGTH = 2  # of the training on phantoms that others start from, in the epochs of its profile
FINE_TUNING = 0.25  # of a profile's learning rate, for networks that are trained already

MAIN = {"profile", "dataset", "seed", "height", "width", "epochs"}  # shown by a notebook without a click
HEAD = "".join(f'<th style="text-align: left">{title}</th>' for title in ("setting", "value", "meaning"))

NO_FILE = ("none", "imagenet")  # of encoder_weights, which is a path otherwise
STARTS = ("none", "phantoms")  # of start_from, which is a path otherwise
# settings that a study shares with the phantoms that its networks start from: of networks, of their input, of phantoms
# and of this machine
SHARED = (
    "height", "width", "normalisation", "unet_channels", "hrnet", "efficientnet", "deep_supervision",
    "phantom_patients", "phantom_size", "phantom_difficulty",
    "accumulate", "batch_size", "precision", "device", "devices", "nodes", "strategy", "workers", "runs", "cache",
)  # fmt: skip
WITHOUT_EFFECT_ON_RESULTS = {"accept", "runs", "cache", "workers", "device"}
PATHS = ("dataset", "encoder_weights", "start_from", "runs", "cache")  # settings that may hold one


def clone() -> Path:
    """The project's root. Raises StudyError where the package was installed without it."""
    if not (ROOT / "notebooks").is_dir():
        raise StudyError(
            f"lumbar_utils is installed in {ROOT} without its notebooks; clone the project and install that: "
            "pip install --editable CLONE"
        )
    return ROOT


def default_profile() -> str:
    """`paper` where there is a GPU, else `quick`."""
    return "quick" if best_device() == "cpu" else "paper"


def absolute(path: str | Path, start: Path = ROOT) -> Path:
    """A relative path starts at the project's root, wherever a notebook is stepped through from.

    Raises StudyError for what is no path, or an empty one.
    """
    if not isinstance(path, str | Path) or not str(path).strip():
        raise StudyError(f"{path!r} is no path; name a file or a folder")
    path = Path(os.path.expanduser(path))  # Path's own raises where there is no such user
    return (path if path.is_absolute() else (clone() if start == ROOT else start) / path).resolve()


Name = Annotated[str, Field(min_length=1)]
Folder = Annotated[Path, BeforeValidator(absolute)]


def _usual_start(settings: dict) -> str:
    """Images of patients are few: networks know phantoms first, unless they are told to start from something else."""
    of_patients = settings.get("dataset", "phantom") != "phantom" and settings["profile"] != "smoke"
    return "phantoms" if of_patients and settings.get("encoder_weights", "none") == "none" else "none"


def _start(source: str | Path | None) -> str | Path:
    return source or "none" if source in (None, *STARTS) else absolute(source)


Start = Annotated[Literal["none", "phantoms"] | Path, BeforeValidator(_start)]


def kind_and_path(dataset: str, start: Path = ROOT) -> tuple[str, Path | None]:
    """`phantom`, `spider`, `spider:PATH` or `PATH` -> kind and path; no path where it is found by its kind."""
    kind, colon, path = dataset.partition(":")
    if dataset == "phantom" or dataset in CONVERTED:
        return dataset, None
    if colon and kind in (*CONVERTED, "folder"):
        return kind, absolute(path, start)
    return "folder", absolute(dataset, start)


def _whole_source(dataset: str, start: Path = ROOT) -> str:
    if not isinstance(dataset, str) or not dataset.strip():
        raise StudyError("it names no data set; use phantom, a folder, or KIND:PATH: see data/README.md")
    kind, path = kind_and_path(dataset, start)
    return kind if path is None else f"{kind}:{path}".removeprefix("folder:")


Source = Annotated[str, BeforeValidator(_whole_source)]


def _identity(dataset: str) -> list:
    """What tells one data set from another, wherever it lies: its tables, or names and sizes of its source files."""
    kind, path = kind_and_path(dataset)
    if path is None:
        return [kind]
    if kind == "folder":
        tables = [path / name for name in ("dataset.json", "cases.csv")]
        return [kind, records.fingerprint_files(table for table in tables if table.is_file())]
    return [kind, _listing(path)]


@functools.cache  # a source may hold thousands of files, and nobody changes them in the midst of a study
def _listing(path: Path) -> list[tuple[str, int]]:
    """Relative name and size of each file of a source."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [(file.relative_to(path).as_posix(), file.stat().st_size) for file in files]


def _listed(names: str | list | tuple) -> list | tuple:
    """From the command line a list comes as one text, its names between commas."""
    return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def begun_at(start: Path, settings: dict) -> dict:
    """The same settings, their relative paths begun at a folder of one's choice instead of at the project's root."""
    begun = {"dataset": _whole_source} | dict.fromkeys(("encoder_weights", "start_from", "runs", "cache"), absolute)
    paths = [name for name in begun if name in settings and settings[name] not in (*NO_FILE, *STARTS, None)]
    return settings | {name: str(begun[name](settings[name], start)) for name in paths}


def record_of(folder: Path) -> dict:
    """What study.json says in the folder of a study or grid. Raises StudyError where there is none, or half of one."""
    file = folder / "study.json"
    if not file.exists():
        raise StudyError(
            f"{folder} has no study.json; name the folder of a study or grid, one of those in data/runs, or make one: "
            "`python -m lumbar_utils run`"
        )
    try:
        record = records.read_json(file)
    except ValueError:  # no JSON, or no text
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise StudyError(f"{file} is no whole record of a study; remove it and run the study again")
    return record


def weight_files(path: Path) -> list[Path]:
    """A file of weights itself, or those of a folder by name; none where there is none."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.suffix in (".pth", ".pt", ".safetensors") and file.is_file()]


def _weights(source: str | Path) -> str:
    if source in NO_FILE:
        return source
    path = absolute(source)
    if not weight_files(path):
        raise ValueError(
            f"{path} is no .pth, .pt or .safetensors file; use none, imagenet (downloads), such a file, or a folder of "
            "them, named after their encoders"
        )
    return str(path)


Weights = Annotated[str, BeforeValidator(_weights)]


@functools.lru_cache
def _content(*changed: tuple[Path, int]) -> str:
    """Of files, each with the time of its last change."""
    return records.fingerprint_files(file for file, _ in changed)


class Study(BaseModel):
    """One comparison, entirely described: `Study(profile="quick", dataset="phantom", seed=0, epochs=12)`.

    A profile sets the defaults of the fields below it; any field given by name wins over its profile.
    `profile="auto"` stands for `default_profile()`.
    Raises StudyError for an unknown field or a value out of range, with the nearest valid name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    profile: Literal["smoke", "quick", "patients", "paper"] = Field(
        description="named set of defaults for the fields below"
    )
    dataset: Source = Field("phantom", description="`phantom`, a folder with cases.csv and dataset.json, or KIND:PATH")
    seed: int = Field(0, ge=0, description="seeds the split, the weights, the order of cases and the augmentation")

    accept: Names = Field((), description="findings of the audit that are right as they are")
    slices: int = Field(1, ge=1, description="taken from a volume, about its mid-sagittal one")
    phantom_patients: int = Field(ge=3, le=100_000, description="patients in the phantom data set")
    phantom_size: int = Field(ge=64, le=4096, description="side of a phantom image in pixels")
    phantom_difficulty: Literal["easy", "typical", "hard"] = Field("typical", description="findings and noise")
    phantom_contrast: Literal["T1 or T2", "T1", "T2", "T2-SPACE", "random", "any"] = Field(
        "T1 or T2", description="of the phantom; random: each tissue as bright as chance has it; any: half of it so"
    )

    train_fraction: float = Field(0.70, gt=0, lt=1, description="share of the patients to train on")
    test_fraction: float = Field(0.15, gt=0, lt=1, description="share of the patients to test on; the rest validates")

    folds: int = Field(0, ge=0, description="parts for cross-validation; 0: one split by the fractions above")
    fold: int = Field(0, ge=0, description="which of the folds to test on, counted from 0")

    height: int = Field(ge=64, le=4096, multiple_of=32, description="rows of the network's input")
    width: int = Field(ge=64, le=4096, multiple_of=32, description="columns of the network's input")
    normalisation: Literal["zscore", "percentile"] = Field("zscore", description="of each image's grey values")
    augmentation: Literal["none", "geometric", "intensity", "mr"] = Field(
        "intensity", description="what varies in training images, each including the one before"
    )
    shift: float = Field(0.08, ge=0, le=0.5, description="share of its sides that a training image is moved by at most")

    unet_channels: int = Field(ge=1, description="channels of U-Net's first level; 64 in its paper")
    hrnet: Name = Field(description="timm's name of the HRNet backbone; hrnet_w18 is HRNetV2-W18")
    efficientnet: Name = Field(description="segmentation_models_pytorch's name of the EfficientNet encoder")
    encoder_weights: Weights = Field(
        "none",
        description="imagenet (downloads), or a file or folder of weights, to start HRNet and EfficientNet from; "
        "U-Net has no such encoder",
    )

    epochs: int = Field(
        ge=0,
        description="passes through the training cases, or through images_per_epoch of them; 0: networks are taken as "
        "start_from has them, and tested on all patients",
    )
    images_per_epoch: int = Field(
        ge=0,
        description="least images of an epoch: fewer training cases are seen several times in it, each time varied",
    )
    batch_size: int = Field(ge=2, description="cases of a step, over all its parts, devices and nodes")
    accumulate: int = Field(1, ge=1, description="parts of a step, one after the other: memory for each alone")
    loss: Literal["dice_ce", "ce", "generalised_dice", "focal_tversky"] = Field(
        "dice_ce", description="Dice and cross-entropy, cross-entropy alone, generalised Dice, focal Tversky"
    )
    schedule: Literal["one_cycle", "cosine", "poly_sgd"] = Field(
        "one_cycle", description="AdamW up and down again, AdamW down as a cosine, or nnU-Net's SGD"
    )
    learning_rate: float = Field(gt=0, description="its highest value")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay of AdamW; SGD has nnU-Net's 3e-5")
    deep_supervision: bool = Field(False, description="U-Net is also taught at its coarser levels")
    ema: float = Field(0, ge=0, lt=1, description="decay a step of the moving average of the weights; 0: no average")
    start_from: Start = Field(
        description="none: at random; phantoms: from networks trained on phantoms first, once for all studies of a "
        "profile, as is done by default for images of patients; or the folder of another study"
    )
    test_time_augmentation: bool = Field(False, description="predict the mean over turned and scaled copies")

    precision: Literal["auto", "32", "bf16", "16"] = Field("auto", description="mixed where the device has it")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where networks are trained")
    devices: int = Field(1, ge=1, description="GPUs of a computer that share each step; `train` on the command line")
    nodes: int = Field(1, ge=1, description="computers that share each step")
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = Field(
        "auto", description="Lightning's name of how they share; auto suits every network, ddp U-Net and HRNet"
    )
    workers: int = Field(-1, ge=-1, description="processes that load cases; 0: the main one does; -1: 12 with a GPU")
    runs: Folder = Field(Path("data/runs"), description="folder that holds one folder a study")
    cache: Folder = Field(Path("data/cache"), description="folder for phantoms and decoded images")

    def __init__(self, profile: str = "auto", **settings):
        try:
            if profile == "auto":  # wrong settings are refused before torch is asked for a GPU, which takes seconds
                super().__init__(profile="paper", **settings)  # of all profiles the one that refuses least
                profile = default_profile()
            super().__init__(profile=profile, **settings)
        except ValidationError as error:
            raise StudyError("; ".join(_readable(problem) for problem in error.errors())) from None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_profile(cls, settings: dict) -> dict:
        profile = PROFILES.get(str(settings["profile"]), PROFILES["smoke"])
        start = settings.get("start_from", _usual_start(settings))
        if start not in ("none", None):
            profile = profile | {"learning_rate": FINE_TUNING * profile["learning_rate"]}
        return profile | settings | {"start_from": start}

    @model_validator(mode="after")
    def _leave_some_patients_to_validate_on(self):
        if self.train_fraction + self.test_fraction >= 1:
            raise ValueError("train_fraction + test_fraction must stay below 1, to leave patients to validate on")
        return self

    @model_validator(mode="after")
    def _name_a_fold_that_exists(self):
        if self.folds == 1:
            raise ValueError("folds=1 leaves nobody to train on; use 0 for one split, or 2 and more")
        if self.fold >= max(1, self.folds):
            raise ValueError(f"fold={self.fold} does not exist among folds={self.folds}; they count from 0")
        return self

    @model_validator(mode="after")
    def _share_a_step_evenly(self):
        if self.batch_size % (self.accumulate * self.devices * self.nodes):
            raise ValueError(
                f"batch_size={self.batch_size} must be a multiple of accumulate={self.accumulate} x "
                f"devices={self.devices} x nodes={self.nodes}; change one of them"
            )
        return self

    @model_validator(mode="after")
    def _start_from_one_thing(self):
        if self.start_from != "none" and self.encoder_weights != "none":
            raise ValueError("start_from brings all the weights; leave encoder_weights at none")
        return self

    @model_validator(mode="after")
    def _leave_phantoms_to_begin_at_random(self):
        if self.start_from == "phantoms" and self.dataset == "phantom":
            raise ValueError("start_from=phantoms is for images of patients; use none for dataset=phantom")
        return self

    @model_validator(mode="after")
    def _train_what_begins_at_random(self):
        if self.epochs == 0 and self.start_from == "none":
            raise ValueError("epochs=0 tests trained networks as they are; name them as start_from, or give epochs=1")
        return self

    @property
    def phantoms(self) -> "Study":
        """The study of phantoms whose networks others start from: their networks and input, the profile's recipe.

        In any contrast, so that they carry to those that no phantom was made for; longer, as that is harder to learn.
        """
        shared = {name: getattr(self, name) for name in SHARED}
        profile = "quick" if self.profile == "patients" else self.profile
        longer = {"epochs": START_LENGTH * PROFILES[profile]["epochs"]}
        return Study(profile, dataset="phantom", start_from="none", phantom_contrast="any", **longer, **shared)

    def tested_on(self, dataset: str) -> "Study":
        """The study of this one's networks, as they are, on all patients of another data set."""
        other = {"dataset": dataset, "start_from": self.folder, "epochs": 0, "folds": 0, "fold": 0}
        return Study(**self.settings | other)

    @property
    def start(self) -> Path | None:
        """Folder of the study whose trained networks this one starts from; None where they start at random."""
        if self.start_from == "phantoms":
            return self.phantoms.folder
        return None if self.start_from == "none" else self.start_from

    @property
    def settings(self) -> dict:
        """Every field as plain JSON values; paths within the project are relative to its root: it may be moved."""
        values = self.model_dump(mode="json")
        for name in PATHS:
            kind, colon, path = str(values[name]).rpartition(":")
            if Path(path).is_relative_to(ROOT):
                values[name] = f"{kind}{colon}{Path(path).relative_to(ROOT).as_posix()}"
        return values

    @property
    def fingerprint(self) -> str:
        """Hash of every setting that can change a result: it names the study.

        No path is in it. A data set counts by its tables (which cases there are and what labels mean), files of weights
        by their content, a study to start from by its name. Whether a result is of today's images, see `freshness`.
        """
        relevant = {name: value for name, value in self.settings.items() if name not in WITHOUT_EFFECT_ON_RESULTS}
        relevant["dataset"] = _identity(self.dataset)
        if self.encoder_weights not in NO_FILE:
            files = weight_files(Path(self.encoder_weights))
            relevant["encoder_weights"] = _content(*((file, file.stat().st_mtime_ns) for file in files))
        if self.start:
            relevant["start_from"] = self.start.name
        return records.fingerprint(relevant)

    @property
    def folder(self) -> Path:
        """Where everything this study makes is kept; no other study has the same."""
        return self.runs / f"{Path(self.dataset).name}-{self.profile}-seed{self.seed}-{self.fingerprint[:8]}"

    def _repr_html_(self) -> str:
        """The main settings, in bold those that differ from the profile; a click unfolds them all."""
        usual = Study(profile=self.profile).settings
        chosen = {name for name, value in self.settings.items() if value != usual[name]}
        rows = {
            name: f"<tr>{_cell(name, name in chosen)}{_cell(value, name in chosen)}{_cell(field.description)}</tr>"
            for (name, field), value in zip(type(self).model_fields.items(), self.settings.values(), strict=True)
        }
        short = "".join(row for name, row in rows.items() if name in MAIN or name in chosen)
        hint = f"; bold: not as the profile {self.profile} has it" if chosen else ""
        return (
            f"<table>{HEAD}{short}</table><details><summary>All {len(rows)} settings{hint}</summary>"
            f"<table>{HEAD}{''.join(rows.values())}</table></details>"
        )


def _cell(content: object, bold: bool = False) -> str:
    """Of a table in a notebook, whose own style would align it to the right."""
    text = html.escape(str(content))
    return f'<td style="text-align: left">{f"<b>{text}</b>" if bold else text}</td>'


def _readable(problem: dict) -> str:
    """One of pydantic's problems as: which setting, what it got, what is allowed."""
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Study.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(Study.model_fields)}"
        return f"unknown setting {name!r}; {hint}"
    if not name:
        return problem["msg"].removeprefix("Value error, ")
    return f"setting {name}={problem['input']!r} is refused: {problem['msg'].removeprefix('Value error, ')}"
