# %% [markdown]
# # From a picture to an explained prediction
#
# Editors (VS Code, PyCharm, Spyder, Jupyter with jupytext) run cells one by one, `python examples/tour.py` all of them.
# It takes a minute or two on two cores and writes to the folder `tour`; delete that to train anew.
"""A tour in cells: look at the operator, train a small network, predict a picture, explain the prediction."""

# %% The operator is a layer: a convolution's arguments, a convolution's shapes
from pathlib import Path

import torch
from PIL import Image

import acmix
from acmix.checkpoints.classifier import Classifier
from acmix.explain.images import explain_image
from acmix.pages.explanations import write_explanations

FOLDER = Path("tour")
EPOCHS = 5

layer = acmix.ACmix(16, 32, stride=2)
print(layer)
print("output:", tuple(layer(torch.randn(1, 16, 57, 33)).shape))

# %% It starts half attention, half convolution; both rates are learned
print("rates:", layer.rate_attention.item(), layer.rate_convolution.item())

# %% Pictures: handwritten digits that come with scikit-learn. Try a folder of class folders in their place
pictures = acmix.data.export_digits(FOLDER / "pictures", count=8)
Image.open(pictures[0]).resize((160, 160)).save(FOLDER / "first.png")
print("pictures:", *(path.name for path in pictures))

# %% Train a small ACmix-ResNet. The run folder has its report: open tour/run/report.html
result = acmix.train(
    "digits", output=str(FOLDER / "run"), epochs=EPOCHS, image_size=16, batch_size=32, learning_rate=0.003
)
print(f"accuracy on held-out digits: {result.best:.1%}, in epoch {result.best_epoch}")

# %% Predict: paths, pictures and tensors are taken, one or many (the network has seen most of these eight in training)
classifier = result.load()
if not isinstance(classifier, Classifier):
    raise TypeError("digits make a classifier")
labels, probabilities = classifier.predict(pictures)
for path, label, row in zip(pictures, labels, probabilities, strict=True):
    print(f"{path.name}: {label} ({row.max():.0%})")

# %% What did the layers learn of their two rates?
for rates in acmix.explain.rates(classifier.model):
    print(f"{rates.layer}: attention {rates.attention:.2f}, convolution {rates.convolution:.2f}")

# %% Explain one prediction: what the middle pixel attends to, and where the evidence is
image = Image.open(pictures[0]).convert("RGB")
explanation = explain_image(classifier, image)
name, probability = explanation.scores[0]
print(f"{pictures[0].name} is a {name}, {probability:.0%}")
for seen in explanation.attention:
    strongest = seen.weights[0].amax(dim=(1, 2))
    print(f"{seen.layer}: each head's strongest weight", [f"{weight:.2f}" for weight in strongest.tolist()])

# %% How much of every layer's output does each path give, on these pictures?
images = torch.stack([classifier.transform(Image.open(path).convert("RGB")) for path in pictures])
for share in acmix.explain.path_shares(classifier.model, [images.to(classifier.device)]):
    print(f"{share.layer}: {share.share:.0%} attention")

# %% All of it as one page that opens without a network
page = write_explanations(classifier, [(pictures[0], image)], FOLDER / "explained")
print("open", page)
