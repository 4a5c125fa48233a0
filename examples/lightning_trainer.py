"""Lightning's Trainer: any of our networks, or a swapped one, in a LightningModule; its checkpoints load without it."""

import lightning
import timm
import torch
from drawn import classified
from torch.utils.data import DataLoader, TensorDataset

import acmix.models


class Classifier(lightning.LightningModule):
    """A network of ours under the name that Lightning's checkpoints give it, `net.`."""

    def __init__(self, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.net = timm.create_model("acmix_resnet14_small", num_classes=3)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        """Compute the loss of a batch."""
        images, labels = batch
        return torch.nn.functional.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on all weights."""
        return torch.optim.AdamW(self.parameters(), lr=self.learning_rate)


def fit(path: str, **options: object) -> Classifier:
    """Train for two epochs and leave a checkpoint; options are the Trainer's: precision, accelerator, callbacks, ..."""
    model, data = Classifier(), DataLoader(TensorDataset(*classified(24)), batch_size=8)
    trainer = lightning.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, **options)
    trainer.fit(model, data)
    trainer.save_checkpoint(path)
    return model


if __name__ == "__main__":
    fit("classifier.ckpt", precision="bf16-mixed")
    network = timm.create_model("acmix_resnet14_small", num_classes=3)
    print(acmix.checkpoints.load_weights(network, acmix.checkpoints.load_state_dict("classifier.ckpt")))
