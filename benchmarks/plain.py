"""Plain PyTorch training loops of tutorials and reference codes, the baseline of ``benchmarks/speed.py``.

The comparison is fair: the networks are those of gan_cli, and G runs once per step if it does so in the original code. The
loops are float32, in PyTorch's default memory format, with the default optimizers of ``torch.optim`` and a ``DataLoader``
that transforms images one by one.

A loop is a generator that yields both losses after every update of G. It calls ``.item()`` where the original code does.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

Losses = dict[str, Tensor]


@dataclass
class Players:
    """Two networks on a device. ``latent_dim``: dimension of z, 0 for translators."""

    generator: nn.Module
    discriminator: nn.Module
    device: torch.device
    latent_dim: int = 0


Loop = Callable[[Players, Iterable[Any]], Iterator[Losses]]


def idx_loader(dataset: type[datasets.MNIST], root: Path, batch_size: int, image_size: int, *, workers: int) -> Iterable[Any]:
    """Load torchvision's MNIST or FashionMNIST as tutorials do: ToTensor and Normalize for one image at a time.

    Images are kept at 28 pixels, padded to 32 or resized to others. Yields images (B, 1, H, H), labels (B,).
    """
    fit = {28: [], 32: [transforms.Pad(2)]}.get(image_size, [transforms.Resize(image_size)])
    transform = transforms.Compose([*fit, transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    images = dataset(str(root), train=True, transform=transform)
    return DataLoader(images, batch_size, shuffle=True, num_workers=workers, drop_last=True)


def folder_loader(root: Path, batch_size: int, image_size: int) -> Iterable[Any]:
    """Load a folder of photos as in PyTorch's DCGAN tutorial, with two workers. Yields images, labels."""
    transform = transforms.Compose(
        [
            transforms.Resize(image_size),
            transforms.CenterCrop(image_size),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ]
    )
    images = datasets.ImageFolder(str(root), transform=transform)
    return DataLoader(images, batch_size, shuffle=True, num_workers=2, drop_last=True)


def array_loader(images: Tensor, batch_size: int) -> Iterator[np.ndarray]:
    """Serve a data set from memory as caogang/wgan-gp does: float32 arrays, shuffled every epoch, endlessly."""
    arrays = images.float().div(127.5).sub(1.0).numpy()
    while True:
        order = np.random.permutation(len(arrays))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield arrays[order[start : start + batch_size]]


