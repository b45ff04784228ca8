"""The README's Python runs as it stands, and its first screen says the same as torchvision's beside it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import shutil
from pathlib import Path

import pytest

import alexnet_np as anp
from alexnet_np.study.verify import import_torchvision
from alexnet_np.weights import registry

torch = pytest.importorskip("torch")
README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A weight file in torch.hub's cache with the published name, and a registry that expects this very file."""
    entry = registry.ENTRIES["IMAGENET1K_V1"]
    path = tmp_path / "hub" / "checkpoints" / entry.file
    path.parent.mkdir(parents=True)
    state = {name: torch.from_numpy(array) for name, array in anp.alexnet(seed=0).state_dict().items()}
    torch.save(state, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(registry.ENTRIES, "IMAGENET1K_V1", entry._replace(size=path.stat().st_size, sha256=digest))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("ALEXNET_NP_HOME", str(tmp_path / "ours"))
    shutil.copy(Path(anp.__file__).parent / "assets" / "cat.jpg", tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)


def printed(code: str, names: dict) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, str(README), "exec"), names)
    return out.getvalue()


def test_readme_python_runs_and_agrees_with_torchvision(published):
    import_torchvision()
    ours, theirs, *rest = BLOCKS
    assert printed(ours, {}) == printed(theirs, {})
    names: dict = {}
    for block in rest:
        printed(block, names)
    assert names["embedding"].shape == (1, 4096)
    assert names["model"].num_classes == 10
    assert sum(p.data.size for p in names["small"].parameters()) == 737_506


@pytest.mark.parametrize("page", ["README.md", "kernels/README.md"])
def test_links_lead_somewhere(page):
    path = README.parent / page
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#:]+)\)", prose)
    assert targets
    for target in targets:
        assert (path.parent / target).exists(), target


def test_every_kernel_is_in_the_table():
    folder = README.parent / "kernels"
    table = (folder / "README.md").read_text(encoding="utf-8")
    for path in sorted(folder.glob("*_numba.py")) + sorted(folder.glob("*.cu")):
        assert f"({path.name})" in table, path.name
