"""What a GPU does with the study: one command, some minutes, no network, and a page to bring back.

    make gpu ARGS="--minutes 10 --out DIR [--dataset FOLDER]"
    PYTHONPATH=. python tests/benchmarks/gpu.py ...    where another Python has what it needs: see README.md beside this

Five stages, each a process of its own, in order of worth and within what is left of the time:

machine     what is there, and a smoke study of each network on it
exactness   is a training that is killed and goes on the same, bit by bit, as one that is not? what does that cost?
speed       images a second at the size of profile `paper`: ours beside a plain loop, the network alone, and levers
study       notebooks 01 to 05 with profile `paper`, the three networks trained side by side
real        with --dataset: the same on real slices, over patient-wise folds

DIR gets gpu.md (the page), gpu.csv (every number), speed.png, learning_curves.png, and the weights of U-Net in
half precision, in parts of at most 16 MB: eight files. Each number is written as soon as it is known. A stage that
fails, or runs out of time, says so on the page and the next goes on. Without a GPU all of it runs with tiny sizes, to
try it out, and the page says that it tells nothing of a GPU.
"""

import argparse
import contextlib
import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
from gpu_page import write_page

from lumbar_utils import MODELS, StudyError, records

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STAGES = {"machine": 40, "exactness": 60, "speed": 60, "study": 120, "real": 120}  # seconds below which none begins
RESERVE = 20  # seconds for the page
START = 20  # seconds that a stage may take to import, and to sum up what it has when its own time is over
COLUMNS = ["stage", "network", "quantity", "value", "unit"]
PART = 15_500_000  # bytes of a file of weights


class Notes:
    """Numbers of one stage, each written to gpu.csv as soon as it is known, and the time that is left."""

    def __init__(self, stage: str, out: Path, seconds: float):
        self.stage, self.file, self.until = stage, out / "gpu.csv", time.monotonic() + seconds

    def add(self, network: str, quantity: str, value, unit: str = "") -> None:
        with self.file.open("a", newline="") as file:
            csv.writer(file).writerow([self.stage, network, quantity, value, unit])
        print(f"{self.stage}: {network} {quantity} {value} {unit}", flush=True)

    @property
    def left(self) -> float:
        return self.until - time.monotonic()


def study_of(asked: argparse.Namespace, **settings):
    """The study that a stage measures: of profile `paper` on a GPU, else tiny."""
    from lumbar_utils.machine import best_device
    from lumbar_utils.study import Study

    profile = "paper" if best_device() == "cuda" else "smoke"
    return Study(profile, runs=asked.work / "runs", cache=asked.work / "cache", **settings)


def machine(asked: argparse.Namespace, notes: Notes) -> None:
    import torch
    import torchvision

    from lumbar_utils.data.preparation import prepare
    from lumbar_utils.machine import best_device, environment, precision_of, without_cuda
    from lumbar_utils.networks.prediction import predict
    from lumbar_utils.networks.training import fit
    from lumbar_utils.study import Study

    notes.add("", "device", best_device())
    for name, value in environment().items():
        notes.add("", name, value)
    notes.add("", "torchvision", torchvision.__version__)
    if without_cuda():
        notes.add("", "no CUDA", without_cuda())
    else:
        card = torch.cuda.get_device_properties(0)
        notes.add("", "GPU memory", round(card.total_memory / 2**30, 1), "GiB")
        notes.add("", "compute capability", f"{card.major}.{card.minor}")
        notes.add("", "CUDA, cuDNN", f"{torch.version.cuda}, {torch.backends.cudnn.version()}")
        notes.add("", "driver", _driver())
    study = Study("smoke", runs=asked.work / "smoke", cache=asked.work / "cache")
    notes.add("", "precision", precision_of(study))
    for model in asked.models:
        started = time.monotonic()
        cohort = prepare(study)
        history = fit(study, cohort, model)
        predict(study, cohort, model)
        notes.add(model, "smoke study", round(time.monotonic() - started, 1), "s")
        notes.add(model, "its first and last training loss", " ".join(f"{x:.3f}" for x in history["train_loss"]))


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown ({error})"


