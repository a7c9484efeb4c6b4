"""Every choice of a study in one frozen record, with three profiles and refusal of what is unknown or wrong."""

import difflib
import functools
import hashlib
import html
import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lumbar_utils import StudyError, records

ROOT = Path(__file__).resolve().parents[1]  # notebooks, data and figures lie beside the package
DATA = ROOT / "data"
CONVERTED = ("composite", "spider", "dicom", "nifti")  # sources that are first written into the canonical folder

PROFILES = {
    # seconds, for tests: too short to learn anything
    "smoke": dict(
        phantom_patients=14, phantom_size=96, height=64, width=64, epochs=2, batch_size=4, learning_rate=1e-3,
        unet_channels=4, hrnet="hrnet_w18_small", efficientnet="efficientnet-b0",
    ),
    # a coffee break on two CPU cores: 192 x 192 pixels, a narrow U-Net and a small HRNet
    "quick": dict(
        phantom_patients=514, phantom_size=320, height=192, width=192, epochs=9, batch_size=4, learning_rate=4e-3,
        unet_channels=16, hrnet="hrnet_w18_small", efficientnet="efficientnet-b0",
    ),
    # the paper's 514 images, the full-size networks; wants a GPU
    "paper": dict(
        phantom_patients=514, phantom_size=320, height=320, width=320, epochs=60, batch_size=16, learning_rate=2e-3,
        unet_channels=64, hrnet="hrnet_w18", efficientnet="efficientnet-b0",
    ),
}  # fmt: skip

MAIN = {"profile", "dataset", "seed", "height", "width", "epochs"}  # shown by a notebook without a click
HEAD = "".join(f'<th style="text-align: left">{title}</th>' for title in ("setting", "value", "meaning"))

WITHOUT_EFFECT_ON_RESULTS = {"accept", "runs", "cache", "workers", "device"}


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
    from lumbar_utils.devices import best_device  # takes seconds

    return "quick" if best_device() == "cpu" else "paper"


def _absolute(path: str | Path, start: Path = ROOT) -> Path:
    """A relative folder starts at the project's root, wherever a notebook is stepped through from."""
    path = Path(path).expanduser()
    return (path if path.is_absolute() else (clone() if start == ROOT else start) / path).resolve()


Folder = Annotated[Path, BeforeValidator(_absolute)]
Start = Annotated[Path | None, BeforeValidator(lambda path: path and _absolute(path))]


def kind_and_path(dataset: str, start: Path = ROOT) -> tuple[str, Path | None]:
    """`phantom`, `spider`, `spider:PATH` or `PATH` -> kind and path; no path where it is found by its kind."""
    kind, colon, path = dataset.partition(":")
    if dataset == "phantom" or dataset in CONVERTED:
        return dataset, None
    if colon and kind in (*CONVERTED, "folder"):
        return kind, _absolute(path, start)
    return "folder", _absolute(dataset, start)


def _whole_source(dataset: str) -> str:
    kind, path = kind_and_path(dataset)
    return kind if path is None else str(path) if kind == "folder" else f"{kind}:{path}"


Source = Annotated[str, BeforeValidator(_whole_source)]


