"""Several studies as one: the same settings under every seed and on every fold, and what of it is finished.

A member is a study like any other, with a folder of its own, so that a larger grid takes up what a smaller one trained.
"""

import dataclasses
import filecmp
import functools
import os
import shutil
from pathlib import Path

import pandas as pd

from lumbar_utils import MODELS, StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.output.registry import made_by
from lumbar_utils.study import Study, record_of

OF_EACH = ("history.csv", "robustness.csv", "cost.csv")  # what every trained network leaves beside its label maps


@dataclasses.dataclass(frozen=True)
class Grid:
    """A study under several seeds and, where it has folds, on all of them. Raises StudyError for a seed given twice.

    Like a study it has a folder, settings and a fingerprint; in the folder lie the predictions of all its members for
    the patients they were not trained on.
    """

    study: Study
    seeds: tuple[int, ...]

    def __post_init__(self):
        twice = [seed for number, seed in enumerate(self.seeds) if seed in self.seeds[:number]]
        if twice or not self.seeds:
            raise StudyError(f"seed {twice[0]} is given twice; give each once" if twice else "give one seed or more")
        seeds = tuple(sorted(self.seeds))
        object.__setattr__(self, "study", Study(**self.study.settings | {"seed": seeds[0], "fold": 0}))
        object.__setattr__(self, "seeds", seeds)

    @property
    def members(self) -> list[Study]:
        """One study a seed and fold."""
        places = [{"seed": seed, "fold": fold} for seed in self.seeds for fold in range(max(1, self.study.folds))]
        return [Study(**self.study.settings | place) for place in places]

    @property
    def settings(self) -> dict:
        """Those of the first member: all others have the same but for seed and fold."""
        return self.study.settings

    @property
    def fingerprint(self) -> str:
        """Hash of every setting that can change a result, and of the seeds."""
        return records.fingerprint(self.study.fingerprint, self.seeds)

    @property
    def folder(self) -> Path:
        """Where what is made of all members is kept."""
        study, seeds = self.study, f"{len(self.seeds)}seed{'s' * (len(self.seeds) > 1)}"
        folds = f"-{study.folds}folds" if study.folds else ""
        return study.runs / f"{Path(study.dataset).name}-{study.profile}-{seeds}{folds}-{self.fingerprint[:8]}"

    def _repr_html_(self) -> str:
        folds = f", folds 0 to {self.study.folds - 1}" if self.study.folds else ""
        return f"<p>Seeds {', '.join(map(str, self.seeds))}{folds}; otherwise:</p>{self.study._repr_html_()}"


def read(folder: Path) -> Study | Grid:
    """The study or grid that a folder holds. Raises StudyError where there is none."""
    told = record_of(folder)
    study = Study(**told["settings"] | {"runs": str(folder.parent)})
    study = Grid(study, tuple(told["grid"]["seeds"])) if "grid" in told else study
    if study.folder != folder.resolve():
        raise StudyError(
            f"{folder} was made from other settings or data than its study.json leads to today ({study.folder.name}): "
            f"the tables of {study.settings['dataset']} have changed or are not there, or the folder was renamed; "
            "put them back, or run the study anew"
        )
    return study


def describe(grid: Grid, **how) -> None:
    """Put on record, in the grid's folder, what it consists of; the first member must have been prepared.

    how : threads of a cell, models; what was said of them before stays.
    """
    told, before = (records.read_json(folder / "study.json") for folder in (grid.study.folder, grid.folder))
    folds = f"{grid.study.folds} folds" if grid.study.folds else told["data"]["split"]
    told["data"]["split"] = f"{folds}, under each of the seeds {', '.join(map(str, grid.seeds))}"
    own = {"fingerprint": grid.fingerprint, "settings": grid.settings}
    own["grid"] = before.get("grid", {}) | {"seeds": list(grid.seeds)} | how
    records.write_json(grid.folder / "study.json", told | own)


def threads_of(grids: list[Grid]) -> int:
    """Threads of a cell as a grid was begun with, so that it goes on to the same bits; 0 for a new one."""
    told = [records.read_json(grid.folder / "study.json").get("grid", {}).get("threads", 0) for grid in grids]
    return max(told, default=0)


def gather(study: Study | Grid, add: dict[str, str]) -> tuple[Cohort, dict[str, Path]]:
    """What there is to score: the cases, each with its `split`, and model -> folder of label maps of the test cases.

    add : name -> folder of another tool's label maps: see `external.add`.
    Of a grid, a test case is an image under one seed: `<case>.seed<seed>` where there are several, always predicted by
    networks that its patient had no part in training. Columns `seed` and `fold` say by which. Runs in which a network
    is not finished are left out, so that all are compared on the same; StudyError where none is left.
    """
    from lumbar_utils.scores.evaluation import label_maps
    from lumbar_utils.scores.external import add_all

    if isinstance(study, Study):
        cohort = prepare(study)
        cohort = dataclasses.replace(cohort, cases=cohort.cases.assign(seed=study.seed, fold=study.fold))
        models = tuple(MODELS)
    else:
        cohort, models = _gather(study)
    add_all(study, cohort, add)
    return cohort, label_maps(study, cohort, models)


