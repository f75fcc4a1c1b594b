"""The real server as a child process, and a gRPC client made from its reflection: nothing is generated."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ROOT = pathlib.Path(__file__).resolve().parents[2]
SERVER = os.environ.get('FERMATA_SERVER', str(ROOT / 'bazel-bin/fermata'))
FERMATACTL = os.environ.get('FERMATACTL', str(ROOT / 'bazel-bin/tools/fermatactl'))
GRPCURL = os.environ.get('GRPCURL') or shutil.which('grpcurl')
MODEL = os.environ['FERMATA_MODEL']
FLAGS = os.environ.get('FERMATA_SERVER_FLAGS', '').split()
BACKEND = 'cuda' if '--backend=cuda' in FLAGS else 'cpu'
PATIENCE_S = 60


class Client:
    """Calls any method of any service of one address by name, with dictionaries as requests."""

    def __init__(self, address, options=()):
        self.channel = grpc.insecure_channel(address, options=[('grpc.max_send_message_length', -1), *options])
        self.pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))

    def close(self):
        self.channel.close()

    def _method(self, name):
        service, method = name.split('/')
        return self.pool.FindServiceByName(service).FindMethodByName(method)

    def request(self, name, **fields):
        return message_factory.GetMessageClass(self._method(name).input_type)(**fields)

    def call(self, name, timeout=PATIENCE_S, **fields):
        method = self._method(name)
        answer = message_factory.GetMessageClass(method.output_type)
        make = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        stub = make('/' + name, request_serializer=lambda m: m.SerializeToString(),
                    response_deserializer=answer.FromString)
        return stub(self.request(name, **fields), timeout=timeout)

    def data(self, method, **fields):
        return self.call('fermata.v1.InferenceService/' + method, **fields)

    def control(self, method, **fields):
        return self.call('fermata.v1.ControlService/' + method, **fields)


def spec(text, max_tokens, **fields):
    """A greedy generation of exactly max_tokens tokens."""
    return dict(prompt=dict(text=text), sampling=dict(max_tokens=max_tokens, temperature=0, ignore_eos=True), **fields)


class Stream:
    """Reads a stream on a thread of its own."""

    def __init__(self, call):
        self.call = call
        self.messages = []
        self.error = None
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            for message in self.call:
                with self.changed:
                    self.messages.append(message)
                    self.changed.notify_all()
        except grpc.RpcError as error:
            self.error = error

    def tokens(self):
        with self.changed:
            return [t for m in self.messages if m.HasField('chunk') for t in m.chunk.token_ids]

    def text(self):
        with self.changed:
            return ''.join(m.chunk.text for m in self.messages if m.HasField('chunk'))

    def await_tokens(self, count):
        deadline = time.monotonic() + PATIENCE_S
        while len(self.tokens()) < count:
            if time.monotonic() > deadline or not self.thread.is_alive() and len(self.tokens()) < count:
                raise AssertionError(f'waited in vain for {count} tokens: {self.error}')
            with self.changed:
                self.changed.wait(0.05)

    def finish(self):
        self.thread.join(PATIENCE_S)
        assert self.error is None, self.error
        finishes = [m.finish for m in self.messages if m.HasField('finish')]
        assert len(finishes) == 1 and self.messages[-1].HasField('finish'), 'exactly one finish, and last'
        return finishes[0]


class Server:
    """A server on free ports. Use as a context manager: it never outlives its test."""

    def __init__(self, *flags, control='127.0.0.1:0'):
        self.process = subprocess.Popen(self.command(*flags, control=control), stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        match = re.fullmatch(r'ready data=(\S+) control=(\S+) model=(\S+) backend=(\S+?)(?: metrics=(\S+))?\n', line)
        if not match:
            self.process.kill()
            raise AssertionError(f'not ready: {line!r} {self.process.stderr.read()}')
        self.data_address, self.control_address, self.backend, self.metrics_address = match.group(1, 2, 4, 5)
        self.data = Client(self.data_address)
        self.control = Client(self.control_address)

    @staticmethod
    def command(*flags, control='127.0.0.1:0'):
        """The command line of a server on free ports."""
        return [SERVER, f'--model={MODEL}', '--data_address=127.0.0.1:0', f'--control_address={control}', *FLAGS,
                *flags]

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.data.close()
        self.control.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def generate(self, generation_id, what):
        return Stream(self.data.data('Generate', generation_id=generation_id, spec=what))

    def attach(self, generation_id, offset=0):
        return Stream(self.data.data('Attach', generation_id=generation_id, offset=offset))

    def verb(self, name, generation_id, **fields):
        results = self.control.control(name, generation_ids=[generation_id], **fields)
        assert results.results[0].code == 0, results.results[0].message
        return results.results[0].generation

    def get(self, generation_id):
        return self.control.control('GetGeneration', generation_id=generation_id)

    def engine(self):
        return self.control.control('GetEngine')

    def await_state(self, generation_id, state):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            generation = self.get(generation_id)
            field = generation.DESCRIPTOR.fields_by_name['state']
            name = field.enum_type.values_by_number[generation.state].name
            if name == state:
                return generation
            assert time.monotonic() < deadline, f'{generation_id} stays {name}'
            time.sleep(0.02)

    def health(self):
        answer = self.data.call('grpc.health.v1.Health/Check')
        return answer.status == 1

    def stop(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)


def run(*command, timeout=PATIENCE_S, env=None):
    """The finished process: exit code, stdout, stderr as text."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=env)
