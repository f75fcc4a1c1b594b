"""Tenants with work to do, and what they get: clients that keep generations coming, counted from Watch."""

import queue
import threading
import time

import grpc

from tools.orchestrator.world import State


class Load:
    """Keeps each tenant at its wanted number of live generations, and notes each token with its step and time."""

    def __init__(self, api, tokens_each):
        self._api, self._tokens_each = api, tokens_each
        self._wanted, self._live, self._count = {}, {}, 0
        self._lock = threading.Lock()
        self._ended = queue.SimpleQueue()
        self.tokens = []  # (seconds, step, tenant, tokens of this step)
        self._call = api.stream("Watch")
        for target in (self._read, self._replace):
            threading.Thread(target=target, daemon=True).start()

    def close(self):
        self._call.cancel()
        self._ended.put(None)

    def come(self, tenant, count):
        """The tenant has work from now on; returns (seconds when it asked, last completed step before)."""
        with self._lock:
            self._wanted[tenant] = count
            operations = [self._enqueue(tenant) for _ in range(count)]
        began = time.monotonic()
        return began, self._api.call("Apply", operations=operations).step

    def leave(self, tenant):
        """The tenant gives up all it has."""
        with self._lock:
            self._wanted[tenant] = 0
        self._api.call("Apply", operations=[{"abort": {"selector": {"tenant": tenant}}}])

    def rate(self, tenant, begin, end):
        """Output tokens per second between two moments."""
        return sum(n for at, _, name, n in list(self.tokens) if name == tenant and begin <= at < end) / (end - begin)

    def tokens_per_step(self, begin, end):
        """Output tokens of all tenants in a step that has any: how many slots are in use."""
        steps = [(step, n) for at, step, _, n in list(self.tokens) if begin <= at < end]
        return sum(n for _, n in steps) / len({step for step, _ in steps})

    def first_token(self, tenant, after_step):
        """(seconds, step) of the tenant's first token of a later step."""
        while True:
            for at, step, name, _ in list(self.tokens):
                if name == tenant and step > after_step:
                    return at, step
            time.sleep(0.01)

    def _enqueue(self, tenant):
        self._count += 1
        sampling = {"max_tokens": self._tokens_each, "temperature": 0, "ignore_eos": True}
        return {"enqueue": {"generation_id": f"{tenant}-{self._count}",
                            "spec": {"prompt": {"text": "Once upon a time, in a small village by the sea,"},
                                     "sampling": sampling, "tenant": tenant}}}

    def _read(self):
        try:
            for message in self._call:
                now = time.monotonic()
                for event in message.batch.events:
                    if event.progress.output_token_count:
                        self.tokens.append((now, message.batch.step, event.tenant, event.progress.output_token_count))
                    elif event.state_change.to == State.FINISHED:
                        self._ended.put(event.tenant)
        except grpc.RpcError:
            self._ended.put(None)

    def _replace(self):
        """For one that ended another one begins, while the tenant has work."""
        while (tenant := self._ended.get()) is not None:
            with self._lock:
                operation = self._enqueue(tenant) if self._wanted.get(tenant) else None
            if operation:
                try:
                    self._api.call("Apply", operations=[operation])
                except grpc.RpcError:
                    return
