"""ResNet-18 (He et al. 2016, section 4.1), torchvision's: for images above 64 pixels."""

from typing import cast

from torch import Tensor, nn

from gitdist.networks.classifier import Classifier


class Resnet18(Classifier):
    """ResNet-18 without its head; the features have a 32nd of the image's sides."""

    num_features = 512

    def __init__(self, in_channels: int) -> None:
        from gitdist.torchvision_cpu import torchvision  # slow to import, and needed by few

        super().__init__()
        network = torchvision.models.resnet18()
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.layers = nn.Sequential(*list(network.children())[:-2])  # without its average over pixels and its head

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the features of the last stage."""
        return cast(Tensor, self.layers(images))
