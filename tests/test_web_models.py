"""The Models and runs screen in a real browser: what the command line says, and a training run as it goes on."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import toy_bundle
from attar.apps.cli import cli
from attar.codec import bundle
from attar.train.config import TrainConfig
from attar.train.live import Status
from test_web_runs import write_run
from training_kit import start, write_model
from web_browser import Page


@pytest.fixture(autouse=True)
def empty(runs_folder: Path) -> Iterator[None]:
    """No run is left to the next test."""
    yield
    for path in runs_folder.iterdir():
        shutil.rmtree(path)


def facts(page: Page, place: str) -> dict[str, str]:
    page.find(f"{place} .facts")
    words: list[str] = page.run(
        "return [...document.querySelector(`${arguments[0]} .facts`).children].map(e => e.innerText)", place
    )
    return dict(zip(words[::2], words[1::2], strict=True))


def words(page: Page, selector: str) -> list[str]:
    found: list[str] = page.run(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", selector
    )
    return found


def charts(page: Page) -> dict[str, str]:
    """The sentence below each chart, by the chart's name."""
    page.find("#charts .chart")
    return dict(zip(words(page, ".chart h2"), words(page, ".chart p"), strict=True))


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def expected(rows: list[dict[str, float]]) -> dict[str, str]:
    last = rows[-1]
    now = f"after epoch {len(rows)}"
    best = {
        key: choose(rows, key=lambda row: row[key])
        for key, choose in (("val_loss", min), ("val_psnr", max), ("val_ssim", max))
    }

    def line(key: str, digits: int, unit: str = "") -> str:
        at = best[key]
        return (
            f"{last[key]:.{digits}f}{unit} {now}; best {at[key]:.{digits}f}{unit} at epoch {at['epoch']:.0f}"
        )

    return {
        "Loss": line("val_loss", 5),
        "PSNR, dB": line("val_psnr", 2, " dB"),
        "SSIM": line("val_ssim", 4),
        "Rate, bits per pixel": f"{last['val_rate']:.4f} bits per pixel {now}",
    }


def test_a_bundle_is_told_as_the_command_line_tells_it(page: Page) -> None:
    done = CliRunner().invoke(cli, ["models", "show", "digits", "--json"])
    row: dict[str, Any] = json.loads(done.stdout)
    page.open("#/models")
    shown = facts(page, "#model-digits")
    assert page.find("#model-digits h2").text == f"{row['name']} version {row['version']}"
    training = row["training"]
    assert shown == {
        "Takes": row["accepts"],
        "Quality": "a single rate",
        "Trained on": training["dataset"],
        "For": f"{training['epochs']} epochs, {training['steps']:,} steps",
        "Validation": f"{training['validation_psnr']:.2f} dB, SSIM {training['validation_ssim']:.4f}, "
        f"{training['validation_rate']:.3f} bits per pixel",
        "Licence": row["licence"],
        "Latent": f"{row['latent']['channels']} channels, {row['tables']} tables",
        "Networks": ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in row["graphs"].items()),
        "Installed": f"digits.attarmodel, {row['bytes'] / 1e6:.2f} MB, came with Attar",
        "Id": f"{row['id'][:8]} of SHA-256 {row['id']}",
    }
    page.run("document.querySelectorAll('#model-digits summary').forEach(s => s.click())")
    layers = words(page, "#model-digits .layers tbody th")
    blocks = row["model"]["model"]["layers"]["generator"]["layers"]
    wanted = [next(iter(layer)) for part in ("encoder", "decoder") for layer in blocks[part]["layers"]]
    assert layers == wanted
    assert "added on this machine" in facts(page, "#model-toy-photo")["Installed"]
    page.check()


