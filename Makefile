# Each target makes its own virtual environment under .venv/ and installs what it needs, from a bare Python 3.11 or newer.
#
#   make demo        AlexNet on a photograph, and a trained one as a page (no torch is installed)
#   make test        every test but the slow ones, beside torch
#   make test-slow   the slow ones: .ci/run runs them too
#   make course      the course's notebooks in JupyterLab
#   make test-course the same, run one after the other
#   make bench       benchmarks beside PyTorch, ONNX Runtime and OpenVINO
#   make pictures    the README's, from the reports in benchmarks/reports
#   make lint        ruff, its rules and its layout, and mypy
#
#   make test-gpu    the whole suite on a machine with an NVIDIA GPU (and g++): a test skipped for want of one fails it
#   make bench-gpu   everything verified and measured there, beside PyTorch: bench_gpu.json and .md
#
# PYTHON       the interpreter to start from
# TORCH_INDEX  the URL of a package index that serves torch's CPU build, where the default one serves the CUDA build
# CUDA         for the two above: the newest CUDA that the driver knows, 12 or 13
# WORKERS      processes that `make test` shares the files of tests among, 2 as a rule; 0 for none, as --pdb wants it
# ARGS         passed on, e.g. make test ARGS="tests/test_conv2d.py -x"

PYTHON ?= python3
TORCH_INDEX ?=
CUDA ?= 13
WORKERS ?= 2
ARGS ?=

REPORTS = benchmarks/reports

EXTRAS_demo = plots,explorer
EXTRAS_test = test
EXTRAS_course = course
EXTRAS_bench = bench
EXTRAS_lint = lint
EXTRAS_test-gpu = test,cuda$(CUDA),nccl$(CUDA)
EXTRAS_bench-gpu = verify,cuda$(CUDA)

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test test-slow course test-course bench pictures lint test-gpu bench-gpu clean

demo: .venv/demo/installed
	.venv/demo/bin/alexnet demo $(ARGS)
	.venv/demo/bin/alexnet explore --garment 0 --out explorer.html

test: .venv/test/installed
	.venv/test/bin/python -m pytest -m "not slow" -n $(WORKERS) --dist loadfile $(ARGS)

test-slow: .venv/test/installed
	.venv/test/bin/python -m pytest -m slow $(ARGS)

course: .venv/course/installed
	.venv/course/bin/jupyter lab docs/course $(ARGS)

test-course: .venv/test/installed
	.venv/test/bin/python -m pytest --nbmake --nbmake-timeout=300 docs/course $(ARGS)

bench: .venv/bench/installed
	.venv/bench/bin/python -m alexnet_np.benchmarks.bench_arrays
	.venv/bench/bin/alexnet bench model $(ARGS)

pictures: .venv/demo/installed
	.venv/demo/bin/alexnet bench draw $(REPORTS)/model.json --picture peers --out docs/peers.svg
	.venv/demo/bin/alexnet bench draw $(REPORTS)/model.json --picture accuracy --out docs/accuracy.svg
	.venv/demo/bin/alexnet bench draw $(REPORTS)/kernels_cpu.json --picture roofline --out docs/roofline.svg
	.venv/demo/bin/alexnet bench draw $(wildcard $(REPORTS)/kernels_?pu.json) --picture kernels --out docs/kernels.svg

lint: .venv/lint/installed
	.venv/lint/bin/ruff check .
	.venv/lint/bin/ruff format --check .
	.venv/lint/bin/mypy

test-gpu: .venv/test-gpu/installed
	.venv/test-gpu/bin/python -m pytest --gpu $(ARGS)

bench-gpu: .venv/bench-gpu/installed
	.venv/bench-gpu/bin/python -m alexnet_np.measure.gpu_session bench_gpu.json $(ARGS)

.venv/%/installed: setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "alexnet-np needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv/$*
	.venv/$*/bin/python -m pip install --quiet --upgrade pip 'setuptools>=77'
	$(if $(and $(TORCH_INDEX),$(filter test course bench test-gpu,$*)),.venv/$*/bin/python -m pip install --quiet --index-url $(TORCH_INDEX) torch==2.13.0)
	.venv/$*/bin/python -m pip install -qq --editable '.[$(EXTRAS_$*)]'
	@touch $@

clean:
	rm -rf .venv build *.egg-info
