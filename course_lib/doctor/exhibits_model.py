"""Exhibits in the model and its weights: what the network computes, what it starts from, and in which mode."""

import torch
from torch import Tensor, nn

from course_lib import backbones, ssd
from course_lib.doctor.exhibits_data import LOG
from course_lib.doctor.setups import Exhibit, Setup, fresh


def take_weights(setup: Setup, tensors: dict[str, Tensor]) -> None:
    """Change weights of the model that it should have learned before."""
    setup.model.load_state_dict(tensors, strict=False)


def trunk_left_random(setup: Setup) -> None:
    """The weights' names begin with "module.", and loading is not strict: nothing fits, and nobody says so."""
    random = fresh(ssd.ssd_nano, setup.classes, seed=1)
    take_weights(setup, {name: tensor for name, tensor in random.state_dict().items() if name.startswith("backbone.")})
    wrapped = {f"module.{name}": tensor for name, tensor in (setup.pretrained or {}).items()}
    setup.model.load_state_dict(wrapped, strict=False)


def last_of_trunk(model: ssd.SSD) -> list[str]:
    """The names of fc6's and fc7's weights: the last two convolutions of the trunk."""
    convolutions = [name for name, layer in model.backbone.named_modules() if isinstance(layer, nn.Conv2d)]
    return [f"backbone.{name}.weight" for name in convolutions[-2:]]


def fc_left_random(setup: Setup) -> None:
    """fc6 and fc7 keep their random weights; all before them is pretrained."""
    random = fresh(ssd.ssd_nano, setup.classes, seed=1).state_dict()
    take_weights(setup, {name: random[name] for name in last_of_trunk(setup.model)})


def fc_not_a_number(setup: Setup) -> None:
    """fc6 and fc7 are made of a checkpoint whose classifier is NaN."""
    nan = {name: torch.full_like(setup.model.state_dict()[name], torch.nan) for name in last_of_trunk(setup.model)}
    take_weights(setup, nan)
    if setup.pretrained is not None:
        setup.pretrained = dict(setup.pretrained) | nan


def no_dilation(setup: Setup) -> None:
    """fc6 looks at neighbouring cells, where its weights were made for cells three apart."""
    fc6 = [layer for layer in setup.model.backbone.to_fc7 if isinstance(layer, nn.Conv2d)][-2]
    fc6.dilation = fc6.padding = (1, 1)


class WithoutPermute(ssd.SSD):
    """An SSD that reshapes its heads' outputs as they lie in memory: channels before cells."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.feature_maps(images)
        rows = [
            torch.cat(
                [head(x).flatten(1).unflatten(1, (-1, values)) for head, x in zip(heads, maps, strict=True)], dim=1
            )
            for heads, values in ((self.loc_heads, 4), (self.conf_heads, self.num_classes))
        ]
        return rows[0], rows[1]


class CoarsestFirst(ssd.SSD):
    """An SSD that puts the outputs of its coarsest map first; its priors begin with the finest."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        levels = list(zip(self.feature_maps(images), self.loc_heads, self.conf_heads, strict=True))[::-1]
        offsets = [ssd.per_prior(loc(x), 4) for x, loc, conf in levels]
        logits = [ssd.per_prior(conf(x), self.num_classes) for x, loc, conf in levels]
        return torch.cat(offsets, dim=1), torch.cat(logits, dim=1)


class EndsInSoftmax(ssd.SSD):
    """An SSD that gives probabilities, where its loss takes logits."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        offsets, logits = super().forward(images)
        return offsets, logits.softmax(dim=-1)


class NormedTrunk(backbones.VGG):
    """VGG whose fc6 and fc7 go on from what L2Norm has made of conv4_3 for the head."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        conv4_3 = self.l2_norm(self.to_conv4_3(images))
        return conv4_3, self.to_fc7(conv4_3)


def heads_flattened_as_they_lie(setup: Setup) -> None:
    """The heads' outputs are reshaped without a permute."""
    setup.model.__class__ = WithoutPermute


def coarsest_first(setup: Setup) -> None:
    """Maps are concatenated from the coarsest on, priors from the finest."""
    setup.model.__class__ = CoarsestFirst


def softmax_twice(setup: Setup) -> None:
    """The network ends in a softmax, and cross entropy takes another."""
    setup.model.__class__ = EndsInSoftmax


