"""A network in training, as Lightning's loop sees it: what a step, an epoch and a checkpoint are."""

import logging
import math
import signal
import time
import warnings
from pathlib import Path

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import Checkpoint, EMAWeightAveraging
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from tqdm.auto import tqdm

from lumbar_utils import StudyError, records
from lumbar_utils.data.folder import Cohort
from lumbar_utils.networks.checkpoints import read_checkpoint, write_checkpoint
from lumbar_utils.networks.devices import device_of, memory_named, precision_of
from lumbar_utils.networks.loading import annotated_classes, loader, seed_of
from lumbar_utils.networks.losses import log_probabilities_of, loss_of
from lumbar_utils.study import Study

SIDES = ("train", "validation")
CHECK_EVERY = 16  # steps; to look at a loss makes the processor wait for the GPU


class Segmentation(L.LightningModule):
    """A network in training: loss, optimiser, schedule, and the validation F1 that picks the best epoch."""

    def __init__(self, network: nn.Module, study: Study, cohort: Cohort, model: str, origin: dict[str, str]):
        super().__init__()
        self.network, self.study, self.cohort, self.model = network, study, cohort, model
        self.classes, self.origin = annotated_classes(cohort), origin
        self.history: list[dict] = []
        self.unchecked: list[tuple[torch.Tensor, torch.Tensor]] = []  # losses, and the rows of their cases

    def on_train_epoch_start(self):
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

    def check_later(self, loss: torch.Tensor, rows: torch.Tensor) -> None:
        """Keep a loss until some are looked at together."""
        self.unchecked.append((loss.detach(), rows))
        if len(self.unchecked) == CHECK_EVERY:
            self.check_losses()

    def check_losses(self) -> None:
        """Raise StudyError, naming its cases, at the first loss since the last check that is no finite number."""
        unchecked, self.unchecked = self.unchecked, []
        finite = torch.stack([loss for loss, _ in unchecked]).isfinite().tolist() if unchecked else []
        if all(finite):
            return
        loss, rows = unchecked[finite.index(False)]
        cases, done = ", ".join(self.cohort.cases["case"].iloc[rows.tolist()]), len(self.history)
        kept = f"; the checkpoints of epoch {done} are kept" if done else ""
        raise StudyError(
            f"{self.model}: loss is {loss.item()} at cases {cases} in epoch {done + 1}; lower learning_rate{kept}"
        )

    def training_step(self, batch, index):
        images, masks, rows = batch
        # dropout and drop-path of this step, whatever was drawn before: a loader draws too when its epoch begins
        torch.manual_seed(seed_of(self.study.seed, self.current_epoch, index, self.global_rank))
        loss = self.loss(self.network(images), masks)
        self.check_later(loss, rows)
        self.losses.append(loss.detach())
        return loss

    def on_validation_epoch_start(self):
        self.check_losses()  # of the epoch's last steps
        self.validation_loss = torch.zeros(2, device=self.device)  # sum over cases, and their number
        self.counts = torch.zeros(3, len(self.classes) - 1, dtype=torch.long, device=self.device)

    def validation_step(self, batch, _):
        images, masks, rows = batch
        logits = self.network(images)
        loss = self.loss(logits, masks)
        self.check_later(loss, rows)
        self.validation_loss += torch.stack([loss, torch.ones_like(loss)]) * len(images)
        chosen = log_probabilities_of(logits, self.classes).argmax(dim=1)
        for index, value in enumerate(self.classes[1:]):
            predicted, true = chosen == index + 1, masks == value
            self.counts[:, index] += torch.stack([(predicted & true).sum(), predicted.sum(), true.sum()])

    def on_validation_epoch_end(self):
        self.check_losses()  # weights that the last step spoilt must not take the place of a good checkpoint
        self.counts, self.validation_loss = map(self.over_processes, (self.counts, self.validation_loss))
        both, predicted, true = self.counts.cpu().double()  # Apple's GPUs have no double
        shown = predicted + true > 0  # a level in neither has no score
        f1 = 2 * both[shown] / (predicted + true)[shown]
        self.log("val_f1", f1.mean().item() if shown.any() else 0.0)

    def over_processes(self, sums: torch.Tensor) -> torch.Tensor:
        """The total of what each process has summed up."""
        return self.trainer.strategy.reduce(sums, reduce_op="sum")

    def on_train_epoch_end(self):
        losses = self.over_processes(torch.stack(self.losses).mean()) / self.trainer.world_size
        total, cases = self.validation_loss.tolist()
        self.history.append({
            "model": self.model,
            "epoch": self.current_epoch + 1,
            "train_loss": losses.item(),
            "val_loss": total / cases,
            "val_f1": self.trainer.callback_metrics["val_f1"].item(),
            "learning_rate": self.lr_schedulers().get_last_lr()[0],
            "seconds": round(time.monotonic() - self.started, 2),
        })  # fmt: skip
        if self.trainer.is_global_zero:
            records.write_csv(self.study.folder / self.model / "history.csv", pd.DataFrame(self.history))

    def on_save_checkpoint(self, checkpoint):
        checkpoint.update(self.origin, history=self.history)

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
        write_checkpoint(Path(path), checkpoint)

    def load_checkpoint(self, path, map_location=None, weights_only=True):
        return read_checkpoint(Path(path))


