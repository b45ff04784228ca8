"""The explorer's page in a browser: the carried network's quickly, the large ones in the second set."""

import base64
import random
from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, TABLET, click, opened, started, until, violations
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np.cli.app import app
from alexnet_np.data.garments import garments
from alexnet_np.presets import PRESETS
from alexnet_np.study.units import activations

BOOT = 0  # the test image that the carried network's pages show
LARGE = ["torchvision", "paper", "d2l"]
NARROW = [f"{preset} narrow" for preset in PRESETS]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in LARGE]
CAT = Path(anp.__file__).parent / "assets" / "cat.jpg"


def explore(out, *arguments):
    result = CliRunner().invoke(app, ["explore", "--out", str(out), *arguments], prog_name="alexnet")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def browser():
    with started() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Makes a network's page when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def page(name):
        if name not in made:
            made[name] = explore(folder / f"{name.replace(' ', '_')}.html", *options(name))
        return made[name]

    return page


def options(name):
    """Of the command, for the carried network, a preset ("paper") or a narrow one ("paper narrow")."""
    if name == "carried":
        return ["--garment", str(BOOT)]
    preset, _, narrow = name.partition(" ")
    return ["--preset", preset, "--weights", "random", *(["--width", "0.0625"] if narrow else [])]


def model_and_input(name):
    if name == "carried":
        (boot,) = [garment for garment in garments() if garment.number == BOOT]
        model = anp.alexnet("d2l", weights="FASHION_MNIST_V1", width=1 / 8).eval()
        return model, anp.preprocess(boot.picture, preset="d2l")
    preset, _, narrow = name.partition(" ")
    return anp.alexnet(preset, seed=0, width=1 / 16 if narrow else 1).eval(), anp.preprocess(CAT, preset=preset)


def layers(page):
    return page.evaluate("nets[0].layers.map(({name, label, kind, shape}) => ({name, label, kind, shape}))")


def result(page):
    """The value done again, the stored one, and how far apart rounding may put them."""
    return [float(page.get_attribute(f"#{name}", "value")) for name in ("value", "stored", "allowed")]


def picked(page, act):
    """Do `act`, which picks a number, and wait for its arithmetic."""
    before = page.evaluate("performance.getEntriesByName('pick').length")
    act()
    until(page, f"performance.getEntriesByName('pick').length > {before}")


def click_at_random(page, chance, every):
    """A layer, a map of it, and a number of that map, all by the mouse. Gives what was asked for."""
    k = chance.randrange(len(every))
    click(page, "#network button", k)
    until(page, f"panel?.k === {k} && document.querySelector('#layer .enlarged canvas') !== null")
    if maps := page.evaluate("document.querySelectorAll('#layer .grid button').length"):
        click(page, "#layer .grid button", chance.randrange(maps))
    place = {"across": chance.uniform(0.001, 0.999), "down": chance.uniform(0.001, 0.999)}
    picked(page, lambda: click(page, "#layer .enlarged canvas", **place))
    return k, page.evaluate("state.at")


@pytest.mark.parametrize("name", ["carried", *SLOW])
def test_random_clicks_sum_up(browser, pages, name):
    """Every number is its terms' sum in float64, within what float32's rounding may do; and it asks for nothing."""
    clicks, chance = (20 if name == "carried" else 200), random.Random(name)
    with opened(browser, pages(name)) as page:
        every, missed = layers(page), []
        for _ in range(clicks):
            k, at = click_at_random(page, chance, every)
            value, stored, allowed = result(page)
            if not abs(value - stored) <= allowed:
                missed.append((every[k]["label"], at, value, stored, allowed))
    assert missed == []


@pytest.mark.slow
def test_200_random_clicks_on_the_carried_network_s(browser, pages):
    chance = random.Random(200)
    with opened(browser, pages("carried")) as page:
        every = layers(page)
        for _ in range(200):
            where = click_at_random(page, chance, every)
            value, stored, allowed = result(page)
            assert abs(value - stored) <= allowed, where


