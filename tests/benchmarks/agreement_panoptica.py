"""What panoptica says of label maps; agreement.py calls it.

    PYTHON tests/benchmarks/agreement_panoptica.py FOLDER

PYTHON is an interpreter of a virtual environment of its own (`uv venv panoptica; uv pip install panoptica`), since
panoptica wants an older NumPy and pandas than the study. FOLDER holds cases.npz: of each case <number>_true and
<number>_pred, (height, width) uint8, 0 to 6, and `sides`, (cases,) length of a pixel's side. FOLDER gets
`panoptica.csv`: number, library, function, level (0: the whole image), metric, value.

Overlaps and distances come from panoptica's metrics themselves, for levels in both label maps: its evaluator scores
only what it has matched, and takes the side of a pixel for the tolerance of NSD. Panoptic quality comes from the
evaluator, twice: a vertebra matched to the one of its name, and to the one that it overlaps with, as is its default.
"""

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from panoptica import InputType, Metric, NaiveThresholdMatching, Panoptica_Evaluator, disable_citation_reminder

NSD_TOLERANCE = 1.0  # of the normalised surface distance, as in lumbar_utils.scores.metrics
OVERLAPS = {"f1": Metric.DSC, "iou": Metric.IOU}
DISTANCES = {"hd95": Metric.HD95, "assd": Metric.ASSD, "nsd": Metric.NSD}
COLUMNS = ["number", "library", "function", "level", "metric", "value"]


def of_levels(true: np.ndarray, pred: np.ndarray, side: float) -> Iterator[tuple]:
    """Rows (function, level, metric, value) of each level in both label maps; of no other does panoptica ask."""
    for level in sorted({*np.unique(true)} & {*np.unique(pred)} - {0}):
        masks = true == level, pred == level
        for name, metric in OVERLAPS.items():
            yield f"Metric.{metric.name}", level, name, metric(*masks)
        for name, metric in DISTANCES.items():
            options = {"threshold": NSD_TOLERANCE} if name == "nsd" else {}
            yield f"Metric.{metric.name}", level, name, metric(*masks, voxelspacing=(side, side), **options)


def evaluators() -> dict[str, Panoptica_Evaluator]:
    alone = {"instance_metrics": [Metric.IOU], "global_metrics": []}
    by_name = {"decision_metric": Metric.IOU, "decision_threshold": 0.5}
    return {
        "Panoptica_Evaluator by name": Panoptica_Evaluator(InputType.MATCHED_INSTANCE, **by_name, **alone),
        "Panoptica_Evaluator by overlap": Panoptica_Evaluator(
            InputType.UNMATCHED_INSTANCE, instance_matcher=NaiveThresholdMatching(), **alone
        ),
    }


def main(folder: Path) -> None:
    disable_citation_reminder()
    library, rows, matched = f"panoptica {importlib.metadata.version('panoptica')}", [], evaluators()
    with np.load(folder / "cases.npz") as cases:
        for number, side in enumerate(cases["sides"]):
            true, pred = cases[f"{number}_true"], cases[f"{number}_pred"]
            rows += [(number, library, *row) for row in of_levels(true, pred, float(side))]
            for function, evaluator in matched.items():
                (found,) = evaluator.evaluate(pred, true).values()
                rows += [(number, library, function, 0, name, getattr(found, name)) for name in ("pq", "sq", "rq")]
    pd.DataFrame(rows, columns=COLUMNS).to_csv(folder / "panoptica.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