def l2_norm_in_the_trunk(setup: Setup) -> None:
    """What L2Norm gives goes on into the trunk."""
    setup.model.backbone.__class__ = NormedTrunk


def louder_conv4_3(setup: Setup, factor: float = 30.0) -> None:
    """Let conv4_3 be as loud beside the deeper maps as VGG16's is; fc7 and what L2Norm gives stay as they are."""
    backbone = setup.model.backbone
    norm = [layer for layer in backbone.to_conv4_3 if isinstance(layer, nn.BatchNorm2d)][-1]
    after = next(layer for layer in backbone.to_fc7 if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias):
            tensor *= factor
        after.weight /= factor
    if setup.pretrained is not None:
        state = setup.model.state_dict()
        setup.pretrained = {name: state[name].clone() for name in setup.pretrained}


def no_l2_norm(setup: Setup, louder: float = 30.0) -> None:
    """The first head gets conv4_3 as it is, in a trunk where that is so much louder, as it is in VGG16."""
    louder_conv4_3(setup, louder)
    setup.model.backbone.l2_norm = nn.Identity()


def dummy_forward(setup: Setup) -> None:
    """The shapes of the maps are found out by a pass over a black picture, in training mode."""
    size = setup.model.image_size
    setup.model.train()
    with torch.no_grad():
        for _ in range(3):  # once for the maps, the heads and the priors
            setup.model(torch.zeros(2, 3, size, size, dtype=torch.uint8))


def left_in_evaluation_mode(setup: Setup) -> None:
    """A validation before the first step has put the model into evaluation mode, and nobody takes it out."""
    setup.model.eval()


def one_image_at_a_time(setup: Setup) -> None:
    """Batches of one image, with batch norm down to a map of one cell."""
    setup.batch_size = 1


def background_not_counted(setup: Setup) -> None:
    """The network has as many columns as there are classes: none is left for background."""
    setup.adopt(fresh(ssd.ssd_nano, setup.classes[:-1]))


def heads_in_a_list(setup: Setup) -> None:
    """The class heads are in a Python list: the model does not know them, nor does the optimizer."""
    heads = list(setup.model.conf_heads)
    del setup.model.conf_heads
    setup.model.conf_heads = heads


