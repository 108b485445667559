"""For comparison: the same VAE written by hand, without a framework, with images in memory and fused kernels."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from turns import report, start

D, B = 20, 128


def networks(net):
    R, L = nn.ReLU, nn.Linear
    if net == "A":  # MLP 784-500-500-20-500-500-784
        encoder, H = [nn.Flatten(), L(784, 500), R(), L(500, 500), R()], 500
        decoder = [L(D, 500), R(), L(500, 500), R(), L(500, 784), nn.Unflatten(1, (1, 28, 28))]
    elif net == "B":  # convolutions 1-32-64, then 256
        encoder = [nn.Conv2d(1, 32, 4, 2, 1), R(), nn.Conv2d(32, 64, 4, 2, 1), R(), nn.Flatten(), L(3136, 256), R()]
        decoder, H = [L(D, 256), R(), L(256, 3136), nn.Unflatten(1, (64, 7, 7)), R()], 256
        decoder += [nn.ConvTranspose2d(64, 32, 4, 2, 1), R(), nn.ConvTranspose2d(32, 1, 4, 2, 1)]
    else:  # S, so small that overhead shows: MLP 784-16-20-16-784
        encoder, H = [nn.Flatten(), L(784, 16), R()], 16
        decoder = [L(D, 16), R(), L(16, 784), nn.Unflatten(1, (1, 28, 28))]
    return nn.ModuleList([nn.Sequential(*encoder), L(H, D), L(H, D), nn.Sequential(*decoder)])


def main(net, root, steps, precision, bits):
    from torchvision.datasets import MNIST

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = MNIST(root).data.unsqueeze(1).to(device)
    encoder, mu, logvar, decoder = model = networks(net).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed")
    while True:
        started = start()
        for rows in torch.randperm(len(images), device=device)[: steps * B].split(B):
            if bits == "tuned":  # gather the images and draw the bits as vae_exp does
                grey = images.index_select(0, rows)
                x = (torch.randint(255, grey.shape, dtype=torch.uint8, device=device) < grey).view(torch.uint8).float()
            else:
                x = (images[rows] / 255).bernoulli()
            with autocast:
                h = encoder(x)
            m, s = mu(h.float()), logvar(h.float())
            z = m + torch.randn_like(m) * (0.5 * s).exp()
            with autocast:
                logits = decoder(z)
            recon = F.binary_cross_entropy_with_logits(logits.float(), x, reduction="sum")
            loss = (recon + 0.5 * (m.square() + s.exp() - 1 - s).sum()) / B
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        report(steps * B, started)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
