"""Padding to whole patches: what a compiled graph asks of sizes."""

import torch

from acmix.models.patches import padded


def test_one_compiled_graph_pads_every_size():
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda x: padded(x, (4, 7), 2), backend=keep, fullgraph=True, dynamic=True)
    for height, width in ((9, 13), (12, 13), (9, 14), (12, 14)):
        x = torch.randn(2, 3, height, width)
        assert torch.equal(compiled(x), padded(x, (4, 7), 2))
    assert len(graphs) == 1


def test_what_patches_divide_is_not_copied():
    x = torch.randn(1, 8, 14, 3)
    assert padded(x, (4, 7), 1) is x
    assert padded(x, (4, 4), 1).shape == (1, 8, 16, 3)