@pytest.mark.slow
@pytest.mark.parametrize("name", ["carried", *LARGE, *NARROW])
def test_its_numbers_are_the_network_s(browser, pages, name):
    """To the bit, those that it does again as well; the fields and the arithmetic are those of anp.study."""
    model, x = model_and_input(name)
    values = activations(model, x)
    chance = random.Random(name)
    to_base64 = """async k => {
      const bytes = new Uint8Array((await nets[0].values(k)).slice().buffer);
      let text = '';
      for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
      return btoa(text);
    }"""
    with opened(browser, pages(name)) as page:
        for k, layer in enumerate(layers(page)):
            shown = np.frombuffer(base64.b64decode(page.evaluate(to_base64, k)), "<f4").reshape(layer["shape"])
            assert np.array_equal(shown, values[layer["name"]]), layer
            if k == 0:
                continue
            for _ in range(3):
                at = [chance.randrange(n) for n in layer["shape"]]
                found = anp.study.explain(model, x, layer["name"], at)
                assert tuple(page.evaluate(f"nets[0].sees({k}, {at})")) == found.receptive_field
                made = page.evaluate(f"arithmetic(nets[0], {k}, {at})")
                assert made["value"] == pytest.approx(found.value, rel=1e-11, abs=1e-11 * found.size), (layer, at)
                assert made["size"] == pytest.approx(found.size, rel=1e-6), (layer, at)


