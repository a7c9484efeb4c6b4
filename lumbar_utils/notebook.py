"""The study of a notebook's parameters, and the refusal of parameters that the notebook does not have."""

import ast
import contextlib
import difflib
import json

from lumbar_utils import StudyError
from lumbar_utils.study import Grid, Study

EXAMPLES = {dict: "{name: value}", list: "[0, 1]"}  # of a parameter's type, in papermill's YAML


def start(
    profile: str, dataset: str, seed: int, runs: str, overrides: dict | str, seeds: list | int | str = ()
) -> Study | Grid:
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
    return Grid(study, tuple(Study(**study.settings | {"seed": seed}).seed for seed in seeds))


def as_given(name: str, value: object, kind: type) -> dict | list:
    """A parameter that is a dict or a list, also as the text that papermill's `-p` makes of it; one number is a list.

    Raises StudyError for any other value.
    """
    if isinstance(value, str):
        value = _parse(value)
    if value is None:
        return kind()
    if kind is list and isinstance(value, int):
        return [value]
    if kind is list and isinstance(value, tuple):
        return list(value)
    if not isinstance(value, kind):
        raise StudyError(
            f"{name}={value!r} is no {kind.__name__}; with papermill, give it as -y '{name}: {EXAMPLES[kind]}'"
        )
    return {str(key): content for key, content in value.items()} if kind is dict else value


def _parse(text: str) -> object:
    """The value that a text stands for, in JSON or in Python; the text itself if it is neither."""
    for parser in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, TypeError):
            return parser(text)
    return text


def refuse_undeclared(cells: list[str]) -> None:
    """Raise StudyError if a cell that papermill injected assigns a name that no cell before it assigns.

    cells : sources of the cells executed so far, in order; papermill's own begin with `# Parameters`.
    """
    declared: set[str] = set()
    for source in cells:
        names = _assigned_names(source)
        undeclared = sorted(names - declared)
        if source.startswith("# Parameters") and undeclared:
            near = difflib.get_close_matches(undeclared[0], declared, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(sorted(declared))}"
            raise StudyError(f"unknown parameter {undeclared[0]!r}; {hint}")
        declared |= names


def _assigned_names(source: str) -> set[str]:
    """Names that a cell assigns at its top level; empty if it is not plain Python, a magic for instance."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return set()
    targets = []
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets += statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets.append(statement.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _executed_cells() -> list[str]:
    from IPython import get_ipython

    shell = get_ipython()
    return shell.user_ns["In"] if shell else []
