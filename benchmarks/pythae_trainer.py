"""pythae's own trainer on the same networks, in a separate virtual environment; its images are already bits."""

import sys

import torch
from handwritten import networks
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from turns import report, start


class Encoder(BaseEncoder):
    def __init__(self, encoder, mu, logvar):
        super().__init__()
        self.encoder, self.mu, self.logvar = encoder, mu, logvar

    def forward(self, x):
        h = self.encoder(x)
        return ModelOutput(embedding=self.mu(h), log_covariance=self.logvar(h))


class Decoder(BaseDecoder):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, z):
        return ModelOutput(reconstruction=self.decoder(z).sigmoid())


class Block(TrainingCallback):
    def on_epoch_begin(self, training_config, **kwargs):
        self.started = start()

    def on_epoch_end(self, training_config, **kwargs):
        report(int(sys.argv[3]) * 128, self.started)


if __name__ == "__main__":
    net, path, steps, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    images = torch.load(path)[: steps * 128].float()
    encoder, mu, logvar, decoder = networks(net)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    model = VAE(config, Encoder(encoder, mu, logvar), Decoder(decoder))
    training = BaseTrainerConfig(
        output_dir=folder, num_epochs=100000, per_device_train_batch_size=128, learning_rate=1e-3, no_cuda=True
    )
    data = BaseDataset(images, torch.ones(len(images)))
    BaseTrainer(model=model, train_dataset=data, training_config=training, callbacks=[Block()]).train()
