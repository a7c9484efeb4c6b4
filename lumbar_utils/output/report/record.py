"""The record that reviewers ask for: checklist, a card a model, a datasheet, how to cite; filled from the folder.

Headings are those of Mitchell et al. 2019 (model cards, doi 10.1145/3287560.3287596) and of Gebru et al. 2021
(datasheets, doi 10.1145/3458723). What no file of the study tells is OPEN.
"""

import json

import pandas as pd

from lumbar_utils import METRICS, __version__, records
from lumbar_utils.output import tables
from lumbar_utils.output.report.claim_2024 import ITEMS, STATUSES, answers
from lumbar_utils.output.report.facts import OPEN, facts, in_words
from lumbar_utils.output.report.results import Results
from lumbar_utils.output.report.templating import fill


def documents(results: Results) -> dict[str, str]:
    """File name -> text of every document of the record; a model has its card once its training is finished."""
    known = facts(results)
    cards = {f"model_card_{model}.md": model_card(results, model, known)
             for model in results.models if results.has(f"{model}/fit.json")}  # fmt: skip
    return {
        "claim_2024.md": claim(results), **cards, "datasheet.md": _fill("datasheet.md", results, known),
        "CITATION.cff": _fill("CITATION.cff", results, known),
    }  # fmt: skip


def claim(results: Results) -> str:
    """The checklist as a table in markdown, with how many items have which status."""
    found = answers(results)
    counts = ", ".join(
        f"{number} {status}" for status in STATUSES if (number := sum(answer.status == status for answer in found))
    )
    rows = [(item.number, item.section, item.asks, answer.status, answer.text.replace("|", "/"))
            for item, answer in zip(ITEMS, found, strict=True)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["item", "section", "asks", "status", "answer"])
    return (
        f"# CLAIM 2024: {results.data['name']}\n\n{results.note}\n\nOf {len(ITEMS)} items: {counts}. Items are in our "
        "words; the original is Tejani et al., Radiology: Artificial Intelligence 2024, doi 10.1148/ryai.240300. "
        f"*OPEN* is for the authors to fill in.\n\n{table.to_markdown(index=False, disable_numparse=True)}\n"
    ).replace("\n\n\n\n", "\n\n")


def model_card(results: Results, model: str, known: dict[str, str]) -> str:
    """What a network is, was trained on, scored, and is not for."""
    row = results.training.set_index("model").loc[model]
    scores = pd.DataFrame() if results.stale else results.csv("tables/table2.csv")
    provenance = records.read_json(results.folder / model / "fit.json").get("provenance", {})
    own = scores[scores["model"] == model] if len(scores) else scores
    return _fill(
        "model_card.md", results, known, model=model, name=results.models[model], row=row,
        scores=[(METRICS.get(score.metric, score.metric), tables.interval_text(score.value, score.low, score.high),
                 score.n) for score in own.itertuples()],
        provenance=provenance, trained_on=in_words(provenance.get("environment", {})),
    )  # fmt: skip


def _fill(template: str, results: Results, known: dict[str, str], **more) -> str:
    about = {"labels": {}, "notes": []} | results.data.get("about", {})
    return fill(template, facts=known, about=about, data=results.data, quoted=json.dumps, OPEN=OPEN,
                version=__version__, **more)  # fmt: skip
