"""The hardware configurations, as `accelerate launch` reads them and as its processes see them."""

import argparse
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from torch.distributed.fsdp import StateDictType

from recbert.commands.main import main
from recbert.recommender import Recommender
from tests.workspace import write_events, write_recipe

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "accelerate"
FSDP = ["fsdp", "fsdp-multi-node"]
MULTI_NODE = ["ddp-multi-node", "fsdp-multi-node"]


def read_as_launch(name: str, *options: str) -> argparse.Namespace:
    """The settings of `accelerate launch --config_file NAME OPTIONS scripts/pretrain.py`."""
    line = ["--config_file", str(FOLDER / f"{name}.yaml"), *options, "scripts/pretrain.py"]
    return _validate_launch_command(launch_command_parser().parse_args(line))[0]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_processes_are_a_number_per_machine(path: Path) -> None:
    read = read_as_launch(path.stem)
    assert int(read.num_processes) % int(read.num_machines) == 0
    assert (int(read.num_machines) > 1) == (path.stem in MULTI_NODE)
    assert read.multi_gpu == path.stem.startswith("ddp")
    assert read.use_fsdp == path.stem.startswith("fsdp")
    assert read.use_cpu == (path.stem == "cpu")


@pytest.mark.parametrize("name", MULTI_NODE)
def test_command_line_says_which_machines(name: str) -> None:
    machines = ["--num_machines", "4", "--num_processes", "32", "--machine_rank", "3"]
    read = read_as_launch(name, *machines, "--main_process_ip", "192.168.7.1")
    prepare_multi_gpu_env(read)
    assert (read.nnodes, read.nproc_per_node, read.node_rank) == ("4", "8", 3)
    assert read.rdzv_endpoint == "192.168.7.1:29500"
    assert read.rdzv_backend == "static"


@pytest.mark.parametrize("name", FSDP)
def test_fsdp_arrives_as_recbert_needs_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first machine would look whether its port is free.
    option = ("--machine_rank", "1") if name in MULTI_NODE else ("--main_process_port", "0")
    read = read_as_launch(name, *option)
    for variable, value in prepare_multi_gpu_env(read).items():
        if variable.startswith("FSDP_"):
            monkeypatch.setenv(variable, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT
    assert plugin.auto_wrap_policy is None
    assert not plugin.reshard_after_forward
    assert not plugin.cpu_ram_efficient_loading


@pytest.mark.slow
def test_two_machines_train_one_model(tmp_path: Path) -> None:
    """Two launchers on this machine, each with one CPU process."""
    write_events(tmp_path / "events.csv")
    recipe = str(write_recipe(tmp_path / "recipe.yaml", "run"))
    assert main(["prepare", "--config", recipe]) == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    machines = ["--num_machines", "2", "--num_processes", "2", "--main_process_ip", "127.0.0.1"]
    machines += ["--main_process_port", port]
    launch = [sys.executable, "-m", "accelerate.commands.launch"]
    command = [*launch, "--config_file", str(FOLDER / "ddp-multi-node.yaml"), *machines]
    processes = [
        subprocess.Popen(
            [*command, "--machine_rank", rank, str(ROOT / "scripts" / "pretrain.py"), "--config", recipe],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait(timeout=200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    assert len(list((tmp_path / "run").glob("checkpoint-*/rng_state_1.pth"))) == 2
    assert Recommender.from_pretrained(tmp_path / "run" / "model").recommend(["jam"], 3)
