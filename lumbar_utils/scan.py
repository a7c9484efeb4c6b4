"""A scan in, its labelled vertebrae out: a label map on the scan's own grid, a table, a picture, and warnings."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch

from lumbar_utils import LEVELS, StudyError, model_name, records
from lumbar_utils.application import Trained, read_trained, refuse_existing
from lumbar_utils.data import dicom, familiarity, volumes
from lumbar_utils.data import dicom_seg as segmentation_object
from lumbar_utils.data.decoding import Fit
from lumbar_utils.data.files import VOLUMES, split_suffix
from lumbar_utils.data.folder import Cohort
from lumbar_utils.machine import device_of, explain_out_of_memory
from lumbar_utils.networks.dataset import normalise
from lumbar_utils.networks.prediction import probabilities_of
from lumbar_utils.scores.measurements import measure
from lumbar_utils.scores.ordering import relabel_volume
from lumbar_utils.study import absolute

if TYPE_CHECKING:
    from lumbar_utils.output.viewer import Example

DISCLAIMER = "Not a medical device: for research only."
MIN_LEVELS = 5  # found in a scan of a lumbar spine
MIN_CONFIDENCE = 0.6  # of a vertebra: where names are wrong by one level, the uppermost is often below
MAX_OBLIQUE_DEG = 20
PICTURED = (0.25, 0.5, 0.75)  # of the way through the slices that contain vertebrae


class Scan(NamedTuple):
    """A volume to label. files : it was read from; of DICOM one a slice, and `numbers` are those of the slices.

    notes : on slices that are missing.
    """

    volume: sitk.Image
    files: list[Path]
    numbers: list[int]
    notes: list[str]


class Labels(NamedTuple):
    """What was found in a scan, in slices from right to left, each head up and front left.

    images : (slices, height, width) uint8, in square pixels of spacing_mm. label_map : (slices, rows, columns) uint8.
    vertebrae : see `tabulate`.
    """

    images: np.ndarray
    spacing_mm: float
    label_map: np.ndarray
    vertebrae: pd.DataFrame

    def in_square_pixels(self, number: int) -> np.ndarray:
        """The label map of a slice in the pixels of its image, (height, width)."""
        shape = self.images.shape[:0:-1]
        return cv2.resize(self.label_map[number], shape, interpolation=cv2.INTER_NEAREST_EXACT)

    def examples(self) -> list["Example"]:
        """The slices to show, PICTURED of the way through those that contain vertebrae."""
        from lumbar_utils.output.viewer import Example

        shown, examples = _with_vertebrae(self.label_map), []
        for number in shown[np.unique(np.rint(np.multiply(PICTURED, len(shown) - 1)).astype(int))]:
            title = f"slice {number + 1} of {len(self.images)} from the right"
            examples.append(Example(title, self.images[number], self.in_square_pixels(number), self.spacing_mm))
        return examples

    def measurements(self) -> pd.DataFrame:
        """See `scores.measurements.measure`."""
        squared = [self.in_square_pixels(number) for number in range(len(self.images))]
        return measure(np.stack(squared), self.spacing_mm)


def predict_scan(study: Path, model: str, source: Path, destination: Path, dicom_seg: bool = False) -> Path:
    """Label the vertebrae of a volume, or of each sagittal DICOM series, by a model that a study trained.

    study : its folder. source : a volume of data.files.VOLUMES, a DICOM file, or a folder of these at any depth.
    destination : new folder, returned, for each scan of
        <name>_labels.nii.gz : label map on the scan's own grid, uint8, 0 background, 1..6 = L1..S1;
        <name>_vertebrae.csv : see `tabulate`; <name>_measurements.csv : see `scores.measurements.measure`;
        <name>.png, .pdf, .svg and .txt : three slices with contours; <name>_measured.* : the middle one, measured;
        <name>_labels.dcm : with `dicom_seg`, a DICOM SEG; and, written last, predict.json.
    A name is that of the file; of DICOM a pseudonym, and only the DICOM SEG identifies the patient.
    Raises StudyError if the study has no such model, nothing can be labelled, or `destination` exists.
    """
    refuse_existing(destination)
    trained, left_out = read_trained(study, model), []
    scans, seen = _scans(source, left_out, dicom_seg), familiarity.seen_by(study)
    if not seen:
        print("note: the images that the network was trained on are not there to compare a scan with")
    with records.atomic_folder(destination) as folder:
        files, facts = [], {}
        for name, read in scans.items():
            try:
                scan = read()
                labels = label(trained, scan.volume)
            except volumes.Unsuitable as reason:
                left_out.append(f"{name} {reason}")
                print(f"left out: {left_out[-1]}")
                continue
            warnings = warnings_of(labels, scan, seen)
            print(*(f"{name}: {warning}\n" for warning in warnings), sep="", end="")
            files += _write(folder, name, scan, labels, warnings, model)
            if dicom_seg and labels.label_map.any():
                files.append(_write_dicom_seg(folder, name, scan, labels, model))
            source_files = records.fingerprint_files(scan.files)
            facts[name] = {"from": source_files, "levels": labels.vertebrae["level"].tolist(), "warnings": warnings}
        if not facts:
            raise StudyError(f"nothing in {source} can be labelled: {left_out[-1]}")
        about = {"model": model, "levels": trained.levels, "note": DISCLAIMER, "scans": facts, "left_out": left_out}
        records.mark_finished(folder / "predict.json", records.fingerprint(trained.weights, facts), files, **about)
    return destination


def label_scan(study: Path, model: str, source: str, cohort: Cohort) -> Labels:
    """The first scan of a source, labelled to be looked at in a notebook; see `predict_scan`.

    source : "" for the first test image of the cohort. Raises Unsuitable if it cannot be labelled.
    """
    trained = read_trained(study, model)
    if source:
        read = next(iter(_scans(absolute(source), [], False).values()))
        return label(trained, read().volume)
    case = cohort.cases[cohort.cases["split"] == "test"].iloc[0]
    labels = label(trained, volumes.of_slices(cohort.image(case)[None]))
    vertebrae = labels.vertebrae.drop(columns="volume_mm3")  # a single image has none
    return labels._replace(spacing_mm=case["spacing_mm"], vertebrae=vertebrae)


def _scans(source: Path, left_out: list[str], dicom_seg: bool) -> dict[str, Callable[[], Scan]]:
    """Name of a scan -> a function that reads it, or raises Unsuitable. left_out : parts of scans are added to it."""
    name, suffix = split_suffix(source)
    if not source.exists():
        raise StudyError(f"there is no {source}; name a volume ({', '.join(VOLUMES)}), or DICOM images")
    if suffix and source.is_file():
        if dicom_seg:
            raise StudyError(f"--dicom-seg needs DICOM images, to which a DICOM SEG refers; {source} is none")
        return {name or "scan": lambda: Scan(volumes.read(source), [source], [], [])}
    if dicom_seg:
        segmentation_object.refuse_missing()
    series, broken = dicom.series_in(source)
    if not series:
        raise StudyError(
            f"{source} holds no DICOM image that can be read ({broken} broken files), and is no volume "
            f"({', '.join(VOLUMES)}); for a folder of volumes or a data set see data/README.md"
        )
    left_out += [f"files that cannot be read: {broken}"] if broken else []
    least = 1 if source.is_file() else dicom.MIN_SLICES
    for name, images in series.items():
        print(f"{name}: {len(images)} images of {images[0].path.parent}")
    return {name: partial(_read_series, name, images, least, left_out) for name, images in series.items()}


def _read_series(name: str, images: list[dicom.Image], least: int, left_out: list[str]) -> Scan:
    description = {"left_out": left_out, "notes": []}
    stack = dicom.stack_of(name, images, description, least)
    volume, numbers = dicom.volume_of(stack)
    notes = [note.removeprefix(f"{name} ") for note in description["notes"]]
    return Scan(volume, [image.path for image in stack], numbers, notes)


def label(trained: Trained, volume: sitk.Image) -> Labels:
    """Labels of a volume by a network.

    Slices are oriented, resampled to square pixels and windowed as for training, predicted one by one, and named
    together. Raises Unsuitable if the volume is not sagittal, or empty.
    """
    in_frame = volumes.oriented(volume)
    slices, spacing_mm = volumes.sagittal(in_frame)
    images = np.stack([volumes.window(pixels) for pixels in slices])
    if not images.any():
        raise volumes.Unsuitable("is empty: each of its slices has one grey value")
    columns, rows, _ = in_frame.GetSize()
    probabilities = _predict(trained, images, (rows, columns))
    label_map = relabel_volume(probabilities)
    return Labels(images, spacing_mm, label_map, tabulate(label_map, probabilities, in_frame.GetSpacing()))


def _predict(trained: Trained, images: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Probabilities (slices, 6, *shape) uint8 in 1/255, on the same field of view; 0 in slices without any contrast.

    images : (slices, height, width) uint8. shape : rows and columns.
    """
    study, classes = trained.study, trained.classes
    probabilities = np.zeros((len(images), len(LEVELS), *shape), np.uint8)
    fit, device = Fit.of(images.shape[1:], study.height, study.width), device_of(study)
    shown = np.flatnonzero(images.any(axis=(1, 2)))
    network = trained.network.to(device)
    with torch.inference_mode(), explain_out_of_memory(study, "predicting"):
        for numbers in np.array_split(shown, -(-len(shown) // study.batch_size)):
            inputs = [normalise(fit.into_grid(images[i], cv2.INTER_AREA)) for i in numbers]
            batch = torch.from_numpy(np.stack(inputs))[:, None].to(device)
            maps = probabilities_of(network, batch, classes).cpu().numpy()
            for number, channels in zip(numbers, maps, strict=True):
                for value, channel in zip(classes[1:], fit.out_of_grid(channels[1:], shape), strict=True):
                    probabilities[number, value - 1] = np.rint(channel * 255)
    return probabilities


def tabulate(label_map: np.ndarray, probabilities: np.ndarray, spacing_mm: tuple[float, float, float]) -> pd.DataFrame:
    """One row a vertebra found: level, confidence, volume_mm3, slices (in which it appears).

    confidence : mean over its voxels of the probability of the level that it was given, in [0, 1].
    label_map : (slices, rows, columns). probabilities : (slices, 6, rows, columns) uint8 in 1/255.
    spacing_mm : of columns, rows and slices.
    """
    rows = []
    for value, level in enumerate(LEVELS, 1):
        inside = label_map == value
        if inside.any():
            confidence = probabilities[:, value - 1][inside].mean() / 255
            volume_mm3 = inside.sum() * np.prod(spacing_mm)
            rows.append((level, round(confidence, 3), round(volume_mm3, 1), int(inside.any(axis=(1, 2)).sum())))
    return pd.DataFrame(rows, columns=["level", "confidence", "volume_mm3", "slices"])


def warnings_of(labels: Labels, scan: Scan, seen: dict) -> list[str]:
    """Sentences on what makes the labels doubtful. seen : of data.familiarity, or empty."""
    found, warnings = labels.vertebrae["level"].tolist(), [f"The scan {note}." for note in scan.notes]
    if len(found) < MIN_LEVELS:
        warnings.append(f"Vertebrae found: {', '.join(found) or 'none'}; five or more are expected in a lumbar scan.")
    doubtful = labels.vertebrae[labels.vertebrae["confidence"] < MIN_CONFIDENCE]
    if len(doubtful):
        listed = ", ".join(f"{row.level} ({row.confidence:.2f})" for row in doubtful.itertuples())
        warnings.append(f"The confidence of {listed} is below {MIN_CONFIDENCE}: all names may be wrong by one level.")
    turned = volumes.oblique_deg(scan.volume)
    if turned > MAX_OBLIQUE_DEG:
        warnings.append(
            f"The slices are turned by {turned:.0f} degrees from the sagittal plane or within it, more than "
            f"{MAX_OBLIQUE_DEG}."
        )
    if seen:
        warnings += familiarity.unlike(seen, labels.images[_with_vertebrae(labels.label_map)], labels.spacing_mm)
    return warnings


def _with_vertebrae(label_map: np.ndarray) -> np.ndarray:
    """Numbers of the slices that contain vertebrae; of all slices if none does."""
    shown = np.flatnonzero(label_map.any(axis=(1, 2)))
    return shown if len(shown) else np.arange(len(label_map))


def _write(folder: Path, name: str, scan: Scan, labels: Labels, warnings: list[str], model: str) -> list[Path]:
    """Write label map, tables and pictures; returns the files."""
    names = (f"{name}_labels.nii.gz", f"{name}_vertebrae.csv", f"{name}_measurements.csv")
    label_file, vertebrae, measurements = (folder / file for file in names)
    try:
        sitk.WriteImage(volumes.onto_axes_of(scan.volume, labels.label_map), str(label_file))
    except RuntimeError:  # ITK's message is a page
        raise StudyError(f"could not write {label_file}; make room or grant access and run again") from None
    records.write_csv(vertebrae, labels.vertebrae)
    records.write_csv(measurements, labels.measurements())
    return [label_file, vertebrae, measurements, *_draw(folder, name, labels, warnings, model)]


def _write_dicom_seg(folder: Path, name: str, scan: Scan, labels: Labels, model: str) -> Path:
    on_grid = sitk.GetArrayFromImage(volumes.onto_axes_of(scan.volume, labels.label_map))
    file = folder / f"{name}_labels.dcm"
    return segmentation_object.write(file, on_grid[scan.numbers], scan.files, model_name(model))


def _draw(folder: Path, name: str, labels: Labels, warnings: list[str], model: str) -> list[Path]:
    """Write the pictures of a labelled scan; returns the files."""
    from lumbar_utils.output import figures

    note, examples = f"{name}, labelled by {model_name(model)}. {DISCLAIMER}", labels.examples()
    titles = [example.case for example in examples]
    caption = figures.labelled_scan_caption(name, model, titles, warnings, DISCLAIMER)
    files = figures.save(figures.labelled_scan(examples, warnings, note), folder, name, caption)
    middle = examples[len(examples) // 2]
    measured = figures.measurements(middle.image, middle.reference, middle.spacing_mm, note)
    caption = figures.measurements_caption(f"{name}, {middle.case}, labelled by {model_name(model)}. {DISCLAIMER}")
    return [*files, *figures.save(measured, folder, f"{name}_measured", caption)]
