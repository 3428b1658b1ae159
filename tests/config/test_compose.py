"""Composition in plain words: what was found, what is allowed; nothing on disk changes."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pipeline.config.compose import changes, compose, require_same_preset
from pipeline.config.read import read_params
from pipeline.runtime.errors import UserError

WRONG = {
    "tasks=[]": "tasks: found nothing, expected at least one, such as tasks=[denoise]",
    "seeds=[]": "seeds: found nothing, expected at least one, such as seeds=[0]",
    "sources=[]": "sources: found nothing, expected at least one, such as sources=[skimage]",
    "preset=tyni": "preset: found 'tyni', expected one of demo, one_gpu, paper, tiny",
    "x=1": "found the key 'x', which there is not",
    "train.steps": "found 'train.steps', expected key=value, such as train.steps=2500",
    "sources.skimage.location=/Fotos/Köln": "'sources.skimage.location=\"/Fotos/Köln\"'",
    "train.steps=1,2": "found 'train.steps=1,2'; a list is written train.steps=[1,2], a text",
    "tasks=[denoise,own_denoise]": "tasks: found denoise and own_denoise, which are both"
    " tasks.denoise",
    "sources=[skimage,sidd,sidd_small]": "sources: found sidd and sidd_small, which are both",
    "tasks=[denois]": "tasks: found 'denois', expected one of deblur, denoise, derain,",
    "tasks=[[denoise]]": "tasks: found [['denoise']], expected one of deblur, denoise,",
    "tasks=[denoise,denoise]": "tasks: found [denoise,denoise], expected each name once",
    "sources=[skimage,skimage]": "sources: found [skimage,skimage], expected each name once",
    "methods=null": "methods: found nothing, expected one of ap_bsn, cycada,",
    "preset=[tiny]": "preset: found ['tiny'], expected one of demo, one_gpu, paper, tiny, such as",
    "~preset": "preset: found nothing, expected one of demo, one_gpu, paper, tiny, such",
    "tasks=../tasks/denoise": "tasks: found '../tasks/denoise', expected one of deblur,",
    "tasks=[denoise,]": "found 'tasks=[denoise,]'; a list is written tasks=[a,b], keys and",
    "+methods.a/b={}": "found '+methods.a/b={}'; a list is written",
    "seeds=range(3)": "found 'seeds=range(3)', which means several values; a list is",
    "seeds=0": "seeds: found 0 (int), expected a list",
    "seeds={a:1}": "found 'seeds={a:1}', another kind of value than params.yaml has there",
    "=x": "found '=x', expected key=value, such as train.steps=2500",
    "": "found '', expected key=value, such as train.steps=2500",
    '"train.steps=5"': "for the shell: 'train.steps=\"5\"'",
    f"train.steps={'9' * 5000}": "found 'train.steps=9999",
    "train.steps=9223372036854775808": "train.steps: found a number beyond 2^63, expected",
    "seeds=[4294967296]": "seeds[0]: found 4294967296, expected a number from 0 to 4294967295",
}


@pytest.mark.parametrize("override", WRONG)
def test_what_is_wrong_is_said_in_plain_words(override: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("as it was")
    with pytest.raises(UserError) as error:
        compose([override], path)
    told = str(error.value)
    assert WRONG[override] in told
    assert "Exception" not in told and "\n" not in told
    assert path.read_text() == "as it was" and list(tmp_path.iterdir()) == [path]


def test_the_right_quotes_of_the_example_compose(tmp_path: Path) -> None:
    given = ["sources=[skimage,folder]", 'sources.folder.location="/Fotos/Köln, 2 $#"']
    compose(given, tmp_path / "params.yaml")
    sources: Any = OmegaConf.load(tmp_path / "params.yaml").sources
    assert sources.folder.location == "/Fotos/Köln, 2 $#"


def composed(tmp_path: Path, *overrides: str) -> Any:
    compose(list(overrides), tmp_path / "params.yaml")
    return OmegaConf.to_container(OmegaConf.load(tmp_path / "params.yaml"))["methods"]


@pytest.mark.parametrize("preset", ["demo", "one_gpu"])
def test_rows_like_noise_space_need_it_not(tmp_path: Path, preset: str) -> None:
    alone = composed(tmp_path, f"preset={preset}", "methods=[vanilla,unpaired,shuffling]")
    beside = composed(tmp_path, f"preset={preset}", "methods=[noise_space,unpaired,shuffling]")
    assert [name for name in alone if name != "target_supervised"] == [
        "vanilla", "unpaired", "shuffling",
    ]  # fmt: skip
    assert alone["unpaired"] == beside["unpaired"]
    changed = {key for key, value in alone["unpaired"].items()
               if beside["noise_space"][key] != value}  # fmt: skip
    assert changed == {"residual_swapping", "target"}


def test_rows_like_noise_space_follow_it(tmp_path: Path) -> None:
    wider = "methods.noise_space.margin=0.7"
    found = composed(tmp_path, "methods=[noise_space,shuffling]", wider)
    assert found["shuffling"]["margin"] == 0.7


def test_another_preset_than_the_one_held_is_refused(tmp_path: Path) -> None:
    held = tmp_path / "params.yaml"
    require_same_preset([], held)  # there is none
    held.write_text("preset: demo\n")
    require_same_preset([], held)
    held.write_text("seeds:\n- 0\npreset: tiny\n")
    for said in ("preset=tiny", "preset=demo"):
        require_same_preset([said], held)
    with pytest.raises(UserError, match="add preset=tiny to keep it, or preset=demo"):
        require_same_preset(["train.steps=9"], held)


@pytest.mark.parametrize(
    "left", [b"<<<<<<< HEAD\na: 1\n", b"a: 1\na: 2\n", b"\xff\xfe\x00", b"a:\n\t- 1"]
)
def test_what_cannot_be_read_is_written_anew(tmp_path: Path, left: bytes) -> None:
    """Of a merge, of two programs at once: composing is what mends it."""
    broken = tmp_path / "params.yaml"
    broken.write_bytes(left)
    compose([], tmp_path / "composed.yaml")
    (line,) = changes(broken, tmp_path / "composed.yaml")
    assert line.startswith(f"all of it is written anew: {broken}: not valid YAML (")
    assert "\n" not in line
    with pytest.raises(UserError, match="mend it, or write it anew with 'python -m pipeline comp"):
        read_params(broken)


def test_changes_name_keys_of_either_side(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x: {y: 1, z: [1, 2]}\nold: 3\n")
    (tmp_path / "b").write_text("x: {y: 2, z: [1, 2]}\nnew: {a: 1, b: {c: 2}}\n")
    assert changes(tmp_path / "a", tmp_path / "b") == [
        "x.y: 1 -> 2", "old: 3 -> nothing", "new: nothing -> a section of 2 settings",
    ]  # fmt: skip
    assert changes(tmp_path / "none", tmp_path / "b") == []
