"""The digits data, two small models, and gradients recorded while they train."""

from efcp_ref.data.digits import Split, digits, split
from efcp_ref.data.mlp import MLP, SOFTMAX, Network, recorded_gradients

__all__ = ["MLP", "SOFTMAX", "Network", "Split", "digits", "recorded_gradients", "split"]