def finished(study: Study, cohort: Cohort) -> list[str]:
    """Networks of a study that are trained, by these settings, data and code, and have predicted the test cases."""

    models = [file.parent.name for file in sorted(study.folder.glob("*/fit.json"))]
    return [
        model for model in models
        if records.is_finished(
            study.folder / model / "predict.json", freshness.predicted(study, cohort.fingerprint, model)
        )
        and all((study.folder / model / name).exists() for name in OF_EACH)
    ]  # fmt: skip


def _gather(grid: Grid) -> tuple[Cohort, tuple[str, ...]]:
    found = [(member, cohort := prepare(member), set(finished(member, cohort))) for member in grid.members]
    models = set.union(*(done for *_, done in found))
    whole = [(member, cohort) for member, cohort, done in found if models and done == models]
    if not whole:
        wanted = ", ".join(sorted(models) or MODELS)
        raise StudyError(f"none of the {len(found)} runs has {wanted} finished; run the grid")
    describe(grid)
    for member, _, done in found:
        if done != models:
            print(f"left out: {run_name(member)}, where {', '.join(sorted(models - done))} is not finished")
    cases = pd.concat([_as_tested(grid, *run) for run in whole], ignore_index=True)
    cohort = dataclasses.replace(whole[0][1], cases=cases)
    records.write_csv(grid.folder / "cases.csv", cases)
    records.write_csv(grid.folder / "split.csv", cases[["seed", "fold", "patient", "split"]].drop_duplicates())
    for left in {file.parent for file in grid.folder.glob("*/fit.json")} - {grid.folder / model for model in models}:
        shutil.rmtree(left)  # of a network that was gathered before, and is not finished any more
    for model in models:
        _gather_model(grid, model, cases, [member for member, _ in whole], cohort.fingerprint)
    _link_figures(grid.study.folder / "figures", grid.folder / "figures")
    return cohort, tuple(name for name in [*MODELS, *sorted(models - set(MODELS))] if name in models)


def run_name(member: Study) -> str:
    """`seed 0, fold 2`, or `seed 0` where there are no folds."""
    return f"seed {member.seed}, fold {member.fold}" if member.folds else f"seed {member.seed}"


def _as_tested(grid: Grid, member: Study, cohort: Cohort) -> pd.DataFrame:
    """The test cases of a member under the names that they have in the grid; `case_there`: those of the member."""
    test = cohort.cases[cohort.cases["split"] == "test"].assign(seed=member.seed, fold=member.fold)
    end = f".seed{member.seed}" if len(grid.seeds) > 1 else ""
    return test.assign(case_there=test["case"], case=test["case"].astype(str) + end)


def _gather_model(grid: Grid, model: str, cases: pd.DataFrame, members: list[Study], data: str) -> None:
    """Put label maps of all members under one folder, and beside it their histories, robustness and cost.

    data : fingerprint of the cohort.
    """
    folder = grid.folder / model
    shutil.rmtree(folder / "label_maps", ignore_errors=True)
    for member in members:
        own = cases[(cases["seed"] == member.seed) & (cases["fold"] == member.fold)]
        for there, here in zip(own["case_there"], own["case"], strict=True):
            for ending in (".png", ".npz"):
                source = member.folder / model / "label_maps" / f"{there}{ending}"
                _link_file(source, folder / "label_maps" / f"{here}{ending}")
    history, worse, cost = (
        pd.concat([records.read_csv(member.folder / model / name) for member in members], ignore_index=True)
        for name in OF_EACH
    )
    records.write_csv(folder / "history.csv", history.groupby(["model", "epoch"], as_index=False).mean())
    records.write_csv(folder / "robustness.csv", worse)
    mean = {"training_seconds": round(cost["training_seconds"].mean(), 1), "runs": len(members)}
    records.write_csv(folder / "cost.csv", cost.head(1).assign(**mean))
    fits, predictions = (
        [records.read_json(member.folder / model / name) for member in members] for name in ("fit.json", "predict.json")
    )
    files, made_from = sorted((folder / "label_maps").iterdir()), records.fingerprint(predictions)
    made = {"provenance": _provenance(predictions), "data": data}
    records.mark_finished(folder / "predict.json", made_from, files, **made)
    facts = {name: fits[0][name] for name in ("seconds", "parameters")} | {"provenance": _provenance(fits)}
    records.mark_finished(folder / "fit.json", made_from, [folder / "history.csv"], **facts)


def _provenance(of_members: list[dict]) -> dict:
    """Where the results of all members came from. of_members : their records."""
    return functools.reduce(_merged, [record["provenance"] for record in of_members])


def _merged(one: dict, other: dict) -> dict:
    """Two provenances as one: a value in which they differ names both."""
    merged = {}
    for name, value in one.items():
        if isinstance(value, dict):
            merged[name] = _merged(value, other[name])
        else:
            parts = [*value.split(" / "), *other[name].split(" / ")]
            merged[name] = " / ".join(dict.fromkeys(parts))
    return merged


def _link_figures(source: Path, target: Path) -> None:
    """A member's figures of data and networks under another folder; a file there that has other content gives way."""
    for file in sorted(path for path in source.rglob("[!.]*") if path.is_file()):
        if file.stem in made_by("05"):  # of that member alone
            continue
        here = target / file.relative_to(source)
        if not (here.exists() and filecmp.cmp(file, here, shallow=False)):
            here.unlink(missing_ok=True)
            _link_file(file, here)


def _link_file(source: Path, target: Path) -> None:
    """The same file under two names, which takes no room; a copy where the disk has no such links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