class TrunkWithoutGraph(backbones.VGG):
    """VGG that is called without a graph."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return super().forward(images)


def trunk_without_graph(setup: Setup) -> None:
    """The trunk is called under `no_grad`, as for evaluation; it is meant to learn."""
    setup.model.backbone.__class__ = TrunkWithoutGraph


EXHIBITS = {
    "trunk-left-random": Exhibit(
        "Pretrained weights of which none fits",
        "pytorch/examples #1029: a wrapper had left its prefix on every name, and load_state_dict(strict=False) took "
        "nothing, without an error.",
        "It learns as from nothing; with frozen first blocks it never comes to much.",
        "strict=True for the trunk, or look at what load_state_dict returns.",
        5,
        trunk_left_random,
    ),
    "fc-left-random": Exhibit(
        "fc6 and fc7 left random",
        f"{LOG}: the trunk is VGG's up to conv5, and what follows is made anew, where the paper cuts VGG's two large "
        "layers down to size.",
        "Points of mAP are missing, and more data seems to be the cure.",
        "weights.load_vgg16.",
        3,
        fc_left_random,
    ),
    "fc-not-a-number": Exhibit(
        "fc6 and fc7 made of NaN",
        "torchvision's checkpoint IMAGENET1K_FEATURES is for SSD's trunk, and its classifier is NaN: who decimates it "
        "has NaN for fc6 and fc7.",
        "The loss is NaN from the first step, and every learning rate is tried in turn.",
        "Take IMAGENET1K_V1; refuse tensors that are not finite when they are loaded.",
        3,
        fc_not_a_number,
    ),
    "no-dilation": Exhibit(
        "fc6 without its dilation",
        f"{LOG}: a plain 3 x 3 convolution stands for fc6, which in SSD spreads its taps over 13 cells.",
        "fc7 sees less far than its weights and its priors need.",
        "dilation=6, padding=6.",
        3,
        no_dilation,
    ),
    "heads-flattened-as-they-lie": Exhibit(
        "The heads flattened without a permute",
        "catalyst's detection example views its heads as [B, -1, 4] as they lie; pytorch_advanced #77 asks what the "
        "permute is good for.",
        "It learns its training images by heart, with losses several times as high, and finds nothing in others.",
        "permute(0, 2, 3, 1) before flatten.",
        5,
        heads_flattened_as_they_lie,
    ),
    "coarsest-first": Exhibit(
        "Maps in another order than the priors",
        "ssd.pytorch #346 and #388 end in heads of the wrong size; where the number of rows is the same in any order, "
        "as it is for a concatenation turned round, nothing fails.",
        "The rows of the coarsest map are compared with the smallest priors: boxes never fit.",
        "Concatenate in the order of the priors' specification.",
        5,
        coarsest_first,
    ),
    "softmax-twice": Exhibit(
        "A softmax before cross entropy",
        "Deep-learning-activity-recognition #10, lightning-bolts #654 and many others; SciCo #2 names the floor that "
        "the loss cannot fall below.",
        "The loss falls a little and stays: between probabilities from 0 to 1, cross entropy cannot be small.",
        "Give logits to the loss; take the softmax when you detect.",
        7,
        softmax_twice,
    ),
    "l2-norm-in-the-trunk": Exhibit(
        "L2Norm on the way into the trunk",
        "ssd.pytorch #19 divided in place, and the trunk went on with it; a later state of a published code "
        "(adrirubio/ml-rover) passes the normed map on.",
        "fc6 and fc7, pretrained, read numbers of another scale than they were made for.",
        "Only the branch to the head is normed.",
        3,
        l2_norm_in_the_trunk,
    ),
    "no-l2-norm": Exhibit(
        "No L2Norm on conv4_3",
        f"{LOG}: the first head reads conv4_3 as it is. In VGG16 that map is far louder than the others (caffe #115, "
        "#241).",
        "The first head's outputs and gradients are tens of times the others'; small objects ruin the first steps.",
        "backbones.L2Norm(512), scale 20, on the branch to the head.",
        3,
        no_l2_norm,
    ),
    "dummy-forward": Exhibit(
        "A pass over a black picture in training mode",
        "A later state of a published code (adrirubio/ml-rover) finds out the sizes of its maps so; batch norm takes "
        "the black picture into its statistics.",
        "The pretrained statistics are off from the start: by a tenth with each such pass.",
        "model.eval() first, or compute the sizes.",
        3,
        dummy_forward,
    ),
    "left-in-evaluation-mode": Exhibit(
        "Trained in evaluation mode",
        "pytorch-fcn #56 and #57, joeynmt #184, ncsn #2: validation within an epoch calls eval(), and nobody calls "
        "train() after it.",
        "Batch norm's statistics stand still; layers that began at random keep those of nothing.",
        "model.train() at the head of the loop, not of the program.",
        9,
        left_in_evaluation_mode,
    ),
    "one-image-at-a-time": Exhibit(
        "Batch norm with one image",
        "fastai #1352 and torchcv #141: a last batch of one image, or batch size 1 for want of memory.",
        "Expected more than 1 value per channel when training; on maps of a few cells, no error and wild statistics.",
        "Larger batches, drop_last, or frozen statistics.",
        9,
        one_image_at_a_time,
    ),
    "background-not-counted": Exhibit(
        "No column for background",
        "lufficc/SSD #81: NUM_CLASSES: 1 for one class. torchcv #37 explains the plus one; ssd.pytorch #286 has the "
        "assertion that follows.",
        "An index error in the loss, as soon as the last class turns up.",
        "num_classes = classes + 1.",
        5,
        background_not_counted,
    ),
    "heads-in-a-list": Exhibit(
        "Layers in a Python list",
        "pytorch #715 and #59925: a module sees attributes that are modules, and a list is none.",
        "The class heads keep their random weights for ever, stay on the CPU, and are not saved.",
        "nn.ModuleList.",
        5,
        heads_in_a_list,
    ),
    "trunk-without-graph": Exhibit(
        "The trunk called without a graph",
        "speechbrain #1396: a detach() in a recipe for training cut the graph where nobody looked for it.",
        "The heads learn, the trunk's weights do not move, although they want gradients and are in the optimizer.",
        "no_grad for evaluation only.",
        9,
        trunk_without_graph,
    ),
}
