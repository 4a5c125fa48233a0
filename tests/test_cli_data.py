import json

from tests.test_cli import call


def test_data_is_sharded_and_checked(capsys, tmp_path):
    code, out, err = call(capsys, "data", "shard", "digits", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == f"acmix train {tmp_path / 'out'}"
    code, _, err = call(capsys, "data", "shard", tmp_path / "out", tmp_path / "out" / "again")
    assert code == 2
    assert "give a folder outside of it" in err
    code, out, err = call(capsys, "data", "check", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "1,438" in out
    assert out.splitlines()[-1] == "the images are sound"
    pattern = f"{tmp_path}/out/{{train-000001,validation-000000}}.tar"
    code, out, _ = call(capsys, "data", "check", pattern, "--validation", f"{tmp_path}/out/validation-000000.tar")
    assert code == 1
    assert "identical files in training and validation: 359\n" in out
    assert "and 354 more: see --json" in out
    assert out.splitlines()[-1] == "the images are NOT sound"


def test_data_check_names_all_in_json(capsys, tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(7):
            (tmp_path / name / f"{index}.png").write_bytes(b"no image")
    code, out, err = call(capsys, "data", "check", tmp_path, "--json")
    assert (code, err) == (1, "")
    content = json.loads(out)
    assert not content["sound"]
    assert len(content["parts"]["images"]["unreadable"]) == 14
    code, out, _ = call(capsys, "data", "check", tmp_path)
    assert code == 1
    assert "unreadable: 14\n  ant/0.png: not a readable image" in out
    assert "and 9 more" in out
