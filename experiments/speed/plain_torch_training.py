"""The same training step in plain PyTorch, to compare speed with (extra `torch`).

Written from the equations with stock layers, in the order of the published recipe: the encoder runs
once for the classifier's step and once more for the autoencoder's. As published, the classifier's
loss is pulled back through the encoder, where nothing uses it, and latents are projected at audio
rate. `frugal=True` does neither, which is as much as a careful reader would save.
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from umt_jax.config import ModelConfig, TrainingConfig


class PlainTraining:
    """One domain's encoder, decoder and classifier, and their two optimizers."""

    def __init__(
        self, model: ModelConfig, training: TrainingConfig, num_domains: int, *, frugal: bool
    ) -> None:
        """Draws weights."""
        width = model.classifier_channels
        sizes = [model.latent_channels, *[width] * model.classifier_layers]
        hidden = [(nn.Conv1d(a, b, 1), nn.ELU()) for a, b in itertools.pairwise(sizes)]
        self._encoder = _Encoder(model)
        self._decoder = _Decoder(model, frugal=frugal)
        self._classifier = nn.Sequential(
            *itertools.chain(*hidden), nn.Conv1d(width, num_domains, 1)
        )
        self._training, self._frugal = training, frugal
        self._autoencoder_parameters = [*self._encoder.parameters(), *self._decoder.parameters()]
        self._autoencoder_optimizer = torch.optim.Adam(
            self._autoencoder_parameters, training.learning_rate
        )
        self._classifier_optimizer = torch.optim.Adam(
            self._classifier.parameters(), training.classifier_learning_rate
        )

    def step(self, codes: np.ndarray, augmented: np.ndarray, domain: int) -> float:
        """Trains on segments of one domain, uint8 [B, T]; returns the reconstruction loss."""
        labels = torch.full((len(codes),), domain)
        augmented_codes, true_codes = torch.from_numpy(augmented), torch.from_numpy(codes)

        with torch.set_grad_enabled(not self._frugal):
            latents = self._encoder(augmented_codes)
        self._autoencoder_optimizer.zero_grad()
        self._classifier_optimizer.zero_grad()
        self._classification_loss(latents, labels).backward()
        self._classifier_optimizer.step()

        latents = self._encoder(augmented_codes)
        reconstruction = F.cross_entropy(self._decoder(true_codes, latents), true_codes.long())
        confusion = -self._classification_loss(latents, labels)
        self._autoencoder_optimizer.zero_grad()
        (reconstruction + self._training.confusion_weight * confusion).backward()
        if self._training.gradient_clip:
            nn.utils.clip_grad_value_(self._autoencoder_parameters, self._training.gradient_clip)
        self._autoencoder_optimizer.step()
        return reconstruction.item()

    def _classification_loss(self, latents: Any, labels: Any) -> Any:
        return F.cross_entropy(self._classifier(latents).mean(dim=2), labels)


class _Encoder(nn.Module):
    def __init__(self, model: ModelConfig) -> None:
        super().__init__()
        channels = model.encoder_channels
        dilations = model.encoder_dilations
        self.preactivation, self.pool_samples = model.encoder_preactivation, model.pool_samples
        self.activate = {"relu": torch.relu, "tanh": torch.tanh}[model.encoder_activation]
        self.first = nn.Conv1d(1, channels, 3, padding=1)
        self.dilated = nn.ModuleList(
            nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
            for dilation in dilations
        )
        self.mix = nn.ModuleList(nn.Conv1d(channels, channels, 1) for _ in dilations)
        self.latent = nn.Conv1d(channels, model.latent_channels, 1)

    def forward(self, codes: Any) -> Any:
        """Codes [B, T] -> latents [B, Z, F]."""
        x = self.first(codes[:, None] / 255 - 0.5)
        for dilated, mix in zip(self.dilated, self.mix, strict=True):
            h = torch.relu(x) if self.preactivation else x
            x = x + mix(self.activate(dilated(h)))
        return F.avg_pool1d(self.latent(x), self.pool_samples)


class _Decoder(nn.Module):
    def __init__(self, model: ModelConfig, *, frugal: bool) -> None:
        super().__init__()
        channels, skips, latents = (
            model.residual_channels,
            model.skip_channels,
            model.latent_channels,
        )
        self.dilations = model.decoder_dilations
        self.pool_samples, self.frugal, taps = model.pool_samples, frugal, model.decoder_taps
        self.past_taps = taps - 1

        def of_layers(*arguments):
            return nn.ModuleList(nn.Conv1d(*arguments) for _ in self.dilations)

        self.first = nn.Conv1d(1, channels, taps)
        self.first_skip = nn.Conv1d(channels, skips, 1)
        self.dilated = nn.ModuleList(
            nn.Conv1d(channels, 2 * channels, taps, dilation=dilation)
            for dilation in self.dilations
        )
        self.condition = of_layers(latents, 2 * channels, 1)
        self.residual = of_layers(channels, channels, 1)
        self.skip = of_layers(channels, skips, 1)
        self.head = nn.Conv1d(skips, skips, 1)
        self.head_condition = nn.Conv1d(latents, skips, 1)
        self.logits = nn.Conv1d(skips, 256, 1)

    def forward(self, codes: Any, latents: Any) -> Any:
        """Codes [B, T] and latents [B, Z, F] -> logits [B, 256, T]."""
        if not self.frugal:
            latents = self._upsample(latents)

        def condition(projection):
            projected = projection(latents)
            return self._upsample(projected) if self.frugal else projected

        # Later by one sample, and padded for the past taps.
        x = self.first(F.pad(codes[:, None] / 255 - 0.5, (1 + self.past_taps, 0))[..., :-1])
        skips = self.first_skip(x)
        for index, dilation in enumerate(self.dilations):
            past = self.past_taps * dilation
            h = self.dilated[index](F.pad(x, (past, 0))) + condition(self.condition[index])
            sigmoid_half, tanh_half = h.chunk(2, dim=1)
            gated = torch.sigmoid(sigmoid_half) * torch.tanh(tanh_half)
            skips = skips + self.skip[index](gated)
            x = x + self.residual[index](gated)
        y = torch.relu(self.head(torch.relu(skips)) + condition(self.head_condition))
        return self.logits(y)

    def _upsample(self, frames: Any) -> Any:
        return frames.repeat_interleave(self.pool_samples, dim=2)
