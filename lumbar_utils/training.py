"""One recipe for every network: fit it, keep its best epoch, predict label maps with it."""

import io
import logging
import signal
import time
import warnings
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import nn
from tqdm.auto import tqdm

from lumbar_utils import LEVELS, StudyError, records
from lumbar_utils.datasets.folder import Cohort
from lumbar_utils.loading import loader, seed_of
from lumbar_utils.models import build
from lumbar_utils.study import Study


def soft_dice(probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Mean Dice overlap of the foreground classes, each pooled over the batch, in [0, 1].

    probabilities, truth : (batch, classes, height, width), class 0 the background; truth one-hot.
    A class that the batch does not hold pulls its probability down to nothing. Source: Milletari 2016, V-Net.
    """
    over = (0, 2, 3)
    overlap = (probabilities * truth).sum(over)
    size = probabilities.sum(over) + truth.sum(over)
    return ((2 * overlap + 1) / (size + 1))[1:].mean()


def dice_and_cross_entropy(logits: torch.Tensor, masks: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """(1 - soft Dice) + cross-entropy over `classes` alone; a level that is not annotated is none of them.

    logits (batch, 7, height, width); masks (batch, height, width) whole numbers, all of them in `classes`.
    Written without gather, whose backward pass on CUDA depends on the order of threads.
    """
    log_probabilities = logits[:, classes].float().log_softmax(dim=1)
    truth = torch.stack([masks == value for value in classes], dim=1).to(log_probabilities.dtype)
    cross_entropy = -(truth * log_probabilities).sum(dim=1).mean()
    return 1 - soft_dice(log_probabilities.exp(), truth) + cross_entropy


def annotated_classes(cohort: Cohort) -> list[int]:
    """Output channels that the data set can teach: background and its annotated levels."""
    return [0] + [LEVELS.index(level) + 1 for level in cohort.annotated]


class Segmentation(L.LightningModule):
    """A network in training: loss, optimiser, schedule, and the validation F1 that picks the best epoch."""

    def __init__(self, network: nn.Module, study: Study, cohort: Cohort, model: str):
        super().__init__()
        self.network, self.study, self.cohort, self.model = network, study, cohort, model
        self.classes = annotated_classes(cohort)
        self.made_from = training_fingerprint(study, cohort, model)
        self.history: list[dict] = []

    def on_train_epoch_start(self):
        torch.manual_seed(seed_of(self.study.seed, self.current_epoch))  # dropout and drop-path of this epoch
        self.started, self.losses = time.monotonic(), []

    def training_step(self, batch, _):
        images, masks, rows = batch
        loss = dice_and_cross_entropy(self.network(images), masks, self.classes)
        if not torch.isfinite(loss):
            cases = ", ".join(self.cohort.cases["case"].iloc[rows.tolist()])
            raise StudyError(f"{self.model}: loss is {loss.item()} at cases {cases}; lower learning_rate")
        self.losses.append(loss.detach())
        return loss

    def on_validation_epoch_start(self):
        self.validation_losses = []
        self.counts = torch.zeros(3, len(self.classes) - 1, dtype=torch.long, device=self.device)

    def validation_step(self, batch, _):
        images, masks, _ = batch
        logits = self.network(images)
        self.validation_losses.append(dice_and_cross_entropy(logits, masks, self.classes))
        chosen = logits[:, self.classes].argmax(dim=1)
        for index, value in enumerate(self.classes[1:]):
            predicted, true = chosen == index + 1, masks == value
            self.counts[:, index] += torch.stack([(predicted & true).sum(), predicted.sum(), true.sum()])

    def on_validation_epoch_end(self):
        both, predicted, true = self.counts.cpu().double()  # Apple's GPUs have no double
        self.log("val_f1", (2 * both / (predicted + true).clamp(min=1)).mean().item())

    def on_train_epoch_end(self):
        self.history.append({
            "model": self.model,
            "epoch": self.current_epoch + 1,
            "train_loss": torch.stack(self.losses).mean().item(),
            "val_loss": torch.stack(self.validation_losses).mean().item(),
            "val_f1": self.trainer.callback_metrics["val_f1"].item(),
            "learning_rate": self.lr_schedulers().get_last_lr()[0],
            "seconds": round(time.monotonic() - self.started, 2),
        })  # fmt: skip
        records.write_csv(self.study.folder / self.model / "history.csv", pd.DataFrame(self.history))

    def on_save_checkpoint(self, checkpoint):
        checkpoint["history"], checkpoint["made_from"] = self.history, self.made_from

    def on_load_checkpoint(self, checkpoint):
        self.history = checkpoint["history"]

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.study.learning_rate, weight_decay=self.study.weight_decay
        )
        steps = max(2, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.study.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that take their predecessor's place only once they are whole, and are read without unpickling."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        whole = io.BytesIO()  # a full disk then raises OSError; written by torch, it raises something of C++
        torch.save(checkpoint, whole)
        with records.replacing(Path(path)) as temporary:
            temporary.write_bytes(whole.getbuffer())

    def load_checkpoint(self, path, map_location=None, weights_only=True):
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict:
    """A checkpoint's tensors and plain values. Raises StudyError if it is cut off or holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, from zip's to unpickler's
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StudyError(f"checkpoint {path} cannot be read ({reason}); delete it to train again") from error


class Progress(L.Callback):
    """One bar for the whole training, in steps."""

    def on_train_start(self, trainer, module):
        total, done = int(trainer.estimated_stepping_batches), trainer.global_step
        self.bar = tqdm(total=total, initial=done, desc=f"training {module.model}", unit="step", mininterval=1)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.bar.update()

    def on_train_epoch_end(self, trainer, module):
        self.bar.set_postfix(epoch=trainer.current_epoch + 1, val_f1=f"{trainer.callback_metrics['val_f1']:.3f}")

    def on_train_end(self, trainer, module):
        self.bar.close()


def training_fingerprint(study: Study, cohort: Cohort, model: str) -> str:
    """What a trained network depends on: settings, data and the code that trains."""
    code = records.source_fingerprint("models", "training", "loading", "decoding", "split")
    return records.fingerprint(study.fingerprint, cohort.fingerprint, model, code)


def network_of(study: Study, model: str) -> nn.Module:
    """The study's network of that name with its first weights, drawn from the study's seed alone."""
    torch.manual_seed(seed_of(study.seed))
    network = build(
        model, unet_channels=study.unet_channels, hrnet=study.hrnet, efficientnet=study.efficientnet,
        classes=len(LEVELS) + 1,
    )  # fmt: skip
    return network.to(memory_format=torch.channels_last)


def fit(study: Study, cohort: Cohort, model: str) -> pd.DataFrame:
    """Train a network, or go on where an earlier run was interrupted, or do nothing if it is trained already.

    Keeps checkpoints/best.ckpt (highest validation F1) and last.ckpt, history.csv and fit.json in the model's folder.
    Returns one row an epoch: model, epoch, train_loss, val_loss, val_f1, learning_rate, seconds.
    """
    folder = study.folder / model
    record, best, last = folder / "fit.json", folder / "checkpoints" / "best.ckpt", folder / "checkpoints" / "last.ckpt"
    made_from = training_fingerprint(study, cohort, model)
    if records.is_finished(record, made_from):
        print(f"{model} is trained already: {folder}")
        return pd.read_csv(folder / "history.csv")
    module = Segmentation(network_of(study, model), study, cohort, model)
    go_on = last.exists() and read_checkpoint(last).get("made_from") == made_from
    if not go_on:
        record.unlink(missing_ok=True)
        best.unlink(missing_ok=True)
    started = time.monotonic()
    _train(study, cohort, module, best, last if go_on else None)
    records.mark_finished(
        record, made_from, [best, folder / "history.csv"],
        seconds=round(time.monotonic() - started, 1), parameters=sum(p.numel() for p in module.network.parameters()),
        provenance=records.provenance(),
    )  # fmt: skip
    return pd.DataFrame(module.history)


def _train(study: Study, cohort: Cohort, module: Segmentation, best: Path, last: Path | None) -> None:
    """Lightning's loop, from a checkpoint or from the start."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # devices found and advertisements
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs an eighth of the time; nothing here reads it
    on_interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice on loader processes and intervals of logging
        try:
            _trainer(study, best).fit(
                module, loader(study, cohort, "train"), loader(study, cohort, "validation"), ckpt_path=last
            )
        except SystemExit:  # Lightning answers Ctrl-C by ending the process, and deafens it to the next one
            signal.signal(signal.SIGINT, on_interrupt)
            done = len(module.history)
            raise KeyboardInterrupt(f"{module.model} was interrupted after epoch {done}; run again to go on") from None


def _trainer(study: Study, best: Path) -> L.Trainer:
    keep = dict(dirpath=best.parent, save_on_train_epoch_end=True, enable_version_counter=False)
    device = device_of(study)
    return L.Trainer(
        max_epochs=study.epochs, accelerator=device, devices=1, precision=_precision(study),
        deterministic=True if device == "cpu" else "warn",  # a layer that cannot be is named, and does not stop the run
        callbacks=[
            ModelCheckpoint(filename="best", monitor="val_f1", mode="max", save_weights_only=True, **keep),
            ModelCheckpoint(filename="last", **keep),
            Progress(),
        ],
        plugins=[WholeCheckpoints()], logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip


def device_of(study: Study) -> str:
    """`cuda`, `mps` or `cpu`."""
    if study.device != "auto":
        return study.device
    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def _precision(study: Study) -> str:
    """Lightning's name of the precision: mixed where `auto` finds hardware that gains by it."""
    device = device_of(study)
    if study.precision != "auto":
        chosen = study.precision
    elif device == "cuda":
        chosen = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "16"
    else:  # bf16 halves the time on a CPU with AMX that is all ours, and makes it six times longer on one that is not
        chosen = "32"
    return {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}[chosen]