def exactness(asked: argparse.Namespace, notes: Notes) -> None:
    sys.path.append(str(HERE.parent))
    import kills

    from lumbar_utils.data.preparation import prepare

    small = {"phantom_patients": 60, "epochs": 3, "images_per_epoch": 0} if not asked.tiny else {"epochs": 2}
    study = study_of(asked, **small)
    study = study.model_copy(update={"runs": asked.work / "exact"})
    cohort = prepare(study)
    for model in asked.models:
        undisturbed, killed = (
            study.model_copy(update={"runs": asked.work / "exact" / how}) for how in ("whole", "killed")
        )
        _train(kills, undisturbed, model)
        process = kills.start(kills.train_and_predict, killed.runs / "log", killed, model)
        was_killed = kills.signalled(process, (killed.folder / model / "history.csv").exists) is not None
        _train(kills, killed, model)
        differing = _differing(kills.bits(undisturbed.folder), kills.bits(killed.folder))
        event = "killed after its first epoch and gone on with" if was_killed else "trained again"
        notes.add(model, f"{event}: files that differ", len(differing))
        if differing:
            notes.add(model, "the first that differs", differing[0])
            notes.add(model, "first layer that differs in two equal steps", first_layer_unlike(study, cohort, model))
        notes.add(model, "cost of determinism", _cost_of_determinism(study, cohort, model), "% of the time of a step")


def _train(kills, study, model: str) -> None:
    """Train and predict in a process of its own, which may go on from what another left."""
    process = kills.start(kills.train_and_predict, study.runs / "log", study, model)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"training {model} ended with code {process.exitcode}: {_end_of(study.runs / 'log')}")


