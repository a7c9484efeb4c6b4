"""Labels of a DICOM series as a DICOM SEG, which viewers show over the series: an extra, written with highdicom.

Unlike everything else that is written here, it names the patient: DICOM asks for the identity of its source images.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from lumbar_utils import LEVELS, StudyError, __version__

SEGMENTED = {  # level -> its SNOMED code: L1 to L5 of DICOM's context group 7603, which ends there
    **{level: getattr(codes.SCT, f"{level}Vertebra") for level in LEVELS[:5]},
    "S1": Code("65985001", "SCT", "First sacral vertebra"),
}
DESCRIPTION = "Lumbar vertebrae, not for diagnosis"
SERIES_NUMBER = 1000  # beyond those of a scanner


def refuse_missing() -> None:
    """Raise StudyError if highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise StudyError('a DICOM SEG needs highdicom: pip install --editable ".[dicom-seg]"') from None


def write(file: Path, labels: np.ndarray, images: Sequence[Path], model: str) -> Path:
    """Write a DICOM SEG with a segment for each level in `labels`, which refers to its source images; returns `file`.

    labels : (images, rows, columns) uint8, 1..6 = L1..S1, one level at least. images : one DICOM file a slice.
    model : printed name of the network. Raises StudyError if the images lack what a SEG has to repeat of them.
    """
    import highdicom

    present = [value for value in range(1, len(LEVELS) + 1) if (labels == value).any()]
    numbers = np.zeros(len(LEVELS) + 1, np.uint8)  # segments are counted from 1 without gaps
    numbers[present] = np.arange(1, len(present) + 1)
    with warnings.catch_warnings(action="ignore"):  # of odd values in the headers of the source
        sources = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in images]
        try:
            if not sources[0].get("FrameOfReferenceUID"):
                raise ValueError("its FrameOfReferenceUID is absent")
            segmentation = highdicom.seg.Segmentation(
                source_images=sources, pixel_array=numbers[labels], segmentation_type="BINARY",
                segment_descriptions=[_segment(i, LEVELS[value - 1], model) for i, value in enumerate(present, 1)],
                series_instance_uid=highdicom.UID(), series_number=SERIES_NUMBER, series_description=DESCRIPTION,
                sop_instance_uid=highdicom.UID(), instance_number=1,
                manufacturer="lumbar_utils", manufacturer_model_name=model, software_versions=__version__,
                device_serial_number="none", content_label="VERTEBRAE", content_description=DESCRIPTION,
            )  # fmt: skip
        except (AttributeError, KeyError, ValueError, TypeError) as error:  # of an attribute that is absent or odd
            raise StudyError(
                f"no DICOM SEG can be written of {images[0].parent}: {error}; leave --dicom-seg out, or export it again"
            ) from None
        segmentation.save_as(file)
    return file


def _segment(number: int, level: str, model: str):
    """Description of one segment."""
    import highdicom

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=level,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=SEGMENTED[level],
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=f"lumbar_utils {model}", version=__version__, family=codes.cid7162.ArtificialIntelligence
        ),
    )