def test_a_bundle_of_variable_rate_shows_its_curve_and_a_broken_one_its_fault(
    page: Page, photo_bundle: Path
) -> None:
    points = {
        f"validation_rd_{what}_{k}": v + k for k in range(3) for what, v in (("bpp", 0.25), ("psnr", 30))
    }
    rated = photo_bundle.parent / "rated.attarmodel"
    broken = photo_bundle.parent / "broken.attarmodel"
    manifest = toy_bundle.photo_manifest(training=points, description="<img src=x onerror=alert(1)>")
    bundle.write(rated, manifest=manifest, graphs=toy_bundle.photo_graphs(), tables=toy_bundle.photo_tables())
    broken.write_bytes(rated.read_bytes()[:500])
    try:
        page.open("#/models")
        caption = page.find("#model-rated figcaption").text
        assert caption == "From 30.0 dB at 0.25 bits per pixel to 32.0 dB at 2.25, on the validation images."
        assert page.run("return document.querySelectorAll('#model-rated svg circle').length") == 3
        assert "<img src=x" in page.find("#model-rated").text
        assert "broken" in page.find("[aria-label=broken] .fault").text
        assert str(photo_bundle.parent) not in page.find("#models").text
        page.check()
    finally:
        rated.unlink()
        broken.unlink()


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 390)])
def test_a_real_run_is_shown_in_its_own_numbers(
    page: Page, runs_folder: Path, tiny_run: Path, theme: str, width: int
) -> None:
    shutil.copytree(tiny_run, runs_folder / "digits")
    page.open("#/models", theme=theme, width=width)
    assert charts(page) == expected(history(tiny_run))
    assert words(page, "#runs a strong") == ["digits"]
    assert page.find("#state").text == "\u2713 finished"
    assert page.find("#told").text == "step 32 of 32 \u00b7 2 of 2 epochs"
    page.find("#run summary").click()
    rows = page.run(
        "return [...document.querySelectorAll('#history tr')].map(r => [...r.cells].map(c => c.innerText))"
    )
    for shown, row in zip(rows[1:], history(tiny_run), strict=True):
        assert [float(value) for value in shown] == [row[name] for name in rows[0]]
    picture = page.until(
        lambda: page.run("const i = document.querySelector('#sample'); return i.naturalWidth && i.src"),
        "samples",
    )
    assert "/samples/2?" in picture
    page.check()


