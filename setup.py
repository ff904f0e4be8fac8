"""Dependencies of the project; everything else about the build is in pyproject.toml."""

from setuptools import setup

ONNX = ["onnx>=1.17,<2"]  # of Python 3.11 to 3.13, beside NumPy 2; torch's tracing exporter needs no more
TESTS = ["pytest", "pytest-timeout", "hypothesis", "ruff", "mypy", "mo-gymnasium", "onnxruntime>=1.20,<2"]
TESTS += ["imageio-ffmpeg>=0.5"]
TESTS += ["setuptools>=77"]  # builds the wheel that a test installs

setup(
    install_requires=[
        "mpi4py>=4.1",
        "torch>=2.6,<2.14",  # capped at the newest version tested
        "numpy>=2",
        "gymnasium>=1.1",
        "mujoco>=4",  # its `batch` steps many copies at once
        "imageio",  # Gymnasium's MuJoCo environments import it
        "packaging",
        "tensorboardX",
        "cloudpickle",
        "tyro>=0.9",
        "safetensors",
        "scipy",
        "scikit-learn",
        "matplotlib",
        "pillow",
        "tqdm",
        "threadpoolctl",
    ],
    extras_require={
        "mpi": ["mpich"],
        "openmpi": ["openmpi"],  # never together with [mpi]: one MPI per environment
        "data": ["pyarrow>=17", "h5py>=3.8"],  # logs in Parquet, datasets of Minari
        "behaviour": ["stable-baselines3>=2.9"],  # trains what experiments.behaviour ships
        # BCQ and CQL (d3rlpy 2.8.1 asks for Gymnasium 1.0.0 and nothing else), and PPO for MOReL.
        "baselines": ["d3rlpy==2.8.0", "stable-baselines3>=2.9"],
        "peers": ["jax>=0.5", "optax"],  # what benchmarks.peers measures beside rl2
        "onnx": ONNX,  # evaluate --export FOLDER --onnx True
        "video": ["imageio-ffmpeg>=0.5"],  # evaluate --video FILE.mp4
        "tensorboard": ["tensorboard"],  # to watch runs
        "docs": ["mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.27"],  # mkdocs build
        "dev": [*TESTS, *ONNX, "pyarrow>=17", "minari[hdf5]"],
        "all": ["mpich", *TESTS, *ONNX, "pyarrow>=17", "minari[hdf5]"],
    },
)
