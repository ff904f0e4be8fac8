"""Two hosts, as network namespaces of this one, with a link between them that can be cut."""

import os
import re
import shutil
import subprocess
import time

import pytest

from tests.helpers.by_hand import ITERATIONS, few
from tests.helpers.launch import Job, find_mpirun, mpirun, tolerant_launcher

pytestmark = [pytest.mark.nightly, pytest.mark.mpi, pytest.mark.timeout(200)]
LIMIT = 4.0
WORKER = "tests/helpers/worker.py"
# The launcher calls it as `start OPTIONS... HOST COMMAND...`, as it would ssh.
START = """#!/bin/bash
while [[ $1 == -* ]]; do shift; done
host=$1; shift
exec ip netns exec "$NAME${host##*.}" unshare --uts bash -c "hostname $NAME${host##*.}; $*"
"""


def ip(*words, check=True):
    return subprocess.run(["ip", *map(str, words)], check=check, capture_output=True, text=True)


class Hosts:
    """Host 1, where mpirun is started, and host 2."""

    def __init__(self, folder):
        self.name = f"t{os.getpid()}h"
        self.script = folder / "start"
        self.script.write_text(START.replace("$NAME", self.name))
        self.script.chmod(0o755)
        for i in (1, 2):
            ip("netns", "add", f"{self.name}{i}")
        ip(*f"link add wire netns {self.name}1 type veth peer name wire netns {self.name}2".split())
        for i in (1, 2):
            ip("-n", f"{self.name}{i}", "addr", "add", f"10.77.0.{i}/24", "dev", "wire")
            for device in ("lo", "wire"):
                ip("-n", f"{self.name}{i}", "link", "set", device, "up")

        while not all(
            "state UP" in ip("-n", f"{self.name}{i}", "link", "show", "wire").stdout for i in (1, 2)
        ):
            time.sleep(0.05)

    def link(self, state: str) -> None:
        ip("-n", f"{self.name}2", "link", "set", "wire", state)

    def start(self, *arguments, limit) -> Job:
        at = ["-hosts", "10.77.0.1,10.77.0.2", "-localhost", "10.77.0.1"]
        how = ["-launcher", "ssh", "-launcher-exec", str(self.script)]
        inside = ["ip", "netns", "exec", f"{self.name}1"]
        # Ranks of one kernel would find a faster way past the link.
        env = {"STALL_LIMIT_S": str(limit), "UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "wire"}
        env |= {"FI_PROVIDER": "tcp", "FI_TCP_IFACE": "wire"}
        return Job(2, WORKER, *arguments, launcher=[*inside, find_mpirun(), *at, *how], env=env)

    def start_tolerant(self, *arguments) -> Job:
        """One rank on each host under Open MPI, whose ranks notice that another one is out of reach."""
        settings = {
            "pml": "ob1",
            "btl": "tcp,self",
            "btl_tcp_if_include": "wire",
            "mpi_ft_detector": "true",
            "mpi_ft_detector_thread": "true",
            "mpi_ft_detector_period": "1",
            "mpi_ft_detector_timeout": "5",
        }
        how = [word for name, value in settings.items() for word in ("--mca", name, value)]
        how += ["--prtemca", "plm_ssh_agent", str(self.script), "--prtemca", "oob_tcp_keepalive_time", "0"]
        at = ["--host", "10.77.0.1,10.77.0.2", "--map-by", "ppr:1:node:oversubscribe"]
        inside = ["ip", "netns", "exec", f"{self.name}1"]
        return Job(2, *arguments, launcher=[*inside, *tolerant_launcher(), *how, *at])

    def close(self) -> None:
        for i in (1, 2):
            ip("netns", "del", f"{self.name}{i}", check=False)


@pytest.fixture
def hosts(tmp_path):
    if not shutil.which("ip") or os.geteuid():
        pytest.skip("needs root and ip")
    try:
        two = Hosts(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces: {error.stderr.strip()}")
    yield two
    two.close()


@pytest.fixture
def mpich():
    if "HYDRA" not in subprocess.run([find_mpirun(), "--version"], capture_output=True, text=True).stdout:
        pytest.skip("the hosts are started in the way of MPICH's launcher")


def wait_for_a_save(job, folder):
    while not list(folder.glob("step_*")):
        assert job.process.poll() is None, job.wait().output
        time.sleep(0.02)


def test_a_cut_link_ends_both_sides(mpich, hosts, tmp_path, promise):
    job = hosts.start("train", tmp_path / "run", "", 0.05, 400, limit=LIMIT)
    wait_for_a_save(job, tmp_path / "run")
    ranks = [pid for pid in job.processes() if b"PMI_RANK" in open(f"/proc/{pid}/environ", "rb").read()]
    assert len(ranks) == 2
    hosts.link("down")
    began = time.monotonic()
    while any(os.path.exists(f"/proc/{pid}") for pid in ranks) and time.monotonic() < began + 60:
        time.sleep(0.05)
    seconds = time.monotonic() - began
    job.kill()  # what MPICH started on the other host to start the ranks there waits for the link for ever
    output = job.process.communicate()[0]
    with promise(f"A5 link cut for ever, limit {LIMIT:.0f} s") as trial:
        trial.seconds = seconds
        assert seconds <= LIMIT + 10
        assert "all ranks wait in collective" in output and "the network between them" in output, output


def test_a_link_that_comes_back_changes_nothing(mpich, hosts, tmp_path, promise):
    alone = mpirun(2, WORKER, "train", tmp_path / "alone", "", 0, 150)
    job = hosts.start("train", tmp_path / "run", "", 0.02, 150, limit=30)
    wait_for_a_save(job, tmp_path / "run")
    hosts.link("down")
    time.sleep(3.0)
    hosts.link("up")
    with promise("A5 link cut for 3 s") as trial:
        result = job.wait(90)
        trial.seconds = result.seconds
        ends = [set(re.findall(r"finished True \w{64}", r.output)) for r in (alone, result)]
        assert result.code == 0 and ends[0] == ends[1] and len(ends[0]) == 1, result.output


def test_one_host_goes_on_when_the_other_is_cut_off(hosts, tmp_path, promise):
    """The one whose rank holds the run folder; the other's rank ends."""
    if tolerant_launcher() is None:
        pytest.skip("for Open MPI 5, which can do without a rank")
    program = ["-m", "tests.helpers.losing", tmp_path, "[]"]
    job = hosts.start_tolerant(*program, *few("rmdp", tmp_path, "run"), "--steps_per_policy", "4096")
    began = tmp_path / "began"
    while not began.exists() or len(began.read_text().splitlines()) < 3:
        assert job.process.poll() is None, job.wait().output
        time.sleep(0.02)
    hosts.link("down")
    cut = time.monotonic()
    while not (tmp_path / "run" / f"step_{ITERATIONS:08d}").exists():
        assert time.monotonic() < cut + 90, (job.kill(), job.process.communicate()[0])
        time.sleep(0.05)
    while ranks := [pid for pid in job.processes() if is_rank(pid)]:
        assert time.monotonic() < cut + 120, ranks
        time.sleep(0.05)
    job.kill()  # the launcher waits for the host that is cut off
    output = job.process.communicate()[0]
    alone = [float(line.split()[2]) for line in began.read_text().splitlines() if line.startswith("1 ")]
    with promise("H5 one of two hosts cut off") as trial:
        trial.seconds = alone[0] - cut
        assert trial.seconds <= 15 and "rank 1 (process" in output and "one rank goes on" in output, output
        assert (tmp_path / "run" / "metrics.csv").read_text().count("\n") == ITERATIONS + 1


def is_rank(pid: int) -> bool:
    """Whether a process is a rank rather than the launcher's own."""
    try:
        return b"OMPI_COMM_WORLD_RANK=" in open(f"/proc/{pid}/environ", "rb").read()
    except OSError:
        return False
