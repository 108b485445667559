"""The opponent: the same VAE as one writes it by hand, without a framework; images in memory, fused kernels."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.datasets import MNIST
from turns import report, start

net, root, steps, precision = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
device = "cuda" if torch.cuda.is_available() else "cpu"
images = MNIST(root).data.unsqueeze(1).to(device)
relu, D, B = nn.ReLU, 20, 128
if net == "A":  # MLP 784-500-500-20-500-500-784
    H = 500
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 500), relu(), nn.Linear(500, H), relu())
    decoder = [
        nn.Linear(D, 500),
        relu(),
        nn.Linear(500, 500),
        relu(),
        nn.Linear(500, 784),
        nn.Unflatten(1, (1, 28, 28)),
    ]
elif net == "B":  # convolutions 1-32-64, then 256
    H = 256
    encoder = nn.Sequential(nn.Conv2d(1, 32, 4, 2, 1), relu(), nn.Conv2d(32, 64, 4, 2, 1), relu())
    encoder.extend([nn.Flatten(), nn.Linear(64 * 7 * 7, H), relu()])
    decoder = [nn.Linear(D, 256), relu(), nn.Linear(256, 64 * 7 * 7), nn.Unflatten(1, (64, 7, 7)), relu()]
    decoder += [nn.ConvTranspose2d(64, 32, 4, 2, 1), relu(), nn.ConvTranspose2d(32, 1, 4, 2, 1)]
else:  # S, so small that overhead shows: MLP 784-16-20-16-784
    H = 16
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, H), relu())
    decoder = [nn.Linear(D, 16), relu(), nn.Linear(16, 784), nn.Unflatten(1, (1, 28, 28))]
mu, logvar = nn.Linear(H, D), nn.Linear(H, D)
model = nn.ModuleList([encoder, mu, logvar, nn.Sequential(*decoder)]).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)


def step(rows):
    grey = images.index_select(0, rows)
    x = (torch.randint(255, grey.shape, dtype=torch.uint8, device=device) < grey).view(torch.uint8).float()
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
        h = encoder(x)
    m, s = mu(h.float()), logvar(h.float())
    z = m + torch.randn_like(m) * (0.5 * s).exp()
    with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
        logits = model[3](z)
    recon = F.binary_cross_entropy_with_logits(logits.float(), x, reduction="sum")
    kl = 0.5 * (m.square() + s.exp() - 1 - s).sum()
    optimizer.zero_grad()
    ((recon + kl) / B).backward()
    optimizer.step()


while True:
    started = start()
    for rows in torch.randperm(len(images), device=device)[: steps * B].split(B):
        step(rows)
    report(steps * B, started)
