"""The documents that journals and reviewers ask for: a checklist, a card of each model, a datasheet, a citation.

The checklist is CLAIM 2024 (Tejani et al., doi 10.1148/ryai.240300): templates/claim_2024.csv has its 44 items, in our
words, and their answers. Headings of model cards follow Mitchell et al. 2019 (doi 10.1145/3287560.3287596), those of
the datasheet Gebru et al. 2021 (doi 10.1145/3458723). What a study's folder does not say is marked OPEN, for the
authors to fill in.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd

from lumbar_utils import LEVELS, METRICS, __version__, records
from lumbar_utils.output.results import Results
from lumbar_utils.output.tables import describe_runs, interval_text
from lumbar_utils.study import STARTS, Study

TEMPLATES = Path(__file__).with_name("templates")
OPEN = "OPEN, not known to this study"
STATUSES = ("answered", "partly", "open", "not done", "does not apply", "not yet")  # of an item of the checklist
SPLITS = {
    "drawn": "patients drawn at random, stratified by contrast and levels",
    "given": "as given by the data's split.csv",
}


def fill(template: str, **values) -> str:
    """A file of `templates` with values filled in, escaped if it is HTML. A name without a value is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def documents(results: Results) -> dict[str, str]:
    """File name -> text of each document. A network has a model card once its training is finished."""
    about = {"labels": {}, "notes": []} | results.data.get("about", {})
    values = {
        "facts": facts(results),
        "about": about,
        "data": results.data,
        "quoted": json.dumps,
        "version": __version__,
    }
    texts = {"claim_2024.md": checklist_text(results)}
    for model in results.models:
        if results.has(f"{model}/fit.json"):
            texts[f"model_card_{model}.md"] = fill("model_card.md", **values, **model_facts(results, model))
    for name in ("datasheet.md", "CITATION.cff"):
        texts[name] = fill(name, **values)
    return texts


def model_facts(results: Results, model: str) -> dict:
    """What a model card says of one network: its training, its scores, and where it was trained."""
    provenance = records.read_json(results.folder / model / "fit.json").get("provenance", {})
    return {
        "model": model,
        "name": results.models[model],
        "row": results.training.set_index("model").loc[model],
        "scores": model_scores(results, model),
        "provenance": provenance,
        "trained_on": environment_text(provenance.get("environment", {})),
    }


def model_scores(results: Results, model: str) -> list[tuple[str, str, int]]:
    """Metric, value with interval, and number of patients, as in Table II; empty where scores are absent or stale."""
    table = results.csv("tables/table2.csv")
    if results.stale or table.empty:
        return []
    rows = table[table["model"] == model].itertuples()
    return [(METRICS.get(row.metric, row.metric), interval_text(row.value, row.low, row.high), row.n) for row in rows]


def checklist(results: Results) -> pd.DataFrame:
    """CLAIM 2024 answered for a study, one row an item: item (its number), section, question, status, answer.

    An item is "not yet" answered while a file that it needs is missing or stale.
    """
    items = pd.read_csv(TEMPLATES / "claim_2024.csv", keep_default_na=False)
    known = facts(results)
    answers = pd.DataFrame(
        [_answer(item, results, known) for _, item in items.iterrows()], columns=["status", "answer"]
    )
    return items[["item", "section", "question"]].join(answers)


def _answer(item: pd.Series, results: Results, known: dict[str, str]) -> tuple[str, str]:
    """Status and answer of an item, facts filled in; `{network}` in the files it needs stands for each network."""
    needs = item["needs"].split()
    files = dict.fromkeys(file.format(network=network) for file in needs for network in results.networks)
    missing = [file for file in files if not results.has(file)]
    if results.stale and any(file.startswith("tables/") for file in files):
        return "not yet", f"The results are stale: {results.stale}."
    if missing:
        return "not yet", f"The study is not finished: {', '.join(missing)} is missing."
    kind = "_if_synthetic" if results.data["synthetic"] and item["status_if_synthetic"] else ""
    return item[f"status{kind}"], item[f"answer{kind}"].format_map(known)


def count_values(values: Sequence[str], order: Sequence[str]) -> str:
    """How often each value occurs, in a given order: `16 answered, 10 partly`; empty without values."""
    counts = Counter(values)
    return ", ".join(f"{counts[value]} {value}" for value in order if value in counts)