def _differing(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [name for name in sorted(one | other) if one.get(name) != other.get(name)]


def first_layer_unlike(study, cohort, model: str) -> str:
    """The layer whose output, or else whose gradient, is the first that differs between two equal steps."""
    import torch
    from training_contenders import Limit

    def of_a_step() -> dict[str, int]:
        contender, seen = Limit(study, cohort, model, deterministic=True), {}

        def watch(name, layer):
            def hook(_, given, output):
                seen.setdefault(f"{name} forward", _bits_of(output))
                output.register_hook(lambda gradient: seen.update({f"{name} backward": _bits_of(gradient)}))

            layer.register_forward_hook(hook)

        for name, layer in contender.module.network.named_modules():
            if not list(layer.children()):
                watch(name, layer)
        torch.manual_seed(0)
        contender.epoch()
        return seen

    one, other = of_a_step(), of_a_step()
    return next((name for name in one if one[name] != other[name]), "none")


def _bits_of(tensors) -> int:
    """The sum of a tensor's bits read as whole numbers, which no order of adding can change."""
    import torch

    tensor = (tensors if isinstance(tensors, torch.Tensor) else tensors[0]).detach().contiguous()
    return int(tensor.view({2: torch.int16, 4: torch.int32}[tensor.element_size()]).sum(dtype=torch.int64))


def _cost_of_determinism(study, cohort, model: str, rounds: int = 5) -> float:
    """By how many percent a step takes longer: median over rounds in turn, after one to warm up."""
    from training_contenders import Limit

    free, bound = (Limit(study, cohort, model, deterministic) for deterministic in (False, True))
    ratios = []
    for _ in range(rounds + 1):
        seconds = free.epoch()
        ratios.append(bound.epoch() / seconds)
    return round(100 * (pd.Series(ratios[1:]).median() - 1), 1)


def speed(asked: argparse.Namespace, notes: Notes) -> None:
    from training_contenders import Limit, Ours, Plain, levers
    from training_speed import few, measure, summarise

    from lumbar_utils.data.preparation import prepare
    from lumbar_utils.machine import explain_out_of_memory

    rounds = 1 if asked.tiny else 3
    # an epoch long enough that the start of loader processes hardly counts
    study = study_of(asked, epochs=1, images_per_epoch=0 if asked.tiny else 1440)
    study = study.model_copy(update={"runs": asked.work / "speed"})
    cohort = few(prepare(study), 8 if asked.tiny else None, 8)
    makers = {
        "limit": lambda model: Limit(study, cohort, model),
        "plain_0": lambda model: Plain(study, cohort, model, 0, rounds + 1),
        "plain_4": lambda model: Plain(study, cohort, model, 4, rounds + 1),
    }
    moved = {
        name: lambda model, lever=lever: Ours(study, cohort, model, lever) for name, lever in levers(study).items()
    }
    moved = dict(list(moved.items())[:2]) if asked.tiny else moved
    for model in asked.models:
        for contenders in (makers, *({name: make} for name, make in moved.items())):
            if notes.left < asked.last_measurement * 1.5:
                notes.add(model, "not measured for want of time", ", ".join(contenders))
                continue
            started = time.monotonic()
            try:
                with explain_out_of_memory(study, f"measuring {model}"):
                    found = {(model, "ours"): Ours(study, cohort, model)}
                    found |= {(model, name): make(model) for name, make in contenders.items()}
                    table = summarise(measure(found, rounds), "it_over_ours").reset_index()
            except StudyError as error:
                notes.add(model, f"failed: {', '.join(contenders)}", error)
                continue
            finally:
                asked.last_measurement = time.monotonic() - started
            for row in table.to_dict("records"):
                if row["contender"] != "ours" or contenders is makers:
                    notes.add(model, row["contender"], row["images_per_s"], "images/s")
                    notes.add(model, row["contender"], row["it_over_ours"], "of ours")


def study(asked: argparse.Namespace, notes: Notes) -> None:
    from lumbar_utils.data.preparation import prepare

    whole, started = study_of(asked), time.monotonic()
    prepare(whole)
    notes.add("", "phantoms drawn and examined", round(time.monotonic() - started, 1), "s")
    command = [sys.executable, "-m", "lumbar_utils"]
    chosen = ["--profile", whole.profile, "--runs", str(whole.runs), "--set", f"cache={whole.cache}"]
    trainings = {
        model: _begin([*command, "train", *chosen, "--model", model], asked.work / f"train_{model}.log")
        for model in MODELS
    }
    _await(trainings, notes.left - 60)
    notes.add("", "trained side by side", round(time.monotonic() - started, 1), "s")
    histories = _histories(whole.folder)
    for model, history in histories.items():
        notes.add(model, "epochs", f"{len(history)} of {whole.epochs}")
        notes.add(model, "an epoch", round(history["seconds"].median(), 2), "s")
        notes.add(model, "best F1 on validation patients", round(history["val_f1"].max(), 4))
        notes.add(model, "exit code of its training", trainings[model].returncode)
    if histories:
        draw_learning_curves(pd.concat(histories.values()), asked.out / "learning_curves.png")
    if (whole.folder / "unet" / "fit.json").exists():
        write_weights(whole.folder / "unet", asked.out)
    if any(process.returncode for process in trainings.values()):
        raise RuntimeError(
            "not every network was trained: " + " | ".join(map(_end_of, sorted(asked.work.glob("*.log"))))
        )
    notebooks = {"run": _begin([*command, "run", *chosen], asked.work / "notebooks.log")}
    _await(notebooks, notes.left - 5)
    notes.add("", "the whole study, notebooks and all", round(time.monotonic() - started, 1), "s")
    if notebooks["run"].returncode:
        raise RuntimeError(f"the notebooks were not finished: {_end_of(asked.work / 'notebooks.log')}")
    _note_table(notes, whole.folder, "drawn images")


def real(asked: argparse.Namespace, notes: Notes) -> None:
    """A grid over folds, so far as time allows, from the networks of the stage `study` where it has trained them."""
    phantoms = study_of(asked)
    trained = all((phantoms.folder / model / "fit.json").exists() for model in MODELS)
    start = str(phantoms.folder) if trained else "none"
    whole = study_of(asked, dataset=str(asked.dataset), folds=2 if asked.tiny else 5, start_from=start)
    from lumbar_utils.data.preparation import prepare

    cases = prepare(whole).cases
    notes.add("", "data", f"{len(cases)} slices of {cases['patient'].nunique()} patients")
    notes.add("", "epochs", whole.epochs, f"of {whole.images_per_epoch} images or more")
    notes.add("", "networks start", "from those of the stage study" if trained else "at random")
    started = time.monotonic()
    command = [sys.executable, "-m", "lumbar_utils", "run", "--profile", whole.profile, "--runs", str(whole.runs)]
    command += ["--dataset", str(asked.dataset), "--folds", str(whole.folds), "--workers", "1" if asked.tiny else "3"]
    command += ["--set", f"cache={whole.cache}", "--set", f"start_from={start}"]
    grid = {"run": _begin(command, asked.work / "real.log")}
    _await(grid, notes.left - 5)
    notes.add("", "grid over folds", round(time.monotonic() - started, 1), "s")
    histories = list(whole.runs.glob(f"{asked.dataset.name}-*/*/history.csv"))
    notes.add("", "trainings begun", f"{len(histories)} of {len(MODELS) * whole.folds}")
    for file in sorted(histories):
        history = records.read_csv(file)
        notes.add(file.parent.name, f"epochs and best F1 on validation patients, {file.parents[1].name[-8:]}",
                  f"{len(history)} {history['val_f1'].max():.4f}")  # fmt: skip
    if grid["run"].returncode:
        raise RuntimeError(f"the grid was not finished: {_end_of(asked.work / 'real.log')}")
    for table in whole.runs.glob(f"{asked.dataset.name}-*/tables/table2.csv"):
        _note_table(notes, table.parents[1], "real slices")


def _begin(command: list[str], log: Path) -> subprocess.Popen:
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT, env=os.environ | _threads())


