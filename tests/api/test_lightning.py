import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "studies" / "lightning_git.py"


@pytest.mark.filterwarnings("ignore")  # of Lightning
def test_lightning_trains_with_git_in_the_step_and_in_the_workers(digits, munit, tmp_path, monkeypatch):
    import gitdist.torchvision_cpu  # noqa: F401  # which Lightning imports

    lightning = pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    example = runpy.run_path(str(SCRIPT))
    sizes = torch.from_numpy(digits.prepared.class_sizes)
    git = example["gitdist"].GIT(munit, sizes, threshold=40)
    batches = []

    class Recorder(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, index):
            batches.append(batch)

    for model, data in (
        (example["Classifier"](sizes, git), example["Images"](digits)),
        (example["Classifier"](sizes), example["Images"](digits, git)),
    ):
        trainer = lightning.Trainer(
            max_epochs=1,
            limit_train_batches=4,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Recorder()],
        )
        trainer.fit(model, data)
        assert trainer.global_step == 4

    assert git.step == 4  # in the step; a worker counts its own copy's
    for (images, labels), (mixed, same) in zip(batches[:4], batches[4:], strict=True):
        assert torch.equal(labels, same)
        replaced = (images != mixed).flatten(1).any(1)
        assert torch.equal(replaced, (sizes[labels] < 40) & (torch.arange(32) < 16))
