"""A gRPC client of one address that learns the API from the server's reflection: nothing is generated."""

import threading

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

_PACKAGE = "fermata.v1"
CALL_SECONDS = 60  # for any unary call, so that no failure hangs the tests


class Api:
    """Calls by the names of RPCs and fields. Thread-safe."""

    def __init__(self, address, options=()):
        self.channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1), *options])
        reflection = ProtoReflectionDescriptorDatabase(self.channel)
        self._pool = descriptor_pool.DescriptorPool(reflection)
        self.services = sorted(reflection.get_services())
        self._methods = {}
        for service in self.services:
            if service.startswith(_PACKAGE):
                self._methods.update(self._pool.FindServiceByName(service).methods_by_name)

    def close(self):
        """Ends the connection, and every stream with it."""
        self.channel.close()

    def message(self, type_name, **fields):
        """A message of the API, of fields as JSON has them."""
        message = message_factory.GetMessageClass(self._pool.FindMessageTypeByName(f"{_PACKAGE}.{type_name}"))()
        return json_format.ParseDict(fields, message, descriptor_pool=self._pool)

    def enum(self, type_name):
        """An enum's values by name."""
        values = self._pool.FindEnumTypeByName(f"{_PACKAGE}.{type_name}").values_by_name
        return {name: value.number for name, value in values.items()}

    def name(self, type_name, number):
        """The name of an enum's value."""
        return self._pool.FindEnumTypeByName(f"{_PACKAGE}.{type_name}").values_by_number[number].name

    def start(self, rpc, **fields):
        """Starts an RPC and returns grpc's own call: an iterator of a stream's messages, or a future."""
        method = self._methods[rpc]
        request = self.message(method.input_type.name, **fields)
        response = message_factory.GetMessageClass(method.output_type)
        path = f"/{method.containing_service.full_name}/{method.name}"
        if method.client_streaming:
            return self.channel.stream_stream(path, type(request).SerializeToString, response.FromString)(
                iter([request]))
        if method.server_streaming:
            return self.channel.unary_stream(path, type(request).SerializeToString, response.FromString)(request)
        unary = self.channel.unary_unary(path, type(request).SerializeToString, response.FromString)
        return unary.future(request, timeout=CALL_SECONDS)

    def call(self, rpc, **fields):
        """Does a unary RPC and returns its answer; raises grpc.RpcError."""
        return self.start(rpc, **fields).result()

    def stream(self, rpc, **fields):
        """Starts Generate or Attach and reads it in the background."""
        return Stream(self.start(rpc, **fields))


class Stream:
    """What a Generate or an Attach has brought so far; a thread of its own reads it."""

    def __init__(self, call):
        self._call = call
        self._changed = threading.Condition()
        self._messages = []
        self._error = None
        self._over = False
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for message in self._call:
                with self._changed:
                    self._messages.append(message)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def cancel(self):
        """Leaves, as a client does that lost interest."""
        self._call.cancel()

    @property
    def messages(self):
        """All messages so far."""
        with self._changed:
            return list(self._messages)

    def of(self, kind):
        """The messages of one kind so far: accepted, chunk, notice or finish."""
        return [getattr(m, kind) for m in self.messages if m.WhichOneof("response") == kind]

    @property
    def token_ids(self):
        """All output tokens so far."""
        return [token for chunk in self.of("chunk") for token in chunk.token_ids]

    @property
    def text(self):
        """All text so far."""
        return "".join(chunk.text for chunk in self.of("chunk"))

    def wait_for_tokens(self, count, seconds=60):
        """Waits until so many output tokens have come."""
        with self._changed:
            enough = self._changed.wait_for(lambda: self._over or self._token_count() >= count, seconds)
        if not enough or self._token_count() < count:
            raise AssertionError(f"{self._token_count()} tokens instead of {count}; error: {self._error}")

    def _token_count(self):
        return sum(len(m.chunk.token_ids) for m in self._messages)

    def wait(self, seconds=60):
        """Waits for the end, which must be one finish and an OK, and returns the finish."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._over, seconds):
                raise AssertionError(f"no end of the stream after {seconds} s and {self._token_count()} tokens")
        if self._error:
            raise self._error
        finishes = self.of("finish")
        if len(finishes) != 1 or self.messages[-1].WhichOneof("response") != "finish":
            raise AssertionError(f"{len(finishes)} finishes; last is {self.messages[-1:]}")
        return finishes[0]
