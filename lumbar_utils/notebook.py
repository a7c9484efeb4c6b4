"""What a notebook needs before its study begins."""

import ast
import contextlib
import difflib
import json
from typing import TYPE_CHECKING

from lumbar_utils import StudyError
from lumbar_utils.study import Study

if TYPE_CHECKING:
    from lumbar_utils.grid import Grid

FORMS = {dict: "{name: value}", list: "[0, 1]"}  # of a parameter, in papermill's YAML


def start(
    profile: str, dataset: str, seed: int, runs: str, overrides: dict | str, seeds: list | int | str = ()
) -> "Study | Grid":
    """The study of a notebook's parameters; with seeds, the grid of that study under each of them.

    Raises StudyError for a value that cannot be used, and for a parameter that papermill was given under a name the
    notebook does not declare: papermill itself only logs it, and the run would go on with the default.
    """
    refuse_undeclared(_executed_cells())
    named = {"profile": profile, "dataset": dataset, "seed": seed, "runs": runs}
    other = as_given("overrides", overrides, dict)
    if twice := sorted(named.keys() & other.keys()):
        raise StudyError(f"overrides name {', '.join(twice)}, which the notebook has a parameter for; set that one")
    study = Study(**named, **other)
    seeds = as_given("seeds", seeds, list)
    if not seeds:
        return study
    from lumbar_utils.grid import Grid  # of no use to the other notebooks

    return Grid(study, tuple(Study(**study.settings | {"seed": seed}).seed for seed in seeds))


def as_given(name: str, value: object, kind: type) -> dict | list:
    """A parameter that is a dict or a list, from papermill's `-p` too, which passes it as text; a number is a list.

    Raises StudyError for what is neither.
    """
    value = _read(value) if isinstance(value, str) else value
    if value is None:
        return kind()
    if kind is list and isinstance(value, int | tuple):
        value = [value] if isinstance(value, int) else list(value)
    if not isinstance(value, kind):
        raise StudyError(
            f"{name}={value!r} is no {kind.__name__}; with papermill, give it as -y '{name}: {FORMS[kind]}'"
        )
    return {str(key): content for key, content in value.items()} if kind is dict else value


def _read(text: str) -> object:
    """The value that a text stands for, in JSON or in Python; the text itself if it is neither."""
    for reader in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            return reader(text)
    return text


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
