#!/usr/bin/env bash
# lightning 2.6.6, torch 2.14.1 (numpy 2.4.6). Needs torch (5 GB); FINDINGS_VENV names a
# venv to share.
#
# Trainer(accumulate_grad_batches=4) over 5 batches; the gradient of each batch is 1.
#
# Guess: each optimizer step sees the mean over the batches it has gathered, so 1 and 1;
# or the odd batch is carried into the next epoch.
# Seen: 1 and 0.25. The last batch gets a step of its own, and its loss is divided by 4
# all the same. With SGD one step an epoch is too small by the share of missing
# batches; with few steps an epoch (small data, many accumulated batches) that is a
# good part of the training, and with momentum or clipping it shifts those too.
#
# Exit status: 0 as described, 1 if the behaviour changed.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
venv=${FINDINGS_VENV:-$dir/venv} # one venv for all findings that need torch, if set
python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check torch==2.14.1 lightning==2.6.6 numpy==2.4.6
cd "$dir"
"$venv/bin/python" - <<'PY'
import logging
import sys
import warnings

warnings.simplefilter("ignore")
import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Slope(lightning.LightningModule):
    """A loss whose gradient is 1 for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.steps = []

    def training_step(self, batch, number):
        return (self.weight * batch[0]).mean()

    def on_before_optimizer_step(self, optimizer) -> None:
        self.steps.append(self.weight.grad.item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


model = Slope()
trainer = lightning.Trainer(
    max_epochs=2,
    accumulate_grad_batches=4,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(model, DataLoader(TensorDataset(torch.ones(10, 1)), batch_size=2))
print("gradient at each step of two epochs:", model.steps)
sys.exit(model.steps != [1.0, 0.25, 1.0, 0.25])
PY
