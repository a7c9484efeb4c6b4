"""Every setting of a study, validated, with named profiles; and grids: one study under several seeds and folds."""

import dataclasses
import difflib
import functools
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lumbar_utils import StudyError, records
from lumbar_utils.machine import best_device

ROOT = Path(__file__).resolve().parents[1]  # notebooks, data and figures lie beside the package
DATA = ROOT / "data"
PRETRAINED = DATA / "pretrained"  # networks that come with the project
CONVERTED = ("composite", "spider", "dicom", "nifti")  # sources that are first written into the canonical folder

# a coffee break on two CPU cores: 192 x 192 pixels, a narrow U-Net and a small HRNet
QUICK = dict(
    phantom_patients=514, phantom_size=320, height=192, width=192, epochs=9, batch_size=4, learning_rate=4e-3,
    images_per_epoch=360, unet_channels=16, hrnet="hrnet_w18_small", efficientnet="efficientnet-b0",
)  # fmt: skip
PROFILES = {
    # seconds, for tests: too short to learn anything
    "smoke": QUICK | dict(
        phantom_patients=14, phantom_size=96, height=64, width=64, epochs=2, learning_rate=1e-3, images_per_epoch=0,
        unet_channels=4,
    ),
    "quick": QUICK,
    # images of patients on two CPU cores: as quick, four times as long
    "patients": QUICK | dict(epochs=36),
    # the paper's 514 images, the full-size networks; wants a GPU
    "paper": QUICK | dict(
        height=320, width=320, epochs=60, batch_size=16, learning_rate=2e-3, unet_channels=64, hrnet="hrnet_w18"
    ),
}  # fmt: skip
START_LENGTH = 2  # of the training on phantoms that others start from, in the epochs of its profile
FINE_TUNING = 0.25  # of a profile's learning rate, for networks that are trained already
PRETRAINED_SHARE = 0.5  # of the weights of PRETRAINED, which know patients, in the average with the trained ones
NETWORKS = ("unet_channels", "hrnet", "efficientnet")  # settings that weights need
# settings that were dropped, with the value that is built in: an ablation found none of the others better
BUILT_IN = {
    "normalisation": "zscore", "loss": "dice_ce", "schedule": "one_cycle", "deep_supervision": False, "ema": 0,
    "test_time_augmentation": False,
}  # fmt: skip

DEPENDENT = ("start_from", "start_share", "learning_rate")  # settings whose defaults depend on other settings

MAIN = {"profile", "dataset", "seed", "height", "width", "epochs"}  # shown by a notebook without a click

