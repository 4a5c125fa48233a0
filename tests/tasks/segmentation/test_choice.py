import pytest

from acmix import InputError
from acmix.tasks.segmentation.choice import choose
from acmix.tasks.segmentation.networks import check_network


def test_quiet_shifts_of_the_recipe_are_of_acmix_resnets_alone():
    assert choose("data", None, {}).quiet_shifts
    assert choose("data", None, {"backbone": "acmix_resnet26"}).quiet_shifts
    assert not choose("data", None, {"backbone": "acmix_swin_tiny"}).quiet_shifts
    assert choose("data", None, {"backbone": "acmix_swin_tiny", "quiet_shifts": True}).quiet_shifts


def test_quiet_shifts_that_are_asked_for_are_refused_by_their_name(tmp_path):
    recipe = tmp_path / "own.yaml"
    recipe.write_text("base: segmentation_small\nbackbone: acmix_swin_nano\n")
    for settings in (
        choose("data", str(recipe), {}),
        choose("data", None, {"backbone": "acmix_swin_nano", "quiet_shifts": True}),
    ):
        with pytest.raises(InputError, match="it takes no quiet_shifts"):
            check_network(settings)


def test_pictures_are_turned_where_that_is_asked():
    assert choose("data", None, {}).turn == 0
