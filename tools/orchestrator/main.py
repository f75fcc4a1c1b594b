"""A fair-share orchestrator: watches a server, and pauses and continues generations so that each tenant gets its share.

Logs one line for each decision to standard error. Its state is in the server alone: started again under the same
--session it takes over the pauses it made before; if it stays away, they end with the session after --ttl. SIGINT and
SIGTERM end it and leave the pauses to the next one; with --release they end at once.
"""

import argparse
import fractions
import logging
import os
import queue
import signal
import sys
import time

import grpc

from tools.orchestrator.client import Api, Feed, Lapsed, Session, Superseded
from tools.orchestrator.policy import FairShare
from tools.orchestrator.translate import Translator
from tools.orchestrator.world import World

_log = logging.getLogger("orchestrator")
_RETRY_S = 1.0


class Orchestrator:
    """Opens the session, then decides whenever Watch tells something new."""

    def __init__(self, api, options):
        self._api, self._options = api, options
        maximum = api.call("GetEngine").limits.max_running
        slots = min(options.slots or maximum, maximum)
        self._policy = FairShare(dict(options.share), slots, bounded=slots < maximum)
        self._world = World()
        self._session = Session(api, options.session, options.ttl)
        self._watch()
        _log.info("session=%s epoch=%d slots=%d of %d", options.session, self._session.epoch, slots, maximum)

    def _watch(self):
        """A new look at everything that is live; what was charged stays."""
        self._translator = Translator(self._world, self._options.session)
        self._feed = Feed(self._api)

    def close(self):
        self._feed.close()
        self._session.close(self._options.release)

    def run(self):
        """Decides until another orchestrator takes the session over: Superseded."""
        while True:
            try:
                self._decide_for_a_while()
            except Lapsed:
                _log.warning("session=%s had ended, and its pauses with it; it is open again", self._options.session)
            except grpc.RpcError as error:
                _log.warning("%s: %s; trying again", error.code().name, error.details())
                time.sleep(_RETRY_S)
            self._feed.close()
            self._watch()

    def _decide_for_a_while(self):
        """Until something goes wrong: what a verb came to may be unknown then."""
        checked = time.monotonic()
        while True:
            if self._fold():
                self._act()
            if time.monotonic() - checked > self._options.ttl:
                self._session.check()  # so that one without work too learns that its session is gone
                checked = time.monotonic()

    def _fold(self):
        """Folds all that Watch has told; whether there was anything, and the world is whole."""
        try:
            whole = self._translator.message(self._feed.get(self._options.ttl / 3))
        except queue.Empty:
            return False
        while not self._feed.empty():
            whole = self._translator.message(self._feed.get(0))
        return whole

    def _act(self):
        decision = self._policy.decide(self._world)
        if not decision:
            return
        seen = self._world.revision
        results = self._session.apply(decision.pause, decision.resume, "fair share")
        refused = self._translator.results(results)
        _log.info("decision revision=%d effect=%d step=%d pause=%s continue=%s slots=%s", seen, results.revision,
                  results.step, _ids(decision.pause), _ids(decision.resume),
                  ",".join(f"{tenant or '-'}:{slots}" for tenant, slots in sorted(decision.slots.items())))
        for generation_id, message in refused:
            _log.info("refused %s: %s", generation_id, message)


def _ids(ids):
    """At most four of them by name."""
    return ",".join(ids[:4]) + (f",...({len(ids)})" if len(ids) > 4 else "") or "-"


def _share(text):
    tenant, equals, weight = text.rpartition("=")
    try:
        value = fractions.Fraction(weight)
    except (ValueError, ZeroDivisionError):
        value = 0
    if not equals or value <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not TENANT=WEIGHT with a weight above 0")
    return tenant, value


def _ttl(text):
    seconds = float(text)
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"'{text}' is not 1 to 3600 seconds")
    return seconds


def _options(arguments):
    parser = argparse.ArgumentParser(prog="tools/orchestrator/run", description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control_address", default="127.0.0.1:50052", help="of the server (%(default)s)")
    parser.add_argument("--share", action="append", type=_share, default=[], metavar="TENANT=WEIGHT",
                        help="a tenant's weight, again for each; those not named have 1")
    parser.add_argument("--slots", type=int, default=0, help="to divide; default: the server's --max_running")
    parser.add_argument("--session", default="fair-share", help="under which pauses are held (%(default)s)")
    parser.add_argument("--ttl", type=_ttl, default=15.0, help="seconds that pauses outlive this process (%(default)s)")
    parser.add_argument("--release", action="store_true", help="let everything go on at the end of this process")
    return parser.parse_args(arguments)


def _connect(options):
    """The Orchestrator, as soon as there is a server."""
    while True:
        api = Api(options.control_address)
        try:
            return Orchestrator(api, options)
        except grpc.RpcError as error:
            _log.warning("%s: %s; trying again", error.code().name, error.details())
        api.close()
        time.sleep(_RETRY_S)


def main():
    options = _options(sys.argv[1:])
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
    _log.setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    orchestrator = None
    try:
        orchestrator = _connect(options)
        orchestrator.run()
    except Superseded:
        _log.error("session=%s was taken over by another orchestrator", options.session)
        return 3
    except KeyboardInterrupt:
        if orchestrator:
            orchestrator.close()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)  # threads of gRPC do not keep it
