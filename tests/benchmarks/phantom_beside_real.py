"""Phantom beside real slices: pictures, grey values inside and outside of the vertebrae, power spectra.

    python tests/benchmarks/phantom_beside_real.py DATASET FOLDER

DATASET is a folder of real slices in the form of data/README.md; FOLDER gets phantom_beside_real as pdf, svg and png.
"""

import sys
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np

from lumbar_utils.data.folder import read
from lumbar_utils.output import figures
from lumbar_utils.phantom.phantom import draw

SHOWN, COUNTED, SPACING_MM = 4, 60, 0.9  # pictures a row; images measured; common size of a pixel for spectra
ROWS = {"real": "#000000", "T2-SPACE": "#0072B2", "T2": "#E69F00", "T1": "#009E73"}


def spectrum(image: np.ndarray, spacing_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Cycles a millimetre and mean power at it, of the image's middle square of 200 mm resampled to SPACING_MM."""
    small = cv2.resize(
        image, None, fx=spacing_mm / SPACING_MM, fy=spacing_mm / SPACING_MM, interpolation=cv2.INTER_AREA
    )
    side = min(*small.shape, round(200 / SPACING_MM))
    top, left = (np.array(small.shape) - side) // 2
    window = np.hanning(side)[:, None] * np.hanning(side)
    power = np.abs(np.fft.fft2(window * small[top : top + side, left : left + side] / 255.0)) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(side, SPACING_MM)] * 2))
    bins = np.linspace(0.01, 0.5 / SPACING_MM, 40)
    place = np.digitize(frequency.ravel(), bins)
    sums, counts = (np.bincount(place, weights, 41) for weights in (power.ravel(), None))
    return (bins[1:] + bins[:-1]) / 2, sums[1:40] / counts[1:40]


def main(dataset: str, folder: Path) -> None:
    cohort = read(Path(dataset).resolve())
    middle = cohort.cases.drop_duplicates("patient") if "mid_sagittal" not in cohort.cases else cohort.cases[
        cohort.cases["mid_sagittal"].astype(str).str.lower().isin(("true", "1"))
    ]  # fmt: skip
    images = {"real": [(cohort.image(case), cohort.mask(case), case["spacing_mm"]) for _, case in middle.iterrows()]}
    for contrast in list(ROWS)[1:]:
        drawn = [draw(0, patient, contrast=contrast) for patient in range(COUNTED)]
        images[contrast] = [(phantom.image, phantom.mask, phantom.spacing_mm) for phantom in drawn]
    fig = plt.figure(figsize=(figures.PAGE, 9.2), layout="constrained")
    pictures, curves = fig.subfigures(2, 1, height_ratios=[4, 1.25])
    for row, (name, axes) in enumerate(zip(ROWS, pictures.subplots(len(ROWS), SHOWN), strict=True)):
        for ax, (image, _, _) in zip(axes, images[name], strict=False):
            ax.imshow(image, vmin=0, vmax=np.percentile(image, 99.5))
            ax.axis("off")
        title = f"real: {cohort.name}, {len(middle)} patients" if row == 0 else f"phantom, {name}"
        axes[0].set_title(f"{chr(97 + row)}  {title}", loc="left", fontsize=7)
    inside, outside, power = curves.subplots(1, 3)
    for name, colour in ROWS.items():
        for ax, chosen in ((inside, lambda mask: mask > 0), (outside, lambda mask: mask == 0)):
            grey = np.concatenate([image[chosen(mask)] for image, mask, _ in images[name]])
            ax.plot(
                np.arange(2, 256, 4), 100 * np.bincount(grey // 4, minlength=64) / len(grey), color=colour, label=name
            )
        spectra = [spectrum(image, spacing) for image, _, spacing in images[name]]
        power.loglog(spectra[0][0], np.median([values for _, values in spectra], axis=0), color=colour)
    outside.set_yscale("log")
    inside.legend()
    inside.set(xlabel="Grey value", ylabel="Pixels (%)", title="e  labelled vertebrae")
    outside.set(xlabel="Grey value", title="f  all else")
    power.set_xticks([0.03, 0.1, 0.3], ["0.03", "0.1", "0.3"])
    power.minorticks_off()
    power.set(xlabel="Cycles per mm", ylabel="Power (median)", title="g  spectrum")
    plt.close(fig)
    caption = (
        f"Images, grey values inside and outside of the labelled vertebrae, and spectra of {', '.join(images)}. "
        "The phantom says nothing about patients."
    )
    figures.save(fig, folder, "phantom_beside_real", caption)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
