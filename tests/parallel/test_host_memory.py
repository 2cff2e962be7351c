"""What a machine, a container or Slurm leaves to the process, from files as Linux writes them."""

from __future__ import annotations

import ctypes

import pytest

from t5smith.parallel.host_memory import free_memory, held_memory, return_freed_memory

GB = 1 << 30
MEMINFO = f"MemTotal: {64 << 20} kB\nMemFree: 1 kB\nMemAvailable: {32 << 20} kB\n"


@pytest.fixture
def machine(tmp_path):
    """Writes files below a root; the machine has 32 GB left and the process holds 1 GB."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(text))
        return tmp_path

    write(
        {"proc/meminfo": MEMINFO, "proc/self/status": "Name:\tpython\nVmRSS:\t9 kB\nRssAnon:\t1048576 kB\n"}
    )
    return write


def test_a_machine_without_limits(machine):
    root = machine({"proc/self/cgroup": "0::/\n"})
    assert free_memory(root, {}) == (32 * GB, "free on this machine")
    assert held_memory(root) == GB


def test_a_container_of_version_2(machine):
    group = "sys/fs/cgroup/kubepods/pod7"
    root = machine(
        {
            "proc/self/cgroup": "0::/kubepods/pod7\n",
            f"{group}/memory.max": 8 * GB,
            f"{group}/memory.current": 5 * GB,
            f"{group}/memory.stat": f"anon 1\ninactive_file {GB}\nactive_file 7\n",
            "sys/fs/cgroup/kubepods/memory.max": "max",
            "sys/fs/cgroup/kubepods/memory.current": 20 * GB,
        }
    )
    # Unused pages of files make way.
    assert free_memory(root, {}) == (4 * GB, "left in this container")
    machine({f"{group}/memory.high": 6 * GB})
    assert free_memory(root, {}) == (2 * GB, "left in this container")
    # A group above may leave less.
    machine({"sys/fs/cgroup/kubepods/memory.max": 20 * GB + 7})
    assert free_memory(root, {}) == (7, "left in this container")


def test_a_container_that_sees_its_own_group_as_the_root(machine):
    files = {"memory.max": 8 * GB, "memory.current": 3 * GB}
    root = machine({f"sys/fs/cgroup/{name}": value for name, value in files.items()})
    machine({"proc/self/cgroup": "0::/elsewhere/on/the/host\n"})
    assert free_memory(root, {}) == (5 * GB, "left in this container")


@pytest.mark.parametrize("path", ["docker/ab12", ""])
def test_a_container_of_version_1(machine, path):
    group = f"sys/fs/cgroup/memory/{path}".rstrip("/")
    root = machine(
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/ab12\n3:cpu,cpuacct:/x\n0::/\n",
            f"{group}/memory.limit_in_bytes": 10 * GB,
            f"{group}/memory.usage_in_bytes": 4 * GB,
            f"{group}/memory.stat": f"inactive_file 5\ntotal_inactive_file {2 * GB}\n",
        }
    )
    assert free_memory(root, {}) == (8 * GB, "left in this container")
    machine({f"{group}/memory.limit_in_bytes": 9223372036854771712})
    assert free_memory(root, {}) == (32 * GB, "free on this machine")


@pytest.mark.parametrize(
    ("environ", "left"),
    [
        ({"SLURM_MEM_PER_NODE": "4096"}, 3 * GB),
        ({"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "4"}, 7 * GB),
        ({"SLURM_MEM_PER_GPU": "8192", "SLURM_GPUS_ON_NODE": "2"}, 15 * GB),
        ({"SLURM_MEM_PER_NODE": "512"}, 0),
        ({"SLURM_MEM_PER_NODE": "0"}, None),
        ({"SLURM_MEM_PER_NODE": "all"}, None),
        ({"SLURM_MEM_PER_CPU": "2048"}, None),
    ],
)
def test_a_slurm_job(machine, environ, left):
    expected = (32 * GB, "free on this machine") if left is None else (left, "left in this Slurm job")
    assert free_memory(machine({}), environ) == expected


def test_the_least_counts_whatever_it_is(machine):
    root = machine(
        {
            "proc/self/cgroup": "0::/a\n",
            "sys/fs/cgroup/a/memory.max": 9 * GB,
            "sys/fs/cgroup/a/memory.current": 0,
        }
    )
    assert free_memory(root, {"SLURM_MEM_PER_NODE": f"{20 << 10}"}) == (9 * GB, "left in this container")
    assert free_memory(root, {"SLURM_MEM_PER_NODE": f"{8 << 10}"}) == (7 * GB, "left in this Slurm job")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no glibc")
def test_what_the_heap_keeps_is_given_back():
    # Blocks below malloc's threshold for mappings; those between them keep the freed ones in the heap.
    blocks = [bytearray(b"x" * 100_000) for _ in range(400)]
    del blocks[:-1:2]
    before = held_memory()
    return_freed_memory()
    assert held_memory() < before - 15_000_000


def test_a_system_that_says_nothing(tmp_path):
    assert free_memory(tmp_path, {}) is None
    assert held_memory(tmp_path) is None
