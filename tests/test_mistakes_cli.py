"""Mistakes at the command line: each is one line on standard error, and its remedy works when it is followed.

A row is what was typed, a part of the line that answers it, and the remedy: what to type instead, where that can be
run here, in a folder with a picture, a text, a network's file and a finished run.
"""

import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import alexnet_np as anp
from alexnet_np.cli.app import app
from alexnet_np.weights import registry

TINY = "--dataset synthetic --limit 8 --image-size 67 --width 0.03125 -b 8 --epochs 1 --backend numpy"
SEEN = "classify cat.jpg -k 1 -b 1 --backend numpy -w narrow.npz"
ATTRIBUTE = "attribute --garment 0 -o a.png"
PATCHES = "patches cat.jpg -w narrow.npz -o p.png --backend numpy"
INDEX = "explain --garment 0 --layer features.0"

MISTAKES = [
    # the command
    ("clasify cat.jpg", "Did you mean 'classify'?", SEEN),
    ("sumary", "Did you mean 'summary'", "summary --width 0.05"),
    ("weights lst", "Did you mean 'list'?", "weights list"),
    ("weights inspekt narrow.npz", "Did you mean 'inspect'?", "weights inspect narrow.npz"),
    ("bench kernel", "Did you mean 'kernels'?", "bench kernels --help"),
    ("nonsense", "see alexnet --help", "--help"),
    ("--nonsense", "no such option: --nonsense; see alexnet --help", "--help"),
    # options
    ("classify", "no IMAGE: name files, folders, or a list", SEEN),
    ("classify cat.jpg --topk 3", "did you mean --top?", f"{SEEN} --top 3"),
    ("classify cat.jpg --top 0", "'--top' / '-k': must be greater than or equal to 1", f"{SEEN} --top 1"),
    ("classify cat.jpg --top three", "must be a valid integer", f"{SEEN} --top 3"),
    ("classify cat.jpg --batch-size 0", "must be greater than or equal to 1", f"{SEEN} --batch-size 1"),
    ("classify cat.jpg -w random --seed -1", "'--seed': must be greater than or equal to 0", f"{SEEN} --seed 0"),
    ("summary --width a", "'--width': must be a valid number", "summary --width 0.05"),
    ("summary --batch 0", "must be greater than or equal to 1", "summary --width 0.05 --batch 1"),
    ("walk cat.jpg notes.txt --width 0.1", "unexpected extra argument(s) (notes.txt)", "walk cat.jpg --width 0.1"),
    ("train --out r --optimizer adam", "no such option: --optimizer; see alexnet train --help", "train --help"),
    ("train --out r --lr fast", "'--lr': must be a valid number", f"train --out lr --lr 0.01 {TINY}"),
    ("train --out r --epochs 0", "must be greater than or equal to 1", f"train --out epochs {TINY}"),
    ("bench kernels --op foo", "foo", None),
    ("bench kernels --roofline roof.gif", "a picture is written as .png", None),
    ("bench kernels --rounds 1", "'--rounds': must be greater than or equal to 3", None),
    ("bench kernels --device tpu", "'tpu' is not one of 'cpu', 'gpu'", None),
    # weights and networks
    ("classify cat.jpg", "or do without by --weights random", "classify cat.jpg -w random -p d2l --backend numpy"),
    ("classify cat.jpg -w nowhere.pth", "nor a file nor one of the published weights", SEEN),
    ("classify cat.jpg -w notes.txt", "is not a weight file of a known format; supported: .pth", SEEN),
    ("classify cat.jpg --preset vgg", "choose one of torchvision, paper, ", f"{SEEN} --preset torchvision"),
    ("classify cat.jpg --preset paper", "no published weights for 'paper'", f"{SEEN} --preset torchvision"),
    (f"{SEEN} --backend tpu", "choose one of auto, numpy", f"{SEEN} --backend numpy"),
    ("walk --width 0.1 --backend tpu", "choose one of numpy", "walk --width 0.1 --backend numpy"),
    ("summary --preset alex", "choose one of torchvision, paper, ", "summary --preset d2l --width 0.05"),
    ("summary --size 10 --width 0.05", "the smallest input is 63x63", "summary --size 63 --width 0.05"),
    ("summary -p d2l --size 10 --width 0.05", "the smallest input is 67x67", "summary -p d2l --size 67 --width 0.05"),
    ("summary --width 0", "must be positive", "summary --width 0.05"),
    ("walk --width nan", "must be a finite number", "walk --width 0.05"),
    ("verify --dtype float16", "float32 or float64", "verify --dtype float64 --width 0.05 --size 63"),
    ("verify --size 20 --width 0.1", "the smallest input is 63x63", "verify --size 63 --width 0.05"),
    ("weights inspect notes.txt", "is not a weight file of a known format", "weights inspect narrow.npz"),
    ("weights convert narrow.npz", "missing argument", "weights convert narrow.npz narrow.safetensors"),
    (
        "weights convert narrow.npz copy.xyz",
        "weights are written as .safetensors",
        "weights convert narrow.npz copy.npz",
    ),
    ("weights convert narrow.npz b.npz --part model", "there are 'features.0.weight'", None),
    ("weights download VGG", "choose one of IMAGENET1K_V1, FASHION_MNIST_V1", "weights download FASHION_MNIST_V1"),
    # pictures to read
    (SEEN.replace("cat.jpg", "nowhere.jpg"), "nowhere.jpg: no such file or folder", SEEN),
    (SEEN.replace("cat.jpg", "notes.txt"), "notes.txt: not an image", SEEN),
    (SEEN.replace("cat.jpg", "empty"), "empty: no images in this folder (of .avif", SEEN),
    ("walk nowhere.jpg --width 0.1", "nowhere.jpg: no such file", "walk cat.jpg --width 0.1"),
    ("demo --image nowhere.jpg", "nowhere.jpg: no such file", None),
    # what to look at
    ("explain", "--at MAP,ROW,COLUMN of a layer of maps, or --unit N of a dense", f"{INDEX} --at 1,2,3"),
    (f"{INDEX} --at a,b,c", "as in 7,5,9", f"{INDEX} --at 7,5,9"),
    (f"{INDEX} --at 0,0", "an index is map,row,column, got 2 numbers", f"{INDEX} --at 0,0,0"),
    (f"{INDEX} --at 0,999,0", "is outside its shape 12x54x54", f"{INDEX} --at 0,53,0"),
    ("explain --garment 0 --layer features.99 --unit 0", "did you mean features.9", None),
    ("explain --garment 5 --unit 1", "the carried ones are 0 (ankle boot)", "explain --garment 0 --unit 1"),
    ("explain cat.jpg --garment 0 --unit 1", "give an image or --garment, not both", "explain --garment 0 --unit 1"),
    ("explain --garment 0 --unit 1 --terms -1", "must be greater than or equal to 0", None),
    (f"{ATTRIBUTE} -m salency", "did you mean saliency", f"{ATTRIBUTE} -m saliency"),
    (f"{ATTRIBUTE} -t boot", "no class is called 'boot': did you mean ankle boot?", f"{ATTRIBUTE} -t 'ankle boot'"),
    (f"{ATTRIBUTE} --unit 3", "name it with --layer", f"{ATTRIBUTE} -l classifier.6 --unit 3"),
    (f"{ATTRIBUTE} -l features.9 --at 0,99,0", "is outside its shape", f"{ATTRIBUTE} -l features.9 --at 0,9,0"),
    ("attribute --garment 0 -o a.gif", "a picture is written as .png, .pdf, .jpg", "attribute --garment 0 -o a.jpg"),
    (f"{PATCHES} -l feature.8", "did you mean features.8", f"{PATCHES} -l features.8"),
    (f"{PATCHES} -l features.0 -u 12", "has 4 units, 0 to 3", f"{PATCHES} -l features.0 -u 0-3"),
    (f"{PATCHES}", "missing option '--layer'", f"{PATCHES} -l features.0"),
    # files to write
    ("embed cat.jpg -w narrow.npz", "missing option '--out'", None),
    ("embed cat.jpg -w narrow.npz -o v.csv", "written as .npy, .npz, .parquet", None),
    ("embed cat.jpg -w narrow.npz -o new/v.npz", "create it first", None),
    ("demo --out shown.gif", "a picture is written as .png, .pdf, .jpg, .jpeg", None),
    ("demo --out new/shown.png", "there is no folder new; create it first", None),
    ("curves done --out c.gif", "a picture is written as .png, .svg, .pdf, .jpg", "curves done --out c.svg"),
    ("curves done --out c", "a picture is written as .png, .svg, .pdf, .jpg", "curves done --out c.pdf"),
    ("curves done --out new/c.png", "there is no folder new; create it first", "curves done --out c.jpg"),
    ("evaluate done --confusion c.bmp", "a picture is written as .png", "evaluate done --confusion e.png"),
    # runs and data
    ("train", "missing option '--out'", f"train --out out {TINY}"),
    (f"train --out done {TINY}", "holds a run already; --resume it", f"train --out done {TINY} --resume"),
    (f"train --out notes.txt {TINY}", "is a file, where a run needs a folder", f"train --out folder {TINY}"),
    ("train --out r --dataset mnist", "must be one of fashion-mnist, folder, synthetic", None),
    ("train --out r --dataset folder", "needs data, the folder that holds a folder a class", None),
    ("train --out r --dataset folder --data nowhere", "nowhere: no such folder", None),
    ("train --out r --dataset folder --data empty", "images are expected as", None),
    ("train --out r --data nowhere", "nowhere: no such folder", None),
    ("train --out r --dataset synthetic --data empty", "made on the fly; leave data out", f"train --out made {TINY}"),
    (f"train --out r {TINY} --dropout 1", "at least 0 and below 1", f"train --out drop {TINY} --dropout 0.9"),
    (f"train --out r {TINY} --augmentation crop", "use none or mirror", f"train --out m {TINY} --augmentation mirror"),
    (f"train --out r {TINY} --image-size 10", "the smallest input is 67x67", None),
    (f"train --out r {TINY} --validation-limit 0", "must be greater", f"train --out v {TINY} --validation-limit 1"),
    ("train --out none --resume", "no checkpoint here; start without --resume", f"train --out none {TINY}"),
    ("finetune", "missing argument 'FOLDER'", None),
    ("finetune nowhere --out r", "nowhere: no such folder", None),
    ("evaluate nowhere", "neither a", "evaluate done"),
    ("curves nowhere", "`alexnet train` writes it into its --out folder", "curves done"),
    ("curves notes.txt", "`alexnet train` writes it into its --out folder", "curves done done"),
    ("ablate nothing --out a", "one of activation, pooling, lrn, dropout", None),
    ("ablate activation", "missing option '--out'", None),
    ("bench compare notes.txt notes.txt", "not a report that `alexnet bench ... --out` saved", None),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    shutil.copy(Path(anp.__file__).parent / "assets" / "cat.jpg", folder)
    (folder / "notes.txt").write_text("not an image")
    (folder / "empty").mkdir()
    np.savez(folder / "narrow.npz", **anp.alexnet("torchvision", width=1 / 16, seed=0).state_dict())
    done = CliRunner().invoke(app, ["train", "--out", str(folder / "done"), *shlex.split(TINY)])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(autouse=True)
def inside(place, monkeypatch):
    """In that folder, without published weights but the carried ones, without a network, on a machine at rest."""
    monkeypatch.setattr("alexnet_np.measure.machine.others", lambda: None)
    monkeypatch.chdir(place)
    monkeypatch.setenv("ALEXNET_NP_HOME", str(place / "home"))
    monkeypatch.setenv("TORCH_HOME", str(place / "home"))
    nowhere = registry.ENTRIES["IMAGENET1K_V1"]._replace(url="http://127.0.0.1:9/refused.pth")
    monkeypatch.setitem(registry.ENTRIES, "IMAGENET1K_V1", nowhere)


def typed(line):
    result = CliRunner().invoke(app, shlex.split(line), prog_name="alexnet")
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


@pytest.mark.parametrize(("mistake", "said", "remedy"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_one_line_and_its_remedy_works(mistake, said, remedy):
    result = typed(mistake)
    assert result.exit_code in (1, 2), result.output
    assert result.stdout == ""
    assert result.stderr.startswith("alexnet: ") and result.stderr.count("\n") == 1, result.stderr
    assert said in result.stderr
    assert len(result.stderr) < 420
    assert not Path("r").exists()  # nor is anything left behind
    if remedy is not None:
        mended = typed(remedy)
        assert mended.exit_code == 0, mended.output


def test_there_are_sixty_of_them():
    assert len({row[0] for row in MISTAKES}) == len(MISTAKES) >= 60
    assert sum(row[2] is not None for row in MISTAKES) >= 45
