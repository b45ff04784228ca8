"""What a weight file is: its arrays, whose network they are and by which evidence, and how to feed it.

inspect("bvlc_alexnet.caffemodel")     no number in it is read
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from alexnet_np import identification
from alexnet_np.data import mean_image
from alexnet_np.data.recipe import Preprocessing
from alexnet_np.description import Description
from alexnet_np.errors import WeightsError
from alexnet_np.identification import Verdict
from alexnet_np.identity import build
from alexnet_np.outline import comparable
from alexnet_np.presets import describe
from alexnet_np.text import quoted, several
from alexnet_np.weights import finding, seal
from alexnet_np.weights.fitting import fit
from alexnet_np.weights.inspecting import Listed, listed, listed_fit
from alexnet_np.weights.leaves import Contents
from alexnet_np.weights.lrn import in_every_dialect
from alexnet_np.weights.steps import Step


@dataclass(frozen=True)
class Inspection:
    """All that is known of a file without reading its numbers."""

    arrays: Listed
    said: Description | None  # the one network that it is; None where nothing tells
    verdict: Verdict
    input: Preprocessing | None  # what the network is fed with; None where nobody knows, or where candidates differ
    norms: list[tuple[list[str], Step]]  # the layers that normalise, by their constants: as the file has them

    def to_json(self) -> dict[str, Any]:
        norms = [
            {
                "layers": names,
                "region": each.settings["region"],
                "groups": each.settings["groups"],
                "convention": each.settings["convention"],
                "dialects": in_every_dialect(each),
            }
            for names, each in self.norms
        ]
        return {
            "format": self.arrays.format,
            "preset": self.said and self.said.preset,
            "other": self.verdict.other,
            "why": self.verdict.why,
            "candidates": list(self.verdict.possible),
            "excluded": self.verdict.excluded,
            "network": self.said and self.said.to_json(),
            "input": self.input and {"size": self.input.shape, **_plain(self.input)},
            "lrn": norms,
            "where": self.arrays.where,
            "left": self.arrays.left,
            "parameters": self.arrays.parameters,
            "arrays": [row._asdict() for row in self.arrays.rows],
        }

    def words(self) -> list[str]:
        """The same in lines, but for the arrays and the normalisations; what proves one stands indented below it."""
        arrays, verdict = self.arrays, self.verdict
        lines = [f"File: {arrays.format}" + (f", taken from {quoted(arrays.where)}" if arrays.where else "")]
        beside = quoted(mean_image.NAME) if self.input is not None and self.input.mean_image is not None else None
        if left := [each for each in arrays.left if beside is None or not each.startswith(beside)]:
            lines.append(f"Not taken: {several(left)}")
        if self.said is not None:
            lines.append(f"Network: {self.said}")
        elif verdict.possible or verdict.dense:
            lines.append(
                f"Network: {identification.either(verdict.possible or verdict.dense)}: name it when you load it"
            )
        elif verdict.other is not None:
            lines.append(f"Network: {verdict.other}, none of the presets")
        elif verdict.excluded:
            lines.append("Network: none that is known: its layers are those of no preset")
        else:
            lines.append("Network: none that is known, at any width")
        lines += [f"  {each}" for each in verdict.why]
        return lines if self.input is None else [*lines, f"Input: {_fed(self.input)}"]


def _fed(recipe: Preprocessing) -> str:
    """How the network is fed."""
    resized = f"warped to {recipe.resize}x{recipe.resize}" if recipe.warp else f"resized to {recipe.resize}"
    resized += "" if recipe.resizing == "bilinear" else f" ({recipe.resizing}, as OpenCV does)"
    resized += f", stored as JPEG of quality {recipe.jpeg}" if recipe.jpeg else ""
    pixels = f"bytes / {recipe.scale:g}" if recipe.scale != 1 else "bytes"
    kind = "mean" if recipe.mean_image is None else "a mean image, of mean"
    mean = f" - {kind} ({_row(recipe.mean)})" if any(recipe.mean) else ""
    std = f", / std ({_row(recipe.std)})" if set(recipe.std) != {1} else ""
    return f"{recipe.crop}x{recipe.crop} {recipe.mode}, {resized} and cropped; {pixels}{mean}{std}"


def _plain(recipe: Preprocessing) -> dict[str, Any]:
    return {**recipe._asdict(), "mean_image": recipe.mean_image and recipe.mean_image.at}


def _row(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def inspect(source: str | os.PathLike[str], part: str | None = None) -> Inspection:
    """Of a file, a run's folder, or published weights; `part`: which weights, where a file holds several.

    Raises WeightsError where it is no weight file, and where two sets of weights could be meant.
    """
    with identification.contents_of(source) as contents:
        contents = finding.only(contents, part)
        said, published = identification.said_in(contents), identification.published_as(source)
        if said is not None:
            verdict = Verdict({said.preset: identification.sizes_of(said)}, ["the file says so itself"], {}, {})
        else:
            verdict = identification.judge(contents)
            if published is not None:
                why = [*verdict.why, "published as such"]
                verdict = Verdict({published: verdict.possible[published]}, why, verdict.excluded, {})
            if verdict.preset is not None:
                said = describe(verdict.preset, *verdict.possible[verdict.preset])
        candidates = [describe(name, *sizes) for name, sizes in verdict.possible.items()] if said is None else [said]
        recipes = {each.preprocessing for each in candidates}
        return Inspection(
            _arrays(contents, verdict),
            said,
            verdict,
            next(iter(recipes)) if len(recipes) == 1 else None,
            _norms(contents, said),
        )


def _arrays(contents: Contents, verdict: Verdict) -> Listed:
    """What read() takes; where that could be several, what loading into the preset takes."""
    try:
        return listed(contents)
    except WeightsError:
        if not verdict.possible:
            raise
        name, sizes = next(iter(verdict.possible.items()))
        return listed_fit(contents, fit(contents, identification.wanted(name, sizes)))


def _norms(contents: Contents, said: Description | None) -> list[tuple[list[str], Step]]:
    """The normalisations that the file has, or the network; layers of the same constants together."""
    is_ours = said is not None and (seal.KEY in contents.metadata or not contents.steps)
    steps = comparable(build(said).leaves()) if said is not None and is_ours else contents.steps
    found: list[tuple[list[str], Step]] = []
    for each in steps:
        if each.kind == "lrn":
            same = next((names for names, other in found if other.settings == each.settings), None)
            if same is None:
                found.append(([each.name], each))
            else:
                same.append(each.name)
    return found
