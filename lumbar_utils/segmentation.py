"""A network in training, as Lightning's loop sees it: what a step, an epoch and a checkpoint are."""

import io
import logging
import math
import signal
import time
import warnings
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import nn
from tqdm.auto import tqdm

from lumbar_utils import StudyError, records
from lumbar_utils.checkpoints import read_checkpoint
from lumbar_utils.datasets.folder import Cohort
from lumbar_utils.devices import device_of, precision_of
from lumbar_utils.loading import annotated_classes, loader, seed_of
from lumbar_utils.losses import loss_of
from lumbar_utils.study import Study


class Segmentation(L.LightningModule):
    """A network in training: loss, optimiser, schedule, and the validation F1 that picks the best epoch."""

    def __init__(self, network: nn.Module, study: Study, cohort: Cohort, model: str, made_from: str):
        super().__init__()
        self.network, self.study, self.cohort, self.model = network, study, cohort, model
        self.classes, self.made_from = annotated_classes(cohort), made_from
        self.history: list[dict] = []

    def on_train_epoch_start(self):
        torch.manual_seed(seed_of(self.study.seed, self.current_epoch))  # dropout and drop-path of this epoch
        self.started, self.losses = time.monotonic(), []

    def loss(self, output: torch.Tensor | list[torch.Tensor], masks: torch.Tensor) -> torch.Tensor:
        """Of logits, or of a list of them at halved sizes, each of which weighs half of the one before."""
        outputs = output if isinstance(output, list) else [output]
        weights = [0.5**level for level in range(len(outputs))]
        losses = [
            weight * loss_of(self.study.loss, logits, masks[:, :: 2**level, :: 2**level], self.classes)
            for level, (weight, logits) in enumerate(zip(weights, outputs, strict=True))
        ]
        return sum(losses) / sum(weights)

    def training_step(self, batch, _):
        images, masks, rows = batch
        loss = self.loss(self.network(images), masks)
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
        self.validation_losses.append(self.loss(logits, masks))
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
        optimizer, schedule = optimisation(self.study, self.parameters(), int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def optimisation(
    study: Study, parameters, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The study's optimiser, and the schedule of its learning rate over all steps of the training.

    one_cycle : AdamW, up from 1/25 of the learning rate over 30 % of the steps and down to nothing. Smith 2019.
    cosine : AdamW, up over 5 % of the steps and down as half a cosine. Loshchilov and Hutter 2019.
    poly_sgd : SGD with Nesterov momentum 0.99, falling as (1 - done)^0.9. Isensee 2021, nnU-Net.
    """
    steps, schedulers = max(2, steps), torch.optim.lr_scheduler
    if study.schedule == "poly_sgd":
        sgd = torch.optim.SGD(parameters, study.learning_rate, momentum=0.99, nesterov=True, weight_decay=3e-5)
        return sgd, schedulers.PolynomialLR(sgd, steps, power=0.9)
    adamw = torch.optim.AdamW(parameters, lr=study.learning_rate, weight_decay=study.weight_decay)
    if study.schedule == "one_cycle":
        return adamw, schedulers.OneCycleLR(adamw, study.learning_rate, total_steps=steps)
    rise = max(1, steps // 20)
    return adamw, schedulers.LambdaLR(
        adamw, lambda step: min((step + 1) / rise, (1 + math.cos(math.pi * min(1, step / steps))) / 2)
    )


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that take their predecessor's place only once they are whole, and are read without unpickling."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        whole = io.BytesIO()  # a full disk then raises OSError; written by torch, it raises something of C++
        torch.save(checkpoint, whole)
        with records.replacing(Path(path)) as temporary:
            temporary.write_bytes(whole.getbuffer())

    def load_checkpoint(self, path, map_location=None, weights_only=True):
        return read_checkpoint(Path(path))


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


def train(module: Segmentation, best: Path, last: Path | None) -> None:
    """Lightning's loop, from the checkpoint `last` or from the start; the best epoch is kept as `best`."""
    study, cohort = module.study, module.cohort
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
    """Lightning's trainer as the study sets it, keeping best.ckpt and last.ckpt beside each other."""
    keep = dict(dirpath=best.parent, save_on_train_epoch_end=True, enable_version_counter=False)
    device = device_of(study)
    average = [EMAWeightAveraging(decay=study.ema)] if study.ema else []
    return L.Trainer(
        max_epochs=study.epochs, accelerator=device, devices=1, precision=precision_of(study),
        deterministic=True if device == "cpu" else "warn",  # a layer that cannot be is named, and does not stop the run
        callbacks=[
            *average,
            ModelCheckpoint(filename="best", monitor="val_f1", mode="max", save_weights_only=True, **keep),
            ModelCheckpoint(filename="last", **keep),
            Progress(),
        ],
        plugins=[WholeCheckpoints()], logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip
