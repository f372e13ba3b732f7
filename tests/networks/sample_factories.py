"""Networks as another package would offer them: a good one, and each mistake that one can make."""

import os

import torch
from torch import nn


def small(image_shape, num_classes, width=4, dropout=0.0):
    channels, height, width_of_image = image_shape
    layers = [nn.Flatten(), nn.Linear(channels * height * width_of_image, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


small.version = "2"


class TwoOutputs(nn.Module):
    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.inner = small(image_shape, num_classes)

    def forward(self, images):
        return self.inner(images), images


class ForgetsItsHead(TwoOutputs):
    def forward(self, images):
        return self.inner(images).softmax(1)


def without_linear(image_shape, num_classes):
    return nn.Sequential(nn.Conv2d(image_shape[0], num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def fails(image_shape, num_classes):
    raise ValueError("no such width")


def exits(image_shape, num_classes):
    os._exit(3)


def text(image_shape, num_classes):
    return "a network"


def draws(image_shape, num_classes):
    network = small(image_shape, num_classes)
    network.register_buffer("noise", torch.rand(3))
    return network
