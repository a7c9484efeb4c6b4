"""F1 of weights averaged with those that training started from, for the runs of a grid.

    python tests/benchmarks/average_weights.py RUN [RUN ...] [--shares 0 0.5]

RUN is the folder of a study that was trained with `--set start_share=0` from another study. Its test patients are
labelled by each of its networks with each share of the weights before training; prints F1, as in Table II, the F1 of
the worst patient, and how many patients are above 0.90.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import pandas as pd

from lumbar_utils import LEVELS, MODELS, records
from lumbar_utils.data import folder as canonical
from lumbar_utils.networks.checkpoints import trained_weights
from lumbar_utils.networks.dataset import classes_of
from lumbar_utils.networks.models import network_of
from lumbar_utils.networks.prediction import write_label_maps
from lumbar_utils.networks.training import average
from lumbar_utils.scores import metrics
from lumbar_utils.scores.evaluation import annotated_levels, read_label_map
from lumbar_utils.study import PRETRAINED, Study, absolute, record_of


def scores_of(run: Path, model: str, share: float) -> list[tuple]:
    """Rows (model, share, patient, level, F1) of a run's test patients."""
    settings = record_of(run)["settings"]
    start = settings["start_from"]
    before = trained_weights((PRETRAINED if start == "pretrained" else absolute(start)) / model)
    before = {layer: values.float() if values.is_floating_point() else values for layer, values in before.items()}
    with tempfile.TemporaryDirectory() as place:
        study = Study(**settings | {"cache": place, "workers": 0})
        network = network_of(study, model)
        network.load_state_dict(average(trained_weights(run / model), before, share))
        cohort, split = canonical.read(Path(study.dataset)), records.read_csv(run / "split.csv")
        sides = cohort.cases["patient"].map(dict(zip(split["patient"], split["split"], strict=True)))
        cohort = dataclasses.replace(cohort, cases=cohort.cases.assign(split=sides))
        write_label_maps(study, cohort, network.eval(), classes_of(LEVELS), Path(place) / "maps")
        rows, levels = [], annotated_levels(cohort)
        for _, case in cohort.cases[cohort.cases["split"] == "test"].iterrows():
            true = cohort.mask(case)
            f1 = metrics.f1_by_level(read_label_map(Path(place) / "maps", case, true.shape), true, levels)
            rows += [(model, share, case["patient"], level, value) for level, value in f1.items()]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--shares", nargs="+", type=float, default=[0, 0.5])
    asked = parser.parse_args()
    rows = []
    for run in asked.runs:
        for model in MODELS:
            for share in asked.shares:
                rows += scores_of(run, model, share)
    table = pd.DataFrame(rows, columns=["model", "share", "patient", "level", "f1"])
    by_level = table.groupby(["model", "share", "level", "patient"])["f1"].mean().groupby(["model", "share", "level"])
    by_patient = table.groupby(["model", "share", "patient"])["f1"].mean()
    summary = by_level.mean().groupby(["model", "share"]).mean().to_frame("f1")
    summary["worst_patient"] = by_patient.groupby(["model", "share"]).min()
    summary["patients_above_0.90"] = (by_patient > 0.9).groupby(["model", "share"]).sum()
    print(summary.round(4).to_string())


if __name__ == "__main__":
    main()
