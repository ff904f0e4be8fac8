"""The arrows of the house: who may import whom, and what no file may do."""

import ast

from tests.helpers.launch import ROOT
from tests.helpers.source import (
    FILES,
    MODULES,
    PLACES,
    SYSTEMS,
    called,
    circles,
    imported,
    module_name,
    parsed,
)

SHARED = {"mpi_utils", "common", "envs"}
ENTRIES = {"train", "evaluate", "comparison", "experiments", "benchmarks"}
MAY_IMPORT = {
    **dict.fromkeys(ENTRIES, {*ENTRIES, *SYSTEMS, *SHARED}),
    **dict.fromkeys(SYSTEMS, SHARED),
    "mpi_utils": {"common"},
    "common": set(),
    "envs": set(),
}
ONLY_THERE = {"mpi4py": {"mpi_utils"}, "torch": set(PLACES) - {"envs"}}


def at(path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_imports_follow_the_arrows():
    """None between the four systems, none upward; mpi4py in mpi_utils only, no torch in envs."""
    offenders = []
    for path in FILES:
        home = module_name(path).split(".")[0]
        for name, line in imported(path):
            room = name.split(".")[0]
            allowed = room == home or room in MAY_IMPORT[home] if room in (*PLACES, "tests") else True
            if not allowed or home not in ONLY_THERE.get(room, {home}):
                offenders.append(f"{at(path, line)} imports {name}")
    assert not offenders


def test_no_imports_go_in_a_circle():
    """Neither from file to file nor from room to room, also by imports inside functions."""
    files = {
        name: {other for other, _ in imported(path, types=False)} & MODULES.keys() - {name}
        for name, path in MODULES.items()
    }
    assert not circles(files)
    rooms = {place: set() for place in PLACES}
    for name, others in files.items():
        home = name.split(".")[0]
        rooms[home] |= {other.split(".")[0] for other in others} - {home}
    assert not circles(rooms)


RUN_TEXT = {"eval", "exec", "torch.load", "yaml.load", "tempfile.mktemp", "os.system", "os.popen"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
# Messages between ranks of one job, serialised by ourselves moments before; never bytes from a file.
FROM_RANK_TO_RANK = "mpi_utils.comm"


def test_no_file_can_run_what_it_reads(promise):
    offenders = []
    for path in FILES:
        if module_name(path) != FROM_RANK_TO_RANK:
            offenders += [
                f"{at(path, line)} imports {name}"
                for name, line in imported(path)
                if name.split(".")[0] in PICKLES
            ]
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                offenders.append(f"{at(path, node.lineno)} catches everything")
            if isinstance(node, ast.Call):
                on = {word.arg for word in node.keywords if getattr(word.value, "value", None) is True}
                if called(node) in RUN_TEXT or on & {"shell", "allow_pickle"}:
                    offenders.append(f"{at(path, node.lineno)} calls {called(node)}")
    with promise("F2 source files scanned", len(FILES)) as trial:
        trial.failures = len({offender.split(":")[0] for offender in offenders})
        assert not offenders


OWN_GENERATORS = {
    "default_rng",
    "Generator",
    "RandomState",
    "SeedSequence",
    "PCG64",
    "Philox",
    "BitGenerator",
}
KEPT = {"Random", "getstate", "setstate", "get_state", "set_state"}  # what is put back is not used


def test_global_generators_are_never_used():
    """Torch's may be seeded inside a `fork_rng`, which puts it back as it was."""
    offenders = []
    for path in FILES:
        forked = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(i) for i in node.items):
                forked |= set(ast.walk(node))
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call):
                module, _, function = called(node).rpartition(".")
                drawn = module in ("np.random", "numpy.random", "random")
                seeded = called(node) == "torch.manual_seed" and node not in forked
                if (drawn and function not in OWN_GENERATORS | KEPT) or seeded:
                    offenders.append(f"{at(path, node.lineno)} calls {called(node)}")
    assert not offenders
