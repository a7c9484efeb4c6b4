"""What a study has is gathered in every format, the same bytes each time; what it lacks is named."""

import json
import re
import shutil
import subprocess

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from lumbar_utils import MODELS, StudyError
from lumbar_utils.__main__ import app
from lumbar_utils.output import figures, tables
from lumbar_utils.output.export import FORMATS, export, published
from lumbar_utils.output.registry import DIAGRAMS, FIGURES, TABLES
from lumbar_utils.study import ROOT

LETTERS = pd.DataFrame({"": ["F1 & co"], "U-Net": ["0.9629 [0.958, 0.967]"]})


@pytest.fixture
def study(tmp_path):
    """A study that has one figure, 2 x 1 inches, and one table, and nothing else."""
    folder = tmp_path / "study"
    folder.mkdir()
    settings = {"profile": "quick", "dataset": "/home/me/slices", "seed": 0, "runs": "/home/me/runs", "epochs": 9}
    (folder / "study.json").write_text(json.dumps({"settings": settings, "commit": "abc"}))
    fig, ax = plt.subplots(figsize=(2, 1))
    ax.set(xlabel="Epoch", ylabel="Loss")
    plt.close(fig)
    figures.save(fig, folder / "figures", "fig5", "Best, median and worst.")
    tables.write(folder / "tables", "table2", LETTERS, LETTERS, "Scores of a_b & c")
    return folder


def test_every_format_of_figures_and_tables_is_written_with_the_captions(study, tmp_path):
    written, _ = export(study, tmp_path / "out")
    assert sorted(path.name for path in written) == [
        "fig5-600dpi.png", "fig5-600dpi.tiff", "fig5.pdf", "fig5.png", "fig5.svg", "fig5.tiff", "fig5.txt",
        "study.json", "table2.csv", "table2.html", "table2.md", "table2.tex", "tables.tex",
    ]  # fmt: skip
    assert (tmp_path / "out" / "fig5.txt").read_text() == "Best, median and worst.\n"


@pytest.mark.parametrize(
    "name, size, dpi",
    [
        ("fig5.png", (600, 300), 300),
        ("fig5.tiff", (600, 300), 300),
        ("fig5-600dpi.png", (1200, 600), 600),
        ("fig5-600dpi.tiff", (1200, 600), 600),
    ],
)
def test_a_picture_has_the_pixels_that_its_inches_ask_for_and_says_so(study, tmp_path, name, size, dpi):
    export(study, tmp_path)
    with Image.open(tmp_path / name) as picture:
        assert picture.size == size
        assert [round(float(side)) for side in picture.info["dpi"]] == [dpi, dpi]
        assert picture.info.get("compression", "tiff_lzw") == "tiff_lzw"


