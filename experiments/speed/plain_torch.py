"""The same decoder's generator in plain PyTorch, to compare speed with (extra `torch`).

Written from the equations with stock layers: a queue of past inputs for each layer, conditioning
projected for every sample. Weights are random; their values do not change the time.
"""

import collections
from typing import Any

import torch
from torch import nn

from umt_jax.config import ModelConfig


class PlainGenerator:
    """Generates B streams, one sample at a time."""

    def __init__(self, config: ModelConfig, num_streams: int) -> None:
        """Draws weights and fills the queues with zeros."""
        channels, skips, latents = (
            config.residual_channels,
            config.skip_channels,
            config.latent_channels,
        )
        self._first = nn.Conv1d(1, channels, 2)
        self._skip = nn.Conv1d(channels, skips, 1)
        self._layers = [
            {
                "dilated": nn.Conv1d(channels, 2 * channels, 2),
                "condition": nn.Conv1d(latents, 2 * channels, 1),
                "residual": nn.Conv1d(channels, channels, 1),
                "skip": nn.Conv1d(channels, skips, 1),
            }
            for _ in config.decoder_dilations
        ]
        self._head = nn.Conv1d(skips, skips, 1)
        self._condition = nn.Conv1d(latents, skips, 1)
        self._logits = nn.Conv1d(skips, 256, 1)
        self._queues = [
            collections.deque([torch.zeros(num_streams, channels, 1)] * dilation, maxlen=dilation)
            for dilation in config.decoder_dilations
        ]
        self._last_input = torch.zeros(num_streams, 1, 1)
        self._codes = torch.full((num_streams, 1, 1), 128)
        self._latents = torch.randn(num_streams, latents, 1)

    @torch.inference_mode()
    def generate(self, num_samples: int) -> Any:
        """Samples the next codes; returns the last of them, [B, 1, 1]."""
        for _ in range(num_samples):
            newest = self._codes / 255 - 0.5
            x = self._first(torch.cat([self._last_input, newest], dim=2))
            self._last_input = newest
            skips = self._skip(x)
            for queue, layer in zip(self._queues, self._layers, strict=True):
                past = queue[0]
                queue.append(x)
                h = layer["dilated"](torch.cat([past, x], dim=2))
                sigmoid_half, tanh_half = (h + layer["condition"](self._latents)).chunk(2, dim=1)
                gated = torch.sigmoid(sigmoid_half) * torch.tanh(tanh_half)
                skips = skips + layer["skip"](gated)
                x = x + layer["residual"](gated)
            y = torch.relu(self._head(torch.relu(skips)) + self._condition(self._latents))
            probabilities = torch.softmax(self._logits(y)[:, :, 0], dim=1)
            self._codes = torch.multinomial(probabilities, 1)[:, :, None]
        return self._codes
