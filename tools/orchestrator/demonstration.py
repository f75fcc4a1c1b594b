"""The demonstration behind tools/orchestrator/demo: measures what a borrower gets, and how fast an owner is back."""

import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

from tools.orchestrator.client import Api
from tools.orchestrator.load import Load
from tools.orchestrator.picture import Chart

SLOTS, TOKENS_EACH, RED, BLUE = 4, 250, 12, 6
WARM_UP_S, PHASE_S, SETTLE_S, BIN_S = 4.0, 7.0, 0.5, 0.25
RETURNS, PAIRS = 20, 10


class Processes:
    """A server on a free port, and the orchestrator beside it; both end with this object."""

    def __init__(self):
        self._server = subprocess.Popen(
            [os.environ["FERMATA_SERVER"], f"--model={os.environ['FERMATA_MODEL']}", "--data_address=127.0.0.1:0",
             "--control_address=127.0.0.1:0", f"--max_running={SLOTS}", "--context_tokens=512",
             "--kv_bytes=1000000000"], stdout=subprocess.PIPE, text=True)
        self._orchestrator = None
        ready = re.search(r"control=(\S+)", self._server.stdout.readline())
        if not ready:
            sys.exit("error: the server did not start")
        self.address = ready[1]

    def orchestrate(self):
        """Starts the orchestrator; returns when it has opened its session."""
        run = pathlib.Path(__file__).parent / "run"
        self._orchestrator = subprocess.Popen(
            [run, f"--control_address={self.address}", "--share=red=1", "--share=blue=1"], stderr=subprocess.PIPE,
            text=True)
        self._orchestrator.stderr.readline()
        # Its log of decisions is not wanted here, but must be read.
        subprocess.Popen(["cat"], stdin=self._orchestrator.stderr, stdout=subprocess.DEVNULL)

    def signal(self, number):
        """SIGSTOP makes the orchestrator stand still, SIGCONT lets it go on."""
        self._orchestrator.send_signal(number)

    def close(self):
        for process in filter(None, (self._orchestrator, self._server)):
            process.kill()
            process.wait()


def say(measured, **values):
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
    print(json.dumps({"measured": measured, **rounded}), flush=True)


def phase(seconds=PHASE_S):
    """Lets time pass; returns when the phase began and ended, without its first moments."""
    begin = time.monotonic()
    time.sleep(seconds)
    return begin + SETTLE_S, time.monotonic()


def borrowed(processes, load):
    """Red's tokens/s while blue is idle: [(with the orchestrator at work, while it stands still)].

    In turns, since the speed of a machine that others use as well wanders by more than what is to be measured.
    """
    pairs = []
    for _ in range(PAIRS):
        rates = []
        for number in (signal.SIGCONT, signal.SIGSTOP):
            processes.signal(number)
            rates.append(load.rate("red", *phase(2.0)))
        pairs.append(rates)
    processes.signal(signal.SIGCONT)
    return pairs


def come_and_go(load):
    """Blue comes and goes; (begin of red alone, its return, its leave, end), and the phases between."""
    start = time.monotonic()
    before = phase()
    came, _ = load.come("blue", BLUE)
    both = phase()
    left = time.monotonic()
    load.leave("blue")
    after = phase()
    return (start, came, left, time.monotonic()), before, both, after


def returns(load):
    """Steps and milliseconds from Enqueue to the first token, for many returns of blue."""
    steps, milliseconds = [], []
    for _ in range(RETURNS):
        time.sleep(0.6)
        came, step = load.come("blue", BLUE)
        at, first = load.first_token("blue", step)
        steps.append(first - step)
        milliseconds.append((at - came) * 1000)
        time.sleep(0.4)
        load.leave("blue")
    return steps, milliseconds


def draw(path, load, moments):
    start, came, left, end = moments
    count = int((end - start) / BIN_S)
    rates = {tenant: [(BIN_S * (i + 0.5), load.rate(tenant, start + BIN_S * i, start + BIN_S * (i + 1)))
                      for i in range(count)] for tenant in ("red", "blue")}
    top = max(rate for points in rates.values() for _, rate in points)
    chart = Chart(count * BIN_S, top * 1.2, f"Two tenants with equal shares of {SLOTS} slots")
    for tenant, points in rates.items():
        chart.rates(tenant, points)
    chart.legend(list(rates))
    chart.mark(came - start, "blue has work again")
    chart.mark(left - start, "blue leaves")
    pathlib.Path(path).write_text(chart.svg(), encoding="utf-8")


def measure(processes, path):
    api = Api(processes.address)
    load = Load(api, TOKENS_EACH)
    processes.orchestrate()
    load.come("red", RED)
    time.sleep(WARM_UP_S)
    moments, before, both, after = come_and_go(load)
    draw(path, load, moments)
    for name, when in (("blue idle", before), ("both have work", both), ("blue idle again", after)):
        red, blue = (load.rate(tenant, *when) for tenant in ("red", "blue"))
        say(name, red_tokens_per_second=red, blue_tokens_per_second=blue, blue_share=blue / (red + blue),
            tokens_per_step=load.tokens_per_step(*when))
    pairs = borrowed(processes, load)
    say("red while blue is idle", pairs=len(pairs), tokens_per_second=statistics.median(pair[0] for pair in pairs),
        without_orchestrator=statistics.median(pair[1] for pair in pairs),
        of_a_run_alone=statistics.median(pair[0] / pair[1] for pair in pairs))
    steps, milliseconds = returns(load)
    say("blue's first token after its return", returns=RETURNS, steps_median=statistics.median(steps),
        steps_max=max(steps), ms_median=statistics.median(milliseconds), ms_max=max(milliseconds))
    usage = [generation.usage for generation in api.call("ListGenerations", page_size=1000).generations]
    say("all generations", pauses=sum(each.pause_count for each in usage),
        recomputed_tokens=sum(each.recomputed_token_count for each in usage))
    load.close()


def main():
    processes = Processes()
    try:
        measure(processes, sys.argv[1])
    finally:
        processes.close()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # threads of gRPC do not keep it