def test_figures_of_other_data_than_the_record_tells_of_are_not_exported(study, tmp_path):
    (study / "scores.json").write_text(json.dumps({"origin": {"data": "corrected since"}}))
    with pytest.raises(StudyError, match="were made from other data than are there today; run notebook 05 again"):
        export(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def save_curves(study):
    history = pd.DataFrame(
        {"model": "unet", "epoch": [1, 2], "train_loss": [2, 1], "val_loss": 1, "val_f1": [0.1, 0.5]}
    )
    figures.save(figures.learning_curves(history), study / "figures", "learning_curves", "Loss and F1.")


def test_a_figure_has_the_width_of_a_page_at_any_resolution(study, tmp_path):
    save_curves(study)
    written, _ = export(study, tmp_path, formats=["pdf", "png", "tiff600"], only=["learning_curves"])
    assert [path.name for path in written] == [
        "learning_curves.pdf", "learning_curves.png", "learning_curves-600dpi.tiff", "learning_curves.txt",
        "study.json",
    ]  # fmt: skip
    for number, pixels in {1: 7.16 * 300, 2: 7.16 * 600}.items():
        with Image.open(written[number]) as picture:
            assert picture.width == pytest.approx(pixels, abs=1)


def test_a_second_export_gives_the_same_bytes(study, tmp_path):
    first, _ = export(study, tmp_path / "a")
    second, _ = export(study, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_only_what_is_named_is_written_in_the_formats_named(study, tmp_path):
    written, missing = export(study, tmp_path / "a", formats=["tiff600"], only=["fig5"])
    assert sorted(path.name for path in written) == ["fig5-600dpi.tiff", "fig5.txt", "study.json"]
    assert missing == []
    written, missing = export(study, tmp_path / "c", formats=["csv"], only=["table2", "fig5"])
    assert [path.name for path in written] == ["table2.csv", "study.json"]
    assert missing == ["fig5: there is none as csv"]
    written, _ = export(study, tmp_path / "b", formats=["md"])
    assert [path.name for path in written] == ["table2.md", "study.json"]


def test_what_a_study_lacks_is_named_with_the_notebook_that_makes_it(study, tmp_path):
    (study / "figures" / "fig5.txt").unlink()
    _, missing = export(study, tmp_path)
    assert "figures/fig1.pdf: notebook 02 makes it" in missing
    assert "figures/fig5.txt: notebook 05 makes it" in missing and "figures/fig5.pdf: notebook 05" not in missing
    assert "tables/groups.csv: notebook 06 makes it" in missing
    named = {line.partition(".")[0] for line in missing}
    assert len(named) == len(FIGURES) - 1 + len(TABLES) - 1  # `grid` is of grids, table2 is whole


def test_a_figure_of_a_further_network_is_known_once_it_is_there(study, tmp_path):
    for kind in ("pdf", "svg", "png", "txt"):
        shutil.copy(study / "figures" / f"fig5.{kind}", study / "figures" / f"tu-resnet34.{kind}")
    written, _ = export(study, tmp_path, formats=["pdf"], only=["tu-resnet34"])
    assert written[0].name == "tu-resnet34.pdf"


@pytest.mark.parametrize(
    "named, message",
    [
        ({"formats": ["jpg"]}, f"unknown format 'jpg'; known are {', '.join(FORMATS)}"),
        ({"only": ["fig8"]}, "unknown figure or table 'fig8'; known are fig4, data_overview, "),
        ({"only": ["fig7"]}, "has nothing of fig7 as pdf, svg, "),
        ({"only": ["table1"], "formats": ["pdf"]}, "has nothing of table1 as pdf; run its notebooks, or name another"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_name(study, tmp_path, named, message):
    with pytest.raises(StudyError, match=re.escape(message)):
        export(study, tmp_path / "out", **named)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_study_is_refused(tmp_path):
    with pytest.raises(StudyError, match=re.escape("has no study.json; name the folder of a study")):
        export(tmp_path, tmp_path / "out")


def test_the_command_says_what_was_written_and_what_is_missing(study, tmp_path):
    result = CliRunner().invoke(app, ["export", str(study), "--to", str(tmp_path / "out"), "--format", "pdf"])
    assert result.exit_code == 0
    assert f"3 files -> {tmp_path / 'out'}" in result.output  # fig5.pdf, fig5.txt and study.json
    assert "figures/fig7.pdf: notebook 05 makes it" in result.output
    result = CliRunner().invoke(app, ["export", str(study), "--to", str(tmp_path / "out"), "--format", "jpg"])
    assert result.exit_code == 2


def test_nothing_of_the_machine_is_published(study, tmp_path):
    export(study, tmp_path / "out", formats=["csv"])
    record = json.loads((tmp_path / "out" / "study.json").read_text())
    assert record["settings"] == {"profile": "quick", "dataset": "slices", "seed": 0, "epochs": 9}
    assert published(record) == record


def test_every_figure_and_table_of_the_notebooks_is_known():
    sources = "".join(path.read_text() for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
    saved = set(re.findall(r'figures\.save\(\w+, study\.folder / \\"figures\\", \\"(\w+)\\"', sources))
    assert saved | set(DIAGRAMS.values()) | {"grid"} == set(FIGURES)
    written = set(re.findall(r'tables\.write\(study\.folder / \\"tables\\", \\"(\w+)\\"', sources))
    assert written | set(re.findall(r'\\"tables\\" / \\"(\w+)\.csv\\"', sources)) == set(TABLES)


def test_the_page_on_figures_names_them_all():
    page = (ROOT / "figures" / "README.md").read_text()
    assert [name for name in [*FIGURES, *TABLES] if f"`{name}`" not in page] == []


def compiled(folder, name, latex="pdflatex"):
    """The log of a document that LaTeX makes; the test is skipped where it or IEEE's class is not installed."""
    if not shutil.which(latex):
        pytest.skip(f"{latex} is not installed")
    if "IEEEtran" in (folder / f"{name}.tex").read_text() and not found("IEEEtran.cls"):
        pytest.skip("LaTeX has no IEEEtran: texlive-publishers holds it")
    command = [latex, "-halt-on-error", "-interaction=nonstopmode", f"{name}.tex"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    return result.stdout


def found(file):
    return subprocess.run(["kpsewhich", file], capture_output=True).returncode == 0


def test_exported_tables_compile(study, tmp_path):
    export(study, tmp_path / "out", formats=["tex"])
    compiled(tmp_path / "out", "tables")
    assert (tmp_path / "out" / "tables.pdf").read_bytes().startswith(b"%PDF")


PAPER = r"""\documentclass[journal]{IEEEtran}
\usepackage{array, booktabs, graphicx}
\begin{document}
Words.
\input{table2}\input{claims}\input{cost}
\begin{figure*}\includegraphics[width=\textwidth]{fig5}\caption{Cases.}\end{figure*}
\begin{figure*}\includegraphics[width=\textwidth]{learning_curves}\caption{Training.}\end{figure*}
\end{document}
"""


def test_exported_tables_and_figures_fit_a_page_of_two_columns(study, tmp_path):
    wide = pd.DataFrame({"": ["F1"]} | {name: ["0.9629 [0.958, 0.967]"] for name in MODELS.values()})
    wide = wide.assign(**{f"{name}, paper": "0.7208" for name in MODELS.values()})
    claims = pd.DataFrame({"claim": ["U-Net leads"] * 40, "evidence": ["F1, U-Net 0.9 against 0.8. " * 9] * 40})
    cost = pd.DataFrame([["unet", *["AMD EPYC, 2 cores"] * 12]], columns=["model", *map(str, range(12))])
    for name, table in {"table2": wide, "claims": claims, "cost": cost}.items():
        tables.write(study / "tables", name, table, table, "A caption.")
    save_curves(study)
    export(study, tmp_path / "out", formats=["tex", "pdf"])
    (tmp_path / "out" / "paper.tex").write_text(PAPER)
    log = compiled(tmp_path / "out", "paper")
    assert "Overfull" not in log and "too large" not in log


@pytest.mark.parametrize("latex", ["pdflatex", "lualatex"])
def test_tables_compile_with_letters_of_any_script(study, tmp_path, latex):
    names = ["модель", "中文", "λ", "نموذج", "Mu\u0308ller", "🦴", "a$b_^%&~\\x{", "± µ – “x” € ≥ →"]
    odd = pd.DataFrame({"": names, "F1": "0.9"})
    tables.write(study / "tables", "table2", odd, odd, "Of модель")
    export(study, tmp_path / "out", formats=["tex"])
    assert "Output written on tables.pdf" in compiled(tmp_path / "out", "tables", latex)


def test_what_a_killed_writer_left_is_no_figure(study, tmp_path):
    (study / "figures" / ".fig5.0a1b.pdf").write_bytes(b"half")
    written, _ = export(study, tmp_path / "out", formats=["pdf"])
    assert [path.name for path in written if path.suffix == ".pdf"] == ["fig5.pdf"]
