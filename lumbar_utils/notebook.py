"""What a notebook needs before its study begins."""

import ast
import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lumbar_utils import StudyError
from lumbar_utils.study import Study

if TYPE_CHECKING:
    from lumbar_utils.grid import Grid


def start(
    profile: str, dataset: str, seed: int, runs: str, overrides: dict, seeds: Sequence[int] = ()
) -> "Study | Grid":
    """The study of a notebook's parameters; with seeds, the grid of that study under each of them.

    Raises StudyError for a parameter that papermill was given under a name the notebook does not declare:
    papermill itself only logs it, and the run would go on with the default.
    """
    refuse_undeclared(_executed_cells())
    study = Study(profile=profile, dataset=dataset, seed=seed, runs=runs, **overrides)
    if not seeds:
        return study
    from lumbar_utils.grid import Grid  # of no use to the other notebooks

    return Grid(study, tuple(seeds))


def refuse_undeclared(cells: list[str]) -> None:
    """Raise StudyError if a cell that papermill injected assigns a name that no cell before it assigns.

    cells : sources of the cells executed so far, in order; papermill heads its own with `# Parameters`.
    """
    declared: set[str] = set()
    for source in cells:
        names = _assigned(source)
        if source.startswith("# Parameters"):
            for name in sorted(names - declared):
                near = difflib.get_close_matches(name, declared, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(declared))}"
                raise StudyError(f"unknown parameter {name!r}; {hint}")
        declared |= names


def _assigned(source: str) -> set[str]:
    """Names that a cell assigns on its outermost level; none if it is no plain Python (a magic, say)."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return set()
    targets = [
        target for statement in statements if isinstance(statement, ast.Assign | ast.AnnAssign)
        for target in getattr(statement, "targets", None) or [statement.target]
    ]  # fmt: skip
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _executed_cells() -> list[str]:
    from IPython import get_ipython

    shell = get_ipython()
    return shell.user_ns["In"] if shell else []