class BestAndLast(Checkpoint):
    """After each epoch best.ckpt, its weights, if its validation F1 is the highest, and last.ckpt, to go on from.

    Which epoch is best is told by the history. Lightning's own keeps that in a state which it drops in a folder that
    was moved, and keeps the weights of the last step where those of their moving average were validated.
    """

    def __init__(self, best: Path):
        self.best = best

    def on_train_epoch_end(self, trainer, module):
        *before, now = [row["val_f1"] for row in module.history]
        if now > max(before, default=-1) and trainer.is_global_zero:
            validated = {"state_dict": module.state_dict()}
            for callback in trainer.callbacks:  # a moving average puts itself in the weights' place
                callback.on_save_checkpoint(trainer, module, validated)
            weights = {"state_dict": validated["state_dict"], "epoch": trainer.current_epoch}
            write_checkpoint(self.best, module.origin | weights)
        trainer.save_checkpoint(self.best.with_name("last.ckpt"))


class Progress(L.Callback):
    """One bar for the whole training, in steps."""

    def on_train_start(self, trainer, module):
        total, done = int(trainer.estimated_stepping_batches), trainer.global_step
        self.bar = tqdm(
            total=total, initial=done, desc=f"training {module.model}", unit="step", mininterval=1,
            disable=not trainer.is_global_zero,
        )  # fmt: skip

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.bar.update(trainer.global_step - self.bar.n)

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
            trainer = _trainer(study, best)
            loaders = [loader(study, cohort, side, trainer.global_rank, trainer.world_size) for side in SIDES]
            with memory_named(study, f"training {module.model}"):
                trainer.fit(module, *loaders, ckpt_path=last)
        except MisconfigurationException as error:
            raise StudyError(
                f"devices={study.devices}, nodes={study.nodes} cannot train here: {error} Lower them, or, in a "
                "notebook, train on the command line first: python -m lumbar_utils train"
            ) from error
        except SystemExit:  # Lightning answers Ctrl-C by ending the process, and deafens it to the next one
            signal.signal(signal.SIGINT, on_interrupt)
            done = len(module.history)
            raise KeyboardInterrupt(f"{module.model} was interrupted after epoch {done}; run again to go on") from None


def _trainer(study: Study, best: Path) -> L.Trainer:
    """Lightning's trainer as the study sets it, keeping best.ckpt and last.ckpt beside each other."""
    device = device_of(study)
    several, strategy = study.devices * study.nodes > 1, study.strategy
    if several and strategy == "auto":
        strategy = "ddp_find_unused_parameters_true"  # EfficientNet's encoder has layers that take no part
    # a single device trains alone, whatever a cluster's variables say of further tasks
    alone = [] if several else [LightningEnvironment()]
    average = [EMAWeightAveraging(decay=study.ema)] if study.ema else []
    return L.Trainer(
        max_epochs=study.epochs, accelerator=device, precision=precision_of(study),
        devices=study.devices, num_nodes=study.nodes, strategy=strategy, accumulate_grad_batches=study.accumulate,
        sync_batchnorm=several and device == "cuda",  # torch has it on no other
        deterministic=True if device == "cpu" else "warn",  # a layer that cannot be is named, and does not stop the run
        callbacks=[*average, BestAndLast(best), Progress()],
        plugins=[WholeCheckpoints(), *alone], logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False,
    )  # fmt: skip
