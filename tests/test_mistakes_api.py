"""Mistakes with networks, files and training: each is an AlexNetError of one line, and what it says to do works."""

import pytest
import test_mistakes_cli
import test_mistakes_ops
from mistakes import check, rows

MISTAKES = rows(r"""
alexnet("alexnett")  ->  choose one of torchvision
    alexnet("torchvision")
alexnet(["paper"])  ->  unknown preset ['paper']: choose one of
    alexnet("paper")
alexnet(weights=True)  ->  weights must be a published name
    alexnet(weights=None)
alexnet(weights=3)  ->  weights must be a published name
    alexnet(weights=None)
alexnet(weights="no.pth")  ->  nor a file nor one of the published weights
    alexnet()
alexnet(num_classes=10.0)  ->  num_classes must be an int, got 10.0; write 10
    alexnet(num_classes=10)
alexnet(num_classes=2.5)  ->  num_classes must be an int, got 2.5
    alexnet(num_classes=2)
alexnet(num_classes="10")  ->  num_classes must be an int, got '10'
    alexnet(num_classes=10)
alexnet(num_classes=True)  ->  num_classes must be an int, got True
    alexnet(num_classes=1)
alexnet(num_classes=0)  ->  num_classes must be at least 1
    alexnet(num_classes=1)
alexnet(num_classes=2**63)  ->  num_classes must be at most 2147483647
    alexnet(num_classes=2)
alexnet(in_channels=-3)  ->  in_channels must be at least 1
    alexnet(in_channels=1)
alexnet(in_channels=[3])  ->  in_channels must be an int, got [3]
    alexnet(in_channels=3)
alexnet(width="1/32")  ->  width must be a finite number, got '1/32'; write it without quotes
    alexnet()
alexnet(width=float("inf"))  ->  width must be a finite number, got inf
    alexnet()
alexnet(width=-1)  ->  width must be positive
    alexnet()
alexnet(width=1e6)  ->  and this machine has
    alexnet()
alexnet(seed=-1)  ->  seed must be at least 0, got -1
    alexnet(seed=0)
alexnet(seed="a")  ->  seed must be an int, got 'a'
    alexnet(seed=1)
alexnet(seed=2**64)  ->  seed must be at most 18446744073709551615
    alexnet(seed=2**64 - 1)
alexnet(dtype="float16")  ->  dtype must be float32 or float64
    alexnet(dtype="float32")
alexnet(dtype=3)  ->  dtype must be float32 or float64
    alexnet(dtype="float64")
alexnet(backend="gpu")  ->  choose one of numpy
    alexnet(backend="numpy")
alexnet(backend=["numpy"])  ->  choose one of numpy
    alexnet(backend="numpy")
anp.use_backend("tpu")  ->  choose one of numpy
    anp.use_backend("numpy")
anp.use_backend({})  ->  choose one of numpy
    anp.use_backend(None)
model(big[0])  ->  add the batch axis with x[None]
    model(big[0][None])
model(big.transpose(0, 2, 3, 1))  ->  give it numpy.moveaxis(x, -1, -3)
    model(np.moveaxis(big.transpose(0, 2, 3, 1), -1, -3))
model(picture)  ->  give it anp.preprocess(x)[None]
    model(anp.preprocess(picture)[None])
model([picture, picture])  ->  give it anp.preprocess(x)
    model(anp.preprocess([picture, picture]))
model("cat.jpg")  ->  give it anp.preprocess(x)[None]
    model(anp.preprocess(picture)[None])
model([big[0], big[0]])  ->  numpy.stack(x)
    model(np.stack([big[0], big[0]]))
model(x)  ->  the smallest input is 63x63
    model(np.zeros((1, 3, 63, 63), np.float32))
model(big.astype("float64"))  ->  use one dtype
    model.astype("float64")(big.astype("float64"))
model(big.astype("int64"))  ->  convert it, e.g. x.astype('float32')
    model(big.astype("int64").astype("float32"))
model(None)  ->  must be an array, got NoneType
    model(big)
model.backward(dy)  ->  needs a forward first
    model.backward(model(big))
(model(big), model.backward(dy), model.backward(dy))  ->  retain_graph=True
    (model(big), model.backward(dy, retain_graph=True), model.backward(dy))
(model(big), model.backward([1.0]))  ->  must be an array, got list
    (model(big), model.backward(dy))
(model(big), model.backward(np.ones((1, 9), np.float32)))  ->  the output had (1, 10)
    (model(big), model.backward(dy))
model.replace_head(None)  ->  num_classes must be an int, got None
    model.replace_head(3)
model.replace_head(0)  ->  num_classes must be at least 1
    model.replace_head(1)
model.replace_head(3, seed="a")  ->  seed must be an int, got 'a'
    model.replace_head(3, seed=1)
model.freeze("classifyer")  ->  names are like 'features.0.weight'
    model.freeze("features.0.weight")
model.freeze(3)  ->  prefix must be a str
    model.freeze("features")
model.to("tpu")  ->  choose one of numpy
    model.to("numpy")
model.astype("int8")  ->  dtype must be float32 or float64
    model.astype("float64")
model.train("yes")  ->  mode must be True or False
    model.train(True)
model.requires_grad_(1)  ->  requires_grad must be True or False
    model.requires_grad_(True)
model.num_parameters("all")  ->  only_trainable must be True or False
    model.num_parameters(False)
model.load_state_dict([1])  ->  a mapping name -> array
    model.load_state_dict(model.state_dict())
model.load_state_dict({})  ->  missing: 'features.0.weight'
    model.load_state_dict({}, strict=False)
model.load_state_dict({}, strict=None)  ->  strict must be True or False
    model.load_state_dict({}, strict=False)
model.register_forward_hook(3)  ->  hook must be a function, got 3
    model.register_forward_hook(print)
model.features[0].register_forward_pre_hook(None)  ->  hook must be a function
    model.features[0].register_forward_pre_hook(print)
model.register_full_backward_hook("f")  ->  hook must be a function
    model.register_full_backward_hook(print)
model.classifier.__setitem__(6, 3)  ->  must be a layer of alexnet_np.layers
    model.classifier.__setitem__(6, layers.Linear(128, 3))
model.classifier["6"]  ->  an index must be an int or a slice
    model.classifier[6]
setattr(model, "classifier", None)  ->  must be a layer of alexnet_np.layers
    setattr(model, "classifier", layers.Identity())
delattr(model, "classifier")  ->  put layers.Identity() in its place
    setattr(model, "classifier", layers.Identity())
anp.SGD(model, lr=0.1)  ->  parameters must be model.named_parameters()
    anp.SGD(model.named_parameters(), lr=0.1)
anp.SGD(model.parameters(), lr=0.1)  ->  as model.named_parameters() yields them
    anp.SGD(model.named_parameters(), lr=0.1)
anp.SGD(named, lr=None)  ->  lr must be a number of at least 0, got None
    anp.SGD(named, lr=0.1)
anp.SGD(named, lr="0.1")  ->  lr must be a number of at least 0, got '0.1'; write it without quotes
    anp.SGD(named, lr=0.1)
anp.SGD(named, 0.1, nesterov=True)  ->  needs a momentum above 0
    anp.SGD(named, 0.1, momentum=0.9, nesterov=True)
anp.SGD(named, 0.1, momentum=0.9, nesterov=1)  ->  nesterov must be True or False
    anp.SGD(named, 0.1, momentum=0.9, nesterov=True)
anp.SGD(named, 0.1, rule="caffe")  ->  choose one of torch, paper
    anp.SGD(named, 0.1, rule="paper")
anp.SGD(named, 0.1, backend="fast")  ->  choose one of numpy
    anp.SGD(named, 0.1, backend="numpy")
anp.SGD([], 0.1)  ->  no parameters to train
    anp.SGD(named, 0.1)
optimizer.load_state_dict([])  ->  what optimizer.state_dict() returned
    optimizer.load_state_dict(optimizer.state_dict())
StepLR(optimizer, 0)  ->  step_size must be at least 1, got 0
    StepLR(optimizer, 1)
StepLR(optimizer, 2, gamma="a")  ->  gamma must be a finite number
    StepLR(optimizer, 2, gamma=0.1)
StepLR(model, 2)  ->  optimizer must be an SGD
    StepLR(optimizer, 2)
OneCycleLR(optimizer, None, 10)  ->  max_lr must be a number of at least 0, got None
    OneCycleLR(optimizer, 0.1, 10)
ReduceLROnPlateau(optimizer, factor=2)  ->  factor must be between 0 and 1
    ReduceLROnPlateau(optimizer, factor=0.5)
anp.summary("paper")  ->  as anp.alexnet(...) makes it
    anp.summary(alexnet("paper"))
anp.summary(model, 224)  ->  a shape (N,C,H,W)
    anp.summary(model, (1, 3, 224, 224))
anp.summary(model, (1, 3, 10, 10))  ->  the smallest input is 63x63
    anp.summary(model, (1, 3, 63, 63))
anp.walk("paper", big)  ->  as anp.alexnet(...) makes it
    anp.walk(model, big)
anp.verify(None, big)  ->  as anp.alexnet(...) makes it
    anp.verify(model, big)
anp.compile(None)  ->  as anp.alexnet(...) makes it
    anp.compile(model, size=64)
anp.compile(model, max_batch="8")  ->  max_batch must be an int, got '8'
    anp.compile(model, max_batch=np.int64(8), size=64)
anp.compile(model, size="a")  ->  size must be an int or a pair
    anp.compile(model, size=64)
anp.compile(model.astype("float64"))  ->  plans are float32: model.astype('float32')
    anp.compile(model.astype("float64").astype("float32"), size=64)
anp.compile(model, outputs=["classifier.9"], size=64)  ->  outputs are 'logits' or layers: features.0
    anp.compile(model, outputs=["classifier.6"], size=64)
anp.compile_training(model, "sgd", 8)  ->  optimizer must be an SGD
    anp.compile_training(model, optimizer, 8, size=64)
anp.study.explain("paper", big, "features.0", 0)  ->  as anp.alexnet(...) makes it
    anp.study.explain(model, big, "features.0", (0, 0, 0))
anp.study.explain(model, big, "features.99", 0)  ->  did you mean
    anp.study.explain(model, big, "features.0", (0, 0, 0))
anp.study.explain(model, big, "features.0", "a")  ->  in whole numbers
    anp.study.explain(model, big, "features.0", (0, 0, 0))
anp.study.attribution(model, big, 3, "salience")  ->  did you mean saliency
    anp.study.attribution(model, big, 0, "saliency")
anp.study.attribution(model, big, 0, "occlusion", size=3)  ->  it takes window, stride, baseline
    anp.study.attribution(model, big, 0, "occlusion", window=32, stride=32)
anp.study.attribution(model, big, ("features.0", 0))  ->  an index is map,row,column
    anp.study.attribution(model, big, ("features.0", (0, 0, 0)))
anp.study.attribution(model, big, 99999)  ->  is outside its shape
    anp.study.attribution(model, big, 0)
anp.study.receptive_field(model, "features.0", (0, 0, 0), None)  ->  size must be an int or a pair
    anp.study.receptive_field(model, "features.0", (0, 0, 0), 64)
anp.preprocess(3)  ->  give an image as a path
    anp.preprocess(picture)
anp.preprocess([])  ->  give it one at least
    anp.preprocess([picture])
anp.preprocess(picture.astype("float32") / 255)  ->  (255 * x).round().astype('uint8')
    anp.preprocess((255 * (picture.astype("float32") / 255)).round().astype('uint8'))
anp.preprocess(picture[0, 0])  ->  a picture is (H,W)
    anp.preprocess(picture[:, :, 0])
anp.preprocess(picture, preset="vgg")  ->  choose one of torchvision
    anp.preprocess(picture, preset="torchvision")
anp.preprocess(picture, crop_size="224")  ->  crop_size must be a positive int
    anp.preprocess(picture, crop_size=224)
anp.preprocess(picture, mean=0.5)  ->  a list of numbers, one a channel
    anp.preprocess(picture, mean=[0.5, 0.5, 0.5])
anp.preprocess(picture, std=[1, 0, 1])  ->  no std 0
    anp.preprocess(picture, std=[1, 1, 1])
anp.preprocess(picture, dtype="uint8")  ->  dtype must be float32 or float64
    anp.preprocess(picture, dtype="float64")
anp.set_num_threads(0)  ->  threads must be from 1
    anp.set_num_threads(anp.get_num_threads())
anp.set_num_threads("2")  ->  count must be an int, got '2'
    anp.set_num_threads(np.int64(anp.get_num_threads()))
anp.weights.read(3)  ->  path must be a path, got 3
    anp.weights.read(anp.weights.find("FASHION_MNIST_V1"))
anp.weights.read("nowhere.pth")  ->  nowhere.pth: No such file or directory
    anp.weights.read(str(anp.weights.find("FASHION_MNIST_V1")))
anp.weights.inspect(None)  ->  path must be a path, got None
    anp.weights.inspect(anp.weights.find("FASHION_MNIST_V1"))
anp.weights.write("copy.xyz", model)  ->  are written as .safetensors
    anp.weights.write(folder + "/copy.safetensors", model)
anp.weights.write(None, model)  ->  path must be a path, got None
    anp.weights.write(folder + "/copy.npz", model)
anp.weights.write("copy.npz", [1])  ->  a model or a mapping name -> array is written
    anp.weights.write(folder + "/copy.npz", model.state_dict())
anp.weights.write("copy.onnx", model.state_dict())  ->  give the model, anp.weights.write(path, model)
    anp.weights.write(folder + "/copy.onnx", model, size=64)
anp.weights.find("V2")  ->  choose one of
    anp.weights.find("FASHION_MNIST_V1")
anp.weights.find([])  ->  choose one of
    anp.weights.find("FASHION_MNIST_V1")
anp.weights.match(None, {})  ->  a mapping name -> array
    anp.weights.match({}, {})
anp.weights.check_finite(3)  ->  a mapping name -> array
    anp.weights.check_finite(model.state_dict())
Config(epochs="3")  ->  epochs must be an int, got '3'
    Config(epochs=3)
Config(epochs=0)  ->  epochs must be at least 1, got 0
    Config(epochs=1)
Config(lr=None)  ->  lr must be a number of at least 0, got None
    Config(lr=0.1)
Config(lr=float("nan"))  ->  lr must be a number of at least 0, got nan
    Config(lr=np.float32(0.1))
Config(lrn="no")  ->  lrn must be True or False
    Config(lrn=False)
Config(preset=["d2l"])  ->  preset must be one of
    Config(preset="d2l")
Config(dropout=1)  ->  dropout must be at least 0 and below 1
    Config(dropout=0.9)
Config(freeze="features")  ->  freeze must be a list of names, such as ['features']
    Config(freeze=["features"])
Config(data=3)  ->  data must be a path
    Config(data="somewhere")
Config(preprocessing={"mode": "L"})  ->  preprocessing has the fields resize, crop, mode
    Config(preprocessing=None)
Trainer("paper")  ->  config must be a Config
    Trainer(tiny)
Trainer(tiny, 3)  ->  folder must be a path
    Trainer(tiny, folder)
Trainer(tiny, folder, workers=0)  ->  workers must be at least 1
    Trainer(tiny, folder, workers=1)
Trainer.resume(folder)  ->  no checkpoint here
    Trainer(tiny, folder)
Trainer.resume(3)  ->  folder must be a path
    Trainer(tiny, folder)
""")


@pytest.mark.parametrize(("wrong", "says", "right"), MISTAKES, ids=[wrong for wrong, _, _ in MISTAKES])
def test_a_mistake_is_told_in_one_line_and_the_remedy_works(wrong, says, right, tmp_path):
    check(wrong, says, right, folder=str(tmp_path))


def test_there_are_enough_of_them():
    assert len(MISTAKES) + len(test_mistakes_ops.MISTAKES) >= 100
    assert len(test_mistakes_cli.MISTAKES) >= 60
