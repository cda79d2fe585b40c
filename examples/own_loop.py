"""Train one of Attar's networks from your own PyTorch loop.

    python examples/own_loop.py

Attar gives the data, the network and the loss as separate pieces. The network is a Keras model on PyTorch, so
its weights are PyTorch parameters and every PyTorch optimizer works on them. (`attar train` does all this,
and resumes, validates, stops early and draws pictures besides.)
"""

from __future__ import annotations

from pathlib import Path

import torch

from attar import spec
from attar.train import datasets, losses, network, steps

MODEL = Path(__file__).resolve().parent.parent / "models" / "model.json"
STEPS, BATCH = 60, 64

# The data: 10,000 handwritten digits that ship with Attar, in three splits that share no image.
data = datasets.load("digits")
print(data.description)

# The network that model.json describes, with a latent of 50 numbers for each digit.
net = network.build(spec.load(MODEL).with_latent_dims(50), seed=1)
weights = [variable.value for variable in net.trainable_variables]
print(f"{sum(weight.numel() for weight in weights):,} weights")

# What is minimised: 0.75 (1 - SSIM) + 0.25 MAE + 0.01 bits per pixel.
loss = losses.Loss("ssim-l1", alpha=0.75, lmbda=0.01)
optimizer = torch.optim.Adam(weights, lr=1e-3)

height, width, _ = data.shape
batches = datasets.batches(data.train, BATCH, seed=1, drop_last=True)
for step, (_, images) in zip(range(1, STEPS + 1), batches, strict=False):
    # images: (64, 28, 28, 1) uint8. `measure` runs the network and gives the loss to differentiate, and loss,
    # rate, PSNR and SSIM as numbers. For a loss of your own, `net(images, training=True)` gives the
    # regenerated images in 0..1 and the bits of each.
    value, metrics = steps.measure(net, loss, torch.from_numpy(images), training=True)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    if step % 10 == 0 or step == 1:
        total, rate, psnr, ssim = metrics.tolist()
        size = rate * height * width / 8
        print(f"step {step:3}: loss {total:.4f}, PSNR {psnr:.2f} dB, SSIM {ssim:.3f}, {size:.1f} bytes")

# Images that the network has not seen, with the latents rounded as in a file.
with torch.no_grad():
    unseen = torch.from_numpy(next(datasets.batches(data.test, 500))[1])
    _, metrics = steps.measure(net, loss, unseen, training=False)
total, rate, psnr, ssim = metrics.tolist()
size = rate * height * width / 8
print(f"test images: loss {total:.4f}, PSNR {psnr:.2f} dB, SSIM {ssim:.3f}, {size:.1f} bytes")
