"""An independent NumPy transcription of Eqs. 1-29 of Gregor et al. (2015): loops and all.

Written from the paper, sharing no code with the library. One image at a time, float64.
"""

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def window(logits, width, height, n):
    """Eq. 21-24: g_X, g_Y, delta, sigma^2, gamma."""
    gx, gy, log_sigma2, log_delta, log_gamma = logits
    scale = max(width, height) - 1 if n == 1 else (max(width, height) - 1) / (n - 1)
    return (
        (width + 1) / 2 * (gx + 1),
        (height + 1) / 2 * (gy + 1),
        scale * math.exp(log_delta),
        math.exp(log_sigma2),
        math.exp(log_gamma),
    )


def filterbank(g, delta, sigma2, n, size):
    """Eq. 19-20 and 25-26: F[i, a]."""
    bank = np.zeros((n, size))
    for i in range(1, n + 1):
        mu = g + (i - n / 2 - 0.5) * delta
        for a in range(1, size + 1):
            bank[i - 1, a - 1] = math.exp(-((a - mu) ** 2) / (2 * sigma2))
        bank[i - 1] /= sum(bank[i - 1])
    return bank


def banks(parameters, width, height, n):
    gx, gy, delta, sigma2, _ = parameters
    return filterbank(gy, delta, sigma2, n, height), filterbank(gx, delta, sigma2, n, width)


def read(image, parameters, n):
    """Eq. 27 for one image [height, width, channels]: gamma F_Y x F_X^T, channel by channel."""
    height, width, channels = image.shape
    rows, columns = banks(parameters, width, height, n)
    patch = np.zeros((n, n, channels))
    for j in range(n):
        for i in range(n):
            for c in range(channels):
                for b in range(height):
                    for a in range(width):
                        patch[j, i, c] += rows[j, b] * image[b, a, c] * columns[i, a]
    return parameters[4] * patch


def write(patch, parameters, width, height):
    """Eq. 29 for one patch [n, n, channels]: F_Y^T w F_X / gamma."""
    n, _, channels = patch.shape
    rows, columns = banks(parameters, width, height, n)
    image = np.zeros((height, width, channels))
    for b in range(height):
        for a in range(width):
            for c in range(channels):
                for j in range(n):
                    for i in range(n):
                        image[b, a, c] += rows[j, b] * patch[j, i, c] * columns[i, a]
    return image / parameters[4]


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def lstm(params, carry, x):
    cell, hidden = carry
    gates = linear(params["gates"], np.concatenate([x, hidden]))
    i, f, g, o = np.split(gates, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return cell, sigmoid(o) * np.tanh(cell)


def gru(params, hidden, x):
    r, z = np.split(sigmoid(linear(params["gates"], np.concatenate([x, hidden]))), 2)
    candidate = np.tanh(linear(params["candidate"], np.concatenate([x, r * hidden])))
    return (1 - z) * hidden + z * candidate


def classify(params, image, label, num_glimpses, read_size):
    """Sec. 4.1 for one image: windows [T, 5], class logits, cross-entropy in nats."""
    height, width, _ = image.shape
    carry = tuple(params["cell"]["initial"])
    windows = []
    for _ in range(num_glimpses):
        # The window of step t comes from the hidden vector of step t - 1.
        w = window(linear(params["read_window"], carry[1]), width, height, read_size)
        windows.append(w)
        carry = lstm(params["cell"], carry, read(image, w, read_size).ravel())
    logits = linear(params["classes"], carry[1])
    softmax = np.exp(logits) / np.exp(logits).sum()
    return np.array(windows), logits, -math.log(softmax[label])


def infer(params, image, noise, read_size, write_size):
    """Eq. 1-12 for one image: canvases [T, ...], KL [T], L^x."""
    height, width, _ = image.shape
    canvas = params["initial_canvas"].copy()
    encoder = tuple(params["encoder"]["initial"])
    decoder = tuple(params["decoder"]["initial"])
    canvases, kls = [], []
    for epsilon in noise:
        h_dec = decoder[1]
        error = image - sigmoid(canvas)  # Eq. 3
        if read_size is None:
            glimpse = np.concatenate([image, error], axis=-1).ravel()  # Eq. 17
        else:
            w = window(linear(params["read_window"], h_dec), width, height, read_size)
            glimpse = np.concatenate(
                [read(image, w, read_size), read(error, w, read_size)], axis=-1
            ).ravel()  # Eq. 27
        encoder = lstm(params["encoder"], encoder, np.concatenate([glimpse, h_dec]))  # Eq. 5
        mu = linear(params["mean"], encoder[1])  # Eq. 1
        sigma = np.exp(linear(params["log_scale"], encoder[1]))  # Eq. 2
        z = mu + sigma * epsilon  # Eq. 6
        decoder = lstm(params["decoder"], decoder, z)  # Eq. 7
        canvas = canvas + _write(params, decoder[1], image.shape, write_size)  # Eq. 8
        canvases.append(canvas)
        # Eq. 11, with its constant once for each latent: sum_i (mu^2 + sigma^2 - log sigma^2 - 1)/2
        kls.append(
            0.5 * sum(m**2 + s**2 - math.log(s**2) - 1 for m, s in zip(mu, sigma, strict=True))
        )
    means = sigmoid(canvas)
    loss = -np.sum(image * np.log(means) + (1 - image) * np.log(1 - means))  # Eq. 9
    return np.array(canvases), np.array(kls), loss


def generate(params, image_shape, latents, write_size):
    """Eq. 13-15 for one image: canvases [T, ...] from z_1..z_T."""
    canvas = params["initial_canvas"].copy()
    decoder = tuple(params["decoder"]["initial"])
    canvases = []
    for z in latents:
        decoder = lstm(params["decoder"], decoder, z)  # Eq. 14
        canvas = canvas + _write(params, decoder[1], image_shape, write_size)  # Eq. 15
        canvases.append(canvas)
    return np.array(canvases)


def _write(params, h_dec, image_shape, write_size):
    height, width, channels = image_shape
    patch = linear(params["patch"], h_dec)
    if write_size is None:
        return patch.reshape(image_shape)  # Eq. 18
    w = window(linear(params["write_window"], h_dec), width, height, write_size)
    return write(patch.reshape(write_size, write_size, channels), w, width, height)  # Eq. 28-29
