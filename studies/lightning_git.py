"""GIT in Lightning, on digits with backgrounds: in the training step, on its device, or by a DataModule's workers.

pip install lightning
python studies/lightning_git.py
"""

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gitdist


class Classifier(lightning.LightningModule):
    """A classifier; ``git`` replaces images of small classes in each batch, None = nothing."""

    def __init__(self, class_sizes: Tensor, git: gitdist.GIT | None = None) -> None:
        """Count the images of each class, int64 ``[C]``."""
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, len(class_sizes)))
        self.loss, self.git = gitdist.loss("balanced-softmax", class_sizes), git

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch if self.git is None else self.git(*batch)
        return self.loss(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), 1e-3)


class Images(lightning.LightningDataModule):
    """Training images in 0..1; with ``git`` the workers replace them."""

    def __init__(self, dataset: gitdist.Dataset, git: gitdist.GIT | None = None) -> None:
        """Use the training split."""
        super().__init__()
        train = dataset.prepared.train
        self.pairs = TensorDataset(torch.tensor(train.images) / 255, torch.tensor(train.labels))
        self.collate = None if git is None else git.collate

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the loader; Lightning calls the sampler's ``set_epoch``."""
        order = gitdist.sampler(self.pairs.tensors[1], "instance")
        return DataLoader(self.pairs, 32, sampler=order, num_workers=1, collate_fn=self.collate)


def main() -> None:
    """Train one epoch in both ways."""
    profile = {"kind": "exponential", "largest": 80, "factor": 0.1}
    dataset = gitdist.Dataset({"source": "digits", "nuisance": "background", "profile": profile})
    sizes = torch.from_numpy(dataset.prepared.class_sizes)
    generator = gitdist.train_generator(dataset, steps=100, dim=8, num_res=1, discriminator_dim=8, batch_size=8)
    git = gitdist.GIT(generator, sizes, threshold=40)
    for model, data in ((Classifier(sizes, git), Images(dataset)), (Classifier(sizes), Images(dataset, git))):
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
        trainer.fit(model, data)


if __name__ == "__main__":
    main()
