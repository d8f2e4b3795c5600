"""Small models and batches that several tests use."""

import torch
from torch import Tensor

from causalcxr.graph import Graph, load_graph
from causalcxr.mechanisms.flow import FlowConfig
from causalcxr.mechanisms.hvae import HVAEConfig
from causalcxr.mechanisms.registry import MechanismsConfig
from causalcxr.scm import StructuralCausalModel

TINY_FLOW = FlowConfig(
    components=12, width=16, widths=[8, 8], blocks=2, embedding=8, dropout=0, steps=3, t_end=0.2
)
TINY_IMAGE = HVAEConfig(
    stem=2,
    resolutions=[8, 4, 1],
    widths=[8, 8, 8],
    encoder_blocks=[1, 1, 1],
    decoder_blocks=[1, 1, 1],
    latents=[2, 2, 4],
    embedding=8,
)
SIZE = 16
TINY = MechanismsConfig(hvae=TINY_IMAGE, flow=TINY_FLOW)


def tiny_scm(graph: Graph | str = "chest", seed: int = 0) -> StructuralCausalModel:
    """An untrained model whose parameters are all random, so that every edge has an effect."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        graph = load_graph(graph) if isinstance(graph, str) else graph
        scm = StructuralCausalModel(graph, TINY, SIZE)
        with torch.no_grad():
            for parameter in scm.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return scm.requires_grad_(False)


def chest_batch(n: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """Random patients with noise for an image, 16 x 16."""
    g = torch.Generator().manual_seed(seed)
    return {
        "sex": torch.randint(2, (n,), generator=g),
        "race": torch.randint(3, (n,), generator=g),
        "age": 20 + 70 * torch.rand(n, generator=g),
        "finding": torch.randint(2, (n,), generator=g),
        "image": torch.randint(256, (n, 1, 16, 16), generator=g).to(torch.uint8),
    }
