"""The model again, slow and obvious: NumPy loops over time and taps, one layer at a time."""

import numpy as np


def convolve(x, kernel, bias, offsets):
    """Sums x[t + offset] @ kernel[tap] over taps; what lies outside counts as zero. [T, C]."""
    y = np.zeros((len(x), kernel.shape[-1]))
    for t in range(len(x)):
        y[t] = bias
        for tap, offset in enumerate(offsets):
            if 0 <= t + offset < len(x):
                y[t] += x[t + offset] @ kernel[tap]
    return y


def dense(x, parameters):
    return x @ np.asarray(parameters["kernel"], float) + np.asarray(parameters["bias"])


def conv_of(x, parameters, offsets):
    return convolve(x, np.asarray(parameters["kernel"], float), parameters["bias"], offsets)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dilated_layer(x, parameters, dilation, preactivation=False, activation="relu"):
    h = relu(x) if preactivation else x
    h = conv_of(h, parameters["dilated"], (-dilation, 0, dilation))
    return x + dense(np.tanh(h) if activation == "tanh" else relu(h), parameters["mix"])


def gated_layer(x, latents, parameters, dilation, pool_samples):
    taps = len(parameters["dilated"]["kernel"])
    h = conv_of(x, parameters["dilated"], [dilation * (1 - taps + tap) for tap in range(taps)])
    condition = dense(latents, parameters["condition"])
    for t in range(len(x)):
        h[t] += condition[t // pool_samples]
    half = h.shape[-1] // 2
    gated = sigmoid(h[:, :half]) * np.tanh(h[:, half:])
    return x + dense(gated, parameters["residual"]), dense(gated, parameters["skip"])


def layer_of(stacked, index):
    """Takes one layer's parameters out of those of all."""
    return {
        name: {key: leaf[index] for key, leaf in convolution.items()}
        for name, convolution in stacked.items()
    }


def nucleus(logits, temperature, top_p):
    """Logits [Q] -> which codes are in the nucleus [Q], and their probabilities, renormalised."""
    exponentials = np.exp((logits - logits.max()) / np.float64(temperature))
    probabilities = exponentials / exponentials.sum()
    order = np.argsort(-logits, kind="stable")  # Of equals the lower code first.
    kept = np.zeros(len(logits), bool)
    mass = 0.0
    for code in order:
        kept[code] = True
        mass += probabilities[code]
        if mass >= top_p:
            break
    return kept, np.where(kept, probabilities, 0) / mass


def encoder(codes, parameters, config):
    """Codes [T] -> latents [F, Z]."""
    h = conv_of((codes / 255 - 0.5)[:, None], parameters["first"], (-1, 0, 1))
    index = 0
    for _ in range(config.encoder_blocks):
        for layer in range(config.encoder_layers):
            layer_parameters = layer_of(parameters["layers"], index)
            h = dilated_layer(
                h,
                layer_parameters,
                2**layer,
                config.encoder_preactivation,
                config.encoder_activation,
            )
            index += 1
    h = dense(h, parameters["latent"])
    return np.array(
        [
            h[start : start + config.pool_samples].mean(axis=0)
            for start in range(0, len(h), config.pool_samples)
        ]
    )


def decoder(codes, latents, parameters, config):
    """Codes [T] and latents [F, Z] -> logits [T, Q] of each code given those before it."""
    inputs = np.concatenate([[0.0], codes[:-1] / 255 - 0.5])[:, None]
    h = conv_of(inputs, parameters["first"], range(1 - config.decoder_taps, 1))
    skips = dense(h, parameters["skip"])
    index = 0
    for _ in range(config.decoder_blocks):
        for layer in range(config.decoder_layers):
            layer_parameters = layer_of(parameters["layers"], index)
            h, skip = gated_layer(h, latents, layer_parameters, 2**layer, config.pool_samples)
            skips += skip
            index += 1
    y = dense(relu(skips), parameters["head"])
    condition = dense(latents, parameters["condition"])
    y += np.repeat(condition, config.pool_samples, axis=0)
    return dense(relu(y), parameters["logits"])


def classifier(latents, parameters):
    """Latents [F, Z] -> domain logits [K]."""
    h = latents
    for index in range(len(parameters) - 1):
        h = dense(h, parameters[f"layer_{index:02d}"])
        h = np.where(h > 0, h, np.expm1(np.minimum(h, 0)))
    return dense(h, parameters["logits"]).mean(axis=0)


def cross_entropy(logits, label):
    """Logits [N], one label -> nats."""
    logits = np.asarray(logits, float)
    top = logits.max()
    return top + np.log(np.exp(logits - top).sum()) - logits[label]