class Pairs(Dataset[dict[str, Tensor]]):
    """Pairs from files with two images side by side, as in junyanz/pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, folder: Path, load_size: int, crop_size: int) -> None:
        self.paths, self.load_size, self.crop_size = sorted(folder.iterdir()), load_size, crop_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """``A`` and ``B``, (3, H, W) in [-1, 1]."""
        both = Image.open(self.paths[index]).convert("RGB")
        width, height = both.size
        room = self.load_size - self.crop_size
        x, y, flip = random.randint(0, room), random.randint(0, room), random.random() > 0.5
        transform = transforms.Compose(
            [
                transforms.Resize([self.load_size, self.load_size], transforms.InterpolationMode.BICUBIC),
                transforms.Lambda(lambda image: image.crop((x, y, x + self.crop_size, y + self.crop_size))),
                transforms.Lambda(lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )
        halves = both.crop((0, 0, width // 2, height)), both.crop((width // 2, 0, width, height))
        return {"A": transform(halves[0]), "B": transform(halves[1])}


class Domains(Dataset[dict[str, Tensor]]):
    """Unpaired images from two folders, B drawn at random, as in junyanz/pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, root: Path, load_size: int, crop_size: int) -> None:
        self.paths = {side: sorted((root / f"train{side}").iterdir()) for side in "AB"}
        self.transform = transforms.Compose(
            [
                transforms.Resize([load_size, load_size], transforms.InterpolationMode.BICUBIC),
                transforms.RandomCrop(crop_size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )

    def __len__(self) -> int:
        return max(len(paths) for paths in self.paths.values())

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """``A`` and ``B``, (3, H, W) in [-1, 1]."""
        a = self.paths["A"][index % len(self.paths["A"])]
        b = random.choice(self.paths["B"])
        return {side: self.transform(Image.open(path).convert("RGB")) for side, path in (("A", a), ("B", b))}


def translation_loader(dataset: Pairs | Domains, batch_size: int) -> Iterable[Any]:
    """A loader with four workers, the default of junyanz/pytorch-CycleGAN-and-pix2pix."""
    return DataLoader(dataset, batch_size, shuffle=True, num_workers=4, drop_last=True)


def show(*values: Tensor) -> None:
    """Read values from the device where the original code prints or plots them, which waits for the device."""
    for value in values:
        value.item()


def mlp_gan(players: Players, loader: Iterable[Any]) -> Iterator[Losses]:
    """The Fashion-MNIST tutorial: BCELoss on probabilities, Adam 2e-4 with default betas, one G(z) per step.

    D gets real and generated images in two passes. In G's turn the gradients of D are computed too and not used.
    """
    generator, discriminator, device = players.generator, players.discriminator, players.device
    criterion = nn.BCELoss()
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4)
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4)
    while True:
        for step, (images, _) in enumerate(loader):
            images = images.to(device)
            real_labels = torch.ones(len(images), device=device)
            fake_labels = torch.zeros(len(images), device=device)

            real_score = torch.sigmoid(discriminator(images))
            d_loss_real = criterion(real_score, real_labels)
            z = torch.randn(len(images), players.latent_dim, device=device)
            fake_images = generator(z)
            fake_score = torch.sigmoid(discriminator(fake_images.detach()))
            d_loss = d_loss_real + criterion(fake_score, fake_labels)
            d_optimizer.zero_grad()
            d_loss.backward()
            d_optimizer.step()

            g_loss = criterion(torch.sigmoid(discriminator(fake_images)), real_labels)
            g_optimizer.zero_grad()
            g_loss.backward()
            g_optimizer.step()
            if step % 200 == 0:
                show(d_loss, g_loss, real_score.mean(), fake_score.mean())
            yield {"d": d_loss.detach(), "g": g_loss.detach()}


def wgan(players: Players, loader: Iterable[Any], n_critic: int = 5) -> Iterator[Losses]:
    """The WGAN tutorial: RMSprop 5e-5, clip 0.01, G every ``n_critic`` batches with the noise of that batch.

    The one-file style of eriklindernoren/PyTorch-GAN rather than martinarjovsky/WassersteinGAN: one backward pass for both
    parts of the critic's loss, and the critic is not frozen in G's turn.
    """
    generator, critic, device = players.generator, players.discriminator, players.device
    g_optimizer = torch.optim.RMSprop(generator.parameters(), lr=5e-5)
    d_optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-5)
    while True:
        for batch, (images, _) in enumerate(loader):
            images = images.to(device)
            d_optimizer.zero_grad()
            z = torch.randn(len(images), players.latent_dim, device=device)
            fake_images = generator(z).detach()
            d_loss = -torch.mean(critic(images)) + torch.mean(critic(fake_images))
            d_loss.backward()
            d_optimizer.step()
            for parameter in critic.parameters():
                parameter.data.clamp_(-0.01, 0.01)

            if batch % n_critic == 0:
                g_optimizer.zero_grad()
                g_loss = -torch.mean(critic(generator(z)))
                g_loss.backward()
                g_optimizer.step()
                show(d_loss, g_loss)
                yield {"d": d_loss.detach(), "g": g_loss.detach()}


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """The gradient penalty of caogang/wgan-gp."""
    alpha = torch.rand(len(real), 1, 1, 1, device=real.device).expand(real.size())
    between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    scores = critic(between)
    (gradients,) = torch.autograd.grad(
        scores, between, grad_outputs=torch.ones_like(scores), create_graph=True, retain_graph=True
    )
    return 10.0 * ((gradients.view(len(gradients), -1).norm(2, dim=1) - 1) ** 2).mean()