def _listed(names: str | list | tuple) -> list | tuple:
    """From the command line a list comes as one text, its names between commas."""
    return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def weight_files(path: Path) -> list[Path]:
    """A file of weights itself, or those of a folder by name; none where there is none."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [file for file in files if file.suffix in (".pth", ".pt", ".safetensors") and file.is_file()]


def _weights(source: str | Path) -> str:
    if source in ("none", "imagenet"):
        return source
    path = _absolute(source)
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

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    profile: Literal["smoke", "quick", "paper"] = Field(description="named set of defaults for the fields below")
    dataset: Source = Field("phantom", description="`phantom`, a folder with cases.csv and dataset.json, or KIND:PATH")
    seed: int = Field(0, ge=0, description="seeds the split, the weights, the order of cases and the augmentation")

    accept: Names = Field((), description="findings of the audit that are right as they are")
    slices: int = Field(1, ge=1, description="taken from a volume, about its mid-sagittal one")
    phantom_patients: int = Field(ge=3, description="patients in the phantom data set")
    phantom_size: int = Field(ge=64, description="side of a phantom image in pixels")
    phantom_difficulty: Literal["easy", "typical", "hard"] = Field("typical", description="findings and noise")
    phantom_contrast: Literal["T1 or T2", "T1", "T2", "T2-SPACE"] = Field("T1 or T2", description="of the phantom")

    train_fraction: float = Field(0.70, gt=0, lt=1, description="share of the patients to train on")
    test_fraction: float = Field(0.15, gt=0, lt=1, description="share of the patients to test on; the rest validates")

    folds: int = Field(0, ge=0, description="parts for cross-validation; 0: one split by the fractions above")
    fold: int = Field(0, ge=0, description="which of the folds to test on, counted from 0")

    height: int = Field(ge=64, multiple_of=32, description="rows of the network's input")
    width: int = Field(ge=64, multiple_of=32, description="columns of the network's input")
    normalisation: Literal["zscore", "percentile"] = Field("zscore", description="of each image's grey values")
    augmentation: Literal["none", "geometric", "intensity", "mr"] = Field(
        "intensity", description="what varies in training images, each including the one before"
    )
    shift: float = Field(0.08, ge=0, le=0.5, description="share of its sides that a training image is moved by at most")

    unet_channels: int = Field(ge=1, description="channels of U-Net's first level; 64 in its paper")
    hrnet: str = Field(description="timm's name of the HRNet backbone; hrnet_w18 is HRNetV2-W18")
    efficientnet: str = Field(description="segmentation_models_pytorch's name of the EfficientNet encoder")
    encoder_weights: Weights = Field(
        "none",
        description="imagenet (downloads), or a file or folder of weights, to start HRNet and EfficientNet from; "
        "U-Net has no such encoder",
    )

    epochs: int = Field(ge=1, description="passes through the training cases")
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
    start_from: Start = Field(None, description="folder of another study, whose trained networks are trained on")
    test_time_augmentation: bool = Field(False, description="predict the mean over turned and scaled copies")

    precision: Literal["auto", "32", "bf16", "16"] = Field("auto", description="mixed where the device has it")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where networks are trained")
    devices: int = Field(1, ge=1, description="GPUs of a computer that share each step; `train` on the command line")
    nodes: int = Field(1, ge=1, description="computers that share each step")
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = Field(
        "auto", description="Lightning's name of how they share; auto suits every network, ddp U-Net and HRNet"
    )
    workers: int = Field(0, ge=0, description="processes that load cases; 0 loads in the main one")
    runs: Folder = Field(Path("data/runs"), description="folder that holds one folder a study")
    cache: Folder = Field(Path("data/cache"), description="folder for phantoms and decoded images")

    def __init__(self, profile: str = "auto", **settings):
        try:
            super().__init__(profile=profile, **settings)
        except ValidationError as error:
            raise StudyError("; ".join(_readable(problem) for problem in error.errors())) from None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_profile(cls, settings: dict) -> dict:
        if settings["profile"] == "auto":
            settings = settings | {"profile": default_profile()}
        return PROFILES.get(settings["profile"], PROFILES["smoke"]) | settings

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
        if self.start_from and self.encoder_weights != "none":
            raise ValueError("start_from brings all the weights; leave encoder_weights at none")
        return self

    @property
    def settings(self) -> dict:
        """Every field as plain JSON values."""
        return self.model_dump(mode="json")

    @property
    def fingerprint(self) -> str:
        """Hash of every setting that can change a result; of a file of weights, what is in it counts."""
        relevant = {name: value for name, value in self.settings.items() if name not in WITHOUT_EFFECT_ON_RESULTS}
        if self.encoder_weights not in ("none", "imagenet"):
            files = weight_files(Path(self.encoder_weights))
            relevant["encoder_weights"] = _content(*((file, file.stat().st_mtime_ns) for file in files))
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()

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
