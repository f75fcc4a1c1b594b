"""The real server as a child process: how long it takes to be ready, what memory it takes, and clients against it."""

import json
import pathlib
import re
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Server:
    """Runs bazel-bin/fermata on ports of its own choice while the `with` lasts. `start_s`: until it was ready."""

    def __init__(self, model, threads, instructions="", flags=()):
        command = [ROOT / "bazel-bin/fermata", f"--model={model}", f"--threads={threads}", "--data_address=127.0.0.1:0",
                   "--control_address=127.0.0.1:0", "--log_level=error", *flags]
        if instructions:
            command.append(f"--cpu_instructions={instructions}")
        begin = time.monotonic()
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self._process.stdout.readline()
        self.start_s = time.monotonic() - begin
        found = re.match(r"ready data=(\S+)", line)
        if not found:
            self._process.wait()
            raise RuntimeError(f"the server did not start: {line!r}")
        self.address = found.group(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()

    def peak_bytes(self):
        """Of its resident memory, pages of the model's file included."""
        status = pathlib.Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024

    def load(self, clients, output=64, prefix=()):
        """What serve_load prints for so many clients at once."""
        done = subprocess.run([*prefix, ROOT / "bazel-bin/tools/bench/serve_load", f"--address={self.address}",
                               f"--clients={clients}", f"--output={output}"], check=True, stdout=subprocess.PIPE,
                              text=True)
        return json.loads(done.stdout)