def wgan_gp(players: Players, loader: Iterable[Any], n_critic: int = 5) -> Iterator[Losses]:
    """caogang/wgan-gp: Adam 1e-4 with betas 0 and 0.9, images in memory, a backward pass for each of the three terms.

    The critic is frozen in G's turn, as in that code.
    """
    generator, critic, device = players.generator, players.discriminator, players.device
    d_optimizer = torch.optim.Adam(critic.parameters(), lr=1e-4, betas=(0.0, 0.9))
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.0, 0.9))
    one = torch.ones((), device=device)
    batches = iter(loader)
    while True:
        for parameter in critic.parameters():
            parameter.requires_grad = True
        for _ in range(n_critic):
            real = torch.as_tensor(next(batches)).to(device)
            critic.zero_grad()
            d_real = critic(real).mean()
            d_real.backward(-one)
            with torch.no_grad():
                fake = generator(torch.randn(len(real), players.latent_dim, device=device))
            d_fake = critic(fake).mean()
            d_fake.backward(one)
            penalty = gradient_penalty(critic, real, fake)
            penalty.backward()
            d_loss = d_fake - d_real + penalty
            d_optimizer.step()

        for parameter in critic.parameters():
            parameter.requires_grad = False
        generator.zero_grad()
        score = critic(generator(torch.randn(len(real), players.latent_dim, device=device))).mean()
        score.backward(-one)
        g_optimizer.step()
        show(d_loss, score, d_real - d_fake)
        yield {"d": d_loss.detach(), "g": -score.detach()}


def dcgan(players: Players, loader: Iterable[Any], conditional: bool = False) -> Iterator[Losses]:
    """PyTorch's DCGAN tutorial: BCELoss, two backward passes of D, one G(z) and five calls of ``.item()`` per step.

    ``conditional``: whether both players get the label.
    """
    torch.backends.cudnn.benchmark = True
    netG, netD, device = players.generator, players.discriminator, players.device
    criterion = nn.BCELoss()
    optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
    while True:
        for data in loader:
            netD.zero_grad()
            real = data[0].to(device)
            condition = [data[1].to(device)] if conditional else []
            label = torch.full((len(real),), 1.0, dtype=torch.float, device=device)
            output = torch.sigmoid(netD(real, *condition)).view(-1)
            errD_real = criterion(output, label)
            errD_real.backward()
            show(output.mean())

            noise = torch.randn(len(real), players.latent_dim, device=device)
            fake = netG(noise, *condition)
            label.fill_(0.0)
            output = torch.sigmoid(netD(fake.detach(), *condition)).view(-1)
            errD_fake = criterion(output, label)
            errD_fake.backward()
            show(output.mean())
            errD = errD_real + errD_fake
            optimizerD.step()

            netG.zero_grad()
            label.fill_(1.0)
            output = torch.sigmoid(netD(fake, *condition)).view(-1)
            errG = criterion(output, label)
            errG.backward()
            show(output.mean())
            optimizerG.step()
            show(errD, errG)
            yield {"d": errD.detach(), "g": errG.detach()}


def cdcgan(players: Players, loader: Iterable[Any]) -> Iterator[Losses]:
    """The loop of :func:`dcgan` with labels."""
    return dcgan(players, loader, conditional=True)


def set_requires_grad(networks: Iterable[nn.Module], wanted: bool) -> None:
    """Freeze or unfreeze networks, as in junyanz/pytorch-CycleGAN-and-pix2pix."""
    for network in networks:
        for parameter in network.parameters():
            parameter.requires_grad = wanted


