"""One recipe for every network: fit it, go on where it was interrupted, keep its best epoch."""

import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from lumbar_utils import LEVELS, StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.checkpoints import best_weights, goes_on_from, write_checkpoint
from lumbar_utils.networks.loading import seed_of
from lumbar_utils.networks.models import build
from lumbar_utils.networks.pretraining import pretrain
from lumbar_utils.study import Study

# records of what a trained network is, and of what is made with it: another processor trains another one
OF_A_TRAINING = ("fit.json", "predict.json", "robustness.json", "cost.json")


def network_of(study: Study, model: str) -> nn.Module:
    """The study's network of that name with its first weights, drawn from the study's seed alone."""
    torch.manual_seed(seed_of(study.seed))
    network = build(
        model, unet_channels=study.unet_channels, hrnet=study.hrnet, efficientnet=study.efficientnet,
        classes=len(LEVELS) + 1, deep_supervision=study.deep_supervision,
    )  # fmt: skip
    return network.to(memory_format=torch.channels_last)


def load_weights(network: nn.Module, model: str, folder: Path) -> nn.Module:
    """Give a network the weights of the best epoch in a model's folder. Raises StudyError if it has other layers."""
    try:
        network.load_state_dict(best_weights(folder))
    except RuntimeError:
        raise StudyError(f"the weights in {folder} do not fit {model} as this code builds it; train it again") from None
    return network


def _refuse_known_patients(study: Study, cohort: Cohort) -> None:
    """Raise StudyError if the network to start from was trained on a patient that it would be tested on."""
    before = records.read_json(study.start / "study.json")
    if before["data"]["fingerprint"] != cohort.fingerprint:
        return
    sides = records.read_csv(study.start / "split.csv")
    seen = set(sides.loc[sides["split"] != "test", "patient"])
    known = seen & set(cohort.cases.loc[cohort.cases["split"] == "test", "patient"].astype(str))
    if known:
        raise StudyError(
            f"start_from={study.start} was trained on {len(known)} patients that are tested on here, first "
            f"{min(known)}; start from a study of the same seed and fold, or of other data"
        )


def _fit_on_phantoms(study: Study, model: str) -> None:
    """Train on phantoms the network that a study's starts from; where another process is at it, wait for its end."""
    phantoms = study.phantoms
    print(f"{model} starts from phantoms, once for all studies: {phantoms.folder}")
    if phantoms.devices * phantoms.nodes > 1:  # the processes of one training go through here together
        fit(phantoms, prepare(phantoms), model)
        return
    while True:
        with records.file_lock(phantoms.folder / model / "start.lock") as held:
            if held is not None:
                fit(phantoms, prepare(phantoms), model)
                return
        time.sleep(1)


def fit(study: Study, cohort: Cohort, model: str) -> pd.DataFrame:
    """Train a network, or go on where an earlier run was interrupted, or do nothing if it is trained already.

    Keeps checkpoints/best.ckpt (highest validation F1) and last.ckpt, history.csv and fit.json in the model's folder.
    A last.ckpt of older code or data is trained anew. With start_from=phantoms the network that it starts from is
    trained first, once for all studies; with epochs=0 it is kept as it starts.
    Returns one row an epoch: model, epoch, train_loss, val_loss, val_f1, learning_rate, seconds. Raises StudyError
    before the first step if the folder cannot be written, or holds a last.ckpt of another study or one that cannot be
    read; and at a loss that is no finite number.
    """
    folder = study.folder / model
    record, best, last = folder / "fit.json", folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    origin = {"made_from": freshness.trained(study, cohort.fingerprint, model), "study": f"{study.folder.name}/{model}"}
    if records.is_finished(record, origin["made_from"]):
        print(f"{model} is trained already: {folder}")
        return records.read_csv(folder / "history.csv")
    records.refuse_unwritable(study.folder, folder, best.parent)
    for file in records.truncated_files(record):
        file.unlink()  # half a copy
    go_on = goes_on_from(last, **origin) and best.exists()
    from lumbar_utils.networks.segmentation import Segmentation, train  # Lightning takes seconds to import

    if study.start_from == "phantoms":
        _fit_on_phantoms(study, model)
    network = network_of(study, model)
    if study.encoder_weights != "none":
        pretrain(network, model, study)
    if study.start:
        _refuse_known_patients(study, cohort)
        load_weights(network, model, study.start / model)
    for stale in OF_A_TRAINING:
        (folder / stale).unlink(missing_ok=True)
    records.remove_temporary_files(folder)
    started, writes = time.monotonic(), True
    if study.epochs:
        module = Segmentation(network, study, cohort, model, origin)
        train(module, best, last if go_on else None)
        history, writes = pd.DataFrame(module.history), module.trainer.is_global_zero
    else:
        history = _keep_as_it_is(network, study.start / model, folder, origin)
    if writes:
        records.mark_finished(
            record, origin["made_from"], [best, folder / "history.csv"], study=origin["study"],
            data=cohort.fingerprint, seconds=round(time.monotonic() - started, 1),
            parameters=sum(p.numel() for p in network.parameters()),
        )  # fmt: skip
    return history


def _keep_as_it_is(network: nn.Module, start: Path, folder: Path, origin: dict[str, str]) -> pd.DataFrame:
    """Put a trained network, and how its training went, into another study's folder; returns its history."""
    weights = {f"network.{layer}": values for layer, values in network.state_dict().items()}
    write_checkpoint(folder / "checkpoints" / "best.ckpt", origin | {"state_dict": weights, "epoch": 0})
    history = records.read_csv(start / "history.csv")
    records.write_csv(folder / "history.csv", history)
    return history
