"""A folder that acmix exported is a checkpoint of transformers, and what transformers saves loads here."""

import importlib
import json

import pytest
import timm
import torch
from timm.data import resolve_data_config

import acmix
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.hub import from_pretrained, save_pretrained
from tests.examples import load_example

pytestmark = pytest.mark.integrations
NAME = "acmix_resnet14_small"
IMAGES = torch.linspace(-2, 2, 2 * 3 * 64 * 64).view(2, 3, 64, 64)


@pytest.fixture(scope="module")
def transformers():
    return importlib.import_module("transformers")


@pytest.fixture
def classifier():
    model = timm.create_model(NAME, num_classes=3, zero_init_last=False, drop_path_rate=0.1).eval()
    settings = {"img_size": 64, "mean": (0.1, 0.2, 0.3)}
    return Classifier(
        model=model,
        model_name=NAME,
        model_arguments={"drop_path_rate": 0.1},
        classes=("red", "green", "blue"),
        preprocessing=resolve_data_config(settings, model=model),
    )


@pytest.fixture
def folder(classifier, tmp_path):
    return save_pretrained(classifier, tmp_path / "exported")


def test_a_classifier_is_loaded_with_its_classes_and_preprocessing(transformers, classifier, folder):
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "red", 1: "green", 2: "blue"}
    assert torch.equal(model(pixel_values=IMAGES).logits, classifier.model(IMAGES))
    picture = classifier.as_seen(IMAGES[0])
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    seen = processor(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(seen, classifier.transform(picture))
    (best, *_) = transformers.pipeline("image-classification", model=str(folder), image_processor=str(folder))(picture)
    assert best["label"] == classifier.classes[classifier.model(seen[None]).argmax()]


def test_features_are_loaded(transformers, classifier, folder):
    model = transformers.TimmWrapperModel.from_pretrained(folder)
    output = model(IMAGES, output_hidden_states=True)
    assert torch.equal(output.last_hidden_state, classifier.model.forward_features(IMAGES))
    assert [maps.shape[1] for maps in output.hidden_states] == [32, 64, 128, 256, 512]


def test_the_trainer_trains_and_resumes_and_what_it_saves_loads_here(transformers, folder, tmp_path):
    trainer = load_example("transformers_trainer").train(folder, tmp_path / "run", steps=4)
    trained = trainer.model.eval()
    logits = trained(IMAGES).logits
    assert not torch.equal(trained(IMAGES).logits, from_pretrained(folder).model(IMAGES))
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "run")
    assert torch.equal(again(IMAGES).logits, logits)
    network = timm.create_model(NAME, num_classes=3).eval()
    acmix.checkpoints.load_weights(network, acmix.checkpoints.load_state_dict(tmp_path / "run/model.safetensors"))
    assert torch.equal(network(IMAGES), logits)
    assert torch.equal(from_pretrained(tmp_path / "run").model(IMAGES), logits)
    trainer.args.max_steps = 5
    trainer.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-4"))
    assert trainer.state.global_step == 5


@pytest.mark.parametrize("options", [{"bf16": True}, {"activation_checkpointing": True}])
def test_ways_to_train(transformers, folder, tmp_path, options):
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    images = [{"pixel_values": image, "labels": index} for index, image in enumerate(IMAGES)]
    arguments = transformers.TrainingArguments(str(tmp_path), max_steps=2, report_to=[], use_cpu=True, **options)
    loss = transformers.Trainer(model=model, args=arguments, train_dataset=images).train().training_loss
    assert 0 < loss < 100


def test_the_network_within_is_fused(transformers, folder):
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    expected = model(IMAGES).logits
    model.timm_model = acmix.fuse(model.timm_model)
    assert not model.timm_model.fusion_report.left
    torch.testing.assert_close(model(IMAGES).logits, expected, rtol=1e-4, atol=1e-5)


def test_the_number_of_classes_stands_in_one_place(folder):
    config = json.loads((folder / "config.json").read_text())
    assert config["num_classes"] == 3
    assert "num_classes" not in config["model_args"]
