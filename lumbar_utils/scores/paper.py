"""What Kurachka, Ren and Wang printed, once and in one place.

Source: Comparative Analysis of Deep Learning Models for Lumbar Vertebrae Segmentation in MRI Images.
"""

import pandas as pd

CASES = 514

ENVIRONMENT = {
    "CPU": "Intel(R) Xeon(R) Gold 6226R",
    "Memory": "64 GB",
    "GPU": "Quadro RTX 5000",
    "Operating system": "Windows 10 Professional Edition",
    "Software environment": "Python 3.12.7, torch 2.6.0+cu118",
}

# Table II (headed Table I in print). The F1 of HRNet is 0.77208 in the abstract and the text.
RESULTS = {
    "unet": {"precision": 0.9809, "recall": 0.9715, "f1": 0.9742, "map": 0.7084},
    "hrnet": {"precision": 0.6684, "recall": 0.9153, "f1": 0.7208, "map": 0.6568},
    "efficientnet": {"precision": 0.7995, "recall": 0.9247, "f1": 0.8491, "map": 0.7666},
}

# The same numbers where else they are printed: place -> model -> metric.
ELSEWHERE = {
    "abstract": {
        "unet": {"precision": 0.9809, "recall": 0.9715, "f1": 0.9742, "map": 0.7084},
        "hrnet": {"precision": 0.6684, "recall": 0.9153, "f1": 0.77208, "map": 0.6568},
        "efficientnet": {"precision": 0.7995, "recall": 0.9247, "f1": 0.8491, "map": 0.7666},
    },
    "text": {
        "unet": {"precision": 0.9809, "recall": 0.9715, "f1": 0.9742, "map": 0.7084},
        "hrnet": {"precision": 0.6684, "recall": 0.9153, "f1": 0.77208, "map": 0.6568},
        "efficientnet": {"precision": 0.7995, "recall": 0.9247, "f1": 0.8491, "map": 0.7666},
    },
}

# Who is said to be highest: place -> metric -> model. The abstract's "superior" says of no score that it is highest.
HIGHEST = {"conclusion": {"precision": "unet", "recall": "unet", "f1": "unet", "map": "unet"}}

SLIPS = {"numbering of the tables": "The table of results is headed Table I and cited as Table II."}


def result(model: str, metric: str) -> float:
    """The paper's value for a model and metric, in [0, 1]; nan for a model it has not.

    It prints one mAP and does not define it, so the same value stands beside each definition of ours.
    """
    return RESULTS.get(model, {}).get("map" if metric.startswith("map_") else metric, float("nan"))


def printed() -> pd.DataFrame:
    """The table of results, tidy: metric (precision, recall, f1, map), model, value in [0, 1]."""
    rows = [(metric, model, value) for model, row in RESULTS.items() for metric, value in row.items()]
    return pd.DataFrame(rows, columns=["metric", "model", "value"])
