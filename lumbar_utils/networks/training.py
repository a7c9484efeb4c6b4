"""Training a network, or resuming an interrupted training. The loop itself is in `segmentation`."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from lumbar_utils import StudyError, freshness, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.data.preparation import prepare
from lumbar_utils.networks.checkpoints import can_resume_from, load_weights, read_checkpoint, write_checkpoint
from lumbar_utils.networks.models import load_encoder_weights, network_of
from lumbar_utils.study import PRETRAINED, STARTS, Study, absolute, record_of

# completion records of a trained network and of what is computed with it: all of them are stale once it is trained anew
RECORDS = ("fit.json", "predict.json", "robustness.json", "cost.json")


def fit(study: Study, cohort: Cohort, model: str) -> pd.DataFrame:
    """Train a network, or resume an interrupted training; a network that is trained already is left as it is.

    Writes checkpoints/final.ckpt (the weights that are used), checkpoints/last.ckpt (to resume from), history.csv and
    fit.json into the model's folder. The weights are those of the epoch with the highest validation F1, averaged with
    those before training where start_share asks for it. A last.ckpt of older code or data is not resumed from. With
    start_from=phantoms the network to start from is trained first, once for all studies; with epochs=0 it is kept as it
    is.
    Returns one row per epoch: model, epoch, train_loss, val_loss, val_f1, learning_rate, seconds.
    Raises StudyError before the first step if the folder cannot be written to, or holds a last.ckpt of another study or
    one that cannot be read; and in training at a loss that is not finite.
    """
    folder = study.folder / model
    record, checkpoints = folder / "fit.json", folder / "checkpoints"
    final, best, last = (checkpoints / f"{name}.ckpt" for name in ("final", "best", "last"))
    made_from, name = freshness.trained(study, cohort.fingerprint, model), f"{study.folder.name}/{model}"
    if records.is_finished(record, made_from):
        print(f"{model} is trained already: {folder}")
        return records.read_csv(folder / "history.csv")
    records.refuse_unwritable(study.folder, folder, checkpoints)
    for incomplete in records.truncated_files(record):
        incomplete.unlink()
    resume = can_resume_from(last, made_from, name) and best.exists()
    network = _initial_network(study, cohort, model)
    for stale in RECORDS:
        (folder / stale).unlink(missing_ok=True)
    records.remove_temporary_files(folder)

    started, provenance = time.monotonic(), {"made_from": made_from, "study": name}
    before = copy.deepcopy(network.state_dict()) if study.start else None
    facts = {"study": name, "data": cohort.fingerprint}
    if study.epochs == 0:
        history, is_main_process = records.read_csv(study.start / model / "history.csv"), True
        facts["provenance"] = freshness.record_to_start_from(study, model)["provenance"]  # of the run that trained it
    else:
        from lumbar_utils.networks.segmentation import Segmentation, train  # loads Lightning, which takes seconds

        module = Segmentation(network, study, cohort, model, provenance)
        train(module, last if resume else None)
        history, is_main_process = pd.DataFrame(module.history), module.trainer.is_global_zero
    if is_main_process:
        weights = read_checkpoint(best)["state_dict"] if study.epochs else before
        if study.start_share:
            weights = average(weights, before, study.start_share)
        write_checkpoint(final, provenance | {"state_dict": weights})
        records.write_csv(folder / "history.csv", history)  # also where only this file was lost
        records.mark_finished(
            record, made_from, [final, folder / "history.csv"], seconds=round(time.monotonic() - started, 1),
            parameters=sum(p.numel() for p in network.parameters()), **facts,
        )  # fmt: skip
        best.unlink(missing_ok=True)  # final.ckpt is in its place
    return history


def average(trained: dict[str, torch.Tensor], before: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
    """(1 - share) * trained + share * before, layer by layer; counts of batches are those of `trained`.

    Where the network before training does well on such data already, the average often does better than either.
    Source: Wortsman et al. 2022, doi 10.1109/CVPR52688.2022.00780.
    """
    weights = dict(trained)
    for layer, values in trained.items():
        if values.is_floating_point():
            weights[layer] = values.lerp(before[layer], share)
    return weights


def _initial_network(study: Study, cohort: Cohort, model: str) -> nn.Module:
    """The network that training starts with: at random, from ImageNet, or from another study's trained network."""
    if study.start_from == "phantoms":
        _fit_on_phantoms(study.phantoms, model)
    network = network_of(study, model)
    if study.encoder_weights != "none":
        load_encoder_weights(network, model, study)
    if study.start:
        _refuse_known_patients(study, cohort)
        load_weights(network, model, study.start / model)
    return network


def _fit_on_phantoms(phantoms: Study, model: str) -> None:
    """Train the network on phantoms; if another process is training it, wait until that one has finished."""
    print(f"{model} starts from phantoms, once for all studies: {phantoms.folder}")
    if phantoms.devices * phantoms.nodes > 1:  # the processes of one training come here together
        fit(phantoms, prepare(phantoms), model)
        return
    while True:
        with records.file_lock(phantoms.folder / model / "start.lock") as lock:
            if lock is not None:
                fit(phantoms, prepare(phantoms), model)
                return
        time.sleep(1)


def _refuse_known_patients(study: Study, cohort: Cohort) -> None:
    """Raise StudyError if a patient of the test set was trained on before: by the study to start from, or one before.

    Patients are compared by name where the data are the same, and always with those that PRETRAINED was trained on.
    """
    tested = set(cohort.cases.loc[cohort.cases["split"] == "test", "patient"].astype(str))
    for earlier in _studies_before(study):
        same_data = records.read_json(earlier / "study.json")["data"]["fingerprint"] == cohort.fingerprint
        if not same_data and earlier != PRETRAINED:
            continue
        patients = records.read_csv(earlier / "split.csv")
        known = tested & set(patients.loc[patients["split"] != "test", "patient"].astype(str))
        if known:
            raise StudyError(
                f"start_from={study.start} was trained on {len(known)} patients that are tested on here, first "
                f"{min(known)}; start from a study of the same seed and fold, of other data, or start_from=phantoms"
            )


def _studies_before(study: Study) -> Iterator[Path]:
    """Folder of the study that a study starts from, of the one which that study started from, and so on."""
    folder = study.start
    while folder and (folder / "study.json").exists():
        yield folder
        earlier = record_of(folder)["settings"].get("start_from", "none")
        folder = PRETRAINED if earlier == "pretrained" else None if earlier in STARTS else absolute(earlier)
