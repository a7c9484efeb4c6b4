"""The training loop: `Segmentation` says what a step and an epoch do, `train` runs them.

The loop is Lightning's `Trainer.fit`. In each epoch it calls these methods of `Segmentation`, in this order:

    on_train_epoch_start
    training_step               for each batch, then steps the optimiser and the schedule
    on_validation_epoch_start
    validation_step             for each batch
    on_validation_epoch_end     computes the validation F1
    on_train_epoch_end          writes history.csv, best.ckpt (if the F1 is the highest so far) and last.ckpt
"""

import logging
import signal
import time
import warnings
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from tqdm.auto import tqdm

from lumbar_utils import StudyError, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.machine import device_of, explain_out_of_memory, precision_of
from lumbar_utils.networks.checkpoints import read_checkpoint, write_checkpoint
from lumbar_utils.networks.dataset import classes_of, loader, seed_of
from lumbar_utils.networks.losses import log_probabilities_of, loss_of
from lumbar_utils.study import Study


class Segmentation(L.LightningModule):
    """A network in training; methods in the order in which Lightning calls them, then the helpers.

    provenance : kept in the checkpoints: made_from (fingerprint) and study (`<folder of the study>/<model>`).
    """

    def __init__(self, network: nn.Module, study: Study, cohort: Cohort, model: str, provenance: dict[str, str]):
        super().__init__()
        self.network, self.study, self.cohort, self.model = network, study, cohort, model
        self.classes, self.provenance = classes_of(cohort.annotated), provenance
        self.folder = study.folder / model
        self.history: list[dict] = []

    def configure_optimizers(self):
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = optimizer_and_schedule(self.study, self.parameters(), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint):
        self.history = checkpoint["history"]

    def on_train_start(self):
        self.bar = tqdm(
            total=int(self.trainer.estimated_stepping_batches), initial=self.trainer.global_step, mininterval=1,
            desc=f"training {self.model}", unit="step", disable=not self.trainer.is_global_zero,
        )  # fmt: skip

    def on_train_epoch_start(self):
        self.started, self.losses = time.monotonic(), []  # each loss with the rows of its cases

    def training_step(self, batch, index):
        images, masks, rows = batch
        # seeds dropout and drop-path of this step, whatever random numbers were drawn before, by a loader for instance
        torch.manual_seed(seed_of(self.study.seed, self.current_epoch, index, self.global_rank))
        loss = self.loss(self.network(images), masks)
        self.losses.append((loss.detach(), rows))
        return loss

    def on_train_batch_end(self, outputs, batch, index):
        self.bar.update(self.trainer.global_step - self.bar.n)

    def on_validation_epoch_start(self):
        self.refuse_non_finite(self.losses)
        self.validation_losses = []
        self.counts = torch.zeros(3, len(self.classes) - 1, dtype=torch.long, device=self.device)

    def validation_step(self, batch, _):
        images, masks, rows = batch
        logits = self.network(images)
        self.validation_losses.append((self.loss(logits, masks), rows))
        chosen = log_probabilities_of(logits, self.classes).argmax(dim=1)
        for index, value in enumerate(self.classes[1:]):
            predicted, true = chosen == index + 1, masks == value
            self.counts[:, index] += torch.stack([(predicted & true).sum(), predicted.sum(), true.sum()])

    def on_validation_epoch_end(self):
        # before the checkpoints are replaced: the last step may have spoilt the weights
        self.refuse_non_finite(self.validation_losses)
        self.log("val_f1", mean_f1(self.sum_over_processes(self.counts)))

    def on_train_epoch_end(self):
        mean_loss = torch.stack([loss for loss, _ in self.losses]).mean()
        mean_loss = self.sum_over_processes(mean_loss) / self.trainer.world_size
        batches = [torch.stack([loss, torch.ones_like(loss)]) * len(rows) for loss, rows in self.validation_losses]
        validation_loss, cases = self.sum_over_processes(sum(batches)).tolist()
        row = {
            "model": self.model,
            "epoch": self.current_epoch + 1,
            "train_loss": mean_loss.item(),
            "val_loss": validation_loss / cases,
            "val_f1": self.trainer.callback_metrics["val_f1"].item(),
            "learning_rate": self.lr_schedulers().get_last_lr()[0],
            "seconds": round(time.monotonic() - self.started, 2),
        }
        is_best = row["val_f1"] > max((earlier["val_f1"] for earlier in self.history), default=-1)
        self.history.append(row)
        if self.trainer.is_global_zero:
            records.write_csv(self.folder / "history.csv", pd.DataFrame(self.history))
            if is_best:
                best = {"state_dict": self.network.state_dict(), "epoch": self.current_epoch}
                write_checkpoint(self.folder / "checkpoints" / "best.ckpt", self.provenance | best)
        self.trainer.save_checkpoint(self.folder / "checkpoints" / "last.ckpt")
        self.bar.set_postfix(epoch=row["epoch"], val_f1=f"{row['val_f1']:.3f}")

    def on_train_end(self):
        self.bar.close()

    def on_save_checkpoint(self, checkpoint):
        checkpoint.update(self.provenance, history=self.history)

    def loss(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Of logits (batch, 7, height, width) and label values (batch, height, width)."""
        return loss_of(logits, masks, self.classes)

    def refuse_non_finite(self, losses: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Raise StudyError at the first loss that is not finite; it names the cases. losses : each with their rows."""
        finite = torch.stack([loss for loss, _ in losses]).isfinite().tolist()
        if all(finite):
            return
        loss, rows = losses[finite.index(False)]
        cases, epochs = ", ".join(self.cohort.cases["case"].iloc[rows.tolist()]), len(self.history)
        problem = f"{self.model}: loss is {loss.item()} at cases {cases} in epoch {epochs + 1}; lower learning_rate"
        if epochs:
            problem += f"; the checkpoints of epoch {epochs} are kept"
        raise StudyError(problem)

    def sum_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise sum of a tensor that each process of the training has."""
        return self.trainer.strategy.reduce(values, reduce_op="sum")


def mean_f1(counts: torch.Tensor) -> float:
    """Mean F1 over levels, in [0, 1]; 0 if no level occurs. Pixels of all images together, unlike the F1 of Table II.

    counts : (3, levels) pixels that are true positive, predicted, in the reference. A level that is neither predicted
    nor in the reference has no score.
    """
    true_positive, predicted, true = counts.cpu().double()  # Apple's GPUs have no double
    occurs = predicted + true > 0
    if not occurs.any():
        return 0.0
    return (2 * true_positive[occurs] / (predicted + true)[occurs]).mean().item()


def optimizer_and_schedule(
    study: Study, parameters, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW, and its learning rate over all steps: up from 1/25 of the study's over 30 % of them, then down to 0.

    Source: Smith 2019, one-cycle schedule, doi 10.1117/12.2520589.
    """
    adamw = torch.optim.AdamW(parameters, lr=study.learning_rate, weight_decay=study.weight_decay)
    return adamw, torch.optim.lr_scheduler.OneCycleLR(adamw, study.learning_rate, total_steps=max(2, steps))


def train(module: Segmentation, resume_from: Path | None = None) -> None:
    """Train with Lightning's loop, from the start or from the checkpoint `resume_from`.

    Raises StudyError where the devices cannot be used or run out of memory, KeyboardInterrupt on Ctrl-C.
    """
    study, cohort = module.study, module.cohort
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # no notes on devices and products
    torch.utils.deterministic.fill_uninitialized_memory = False  # takes an eighth of the time; nothing here reads it
    on_interrupt = signal.getsignal(signal.SIGINT)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")  # advice on loader processes and logging intervals
        try:
            trainer = _trainer(study)
            rank, processes = trainer.global_rank, trainer.world_size
            loaders = [loader(study, cohort, side, rank, processes) for side in ("train", "validation")]
            with explain_out_of_memory(study, f"training {module.model}"):
                trainer.fit(module, *loaders, ckpt_path=resume_from)
        except MisconfigurationException as error:
            raise StudyError(
                f"devices={study.devices}, nodes={study.nodes} cannot train here: {error} Lower them, or, in a "
                "notebook, train on the command line first: python -m lumbar_utils train"
            ) from error
        except SystemExit:  # Lightning ends the process on Ctrl-C, and leaves the next Ctrl-C without effect
            signal.signal(signal.SIGINT, on_interrupt)
            epochs = len(module.history)
            raise KeyboardInterrupt(
                f"{module.model} was interrupted after epoch {epochs}; run again to go on"
            ) from None


def _trainer(study: Study) -> L.Trainer:
    device, several, strategy = device_of(study), study.devices * study.nodes > 1, study.strategy
    plugins = [AtomicCheckpointIO()]
    if not several:
        plugins.append(LightningEnvironment())  # one device trains alone, even among several tasks of a cluster's job
    elif strategy == "auto":
        strategy = "ddp_find_unused_parameters_true"  # EfficientNet's encoder has layers that are not used
    return L.Trainer(
        max_epochs=study.epochs, accelerator=device, precision=precision_of(study),
        devices=study.devices, num_nodes=study.nodes, strategy=strategy, accumulate_grad_batches=study.accumulate,
        sync_batchnorm=several and device == "cuda",  # torch has it on no other device
        deterministic=True if device == "cpu" else "warn",  # warns of a layer that is not, instead of stopping
        plugins=plugins, enable_checkpointing=False, logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip


class AtomicCheckpointIO(TorchCheckpointIO):
    """Reads and writes last.ckpt by `checkpoints`: atomically, and without executing anything in it."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path, map_location=None, weights_only=True):
        return read_checkpoint(Path(path))