def looked_at(page, name):
    """The page in each of its states, by name."""
    every = layers(page)
    last = {
        kind: max(k for k, layer in enumerate(every) if layer["kind"] == kind) for kind in {e["kind"] for e in every}
    }
    yield "start"
    for kind, k in sorted(last.items()):
        at = [n // 2 for n in every[k]["shape"]]
        page.evaluate(f"pick(0, {k}, {at})")
        yield kind
    for method in "0", "2":
        page.select_option("#picture select", method)
        page.wait_for_selector("#picture .because .note")  # which says so where the map is 0 everywhere
        yield f"why{method}"
    page.select_option("#picture select", "")
    page.evaluate("pick(0, 1, [1, 0, 0])")  # at the border, where the padding is
    yield "border"
    for k in 1, last["conv"]:
        page.evaluate(f"state.view = 'filters'; openLayer({k})")
        page.wait_for_selector("#layer .frame.still")
        yield f"filters{k}"


@pytest.mark.slow
def test_a_fault_would_be_found(browser, pages):
    """By axe-core, in a page that has one."""
    with opened(browser, pages("carried")) as page:
        page.evaluate("document.querySelector('#theme').setAttribute('aria-label', '')")
        page.evaluate("document.querySelector('#theme').textContent = ''")
        assert any("button-name" in found for found in violations(page))


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, TABLET, PHONE], ids=["desktop", "tablet", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["carried", *LARGE])
def test_everybody_can_use_it(browser, pages, name, scheme, size, request, tmp_path):
    """axe-core finds nothing wrong in any state, nothing is wider than the window; screenshots are left to look at."""
    folder = Path(request.config.getoption("--screenshots") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    with opened(browser, pages(name), size, scheme) as page:
        for state in looked_at(page, name):
            page.screenshot(path=folder / f"{name}-{size[0]}-{scheme}-{state}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= size[0], state
            if size != TABLET:
                assert violations(page) == [], state


def press(page, key, times=1):
    for _ in range(times):
        page.keyboard.press(key)


def tab_to(page, selector):
    """Press Tab until an element that fits has the focus."""
    for _ in range(300):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["carried", *LARGE])
def test_from_a_logit_to_a_pixel_by_the_keyboard_alone(browser, pages, name):
    with opened(browser, pages(name)) as page:
        tab_to(page, "#picture .guesses button")
        picked(page, lambda: press(page, "Enter"))
        assert page.inner_text("#sum-title").startswith("softmax[")
        trail = []
        while page.evaluate("state.k") > 0:
            trail.append(page.evaluate("nets[0].layers[state.k].label"))
            assert page.evaluate("document.activeElement.id") == "sum-title"  # reading goes on from here
            value, stored, allowed = result(page)
            assert abs(value - stored) <= allowed
            kind = page.evaluate("nets[0].layers[state.k].kind")
            if kind == "conv":  # a pixel of the patch: the first that is not padding
                tab_to(page, "#sum .tiles")
                press(page, "ArrowRight", 3)
                press(page, "ArrowDown", 3)
            elif kind == "dense":
                tab_to(page, "#sum .largest button")
            else:
                tab_to(page, "#sum .into, #sum .tiles, #sum .bars button")
            picked(page, lambda: press(page, "Enter"))
        assert [label for label in trail if label.startswith(("fc", "conv"))][-1] == "conv1"
        assert page.inner_text("#sum-title").startswith("input[")
        for label in reversed(trail):  # and back
            picked(page, lambda: press(page, "Backspace"))
            assert page.inner_text("#sum-title").startswith(f"{label}[")


@pytest.mark.slow
def test_on_a_map_and_among_maps_by_the_keyboard(browser, pages):
    with opened(browser, pages("carried")) as page:
        tab_to(page, "#network button")
        press(page, "ArrowRight", 3)
        press(page, "Enter")
        until(page, "panel?.k === 4")
        tab_to(page, "#layer .frame")
        press(page, "ArrowRight", 6)  # the first one begins at the corner
        press(page, "ArrowDown", 2)
        assert "conv2[0, 2, 5]" in page.inner_text("#live")
        picked(page, lambda: press(page, "Enter"))
        assert page.evaluate("state.at") == [0, 2, 5]
        picked(page, lambda: press(page, "]"))
        assert page.evaluate("state.at") == [1, 2, 5]
        tab_to(page, "#layer .grid button")
        press(page, "ArrowRight")
        picked(page, lambda: press(page, "Enter"))
        assert page.evaluate("state.at") == [2, 2, 5]


def test_what_a_class_comes_from_is_laid_over_the_picture_by_the_keyboard(browser, pages):
    pixels = """() => {
      const {data} = document.querySelector('.why').getContext('2d').getImageData(0, 0, 224, 224);
      return [[4, 143], [200, 60]].map(([x, y]) => [...data.slice(4 * (224 * y + x), 4 * (224 * y + x + 1))]);
    }"""
    with opened(browser, pages("carried")) as page:
        tab_to(page, "#picture select")
        assert not page.is_visible(".why")
        press(page, "ArrowDown")
        page.wait_for_selector("#picture .because .legend")
        assert page.is_visible(".why") and "Grad-CAM: the maps before" in page.inner_text("#picture .because")
        toe, corner = page.evaluate(pixels)
        assert toe == [240, 249, 33, 255] and corner[3] == 0  # the brightest colour, and nothing
        press(page, "ArrowUp")
        until(page, "document.querySelector('.why').hidden")
        assert not page.is_visible("#picture .because .legend")


@pytest.mark.slow
def test_the_browser_itself_refuses_every_request(browser, pages):
    with pytest.raises(AssertionError, match="Content Security Policy"), opened(browser, pages("carried")) as page:
        tries = """() => new Promise(done => {
          document.addEventListener('securitypolicyviolation', event => done(event.effectiveDirective));
          fetch('https://example.org/').catch(() => {});
        })"""
        assert page.evaluate(tries) == "connect-src"


@pytest.mark.slow
def test_light_and_dark_at_a_click(browser, pages):
    with opened(browser, pages("carried")) as page:
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == light


@pytest.mark.slow
def test_two_side_by_side(browser, tmp_path):
    """The same network on two garments: its weights are kept once, its maps are shown with their difference."""
    file = explore(tmp_path / "both.html", "--garment", "0", "--compare", "8")
    assert file.stat().st_size < 1.5e6
    with opened(browser, file, PHONE, "dark") as page:
        page.evaluate("pick(0, 4, [3, 10, 11])")
        page.wait_for_selector("#sum .result")
        assert page.locator("#layer .enlarged canvas").count() >= 3
        a, b, difference = (float(t.replace("−", "-")) for t in page.locator("#layer .read b").all_inner_texts())
        assert difference == pytest.approx(b - a, abs=1e-5)
        assert violations(page) == []
        page.click("#sum .into:has-text('the same number of B')")
        until(page, "state.n === 1 && document.querySelector('#value')")
        assert result(page)[1] == pytest.approx(b, abs=1e-5)


@pytest.mark.slow
def test_two_presets_side_by_side(browser, tmp_path):
    """Where the two have different layers there is no difference to show, and a layer that one lacks stands alone."""
    file = explore(tmp_path / "both.html", "--weights", "random", "--width", "0.125", "--compare", "paper")
    with opened(browser, file) as page:
        for n, net in enumerate(page.evaluate("nets.map(net => net.layers.map(({shape}) => shape))")):
            for k, shape in enumerate(net):
                page.evaluate(f"pick({n}, {k}, {[side // 2 for side in shape]})")
                value, stored, allowed = result(page)
                assert abs(value - stored) <= allowed
        assert violations(page) == []