def pix2pix(players: Players, loader: Iterable[Any]) -> Iterator[Losses]:
    """The pix2pix model of junyanz/pytorch-CycleGAN-and-pix2pix: D first, one G(A) per step, D frozen in G's turn, Adam."""
    torch.backends.cudnn.benchmark = True
    netG, netD, device = players.generator, players.discriminator, players.device
    criterion, l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
    optimizer_G = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_D = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real_label, fake_label = torch.tensor(1.0, device=device), torch.tensor(0.0, device=device)
    while True:
        for data in loader:
            real_A, real_B = data["A"].to(device), data["B"].to(device)
            fake_B = netG(real_A)

            set_requires_grad([netD], True)
            optimizer_D.zero_grad()
            prediction = netD(torch.cat((real_A, fake_B), 1).detach())
            loss_D_fake = criterion(prediction, fake_label.expand_as(prediction))
            prediction = netD(torch.cat((real_A, real_B), 1))
            loss_D_real = criterion(prediction, real_label.expand_as(prediction))
            loss_D = (loss_D_fake + loss_D_real) * 0.5
            loss_D.backward()
            optimizer_D.step()

            set_requires_grad([netD], False)
            optimizer_G.zero_grad()
            prediction = netD(torch.cat((real_A, fake_B), 1))
            loss_G = criterion(prediction, real_label.expand_as(prediction)) + l1(fake_B, real_B) * 100.0
            loss_G.backward()
            optimizer_G.step()
            yield {"d": loss_D.detach(), "g": loss_G.detach()}


class ImagePool:
    """A pool of up to 50 earlier images, queried one by one, as in junyanz/pytorch-CycleGAN-and-pix2pix."""

    def __init__(self, size: int = 50) -> None:
        self.size, self.images = size, list[Tensor]()

    def query(self, images: Tensor) -> Tensor:
        """Return as many images (N, C, H, W), each new or from the pool."""
        returned = []
        for image in images.detach():
            image = image.unsqueeze(0)
            if len(self.images) < self.size:
                self.images.append(image)
                returned.append(image)
            elif random.uniform(0, 1) > 0.5:
                k = random.randint(0, self.size - 1)
                old = self.images[k].clone()
                self.images[k] = image
                returned.append(old)
            else:
                returned.append(image)
        return torch.cat(returned, 0)


def cyclegan(players: Players, loader: Iterable[Any]) -> Iterator[Losses]:
    """The CycleGAN model of junyanz/pytorch-CycleGAN-and-pix2pix: six passes of the generators, then both discriminators."""
    torch.backends.cudnn.benchmark = True
    netG_A, netG_B = players.generator.a2b, players.generator.b2a
    netD_A, netD_B = players.discriminator.b, players.discriminator.a  # in that code D_A discriminates images of B
    device, criterion, l1 = players.device, nn.MSELoss(), nn.L1Loss()
    real_label, fake_label = torch.tensor(1.0, device=device), torch.tensor(0.0, device=device)
    optimizer_G = torch.optim.Adam(itertools.chain(netG_A.parameters(), netG_B.parameters()), lr=2e-4, betas=(0.5, 0.999))
    optimizer_D = torch.optim.Adam(itertools.chain(netD_A.parameters(), netD_B.parameters()), lr=2e-4, betas=(0.5, 0.999))
    pool_A, pool_B = ImagePool(), ImagePool()

    def gan_loss(prediction: Tensor, target: Tensor) -> Tensor:
        return criterion(prediction, target.expand_as(prediction))

    def backward_D(netD: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = (gan_loss(netD(real), real_label) + gan_loss(netD(fake.detach()), fake_label)) * 0.5
        loss.backward()
        return loss

    while True:
        for data in loader:
            real_A, real_B = data["A"].to(device), data["B"].to(device)
            fake_B = netG_A(real_A)
            rec_A = netG_B(fake_B)
            fake_A = netG_B(real_B)
            rec_B = netG_A(fake_A)

            set_requires_grad([netD_A, netD_B], False)
            optimizer_G.zero_grad()
            loss_identity = l1(netG_A(real_B), real_B) * 10.0 * 0.5 + l1(netG_B(real_A), real_A) * 10.0 * 0.5
            loss_gan = gan_loss(netD_A(fake_B), real_label) + gan_loss(netD_B(fake_A), real_label)
            loss_G = loss_gan + l1(rec_A, real_A) * 10.0 + l1(rec_B, real_B) * 10.0 + loss_identity
            loss_G.backward()
            optimizer_G.step()

            set_requires_grad([netD_A, netD_B], True)
            optimizer_D.zero_grad()
            loss_D = backward_D(netD_A, real_B, pool_B.query(fake_B)) + backward_D(netD_B, real_A, pool_A.query(fake_A))
            optimizer_D.step()
            yield {"d": loss_D.detach(), "g": loss_G.detach()}
