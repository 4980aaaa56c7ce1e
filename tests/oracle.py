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


def any_window(parameters, width, height, rows, columns):
    """Weights [rows, columns, height, width] of a grid of other rows than columns, turned by an
    angle, with strides and variances (x, y) of their own. Each filter is one surface, whose sum is
    one."""
    gx, gy, (delta_x, delta_y), (sigma2_x, sigma2_y), _, angle = parameters
    weights = np.zeros((rows, columns, height, width))
    for j in range(1, rows + 1):
        for i in range(1, columns + 1):
            right = (i - columns / 2 - 0.5) * delta_x
            down = (j - rows / 2 - 0.5) * delta_y
            mu_x = gx + right * math.cos(angle) - down * math.sin(angle)
            mu_y = gy + right * math.sin(angle) + down * math.cos(angle)
            for b in range(1, height + 1):
                for a in range(1, width + 1):
                    exponent = (a - mu_x) ** 2 / sigma2_x + (b - mu_y) ** 2 / sigma2_y
                    weights[j - 1, i - 1, b - 1, a - 1] = math.exp(-exponent / 2)
            weights[j - 1, i - 1] /= weights[j - 1, i - 1].sum()
    return weights


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


def conv(params, image, stride):
    """A 3x3 convolution with zeros around the image, group normalization, then ReLU."""
    height, width, channels = image.shape
    kernel, bias = params["around"]["kernel"], params["around"]["bias"]
    kernel = kernel.reshape(3, 3, channels, -1)
    result = np.zeros((-(-height // stride), -(-width // stride), len(bias)))
    for j, y in enumerate(range(0, height, stride)):
        for i, x in enumerate(range(0, width, stride)):
            total = bias.copy()
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        total += image[y + dy, x + dx] @ kernel[dy + 1, dx + 1]
            result[j, i] = total
    size = len(bias) // math.gcd(4, len(bias))
    for start in range(0, len(bias), size):
        group = result[..., start : start + size]  # of the image: all its pixels, some channels
        group[:] = (group - group.mean()) / np.sqrt(group.var() + 1e-5)
    return np.maximum(params["gain"] * result + params["shift"], 0)


def classify(params, image, label, num_glimpses, read_size, num_scales=1):
    """Sec. 4.1 for one image: windows [T, 5], class logits, cross-entropy in nats."""
    height, width, _ = image.shape
    carry = tuple(params["cell"]["initial"])
    windows = []
    for _ in range(num_glimpses):
        # The window of step t comes from the hidden vector of step t - 1.
        w = window(linear(params["read_window"], carry[1]), width, height, read_size)
        windows.append(w)
        patch = np.concatenate(
            [
                read(image, w * np.array([1, 1, 2**k, 4**k, 1]), read_size)
                for k in range(num_scales)
            ],
            axis=-1,
        )
        if "conv" in params:
            for name, stride in (("first", 1), ("second", 2), ("third", 2)):
                patch = conv(params["conv"][name], patch, stride)
        carry = lstm(params["cell"], carry, patch.ravel())
    logits = linear(params["classes"], carry[1])
    softmax = np.exp(logits) / np.exp(logits).sum()
    return np.array(windows), logits, -math.log(softmax[label])


def infer(params, image, noise, read_size, write_size, likelihood="bernoulli", condition=()):
    """Eq. 1-12 for one image: canvases [T, ...], KL [T], L^x.

    A condition, features of the image, stands after the other inputs of encoder, decoder, prior.
    """
    height, width, channels = image.shape
    canvas = params["initial_canvas"].copy()
    encoder = tuple(params["encoder"]["initial"])
    decoder = tuple(params["decoder"]["initial"])
    canvases, kls = [], []
    for epsilon in noise:
        h_dec = decoder[1]
        error = image - sigmoid(canvas[..., :channels])  # Eq. 3
        if read_size is None:
            glimpse = np.concatenate([image, error], axis=-1).ravel()  # Eq. 17
        else:
            w = window(linear(params["read_window"], h_dec), width, height, read_size)
            glimpse = np.concatenate(
                [read(image, w, read_size), read(error, w, read_size)], axis=-1
            ).ravel()  # Eq. 27
        encoder = lstm(
            params["encoder"], encoder, np.concatenate([glimpse, h_dec, condition])
        )  # Eq. 5
        mu = linear(params["mean"], encoder[1])  # Eq. 1
        sigma = np.exp(linear(params["log_scale"], encoder[1]))  # Eq. 2
        z = mu + sigma * epsilon  # Eq. 6
        prior_mu, prior_sigma = prior(params, np.concatenate([h_dec, condition]), len(z))
        decoder = lstm(params["decoder"], decoder, np.concatenate([z, condition]))  # Eq. 7
        canvas = canvas + _write(params, decoder[1], canvas.shape, write_size)  # Eq. 8
        canvases.append(canvas)
        # Eq. 11, with its constant once for each latent; for the paper's prior, N(0, 1), it is
        # sum_i (mu^2 + sigma^2 - log sigma^2 - 1)/2.
        kls.append(
            0.5
            * sum(
                ((m - pm) ** 2 + s**2) / ps**2 - math.log(s**2 / ps**2) - 1
                for m, s, pm, ps in zip(mu, sigma, prior_mu, prior_sigma, strict=True)
            )
        )
    means = sigmoid(canvas[..., :channels])
    if likelihood == "bernoulli":
        loss = -np.sum(image * np.log(means) + (1 - image) * np.log(1 - means))  # Eq. 9
    else:
        log_scale = params.get("pixel_log_scale", canvas[..., channels:])
        scale = np.exp(np.broadcast_to(log_scale, image.shape))
        density = {"discretized_logistic": logistic_mass, "gaussian": normal_density}[likelihood]
        pixels = zip(image.ravel(), means.ravel(), scale.ravel(), strict=True)
        loss = -sum(math.log(density(*pixel)) for pixel in pixels)
    return np.array(canvases), np.array(kls), loss


def prior(params, h_dec, size):
    """Mean and standard deviation of P(z_t | h^dec_{t-1}); N(0, 1) if none is learned."""
    if "prior_mean" not in params:
        return np.zeros(size), np.ones(size)
    return linear(params["prior_mean"], h_dec), np.exp(linear(params["prior_log_scale"], h_dec))


def logistic_mass(value, mean, scale):
    """Mass of the level value = k/255 under a logistic distribution; the ends take all beyond."""
    above = 1.0 if value == 1 else sigmoid((value + 0.5 / 255 - mean) / scale)
    below = 0.0 if value == 0 else sigmoid((value - 0.5 / 255 - mean) / scale)
    return above - below


def normal_density(value, mean, scale):
    return math.exp(-0.5 * ((value - mean) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))


def generate(params, latents, write_size, noise=(), condition=()):
    """Eq. 13-15 for one image: canvases [T, ...] from z_1, ..., and the prior's after them."""
    canvas = params["initial_canvas"].copy()
    decoder = tuple(params["decoder"]["initial"])
    canvases = []
    for t in range(len(latents) + len(noise)):
        if t < len(latents):
            z = latents[t]
        else:
            epsilon = noise[t - len(latents)]
            mu, sigma = prior(params, np.concatenate([decoder[1], condition]), len(epsilon))
            z = mu + sigma * epsilon  # Eq. 13
        decoder = lstm(params["decoder"], decoder, np.concatenate([z, condition]))  # Eq. 14
        canvas = canvas + _write(params, decoder[1], canvas.shape, write_size)  # Eq. 15
        canvases.append(canvas)
    return np.array(canvases)


def _write(params, h_dec, image_shape, write_size):
    height, width, channels = image_shape
    patch = linear(params["patch"], h_dec)
    if write_size is None:
        return patch.reshape(height, width, channels)  # Eq. 18
    w = window(linear(params["write_window"], h_dec), width, height, write_size)
    return write(patch.reshape(write_size, write_size, channels), w, width, height)  # Eq. 28-29
