"""A study's facts as words, by name, for the sentences of its record; what cannot be known says so."""

from pathlib import Path

from lumbar_utils import LEVELS, records
from lumbar_utils.output.report.results import Results
from lumbar_utils.output.tables import images_of, runs_words
from lumbar_utils.study import STARTS

OPEN = "OPEN, not known to this study"
SPLITS = {"drawn": "patients drawn at random, alike in contrast and levels", "given": "as split.csv of the data gives"}


def facts(results: Results) -> dict[str, str]:
    """Every fact that a sentence may name."""
    study, data, about = results.study, results.data, results.data.get("about", {})
    chosen = study["settings"]
    words = {name: str(chosen.get(name, OPEN)) for name in (
        "seed", "slices", "normalisation", "augmentation", "epochs", "images_per_epoch", "batch_size", "loss",
        "schedule", "learning_rate", "weight_decay",
    )}  # fmt: skip
    return words | _trained(results) | _sides(results) | {
        "study": results.folder.resolve().name, "study_fingerprint": study["fingerprint"],
        "name": data["name"], "licence": data["licence"], "data_fingerprint": data["fingerprint"],
        "citation": about.get("citation", OPEN),
        "left_out": "; ".join(about.get("left_out", [])) or "nothing on record",
        "patients": str(data["patients"]), "cases": str(data["cases"]), "levels": ", ".join(data["annotated"]),
        "absent": ", ".join(level for level in LEVELS if level not in data["annotated"]) or "none",
        "runs": runs_words(results.cases), "findings": f"{len(results.findings)} findings of the audit are on record",
        "size": f"{chosen['height']} x {chosen['width']}", "note": results.note,
        "split_words": SPLITS.get(data["split"], data["split"]), "spacing": _spacing(results), "start": _start(chosen),
        "seen": _seen(chosen),
        "tta": "Each prediction is a mean over turned and scaled copies of its image."
        if chosen.get("test_time_augmentation") else "Each prediction is of one network and one image.",
    } | _made_with(results)  # fmt: skip


def _made_with(results: Results) -> dict[str, str]:
    """Code, packages and machine of the results, as each result's own record has them."""
    made = results.provenance
    packages = {
        result: ", ".join(f"{name} {version}" for name, version in its["packages"].items())
        for result, its in made.items()
    }
    return {
        "commit": records.one_or_each({result: its["commit"] for result, its in made.items()}) or OPEN,
        "packages": records.one_or_each(packages) or OPEN,
        "environment": records.one_or_each({name: in_words(its["environment"]) for name, its in made.items()}) or OPEN,
    }


def in_words(environment: dict[str, str]) -> str:
    """Hardware and software as study.json and fit.json have them, in one line."""
    return "; ".join(f"{item}: {value}" for item, value in environment.items()) or OPEN


def _trained(results: Results) -> dict[str, str]:
    rows = list(results.training.itertuples())
    names = results.models
    return {
        "models": ", ".join(names.values()),
        "parameters": ", ".join(f"{names[row.model]} of {row.parameters:,.0f} parameters" for row in rows
                                if row.finished),
        "best": ", ".join(f"{names[row.model]} epoch {row.best_epoch} of {row.epochs} ({row.best_val_f1:.4f})"
                          for row in rows),
    }  # fmt: skip


def counted(number: int, thing: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {thing}" + "s" * (number != 1)


def _sides(results: Results) -> dict[str, str]:
    counts = {side: (part["patient"].nunique(), images_of(part)) for side, part in results.cases.groupby("split")}
    told = [f"{side} {counted(counts[side][0], 'patient')} ({counted(counts[side][1], 'image')})"
            for side in ("train", "validation", "test") if side in counts]  # fmt: skip
    patients, images = counts.get("test", (0, 0))
    return {
        "sides": ", ".join(told) or OPEN,
        "test": f"{counted(images, 'image')} of {counted(patients, 'patient')}",
        "test_patients": str(patients),
    }


def _spacing(results: Results) -> str:
    known = results.cases["spacing_mm"].dropna() if "spacing_mm" in results.cases else []
    return f"{min(known):.2f} to {max(known):.2f} mm" if len(known) else "unknown"


def _seen(settings: dict) -> str:
    """Whether the test images took part in training, as far as the study can tell."""
    earlier = settings.get("start_from") or "none"
    more = ""
    if earlier not in STARTS:
        more = f"; whether the study {Path(earlier).name}, which it starts from, trained on them: OPEN"
    return f"never seen in training or selection by this study{more}"


def _start(settings: dict) -> str:
    """What the networks' weights were before training; of a path its last part."""
    earlier = settings.get("start_from") or "none"
    if earlier == "phantoms":
        return "From the same networks trained on phantoms, which are synthetic images, before"
    if earlier != "none":
        return f"From the trained networks of the study {Path(earlier).name}"
    if settings["encoder_weights"] == "none":
        return "At random, after each library's usual scheme; no pre-training"
    weights = Path(settings["encoder_weights"]).name
    return f"Encoders of HRNet and EfficientNet from {weights}, all else and U-Net at random"
