"""Health figures while a model learns: can its features be read, do its predictions hold, have they collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from worldmodel.data import DatasetError, Episodes
from worldmodel.findings import encoded
from worldmodel.networks import Networks

PROBE_EPISODES = 150
HORIZON = 5


def _encode(networks: Networks, episodes: Episodes, chosen: Tensor, device: torch.device) -> Tensor:
    """Features (E, T, D) of equally long episodes (cut to the shortest)."""
    length = int(episodes.lengths[chosen].min())
    index = episodes.starts[chosen][:, None] + torch.arange(length)
    return torch.stack([encoded(networks.encoder, episodes, row, device).float().cpu() for row in index])


def ridge_error(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, strength: float = 1e-2) -> Tensor:
    """Root mean squared error (n,) of a ridge regression, in the targets' unit; x (N, D), y (N, n)."""
    mean = train_y.mean(0)
    x = torch.cat([train_x, torch.ones(len(train_x), 1)], 1).double()
    gram = x.T @ x + strength * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(gram, x.T @ (train_y - mean).double())
    guess = torch.cat([test_x, torch.ones(len(test_x), 1)], 1).double() @ weights
    return (guess - (test_y - mean)).square().mean(0).sqrt().float()


def effective_rank(features: Tensor) -> float:
    """Exponential of the entropy of the singular values of centred features (N, D)."""
    values = torch.linalg.svdvals(features - features.mean(0))
    share = values / values.sum()
    return float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))


def check_long_enough(episodes: Episodes, *chosen: Tensor) -> None:
    """Refuse at the door what could not be evaluated: figures look HORIZON steps ahead."""
    for part in chosen:
        if not (episodes.lengths[part] > HORIZON).any():
            raise DatasetError(f"no episode has more than {HORIZON} steps; collect longer ones")


def evaluate(
    networks: Networks, episodes: Episodes, training: Tensor, held_out: Tensor, device: torch.device
) -> dict[str, float]:
    """Figures on held-out episodes; also calibrates the model's doubt on them."""
    train, test = (part[episodes.lengths[part] > HORIZON][:PROBE_EPISODES] for part in (training, held_out))
    seen = _encode(networks, episodes, train, device)
    unseen = _encode(networks, episodes, test, device)
    width = seen.shape[-1]
    figures: dict[str, float] = {}

    def rows(values: Tensor, chosen: Tensor, length: int) -> Tensor:
        return values[(episodes.starts[chosen][:, None] + torch.arange(length)).flatten()]

    targets = {} if episodes.probed is None else {"tool": episodes.probed[:, :3]}
    if episodes.truth is not None:
        targets["object"] = episodes.truth[:, :3]
    for name, values in targets.items():
        error = ridge_error(
            seen.reshape(-1, width),
            rows(values, train, seen.shape[1]),
            unseen.reshape(-1, width),
            rows(values, test, unseen.shape[1]),
        )
        figures[f"probe_{name}_cm"] = float(100 * error.square().mean().sqrt())

    # How well the arm's state is read off a picture.
    moments = episodes.starts[test][:, None] + torch.arange(unseen.shape[1])
    read = torch.cat([
        networks.read_state(episodes.frames(row).to(device), z.to(device)).float().cpu()
        for row, z in zip(moments, unseen, strict=True)
    ])  # fmt: skip
    known = networks.normalise_state(rows(episodes.states, test, unseen.shape[1]).to(device)).cpu()
    wrong = (read - known).square()
    networks.get_buffer("readout_trust").copy_((1 - wrong.mean(0) / known.var(0).clamp(min=1e-6)).clamp(0.0, 1.0))
    spread = networks.get_buffer("state_std").cpu()
    if not episodes.video_only:
        figures["readout_cm"] = float(100 * (wrong * spread**2)[:, :3].sum(-1).sqrt().median())

    # Predictions from every moment that has HORIZON steps after it.
    length = unseen.shape[1]
    index = episodes.starts[test][:, None] + torch.arange(length)
    states = networks.normalise_state(episodes.states[index].to(device))
    actions = episodes.actions[index].to(device)
    z, p = unseen[:, : length - HORIZON].reshape(-1, width).to(device), states[:, : length - HORIZON].flatten(0, 1)
    doubt = z.new_zeros(len(z), 1)
    for h in range(HORIZON):
        action = actions[:, h : length - HORIZON + h].flatten(0, 1)
        if networks.motion is not None:  # as it was learned: an action is what lies between two frames
            pair = (unseen[:, at : length - HORIZON + at].reshape(-1, width).to(device) for at in (h, h + 1))
            action = networks.motion(*pair)
        doubt = doubt + torch.nn.functional.softplus(networks.doubt(z, p, action).float())
        z, p = networks.step(z, p, action)
    target = unseen[:, HORIZON:].reshape(-1, width)
    error = (z.float().cpu() - target).square().mean(-1)
    copied = (unseen[:, : length - HORIZON].reshape(-1, width) - target).square().mean()
    figures["prediction_error"] = float(error.mean() / copied)
    scale = torch.quantile(error, 0.95)
    networks.get_buffer("doubt_scale").copy_(scale.reshape(1))
    figures["doubt_correlation"] = float(torch.corrcoef(torch.stack([doubt[:, 0].cpu().log(), error.log()]))[0, 1])
    flat = unseen.reshape(-1, width)
    figures["rank"] = effective_rank(flat)
    figures["within_episode"] = float((unseen - unseen.mean(1, keepdim=True)).square().mean() / flat.var(0).mean())
    return figures


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """One small plot a figure, over steps."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [name for name in history[-1] if name not in ("step", "minutes")]
    columns = 4
    figure, axes = plt.subplots((len(names) + columns - 1) // columns, columns, figsize=(14, 8), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        axis.plot([row["step"] for row in history], [row.get(name, float("nan")) for row in history], color="#1f77b4")
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
