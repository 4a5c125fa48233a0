from acmix.tasks.segmentation.choice import choose


def test_quiet_shifts_of_the_recipe_are_of_acmix_resnets_alone():
    assert choose("data", None, {}).quiet_shifts
    assert choose("data", None, {"backbone": "acmix_resnet26"}).quiet_shifts
    assert not choose("data", None, {"backbone": "acmix_swin_tiny"}).quiet_shifts
    assert choose("data", None, {"backbone": "acmix_swin_tiny", "quiet_shifts": True}).quiet_shifts


def test_pictures_are_turned_where_that_is_asked():
    assert choose("data", None, {}).turn == 0