NO_FILE = ("none", "imagenet")  # of encoder_weights, which is a path otherwise
STARTS = ("none", "phantoms", "pretrained")  # of start_from, which is a path otherwise
# settings that a study shares with the phantoms that its networks start from: of networks, of their input, of phantoms
# and of this machine
SHARED = (
    *NETWORKS, "height", "width", "phantom_patients", "phantom_size", "phantom_difficulty",
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
    """Of images of patients, which are few: `pretrained`, or `phantoms` where those networks do not fit.

    They do not fit where settings ask for other networks, or they were trained on patients of the data set.
    """
    dataset = str(settings.get("dataset") or "phantom")  # an empty one is refused by its own field
    if dataset == "phantom" or settings["profile"] == "smoke" or settings.get("encoder_weights", "none") != "none":
        return "none"
    theirs = _settings_of_pretrained()
    asks_for_others = any(str(settings.get(name, theirs.get(name))) != str(theirs.get(name)) for name in NETWORKS)
    if not theirs or asks_for_others or pretrained_know(dataset):
        return "phantoms"
    return "pretrained"


@functools.cache
def _settings_of_pretrained() -> dict:
    """Of the study whose networks come with the project; empty where the package was installed without them."""
    return record_of(PRETRAINED)["settings"] if (PRETRAINED / "study.json").is_file() else {}


def pretrained_know(dataset: str) -> bool:
    """Whether the networks that come with the project were trained on patients of a data set, by the patients' names.

    Of volumes of SPIDER, whose patients are known only once they are read, it is taken for granted.
    """
    kind, path = kind_and_path(dataset)
    if kind != "folder":
        return kind == "spider"
    from lumbar_utils.data.files import read_table  # loads pandas

    earlier = read_table(PRETRAINED / "split.csv", ("patient", "split"))
    try:
        patients = read_table(path / "cases.csv", ("patient",))["patient"]
    except (StudyError, OSError):
        return False  # the data set is refused when it is read
    return not set(earlier.loc[earlier["split"] != "test", "patient"]).isdisjoint(patients)


def _start(source: str | Path | None) -> str | Path:
    if source is None:
        return "none"
    if source in STARTS:
        return source
    path = absolute(source)
    return "pretrained" if path == PRETRAINED else path


Start = Annotated[Literal["none", "phantoms", "pretrained"] | Path, BeforeValidator(_start)]


def kind_and_path(dataset: str, start: Path = ROOT) -> tuple[str, Path | None]:
    """`phantom`, `spider`, `spider:PATH` or `PATH` -> kind and path; no path where it is found by its kind."""
    kind, colon, path = dataset.partition(":")
    if dataset == "phantom" or dataset in CONVERTED:
        return dataset, None
    if colon and kind in (*CONVERTED, "folder"):
        return kind, absolute(path, start)
    return "folder", absolute(dataset, start)


def _absolute_source(dataset: str, start: Path = ROOT) -> str:
    """The same data set with an absolute path. Raises StudyError for an empty text."""
    if not isinstance(dataset, str) or not dataset.strip():
        raise StudyError("it names no data set; use phantom, a folder, or KIND:PATH: see data/README.md")
    kind, path = kind_and_path(dataset, start)
    return kind if path is None else f"{kind}:{path}".removeprefix("folder:")


Source = Annotated[str, BeforeValidator(_absolute_source)]


def _identity_of(dataset: str) -> list:
    """What distinguishes data sets, wherever they lie: the tables of a folder, names and sizes of other files."""
    kind, path = kind_and_path(dataset)
    if path is None:
        return [kind]
    if kind == "folder":
        tables = [path / name for name in ("dataset.json", "cases.csv")]
        return [kind, records.fingerprint_files(table for table in tables if table.is_file())]
    return [kind, _listing(path)]


@functools.cache  # a source may hold thousands of files, and they do not change during a run
def _listing(path: Path) -> list[tuple[str, int]]:
    """Relative name and size of each file of a source."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [(file.relative_to(path).as_posix(), file.stat().st_size) for file in files]


def _identity_of_start(folder: Path) -> str:
    """The name of a study's folder, which ends with a part of its fingerprint; of an export its whole fingerprint."""
    fingerprint = records.read_json(folder / "study.json").get("fingerprint", "")
    return folder.name if folder.name.endswith(fingerprint[:8]) else fingerprint


def _split_at_commas(names: str | list | tuple) -> list | tuple:
    """The names in a text, which is how the command line passes a list; a list as it is."""
    if not isinstance(names, str):
        return names
    return [name.strip() for name in names.split(",") if name.strip()]


Names = Annotated[tuple[str, ...], BeforeValidator(_split_at_commas)]


def with_absolute_paths(settings: dict, start: Path) -> dict:
    """The same settings, their relative paths made absolute from the folder `start` instead of the project's root."""
    resolved = dict(settings)
    for name in PATHS:
        if settings.get(name) in (None, *NO_FILE, *STARTS):
            continue
        resolve = _absolute_source if name == "dataset" else absolute
        resolved[name] = str(resolve(settings[name], start))
    return resolved


def record_of(folder: Path) -> dict:
    """The study.json in the folder of a study or grid. Raises StudyError where there is none, or only a part of one."""
    file = folder / "study.json"
    if not file.exists():
        raise StudyError(
            f"{folder} has no study.json; name the folder of a study or grid, one of those in data/runs, or make one: "
            "`python -m lumbar_utils run`"
        )
    record = records.read_json(file)
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        raise StudyError(f"{file} is no whole record of a study; remove it and run the study again")
    return record


def weight_files(path: Path) -> list[Path]:
    """A file of weights itself, or the files of weights in a folder, sorted by name; empty where there is none."""
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
def _fingerprint_of_weights(*changed: tuple[Path, int]) -> str:
    """Of files by content. changed : each with the time of its last change, so that it is read once for each."""
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
    augmentation: Literal["none", "geometric", "intensity"] = Field(
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
    learning_rate: float = Field(gt=0, description="its highest value")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay of AdamW")
    start_from: Start = Field(
        description="none: at random; pretrained: from the networks that come with the project, the default for images "
        "of patients; phantoms: from networks trained on phantoms first, once for all studies of a profile, the "
        "default where pretrained ones do not fit; or the folder of another study"
    )
    start_share: float = Field(
        ge=0, le=1,
        description="share of the starting weights in their average with the trained ones; 0: the trained ones alone, "
        "the default unless start_from is pretrained",
    )  # fmt: skip

    precision: Literal["auto", "32", "bf16", "16"] = Field("auto", description="mixed where the device has it")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where networks are trained")
    devices: int = Field(1, ge=1, description="GPUs of a computer that share each step; `train` on the command line")
    nodes: int = Field(1, ge=1, description="computers that share each step")
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = Field(
        "auto", description="Lightning's name of how they share; auto suits every network, ddp U-Net and HRNet"
    )
    workers: int = Field(-1, ge=-1, description="processes that load cases; 0: the main one does; -1: 12 with a GPU")
    runs: Folder = Field(Path("data/runs"), description="folder with one folder per study")
    cache: Folder = Field(Path("data/cache"), description="folder for phantoms and decoded images")

    def __init__(self, profile: str = "auto", **settings):
        try:
            if profile == "auto":
                # refuse wrong settings before torch is loaded to look for a GPU; of all profiles, paper refuses least
                super().__init__(profile="paper", **settings)
                profile = default_profile()
            super().__init__(profile=profile, **settings)
        except ValidationError as error:
            raise StudyError("; ".join(_readable(problem) for problem in error.errors())) from None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_profile(cls, settings: dict) -> dict:
        settings = {name: value for name, value in settings.items() if name not in BUILT_IN or value != BUILT_IN[name]}
        profile = PROFILES.get(str(settings["profile"]), PROFILES["smoke"])
        start = settings["start_from"] if "start_from" in settings else _usual_start(profile | settings)
        if start not in ("none", None):
            profile = profile | {"learning_rate": FINE_TUNING * profile["learning_rate"]}
        is_pretrained = start == "pretrained" or (start and absolute(str(start)) == PRETRAINED)
        share = PRETRAINED_SHARE if is_pretrained else 0
        return profile | {"start_share": share} | settings | {"start_from": start}

    @model_validator(mode="after")
    def _refuse_contradictions(self):
        """Raise ValueError, which pydantic collects, for settings that exclude one another."""
        if self.train_fraction + self.test_fraction >= 1:
            raise ValueError("train_fraction + test_fraction must stay below 1, to leave patients to validate on")
        if self.folds == 1:
            raise ValueError("folds=1 leaves nobody to train on; use 0 for one split, or 2 and more")
        if self.fold >= max(1, self.folds):
            raise ValueError(f"fold={self.fold} does not exist among folds={self.folds}; they count from 0")
        if self.batch_size % (self.accumulate * self.devices * self.nodes):
            raise ValueError(
                f"batch_size={self.batch_size} must be a multiple of accumulate={self.accumulate} x "
                f"devices={self.devices} x nodes={self.nodes}; change one of them"
            )
        if self.start_from != "none" and self.encoder_weights != "none":
            raise ValueError("start_from brings all the weights; leave encoder_weights at none")
        if self.start_from in ("phantoms", "pretrained") and self.dataset == "phantom":
            raise ValueError(f"start_from={self.start_from} is for images of patients; use none for dataset=phantom")
        if self.epochs == 0 and self.start_from == "none":
            raise ValueError("epochs=0 tests trained networks as they are; name them as start_from, or give epochs=1")
        if self.epochs == 0 and self.folds:
            raise ValueError("epochs=0 tests the same networks on all patients; leave folds at 0")
        if self.start_from == "none" and self.start_share:
            raise ValueError(f"start_share={self.start_share:g} has no effect with start_from=none; leave it out")
        return self

    @property
    def phantoms(self) -> "Study":
        """The study of phantoms whose networks this one starts from: the same networks and input, the profile's recipe.

        Phantoms have any contrast, so that the networks carry over to contrasts that no phantom imitates, and training
        is longer, as that is harder to learn.
        """
        shared = {name: getattr(self, name) for name in SHARED}
        profile = "quick" if self.profile == "patients" else self.profile
        longer = {"epochs": START_LENGTH * PROFILES[profile]["epochs"]}
        return Study(profile, dataset="phantom", start_from="none", phantom_contrast="any", **longer, **shared)

    def tested_on(self, dataset: str) -> "Study":
        """The study that tests this one's networks, without further training, on all patients of another data set.

        Raises StudyError where the networks that this study starts from were trained on these patients.
        """
        if self.start_from == "pretrained" and pretrained_know(dataset):
            raise StudyError(
                f"the networks that come with the project, from which this study starts, were trained on patients of "
                f"{dataset}; to test on them start from phantoms: --set start_from=phantoms"
            )
        other = {"dataset": dataset, "start_from": self.folder, "start_share": 0, "epochs": 0, "folds": 0, "fold": 0}
        return Study(**self.settings | other)

    @property
    def start(self) -> Path | None:
        """Folder of the study whose trained networks this one starts from; None where they start at random."""
        known = {"none": None, "pretrained": PRETRAINED}
        if self.start_from == "phantoms":
            return self.phantoms.folder
        return known.get(self.start_from, self.start_from)

    @property
    def settings(self) -> dict:
        """Every field as plain JSON values; paths inside the project are relative to its root, so it can be moved."""
        values = self.model_dump(mode="json")
        for name in PATHS:
            kind, colon, path = str(values[name]).rpartition(":")
            if Path(path).is_relative_to(ROOT):
                values[name] = f"{kind}{colon}{Path(path).relative_to(ROOT).as_posix()}"
        return values

    @property
    def fingerprint(self) -> str:
        """Hash of every setting that can change a result; the study's folder is named after it.

        It holds no path. A data set counts by its tables (which cases there are, what labels mean), files of weights by
        their content, a study to start from by its own fingerprint. Whether results are of today's images is for
        `freshness`.
        """
        relevant = {name: value for name, value in self.settings.items() if name not in WITHOUT_EFFECT_ON_RESULTS}
        relevant["dataset"] = _identity_of(self.dataset)
        if self.encoder_weights not in NO_FILE:
            files = weight_files(Path(self.encoder_weights))
            changed = [(file, file.stat().st_mtime_ns) for file in files]
            relevant["encoder_weights"] = _fingerprint_of_weights(*changed)
        if self.start:
            relevant["start_from"] = _identity_of_start(self.start)
        return records.fingerprint(relevant)

    @property
    def folder(self) -> Path:
        """Where everything this study makes is kept; no other study has the same."""
        return self.runs / f"{Path(self.dataset).name}-{self.profile}-seed{self.seed}-{self.fingerprint[:8]}"

    def _repr_html_(self) -> str:
        """The main settings, and those that differ from the profile; a click unfolds all."""
        import pandas as pd

        values, usual = self.settings, Study(profile=self.profile).settings
        fields = type(self).model_fields.items()
        rows = [(name, str(values[name]), field.description) for name, field in fields]
        table = pd.DataFrame(rows, columns=["setting", "value", "meaning"])
        short = table[[name in MAIN or values[name] != usual[name] for name in values]]
        left = {"selector": "th, td", "props": "text-align: left"}
        first, every = (
            part.style.format(escape="html").hide(axis="index").set_table_styles([left]).to_html()
            for part in (short, table)
        )
        return f"{first}<details><summary>All {len(rows)} settings</summary>{every}</details>"


@dataclasses.dataclass(frozen=True)
class Grid:
    """A study under several seeds and, where it has folds, on all of them. Raises StudyError for a seed given twice.

    Like a study it has settings, a fingerprint and a folder, which holds the predictions of all its runs for the
    patients that they were not trained on.
    """

    study: Study
    seeds: tuple[int, ...]

    def __post_init__(self):
        seeds = tuple(sorted(set(self.seeds)))
        if not seeds or len(seeds) < len(self.seeds):
            raise StudyError(f"the seeds of a grid are {', '.join(map(str, self.seeds))}; give one or more, each once")
        if len(seeds) > 1 and not self.study.epochs:
            raise StudyError("epochs=0 tests the same networks under every seed; give one seed")
        object.__setattr__(self, "study", Study(**self.study.settings | {"seed": seeds[0], "fold": 0}))
        object.__setattr__(self, "seeds", seeds)

    @property
    def studies(self) -> list[Study]:
        """The runs: a study for each seed and fold, with a folder of its own that larger grids share."""
        settings, folds = self.study.settings, range(max(1, self.study.folds))
        return [Study(**settings | {"seed": seed, "fold": fold}) for seed in self.seeds for fold in folds]

    @property
    def settings(self) -> dict:
        """Those of the first run; the others have the same but for seed and fold."""
        return self.study.settings

    @property
    def fingerprint(self) -> str:
        """Hash of every setting that can change a result, and of the seeds."""
        return records.fingerprint(self.study.fingerprint, self.seeds)

    @property
    def folder(self) -> Path:
        """Where the results of all runs together are kept."""
        study, seeds = self.study, f"{len(self.seeds)}seed{'s' * (len(self.seeds) > 1)}"
        folds = f"-{study.folds}folds" if study.folds else ""
        return study.runs / f"{Path(study.dataset).name}-{study.profile}-{seeds}{folds}-{self.fingerprint[:8]}"

    def _repr_html_(self) -> str:
        folds = f", folds 0 to {self.study.folds - 1}" if self.study.folds else ""
        return f"<p>Seeds {', '.join(map(str, self.seeds))}{folds}; otherwise:</p>{self.study._repr_html_()}"


def read_study(folder: Path) -> Study | Grid:
    """The study or grid in a folder. Raises StudyError where there is none, or its data or settings have changed."""
    record = record_of(folder)
    study = Study(**record["settings"] | {"runs": str(folder.parent)})
    if "grid" in record:
        study = Grid(study, tuple(record["grid"]["seeds"]))
    if study.folder != folder.resolve():
        raise StudyError(
            f"{folder} was made from other settings or data than its study.json leads to today ({study.folder.name}): "
            f"the tables of {study.settings['dataset']} have changed or are not there, or the folder was renamed; "
            "put them back, or run the study anew"
        )
    return study


def _readable(problem: dict) -> str:
    """One of pydantic's errors in words: which setting, what it got, what is allowed."""
    name = ".".join(map(str, problem["loc"]))
    if name in BUILT_IN:
        return (
            f"setting {name}={problem['input']!r} is refused: {BUILT_IN[name]!r} is built in, as an ablation found "
            "nothing better (tests/benchmarks/README.md); leave it out"
        )
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Study.model_fields, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(Study.model_fields)}"
        return f"unknown setting {name!r}; {hint}"
    if not name:
        return problem["msg"].removeprefix("Value error, ")
    return f"setting {name}={problem['input']!r} is refused: {problem['msg'].removeprefix('Value error, ')}"
