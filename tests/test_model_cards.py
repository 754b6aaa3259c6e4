import json

import pytest
from PIL import Image

from course_lib import export, model_cards, ssd
from course_lib.files import DataError
from course_lib.runs import RunError


def test_a_card_without_a_run_claims_nothing(tmp_path):
    export.save_pretrained(ssd.ssd_mini(3, ("cat", "dog")), tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "It was not measured." in card and "AP" not in card and "license" not in card and "Recipe" not in card


def test_a_card_never_stands_for_other_weights_or_another_epoch(a_run, tmp_path):
    model, run = a_run
    others = ssd.ssd_mini(3, ("cat", "a | b"))
    with pytest.raises(RunError, match=r"best\.safetensors holds other weights than the model"):
        export.save_pretrained(others, tmp_path / "hub", run)
    provenance = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps(provenance | {"best_epoch": 8}))
    with pytest.raises(RunError, match=r"evaluation_area\.json is of an earlier epoch: python -m course_lib evaluate"):
        export.save_pretrained(model, tmp_path / "hub", run)
    (run / "evaluation_area.json").unlink()
    export.save_pretrained(model, tmp_path / "hub", run)
    assert "It was not measured." in (tmp_path / "hub" / "README.md").read_text()


@pytest.mark.parametrize("content", ["no JSON", "[]", "{}", '{"mean_ap": 0.5}'])
def test_a_report_that_is_broken_is_named(a_run, tmp_path, content):
    model, run = a_run
    (run / "evaluation_area.json").write_text(content)
    with pytest.raises(DataError, match=r"evaluation_area\.json: report is .*measure again"):
        export.save_pretrained(model, tmp_path / "hub", run)
    assert not (tmp_path / "hub").exists()


def test_the_code_of_a_card_runs(tmp_path, monkeypatch, capsys):
    model = ssd.ssd_mini(3, ("cat", "dog"))
    model.scoring = "sigmoid"
    for head in model.conf_heads:
        head.bias.data[:] = 3.0  # sure of everything
    export.save_pretrained(model, tmp_path / 'my "hub"')
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    card = (tmp_path / 'my "hub"' / "README.md").read_text()
    exec(card.partition("```python\n")[2].partition("```")[0], {})
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} <= {"cat", "dog"}


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"profile": "cpu", "training_images": 1800}, "1,800 pictures: those of the profile `cpu`."),
        ({"profile": "gpu", "devkit": "/home/me/VOCdevkit"}, "Pictures of VOCdevkit, as the profile `gpu` takes them."),
        (
            {"data": {"tree": "/home/me/my|birds", "train_on": "train", "select_on": "val"}},
            "the list `train` of a tree my\\|birds; its epoch was chosen on `val`.",
        ),
        ({"data": {"tree": "/home/me/b", "train_on": "t", "select_on": None}}, "of a tree b; the last epoch was kept."),
    ],
)
def test_a_card_says_what_a_model_learned_from_and_no_folder_above_it(provenance, said):
    card = model_cards.model_card(ssd.ssd_mini(3), "me/birds", provenance)
    assert said in card and "/home/me" not in card
    assert "None was given: ask" in card and 'export.from_pretrained("me/birds")' in card


def test_a_name_of_a_class_cannot_break_a_card():
    card = model_cards.model_card(ssd.ssd_mini(3, ("<b>\n# x", "a | b")), "me/x")
    assert "It finds: &lt;b&gt; # x, a \\| b." in card and "\n# x" not in card
