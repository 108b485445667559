"""Lightning as most repositories use it: torchvision's MNIST with a DataLoader, three `self.log` in each step."""

import sys

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from block import Block
from handwritten import networks
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import MNIST


class VAE(pl.LightningModule):
    def __init__(self, net: str) -> None:
        super().__init__()
        self.encoder, self.mu, self.logvar, self.decoder = networks(net)

    def training_step(self, batch, batch_idx):
        x = batch[0].bernoulli()
        h = self.encoder(x)
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        recon = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") / len(x)
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum() / len(x)
        self.log("train/loss", recon + kl, prog_bar=True)
        self.log("train/recon", recon)
        self.log("train/kl", kl)
        return recon + kl

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


if __name__ == "__main__":
    net, root, steps, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    images = MNIST(root, transform=transforms.ToTensor())
    train = DataLoader(images, batch_size=128, shuffle=True, drop_last=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        limit_train_batches=steps,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        callbacks=[Block()],
        logger=pl.loggers.CSVLogger(folder),
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(VAE(net), train, DataLoader(images, batch_size=128))
