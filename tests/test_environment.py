"""The ways to install end with the same packages."""

import re
import tomllib

import yaml

from lumbar_utils.study import ROOT

LOCK = (ROOT / "requirements.lock").read_text()


def pinned():
    lines = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    return [re.match(r"([A-Za-z0-9_.-]+)==(\S+)", line) for line in lines]


def test_every_line_of_the_lock_pins_one_version():
    assert all(pinned())


def test_the_lock_holds_for_every_platform_and_python():
    text = LOCK
    assert "sys_platform == 'linux'" in text and "sys_platform == 'win32'" in text
    assert "python_full_version < '3.12'" in text and "python_full_version >= '3.12'" in text


def test_the_lock_pins_every_direct_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w.-]+", entry).group() for entry in project["dependencies"]}
    for entries in project["optional-dependencies"].values():
        names |= {re.match(r"[\w.-]+", entry).group() for entry in entries}
    names.remove(project["name"])  # the extra `test` includes the others
    assert names - {match.group(1) for match in pinned()} == set()


def test_torch_and_torchvision_are_the_pair_that_belongs_together():
    import torch
    import torchvision  # fails at import beside a torch that it was not built for

    versions = {match.group(1): match.group(2) for match in pinned()}
    assert torch.__version__.split("+")[0] == versions["torch"]
    assert torchvision.__version__.split("+")[0] == versions["torchvision"]


def test_conda_installs_exactly_what_the_lock_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert [name.split("=")[0] for name in conda] == ["python", "pip"]
    assert pip == {"pip": ["--requirement requirements.lock", "--editable ."]}


def test_albumentations_stays_at_its_last_free_release():
    assert "albumentations==2.0.8" in LOCK


def test_no_file_names_a_registry():
    assert "://" not in LOCK
