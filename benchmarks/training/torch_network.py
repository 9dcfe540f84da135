"""PyTorch's model of a network of sigmoid neurons."""

from typing import Any

from benchmarks.training.work import Weights


def torch_network(weights: Weights) -> tuple[Any, list[Any]]:
    """Return a model with these weights, and its linear layers."""
    import torch

    layers: list[Any] = []
    for w, b in weights:
        linear = torch.nn.Linear(w.shape[1], w.shape[0])
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(w))
            linear.bias.copy_(torch.tensor(b))
        layers += [linear, torch.nn.Sigmoid()]
    return torch.nn.Sequential(*layers), layers[::2]


def weights_of(layers: list[Any]) -> Weights:
    """Return a copy of the weights of linear layers."""
    return [(m.weight.detach().numpy().copy(), m.bias.detach().numpy().copy()) for m in layers]
