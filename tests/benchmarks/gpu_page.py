"""The page that gpu.py brings back: gpu.md and speed.png, from what is in gpu.csv by now."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from lumbar_utils import MODELS, records


def draw_speed(table: pd.DataFrame, file: Path, title: str) -> None:
    """Bars of images a second, a panel a network."""
    rows = table[(table["stage"] == "speed") & (table["unit"] == "images/s")]
    if rows.empty:
        return
    networks = list(rows["network"].unique())
    figure = Figure(
        figsize=(3.5 * len(networks), 1 + 0.22 * rows.groupby("network").size().max()), layout="constrained"
    )
    for panel, network in zip(figure.subplots(1, len(networks), squeeze=False)[0], networks, strict=True):
        of_it = rows[rows["network"] == network][::-1]
        colours = ["tab:orange" if name == "ours" else "tab:grey" for name in of_it["quantity"]]
        bars = panel.barh(of_it["quantity"], of_it["value"].astype(float), color=colours)
        panel.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)
        panel.margins(x=0.15)
        panel.tick_params(labelsize=7)
        panel.set_title(MODELS[network], fontsize=9)
        panel.set_xlabel("images a second", fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(file, dpi=150)


def write_page(out: Path, minutes: float, states: dict[str, str], stages: Iterable[str]) -> None:
    """gpu.md and speed.png from what is in gpu.csv by now."""
    table = pd.read_csv(out / "gpu.csv", dtype=str, keep_default_na=False)
    known = table[table["stage"] == "machine"].set_index("quantity")["value"]
    has_gpu = known.get("device") == "cuda"
    where = known.get("GPU", "an unknown GPU") if has_gpu else f"{known.get('CPU', 'a CPU')}, WITHOUT A GPU"
    warning = "" if has_gpu else (
        "**No GPU took part.** Every stage ran on a CPU with tiny sizes, to show that the command works; nothing here "
        "tells how fast or how exact a GPU is.\n\n"
    )  # fmt: skip
    text = f"# The study on {where}\n\n{warning}Made by `tests/benchmarks/gpu.py --minutes {minutes:g}`.\n\n"
    text += goals(table) if has_gpu else ""
    draw_speed(table, out / "speed.png", "" if has_gpu else "on a CPU with tiny sizes: tells nothing of a GPU")
    remarks = {
        "study": "On drawn images (phantoms): this judges neither the paper nor how the networks do on patients.\n\n",
    }
    pictures = {"speed": "speed.png", "study": "learning_curves.png"}
    for stage in stages:
        text += f"## {stage}\n\n{states.get(stage, 'not begun')}\n\n{remarks.get(stage, '')}"
        rows = table[table["stage"] == stage]
        text += in_markdown(
            beside_each_other(rows)
            if stage == "speed"
            else rows.drop(columns="stage").rename(columns={"quantity": "what"})
        )
        if (out / pictures.get(stage, "none")).exists():
            text += f"![{stage}]({pictures[stage]})\n\n"
    weights = sorted(file.name for file in out.glob("*.safetensors"))
    if weights:
        text += f"Weights of U-Net in half precision: {', '.join(weights)}; read all parts into one dictionary.\n"
    records.write_text(out / "gpu.md", text)


def beside_each_other(rows: pd.DataFrame) -> pd.DataFrame:
    """The stage `speed`: a row a contender, its images a second and their ratio to those of ours in two columns."""
    speeds, rest = (rows[rows["unit"].isin(["images/s", "of ours"]) == is_speed] for is_speed in (True, False))
    wide = speeds.pivot(index=["network", "quantity"], columns="unit", values="value")
    wide = wide.reindex(speeds.set_index(["network", "quantity"]).index.unique()).reset_index()
    return (
        pd.concat([wide, rest[["network", "quantity", "value"]]]).rename(columns={"quantity": "contender"}).fillna("")
    )


def in_markdown(table: pd.DataFrame) -> str:
    cells = table.map(lambda cell: str(cell).replace("|", "/"))
    return "" if table.empty else cells.to_markdown(index=False, disable_numparse=True) + "\n\n"


def goals(table: pd.DataFrame) -> str:
    """What was aimed at, beside what was measured."""
    rows = []
    numbers = table[table["stage"].isin(["exactness", "speed", "study"])]
    for network in MODELS:
        of_it = numbers[numbers["network"] == network].set_index("quantity")["value"]
        to_ours = numbers[(numbers["network"] == network) & (numbers["unit"] == "of ours")]
        to_ours = to_ours.set_index("quantity")["value"].astype(float)
        plain = to_ours[to_ours.index.str.startswith("plain")]
        if len(plain):
            rows.append((MODELS[network], "times the faster plain loop", "3 or more", f"{1 / plain.max():.2f}"))
        if "limit" in to_ours:
            rows.append((MODELS[network], "share of the limit", "0.90 or more", f"{1 / to_ours['limit']:.2f}"))
        exact = of_it[of_it.index.str.endswith("files that differ")]
        if len(exact):
            rows.append((MODELS[network], "files that differ after a kill", "0", exact.iloc[0]))
    whole = numbers[numbers["quantity"] == "the whole study, notebooks and all"]["value"]
    if len(whole):
        rows.append(("all", "the whole study", "480 s or less on an H100", f"{whole.iloc[0]} s"))
    return in_markdown(pd.DataFrame(rows, columns=["network", "what", "goal", "measured"]))
