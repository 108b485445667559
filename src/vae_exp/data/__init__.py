"""Sources of images, one file for each, and the data module that splits, binarises and batches the images."""

from vae_exp.data.amat import BinarizedMNIST
from vae_exp.data.bundled import Digits, MNIST5k
from vae_exp.data.celeba import CelebA
from vae_exp.data.cifar10 import CIFAR10
from vae_exp.data.contents import Contents
from vae_exp.data.dsprites import DSprites
from vae_exp.data.fake import Fake
from vae_exp.data.files import InFiles
from vae_exp.data.frey_face import FreyFace
from vae_exp.data.hub import Hub
from vae_exp.data.idx import IDX
from vae_exp.data.image_folder import ImageFolder
from vae_exp.data.images import Images
from vae_exp.data.linear_gaussian import LinearGaussian
from vae_exp.data.loader import Batches
from vae_exp.data.npz import NPZ
from vae_exp.data.omniglot import Omniglot
from vae_exp.data.representation import Representation
from vae_exp.data.split import AnySplit, Source, Split
from vae_exp.data.sprites import Sprites
from vae_exp.data.svhn import SVHN
from vae_exp.data.table import Table

__all__ = [
    "CIFAR10",
    "IDX",
    "NPZ",
    "SVHN",
    "AnySplit",
    "Batches",
    "BinarizedMNIST",
    "CelebA",
    "Contents",
    "DSprites",
    "Digits",
    "Fake",
    "FreyFace",
    "Hub",
    "ImageFolder",
    "Images",
    "InFiles",
    "LinearGaussian",
    "MNIST5k",
    "Omniglot",
    "Representation",
    "Source",
    "Split",
    "Sprites",
    "Table",
]
