"""Python, DVC and Snakemake that have imported their libraries: forks of a process of the tests.

Importing PyTorch, Lightning and diffusers takes seconds, a stage of the tiny preset less. ``bin``
gives a folder of commands to put first on the path. Each asks a server to fork, which knows the
libraries but nothing of the project, and lends the fork its words, folder, environment and files;
it ends as the fork ends. Where processes are what is tested, the real commands are used.

Usage (by ``bin``): python preloaded.py SOCKET
"""

import array
import atexit
import contextlib
import importlib
import json
import multiprocessing.spawn
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from functools import cache
from pathlib import Path

LIBRARIES = (
    "torch", "torch.distributed", "lightning_fabric", "diffusers", "torchmetrics", "h5py",
    "skimage.metrics", "skimage.data", "scipy.stats", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "jinja2", "omegaconf", "hydra", "yaml", "rich.progress",
    "safetensors.torch", "PIL.Image", "dvc.repo", "dvc.commands.repro", "dvc.commands.status",
    "dvc.commands.experiments.run", "dvc.utils.hydra", "dvc.dependency", "dvc.output",
    "dvc.stage.run", "dvc.ignore", "dvc.scm", "dvc_data.hashfile.db", "dvc_data.index",
    "dvc.config_schema", "snakemake.cli", "snakemake.workflow", "snakemake_executor_plugin_slurm",
    "networkx", "asyncio", "pygit2", "torch._dynamo", "diffusers.models.unets.unet_2d",
)  # fmt: skip
"""Not spandrel: a training's checkpoint is named by the libraries that are loaded, so one that was
killed as a process of its own would not be found here."""
COMMANDS = {"dvc": "dvc.cli", "snakemake": "snakemake.cli"}
START_S = 300
MAX_FILES = 64

SHIM = r"""#!{python} -IS
import array, json, os, signal, socket, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
if words[:1] == ["-B"]:  # from multiprocessing below PYTHONDONTWRITEBYTECODE, which a fork has, too
    del words[0]
if name == "python" and words[:1] not in (["-m"], ["-c"]):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
files = [int(file) for file in os.listdir("/proc/self/fd")]
files = [file for file in files if os.path.exists(f"/proc/self/fd/{{file}}")]
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = {{"name": name, "words": words, "folder": os.getcwd(),
         "environment": dict(os.environ), "files": files}}
server.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
server.sendall(json.dumps(asked).encode() + b"\n")
status = int(server.makefile().readline())
if status < 0:
    if -status != signal.SIGKILL:
        signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
sys.exit(status)
"""


@cache
def bin() -> Path:
    """Start a server and return the folder of its commands; both end with this process."""
    folder = Path(tempfile.mkdtemp(prefix="preloaded"))
    address = folder / "socket"
    for name in ("python", *COMMANDS):
        (folder / name).write_text(SHIM.format(python=sys.executable, address=str(address)))
        (folder / name).chmod(0o755)
    server = subprocess.Popen([sys.executable, __file__, str(address)], stdin=subprocess.PIPE)
    deadline = time.monotonic() + START_S
    while not address.exists():
        assert server.poll() is None and time.monotonic() < deadline, "no server"
        time.sleep(0.02)
    atexit.register(_remove, folder, server)
    return folder


def python() -> str:
    """Return the command ``python`` of these."""
    return str(bin() / "python")


def _remove(folder: Path, server: "subprocess.Popen[bytes]") -> None:
    server.kill()
    server.wait()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def serve(address: str) -> None:
    """Fork for each that asks, until the process that started this one has ended."""
    sys.path.remove(str(Path(__file__).parent))
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):  # of another version; then its user imports it
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks here
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"{address}.new")
    listening.listen(64)
    Path(f"{address}.new").rename(address)
    while True:
        ready, _, _ = select.select([listening, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        client, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os._exit(_answer(client))
        client.close()


def _answer(client: socket.socket) -> int:
    """Run what a client asks for in one more fork; kill it should the client end."""
    _, rights, _, _ = client.recvmsg(1, socket.CMSG_SPACE(MAX_FILES * array.array("i").itemsize))
    files = array.array("i", rights[0][2])
    asked = json.loads(client.makefile().readline())
    job = os.fork()
    if job == 0:
        client.close()
        os.setsid()  # what signals its group must not reach the server
        _rename(list(files), asked.pop("files"))
        os._exit(_run(**asked))
    for file in files:
        os.close(file)
    watcher = threading.Thread(target=_kill_without, args=(client, job), daemon=True)
    watcher.start()
    status = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
    with contextlib.suppress(OSError):
        client.sendall(f"{status}\n".encode())
    return 0


def _rename(files: list[int], numbers: list[int]) -> None:
    """Give open files the numbers that they had; pipes to multiprocessing's children have some."""
    above = max(*files, *numbers) + 1
    for place, file in enumerate(files):
        os.dup2(file, above + place)
        os.close(file)
    for place, number in enumerate(numbers):
        os.dup2(above + place, number)
        os.close(above + place)


def _kill_without(client: socket.socket, job: int) -> None:
    if client.recv(1) == b"":
        with contextlib.suppress(ProcessLookupError):
            os.kill(job, signal.SIGKILL)


def _run(name: str, words: list[str], folder: str, environment: dict[str, str]) -> int:
    """Be ``python -m``, ``python -c`` or the command; return the exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if name == "python":
            # multiprocessing's and Lightning's further processes are forks, too
            sys.executable = str(Path(sys.argv[1]).with_name("python"))
            multiprocessing.spawn.set_executable(sys.executable)
            places = environment.get("PYTHONPATH", "").split(os.pathsep)
            sys.path[:0] = [folder, *filter(None, places)]
            how, what, *rest = words
            sys.argv = [how, *rest]
            if how == "-m":
                runpy.run_module(what, run_name="__main__", alter_sys=True)
            else:
                exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = [str(Path(sys.executable).with_name(name)), *words]
            sys.exit(importlib.import_module(COMMANDS[name]).main(*[words][: name == "dvc"]))
        status = 0
    except SystemExit as ended:
        status = _status_of(ended.code)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def _status_of(code: object) -> int:
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


if __name__ == "__main__":
    serve(sys.argv[1])