def test_one_slider_moves_the_samples_and_the_marks_with_keys(
    page: Page, runs_folder: Path, tiny_run: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    shutil.copytree(tiny_run, runs_folder / "digits")
    page.open("#/models")
    slider = page.find("#epoch")
    row = history(tiny_run)[0]
    slider.send_keys(Keys.ARROW_LEFT)
    assert page.find("#at").text == (
        f"Epoch 1 (step 16): {row['val_psnr']:.2f} dB, SSIM {row['val_ssim']:.4f} on all validation images"
    )
    page.until(lambda: "/samples/1?" in page.run("return document.querySelector('#sample').src"), "epoch 1's")
    assert page.run("return document.querySelectorAll('#charts .cursor').length") == 4
    assert "epoch=1" in page.driver.current_url
    assert slider.get_attribute("aria-valuetext") == "Epoch 1"
    page.open(page.driver.current_url.split("/", 3)[3])  # the state is in the address
    assert page.find("#at").text.startswith("Epoch 1 ")
    page.find("#epoch").send_keys(Keys.END)
    assert page.find("#at").text.startswith("Epoch 2 ")
    assert "epoch=" not in page.driver.current_url


def test_a_training_run_of_another_process_is_seen_live(
    page: Page, runs_folder: Path, tmp_path: Path
) -> None:
    write_run(runs_folder / "an-old-one", 2)
    page.open("#/models")
    page.until(lambda: page.find("#live").text == "\u25cf Live", "it listens")
    page.until(lambda: words(page, "#runs a strong") == ["an-old-one"], "the old run")
    model = write_model(tmp_path / "model.json")
    run = runs_folder / "live"
    options = ("--limit", 512, "--epochs", 4000, "--warmup", 0, "--patience", 0, "--verbosity", 0)
    with start("train", "--model", model, "-o", run, *options) as training:
        try:
            page.until(lambda: words(page, "#runs a strong")[:1] == ["live"], "the new run", seconds=60)
            page.driver.find_element("css selector", "#runs a").click()
            page.until(lambda: page.find("#state").text == "\u25cf training", "it is training", seconds=30)
            page.until(lambda: page.run("return document.querySelectorAll('.chart').length") == 4, "charts")
            before = charts(page)["Loss"]
            page.until(lambda: charts(page)["Loss"] != before, "the loss moves by itself", seconds=30)
            page.until(lambda: "steps/s" in page.find("#told").text, "its speed", seconds=30)
            assert "has ended" in page.run("return document.getElementById('announce').textContent")
        finally:
            training.send_signal(signal.SIGINT)
            training.communicate(timeout=60)
    page.until(lambda: page.find("#state").text == "\u25a0 interrupted", "its end is told", seconds=30)
    page.until(lambda: charts(page) == expected(history(run)), "the last numbers", seconds=30)
    assert "attar train --resume --run-dir live" in page.find("#run .code").text
    assert not page.driver.get_log("browser")


def test_a_list_that_changes_keeps_the_focus(page: Page, runs_folder: Path) -> None:
    write_run(runs_folder / "first", 1)
    page.open("#/models")
    link = page.find("#runs a")
    page.run("arguments[0].focus()", link)
    write_run(runs_folder / "second", 1, Status("training", 1, 3, 15, 30, 0.5, 20.0, 0.9, 2.0, 240.0, None))
    page.until(lambda: len(words(page, "#runs a")) == 2, "two runs")
    assert page.find("#run h2").text == "first"  # what is looked at stays
    page.until(
        lambda: page.run("return document.activeElement.innerText.includes('first')"), "the focus stays"
    )
    link = page.driver.find_elements("css selector", "#runs a")[0]
    link.send_keys("\n")
    told = page.until(lambda: "left" in page.find("#told").text and page.find("#told").text, "where it is")
    assert told == (
        "step 15 of 30 \u00b7 1 of 3 epochs \u00b7 2.00 steps/s \u00b7 4 min left \u00b7 "
        "this epoch so far: loss 0.5000, 20.00 dB, SSIM 0.9000"
    )


def test_names_and_faults_are_text_and_no_code(page: Page, runs_folder: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    run = write_run(runs_folder / name, 1)
    (run / "history.csv").write_text("<script>alert(1)</script>\n")
    page.open("#/models")
    page.until(lambda: words(page, "#runs a strong") == [name], "its name")
    assert page.find("#run h2").text == name
    assert page.find("#state").text == "\u2717 unreadable"
    assert "does not begin with the names of its columns" in page.find("#run .fault").text
    page.check()


def test_a_run_of_variable_rate_has_a_curve_beside_its_rivals(page: Page, runs_folder: Path) -> None:
    run = write_run(runs_folder / "photo", 0)
    names = [f"rd_{what}_{k}" for k in range(3) for what in ("bpp", "psnr")]
    lines = [",".join(["epoch", "step", "val_loss", "val_psnr", *names])]
    lines += [f"{e},{e},{9 - e},{20 + e},0.1,{24 + e},0.5,{27 + e},1.5,{30 + e}" for e in (1, 2)]
    (run / "history.csv").write_text("\n".join(lines) + "\n")
    (run / "rivals.json").write_text(json.dumps({"jpeg": [[0.4, 28.0], [1.2, 33.0]], "avif": [[0.2, 29.0]]}))
    page.open("#/models")
    told = page.until(lambda: charts(page).get("Rate and distortion"), "the curve")
    assert told == (
        "At epoch 2, from 26.0 dB at 0.10 bits per pixel to 32.0 dB at 1.50; "
        "beside it, in gray, files of jpeg and avif."
    )
    assert (
        page.run("return document.querySelectorAll('[aria-label=\"Rate and distortion\"] circle').length")
        == 6
    )
    page.check()


def test_every_measure_of_a_run_has_a_chart(page: Page, runs_folder: Path) -> None:
    run = write_run(runs_folder / "gan", 2)
    text = (
        (run / "history.csv")
        .read_text()
        .replace("ssim,bytes", "ssim,discriminator")
        .replace(",30,", ",0.25,")
    )
    (run / "history.csv").write_text(text)
    page.open("#/models")
    page.until(lambda: "Discriminator" in charts(page), "its chart")
    assert charts(page)["Discriminator"] == "0.2500 in epoch 2, training images"
    page.check()


def test_no_run_and_a_wrong_address_say_what_to_do(page: Page, runs_folder: Path) -> None:
    page.open("#/models?run=000000000000")
    page.until(lambda: "attar serve --runs DIR" in page.find("#no-runs").text, "what to do")
    write_run(runs_folder / "one", 1, None, epochs=1, **{"seed": 3})
    page.until(lambda: words(page, "#runs a strong") == ["one"], "a run")
    assert "not, or no longer, in the folder" in page.find("attar-models").text
    page.find("#runs a").click()
    assert page.find("#run h2").text == "one"
    page.run("document.querySelectorAll('#run summary')[1].click()")
    options = facts(page, "#run")
    config = json.loads(TrainConfig(epochs=1, seed=3).to_json())
    assert {key.replace(" ", "_") for key in options} == config.keys() - {"data_dir"}
    assert (options["seed"], options["batch size"]) == ("3", "32")