def _threads() -> dict[str, str]:
    """Processes side by side leave each other some cores."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // 4)), "PYTHONPATH": path}


def _await(processes: dict[str, subprocess.Popen], seconds: float) -> None:
    """Wait for all of them, and end those that are not done in time."""
    until = time.monotonic() + seconds
    for process in processes.values():
        try:
            process.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _histories(folder: Path) -> dict[str, pd.DataFrame]:
    files = {model: folder / model / "history.csv" for model in MODELS}
    return {model: records.read_csv(file) for model, file in files.items() if file.exists()}


def _note_table(notes: Notes, folder: Path, images: str) -> None:
    """Table II of a study's folder. images : what kind they are of."""
    for row in records.read_csv(folder / "tables" / "table2.csv").to_dict("records"):
        interval = "" if pd.isna(row["low"]) else f"95 % interval {row['low']:.4f} to {row['high']:.4f}"
        notes.add(row["model"], f"Table II, {images}: {row['metric']}", round(row["value"], 4), interval)


def _end_of(log: Path) -> str:
    """The last line that a process said, of 300 characters at most."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{log.stem}: {lines[-1][-300:]}" if lines else f"{log.stem}: it said nothing"


def write_weights(folder: Path, out: Path) -> list[Path]:
    """The trained weights in half precision, as safetensors in parts of at most PART bytes."""
    import torch
    from safetensors.torch import save_file

    from lumbar_utils.networks.checkpoints import trained_weights

    parts, size = [{}], 0
    for name, value in trained_weights(folder).items():
        value = value.half().contiguous() if value.is_floating_point() else value
        taken = value.numel() * value.element_size()
        if parts[-1] and size + taken > PART:
            parts.append({})
            size = 0
        parts[-1][name] = value.to("cpu", memory_format=torch.contiguous_format)
        size += taken
    files = [out / f"{folder.name}_{number}_of_{len(parts)}.safetensors" for number in range(1, len(parts) + 1)]
    for part, file in zip(parts, files, strict=True):
        save_file(part, file)
    return files


def draw_learning_curves(history: pd.DataFrame, file: Path) -> None:
    from lumbar_utils.output.figures.networks import learning_curves

    learning_curves(history, "Drawn images (phantoms)").savefig(file, dpi=150)


def run_stage(stage: str, asked: argparse.Namespace, seconds: float) -> str:
    """Run a stage in a process of its own, for so many seconds at most; how it ended."""
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # without it matrix products are not exact
    log, started = asked.work / f"stage_{stage}.txt", time.monotonic()
    command = [
        sys.executable,
        __file__,
        "--stage",
        stage,
        "--minutes",
        str(max(1, seconds - START) / 60),
        "--out",
        str(asked.out),
    ]
    command += ["--work", str(asked.work), "--models", *asked.models]
    command += ["--dataset", str(asked.dataset)] if asked.dataset else []
    with log.open("w") as file:
        child = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=environment
        )
        try:
            child.wait(seconds)
            end = f"done in {time.monotonic() - started:.0f} s" if child.returncode == 0 else f"FAILED: {_end_of(log)}"
        except subprocess.TimeoutExpired:
            end = f"CUT OFF after {seconds:.0f} s; what it had found by then is below"
        finally:
            _kill_group(child)
    return end


def _kill_group(child: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # what it had started goes with it
    child.wait()


def main(asked: argparse.Namespace) -> int:
    until = time.monotonic() + 60 * asked.minutes
    asked.out.mkdir(parents=True, exist_ok=True)
    asked.work.mkdir(parents=True, exist_ok=True)
    if (asked.out / "gpu.csv").exists():
        print(f"{asked.out} holds a former run; name another folder by --out", file=sys.stderr)
        return 2
    if asked.dataset and not asked.dataset.is_dir():
        print(f"there is no folder {asked.dataset}; --dataset names one in the form of data/README.md", file=sys.stderr)
        return 2
    (asked.out / "gpu.csv").write_text(",".join(COLUMNS) + "\n")
    states: dict[str, str] = {}
    for stage in asked.stages:
        left = until - time.monotonic() - RESERVE
        if stage == "real" and not asked.dataset:
            states[stage] = "left out: no --dataset was given"
        elif left < STAGES[stage] and stage != "machine":
            states[stage] = f"not begun: {max(0, left):.0f} s were left and it takes {STAGES[stage]} or more"
        else:
            states[stage] = run_stage(stage, asked, max(left, 3))
        print(f"{stage}: {states[stage]}", flush=True)
        write_page(asked.out, asked.minutes, states, STAGES)
    print(asked.out / "gpu.md")
    return int(any(state.startswith("FAILED") for state in states.values()))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="in all")
    parser.add_argument("--out", type=lambda path: Path(path).resolve(), default=ROOT / "build" / "gpu-page")
    parser.add_argument("--dataset", type=lambda path: Path(path).resolve(), help="real slices, for the stage `real`")
    parser.add_argument("--work", type=lambda path: Path(path).resolve(), help="folder for studies; build/gpu")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--stages", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if not asked.minutes > 0:
        parser.error(f"--minutes {asked.minutes:g}: more than 0 is needed")
    asked.work = asked.work or ROOT / "build" / "gpu"
    return asked


def of_one_stage(asked: argparse.Namespace) -> None:
    from lumbar_utils.machine import best_device

    asked.tiny, asked.last_measurement = best_device() != "cuda", 0
    globals()[asked.stage](asked, Notes(asked.stage, asked.out, 60 * asked.minutes))


if __name__ == "__main__":
    asked = arguments()
    sys.exit(of_one_stage(asked) if asked.stage else main(asked))
