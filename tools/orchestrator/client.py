"""The connection to a server: its API learnt by reflection, a session that is kept alive, and verbs in it."""

import queue
import threading

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

CONTROL, DATA = "fermata.v1.ControlService", "fermata.v1.InferenceService"
TIMEOUT_S = 10
# Answers over many ids are large.
_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 2000)]


class Superseded(Exception):
    """Another orchestrator has taken the session over: this one must stand back."""


class Lapsed(Exception):
    """The session ended, and all its pauses with it; a new one is open now."""


class Api:
    """Any RPC of one service of one address, by its name, with fields as arguments."""

    def __init__(self, address, service=CONTROL):
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self._channel))
        self._service = service
        self._methods = {}

    def close(self):
        self._channel.close()

    def _method(self, name):
        """(request class, callable) of an RPC; asked of the server once."""
        if name not in self._methods:
            method = self._pool.FindServiceByName(self._service).methods_by_name[name]
            request, answer = map(message_factory.GetMessageClass, (method.input_type, method.output_type))
            kind = (f"{'stream' if method.client_streaming else 'unary'}_"
                    f"{'stream' if method.server_streaming else 'unary'}")
            self._methods[name] = request, getattr(self._channel, kind)(
                f"/{self._service}/{name}", request.SerializeToString, answer.FromString)
        return self._methods[name]

    def request(self, rpc, **fields):
        return self._method(rpc)[0](**fields)

    def call(self, rpc, **fields):
        """The answer of an RPC that has one."""
        request, function = self._method(rpc)
        return function(request(**fields), timeout=TIMEOUT_S)

    def stream(self, rpc, request=None, **fields):
        """The answers of an RPC that has many; for one with many requests, `request` is an iterator of them."""
        make, function = self._method(rpc)
        return function(make(**fields) if request is None else request)


class Session:
    """A session of the control plane, kept alive from a thread of its own until it is lost or closed.

    The pauses made in it end with it, so an orchestrator that dies holds nothing up for longer than the ttl; one that
    comes back within it takes the session over, pauses and all.
    """

    def __init__(self, api, session_id, ttl_s):
        self.session_id = session_id
        self._api, self._ttl_s = api, ttl_s
        self._done = threading.Event()
        self.epoch = self._open(takeover=True)
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _open(self, takeover):
        ttl = {"seconds": int(self._ttl_s), "nanos": int(self._ttl_s % 1 * 1e9)}
        return self._api.call("OpenSession", session_id=self.session_id, ttl=ttl, takeover=takeover).epoch

    def reopen(self):
        """After FAILED_PRECONDITION. Always raises: Superseded if someone else lives in it, Lapsed if it had ended."""
        try:
            self.epoch = self._open(takeover=False)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.ALREADY_EXISTS:
                raise Superseded(self.session_id) from error
            raise
        raise Lapsed(self.session_id)

    def close(self, release):
        """Keeps it alive no longer; with `release` it ends at once, and its pauses with it."""
        self._done.set()
        if release:
            self._api.call("CloseSession", session_id=self.session_id, epoch=self.epoch)

    def _keep(self):
        """A sign of life every third of the ttl, however often the stream has to be begun anew."""
        while not self._done.is_set():
            try:
                for _ in self._api.stream("KeepSessionAlive", request=self._signs_of_life()):
                    pass
            except grpc.RpcError:
                pass  # the next verb tells if the session is lost; until then, try again
            self._done.wait(min(1.0, self._ttl_s / 3))

    def _signs_of_life(self):
        while not self._done.is_set():
            yield self._api.request("KeepSessionAlive", session_id=self.session_id, epoch=self.epoch)
            self._done.wait(self._ttl_s / 3)

    def check(self):
        """Raises like reopen() if the session is not this one's any more."""
        sign = self._api.request("KeepSessionAlive", session_id=self.session_id, epoch=self.epoch)
        self._judged(lambda: list(self._api.stream("KeepSessionAlive", request=iter([sign]))))

    def apply(self, pause, resume, reason):
        """Pauses and continues generations at one boundary. An id that fails does not keep the others from it."""
        operations = []
        if pause:
            operations.append({"preempt": {"generation_ids": pause, "reason": reason}})
        if resume:
            operations.append({"resume": {"generation_ids": resume}})
        return self._judged(lambda: self._api.call("Apply", operations=operations, atomic=False,
                                                   session_id=self.session_id, epoch=self.epoch))

    def _judged(self, call):
        try:
            return call()
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                self.reopen()
            raise


class Feed:
    """Watch, read from a thread of its own into a queue, and resumed where it broke off.

    A snapshot comes in messages of its own, `last` at the end; there is a new one whenever the changes in between
    are lost. get() gives WatchResponse messages. Progress alone decides nothing, so the server may hold it back for a
    while: then this process does not wake at every step.
    """

    _PROGRESS_INTERVAL = {"nanos": 250_000_000}

    def __init__(self, api):
        self._api = api
        self._messages = queue.SimpleQueue()
        self._done = threading.Event()
        self._call = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def get(self, timeout_s):
        """The next message; raises queue.Empty if there is none in that time."""
        return self._messages.get(timeout=timeout_s)

    def empty(self):
        return self._messages.empty()

    def close(self):
        self._done.set()
        if self._call:
            self._call.cancel()

    def _read(self):
        seen = 0
        while not self._done.is_set():
            try:
                self._call = self._api.stream("Watch", from_revision=seen + 1 if seen else 0,
                                              progress_interval=self._PROGRESS_INTERVAL)
                for message in self._call:
                    seen = self._pass_on(message, seen)
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.OUT_OF_RANGE:
                    seen = 0
                    continue
            self._done.wait(0.5)

    def _pass_on(self, message, seen):
        """Queues a message; returns the revision up to which all is seen, 0 within a snapshot."""
        self._messages.put(message)
        if message.HasField("snapshot"):
            return message.snapshot.revision if message.snapshot.last else 0
        return message.batch.revision if message.HasField("batch") else message.bookmark.revision
