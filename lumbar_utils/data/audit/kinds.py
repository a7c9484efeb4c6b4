"""Every kind of finding: how grave it is, what it means, and what to do. Errors stop a study, warnings are recorded."""

from typing import NamedTuple


class Kind(NamedTuple):
    severity: str
    meaning: str
    remedy: str


class Fault(NamedTuple):
    """What was found, with numbers; remedy where it is another than its kind's."""

    kind: str
    what: str
    remedy: str = ""


COMPARE = "look at both; keep one, or give both the name of their one patient, or accept"
NAMES = "correct the mask's labels"

KINDS = {
    # the files
    "table": Kind("error", "the data set cannot be read by its own tables", "correct the table; see data/README.md"),
    "unreadable": Kind("error", "the case has no usable pixels", "export the file again"),
    "size": Kind("error", "image and mask are not of one slice, or were resampled apart", "export both again"),
    "label": Kind("error", "some pixels have no meaning", "name the label in dataset.json, or correct the mask"),
    # the label maps
    "empty-mask": Kind("error", "there is nothing to learn or to score", "outline it, or leave it out"),
    "gap": Kind("error", "a level between two others was forgotten, or the levels are misnamed", NAMES),
    "missing-end": Kind("warning", "it lies outside of the image, or was forgotten", "outline it if it is there"),
    "repeated-level": Kind("error", "two bodies have one name", NAMES),
    "order": Kind("error", "levels do not follow one another from head to feet: they are misnamed", NAMES),
    "upside-down": Kind("error", "the feet are up", "turn image and mask head up"),
    "on-its-side": Kind("error", "the spine lies across the image", "turn image and mask head up"),
    "mirrored": Kind("error", "the spine bends the wrong way: its front is right", "mirror image and mask, front left"),
    "fragments": Kind("warning", "specks of a label beside its body", "remove them from the mask"),
    "holes": Kind("warning", "pixels inside of a body that are not labelled as it", "fill them in"),
    "border": Kind("warning", "a body is cut off by the image's edge", "check the field of view"),
    # image and label map together
    "over-air": Kind("error", "the mask does not lie on the body: shifted, or of another image", "pair them again"),
    # the images
    "flat": Kind("error", "the image shows nothing", "export it again with its window"),
    "saturated": Kind("warning", "bright tissue was cut off by the window", "export it with a wider window"),
    "outlier": Kind("warning", "another window or sequence than the rest", "look at it; export it like the rest"),
    # several cases
    "duplicate": Kind("error", "one image under two patients: it may be trained and tested on", COMPARE),
    "near-duplicate": Kind("error", "one patient under two names, perhaps on both sides of the split", COMPARE),
    "repeated-slice": Kind("warning", "one slice twice: it counts double", "remove one"),
    "alike-names": Kind("error", "one patient under two spellings would be split like two", "spell it in one way"),
    "two-sides": Kind("error", "a patient both trained and tested on: scores would flatter", "keep one side"),
}