def checklist_text(results: Results) -> str:
    """The checklist as a table in Markdown, under how many items have which status."""
    items = checklist(results)
    table = items.assign(answer=items["answer"].str.replace("|", "/"))
    counts = count_values(items["status"], STATUSES)
    paragraphs = [
        f"# CLAIM 2024: {results.data['name']}",
        results.note,
        f"Of {len(items)} items: {counts}. Items are paraphrased; the original is Tejani et al., Radiology: "
        "Artificial Intelligence 2024, doi 10.1148/ryai.240300. What is marked *OPEN* is for the authors to fill in.",
        table.to_markdown(index=False, disable_numparse=True),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def facts(results: Results) -> dict[str, str]:
    """Every fact that a template or an answer may name, as text: all settings, and what follows.

    One that the study cannot know is OPEN.
    """
    study, data, about = results.study, results.data, results.data.get("about", {})
    settings = study["settings"]
    absent = [level for level in LEVELS if level not in data["annotated"]]
    known = data.get("taught", data["annotated"])  # phantoms teach levels that the data do not annotate
    return {
        **dict.fromkeys(Study.model_fields, OPEN),
        **{name: str(value) for name, value in settings.items()},
        "study": results.folder.resolve().name,
        "study_fingerprint": study["fingerprint"],
        "name": data["name"],
        "licence": data["licence"],
        "citation": about.get("citation", OPEN),
        "data_fingerprint": data["fingerprint"],
        "patients": str(data["patients"]),
        "cases": str(data["cases"]),
        "levels": ", ".join(data["annotated"]),
        "absent": ", ".join(absent) or "none",
        "predicted": ", ".join(known),
        "unpredicted": ", ".join(level for level in LEVELS if level not in known) or "none",
        "left_out": "; ".join(about.get("left_out", [])) or "nothing recorded",
        "findings": f"{len(results.findings)} findings of the audit are recorded",
        "spacing": _spacing(results),
        "size": f"{settings['height']} x {settings['width']}",
        "note": results.note,
        "runs": describe_runs(results.cases),
        "start": _start(settings),
        "averaged": _averaged(settings),
        "seen": _seen(settings),
        **_split_facts(results),
        **_training_facts(results),
        **_provenance_facts(results),
    }


def _split_facts(results: Results) -> dict[str, str]:
    method = results.data["split"]
    sides = results.split.set_index("side")
    sizes = [
        f"{side} {counted(patients, 'patient')} ({counted(images, 'image')})"
        for side, patients, images in sides.itertuples()
    ]
    patients, images = sides.reindex(["test"], fill_value=0).iloc[0]
    return {
        "split_words": SPLITS.get(method, method),
        "sides": ", ".join(sizes) or OPEN,
        "test": f"{counted(images, 'image')} of {counted(patients, 'patient')}",
        "test_patients": str(patients),
    }


def counted(number: int, thing: str) -> str:
    """1 image, 2 images."""
    return f"{number:,} {thing}" + "s" * (number != 1)


def _training_facts(results: Results) -> dict[str, str]:
    parameters, best = [], []
    for row in results.training.itertuples():
        name = results.models[row.model]
        best.append(f"{name} epoch {row.best_epoch} of {row.epochs} ({row.best_val_f1:.4f})")
        if row.finished:
            parameters.append(f"{name} of {row.parameters:,.0f} parameters")
    return {
        "models": ", ".join(results.models.values()),
        "parameters": ", ".join(parameters),
        "best": ", ".join(best),
    }


def _provenance_facts(results: Results) -> dict[str, str]:
    """Code, packages and machine: one text where all results agree, and otherwise one after the name of each result."""
    commits, packages, environments = {}, {}, {}
    for result, made in results.provenance.items():
        commits[result] = made["commit"]
        packages[result] = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
        environments[result] = environment_text(made["environment"])
    return {
        "commit": records.one_or_each(commits) or OPEN,
        "packages": records.one_or_each(packages) or OPEN,
        "environment": records.one_or_each(environments) or OPEN,
    }


def environment_text(environment: dict[str, str]) -> str:
    """Hardware and software in one line."""
    return "; ".join(f"{item}: {value}" for item, value in environment.items()) or OPEN


def _spacing(results: Results) -> str:
    known = results.cases.get("spacing_mm", pd.Series(dtype=float)).dropna()
    return f"{known.min():.2f} to {known.max():.2f} mm" if len(known) else "unknown"


def _start(settings: dict) -> str:
    """Weights of the networks before training; of a path its last part."""
    earlier = settings.get("start_from") or "none"
    if earlier == "phantoms":
        return "From the same networks, trained before on phantoms, which are synthetic images"
    if earlier == "pretrained":
        return (
            "From the networks that come with the project (data/pretrained), trained before on phantoms, which are "
            "synthetic images, and on images of patients of SPIDER"
        )
    if earlier != "none":
        return f"From the trained networks of the study {Path(earlier).name}"
    if settings["encoder_weights"] == "none":
        return "At random, by each library's default scheme; no pre-training"
    weights = Path(settings["encoder_weights"]).name
    return f"Encoders of HRNet and EfficientNet from {weights}, all other weights and U-Net at random"


def _averaged(settings: dict) -> str:
    """Whether the weights of the epoch that was kept were averaged with those before training."""
    share = settings.get("start_share")  # records of earlier versions lack it
    if not share or not settings["epochs"]:
        return ""
    return f", averaged with the weights before training, which have a share of {share:g}"


def _seen(settings: dict) -> str:
    """Whether test images were used in training; of an earlier study that training starts from, this is not known."""
    unseen = "not used for training or selection by this study"
    earlier = settings.get("start_from") or "none"
    if earlier in STARTS:
        return unseen
    return f"{unseen}; whether the study {Path(earlier).name}, which it starts from, trained on them: OPEN"
