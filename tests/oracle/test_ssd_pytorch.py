"""A twin of ssd.pytorch's SSD300, with its names and its order of layers, against ours.

Source: github.com/amdegroot/ssd.pytorch, ssd.py and layers/modules/l2norm.py.
"""

import copy

import pytest
import torch
from torch import nn

from course_lib import ssd, weights

VGG = [64, 64, "M", 128, 128, "M", 256, 256, 256, "C", 512, 512, 512, "M", 512, 512, 512]
CONV4_3 = 23  # layers up to its ReLU
LEVELS = [5776, 2166, 600, 150, 36, 4]  # priors


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(512) * 20)

    def forward(self, x):
        return x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10) * self.weight.view(1, -1, 1, 1)


class Twin(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        layers, width = [], 3
        for entry in VGG:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2, 2, ceil_mode=entry == "C"))
            else:
                layers += [nn.Conv2d(width, entry, 3, padding=1), nn.ReLU()]
                width = entry
        layers += [nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU()]
        layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU()]
        self.vgg, self.L2Norm = nn.ModuleList(layers), Scale()
        self.extras = nn.ModuleList(
            [
                nn.Conv2d(1024, 256, 1), nn.Conv2d(256, 512, 3, stride=2, padding=1),
                nn.Conv2d(512, 128, 1), nn.Conv2d(128, 256, 3, stride=2, padding=1),
                nn.Conv2d(256, 128, 1), nn.Conv2d(128, 256, 3),
                nn.Conv2d(256, 128, 1), nn.Conv2d(128, 256, 3),
            ]
        )  # fmt: skip
        maps = list(zip((512, 1024, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4), strict=True))
        self.loc = nn.ModuleList(nn.Conv2d(width, 4 * boxes, 3, padding=1) for width, boxes in maps)
        self.conf = nn.ModuleList(nn.Conv2d(width, num_classes * boxes, 3, padding=1) for width, boxes in maps)
        self.num_classes = num_classes

    def forward(self, x):
        for layer in self.vgg[:CONV4_3]:
            x = layer(x)
        sources = [self.L2Norm(x)]
        for layer in self.vgg[CONV4_3:]:
            x = layer(x)
        sources.append(x)
        for index, layer in enumerate(self.extras):
            x = layer(x).relu()
            if index % 2:
                sources.append(x)
        flat = [
            torch.cat(
                [head(x).permute(0, 2, 3, 1).reshape(len(x), -1) for x, head in zip(sources, heads, strict=True)], 1
            )
            for heads in (self.loc, self.conf)
        ]
        return flat[0].view(len(x), -1, 4), flat[1].view(len(x), -1, self.num_classes)


@pytest.fixture(scope="module")
def pair():
    """The twin and ours, with the same random weights."""
    twin, ours = Twin(21).eval(), ssd.ssd300_vgg16().eval()
    for layer in twin.modules():  # PyTorch's own first weights shrink a signal until only biases are left of it
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    weights.load_ssd_pytorch(ours, twin.state_dict())
    return twin, ours


@pytest.mark.slow
def test_offsets_and_logits_are_the_twins(pair):
    """In float64: in float32 sums of 9216 products, two dozen layers of them, differ by up to 1e-4 between kernels."""
    twin, ours = (copy.deepcopy(one).double() for one in pair)
    images = torch.randint(0, 256, (1, 3, 300, 300), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for found, expected in zip(ours(images), twin(ours.normalise(images)), strict=True):
            assert found.shape == expected.shape
            for a, b in zip(found.split(LEVELS, dim=1), expected.split(LEVELS, dim=1), strict=True):
                # The twin adds 1e-10 to a length that is far above 1.
                assert (a - b).abs().max() <= 1e-9 * b.abs().max()


@pytest.mark.slow
def test_all_71_tensors_come_back_bit_by_bit_also_through_a_file(pair, tmp_path):
    twin, ours = pair
    weights.save(ours, tmp_path / "a.safetensors")
    names = weights.renamed(ours, weights.SSD_PYTORCH)
    expected = twin.state_dict()
    for model in (ours, weights.load(tmp_path / "a.safetensors")):
        back = {names[name]: tensor for name, tensor in model.state_dict().items()}
        assert len(back) == 71 and back.keys() == expected.keys()
        assert all(torch.equal(back[name], expected[name]) for name in expected)
