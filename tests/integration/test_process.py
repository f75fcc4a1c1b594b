"""The process: how it starts, refuses to start, rests, drains and ends; and the clients that we did not write."""

import json
import os
import signal
import socket
import tempfile
import time
import unittest

import grpc
from harness import BACKEND, FERMATACTL, GRPCURL, MODEL, SERVER, Server, run, spec


class StartTest(unittest.TestCase):
    def expect(self, code, words, *flags):
        result = run(SERVER, *flags)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, '')
        self.assertIn(words, result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)

    def test_models_that_are_none(self):
        with tempfile.TemporaryDirectory() as folder:
            def write(name, data):
                path = os.path.join(folder, name)
                with open(path, 'wb') as file:
                    file.write(data)
                return '--model=' + path

            with open(MODEL, 'rb') as file:
                head = file.read(1 << 20)
            self.expect(1, 'truncated', write('truncated.gguf', head))
            self.expect(1, 'not a GGUF file', write('magic.gguf', b'XXXX' + head[4:]))
            self.expect(1, 'not a GGUF file', write('text.gguf', b'Once upon a time there was a text.\n'))
            self.expect(1, 'No such file', '--model=' + os.path.join(folder, 'nothing.gguf'))

    def test_flags_that_are_wrong(self):
        self.expect(2, '--model')
        self.expect(2, '--unknown', '--model=x', '--unknown=1')
        self.expect(2, '--max_running', '--model=x', '--max_running=0')
        self.expect(2, '--policy', '--model=x', '--policy=random')
        self.expect(2, '--allow_insecure_control', '--model=x', '--control_address=0.0.0.0:0')

    def test_help(self):
        result = run(SERVER, '--help')
        self.assertEqual(result.returncode, 0)
        self.assertIn('--max_running', result.stdout)

    @unittest.skipUnless(BACKEND == 'cpu', 'instructions of the CPU')
    def test_instructions_are_named_or_refused_and_give_the_same_tokens(self):
        self.expect(1, 'this machine has plain', f'--model={MODEL}', '--cpu_instructions=unheard-of')
        tokens = []
        for flags in [(), ('--cpu_instructions=plain',)]:
            with Server(*flags) as server:
                stream = server.generate('g', spec('Once upon a time', 20))
                stream.finish()
                tokens.append(stream.tokens())
        self.assertEqual(tokens[0], tokens[1])

    def test_an_address_that_is_taken(self):
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))
            taken.listen()
            address = f'127.0.0.1:{taken.getsockname()[1]}'
            result = run(SERVER, f'--model={MODEL}', f'--data_address={address}', '--control_address=127.0.0.1:0')
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn(address, result.stderr)


class EndTest(unittest.TestCase):
    def test_sigterm_drains_what_runs_and_exits_with_0(self):
        with Server('--context_tokens=2048') as server:
            stream = server.generate('g', spec('Once', 150))
            stream.await_tokens(5)
            self.assertTrue(server.health())
            server.stop()
            deadline = time.monotonic() + 10
            while server.health():
                self.assertLess(time.monotonic(), deadline, 'health stays SERVING')
            with self.assertRaises(grpc.RpcError) as refused:
                server.control.control('Enqueue', spec=spec('x', 1))
            self.assertEqual(refused.exception.code(), grpc.StatusCode.UNAVAILABLE)
            self.assertEqual(stream.finish().usage.output_token_count, 150)
            self.assertEqual(server.process.wait(30), 0)

    def test_what_is_paused_is_aborted_at_the_end(self):
        with Server('--drain_timeout=1s') as server:
            stream = server.generate('g', spec('Once', 500))
            stream.await_tokens(5)
            server.verb('Preempt', 'g')
            server.stop()
            self.assertEqual(stream.finish().finish_reason, 3)  # ABORTED
            self.assertEqual(server.process.wait(30), 0)

    def test_a_second_signal_ends_at_once(self):
        with Server('--drain_timeout=10m') as server:
            stream = server.generate('g', spec('Once', 5000))
            stream.await_tokens(5)
            server.stop()
            time.sleep(0.5)
            self.assertIsNone(server.process.poll())
            server.stop(signal.SIGTERM)
            self.assertEqual(server.process.wait(10), 1)


class RestTest(unittest.TestCase):
    def test_idle_it_uses_under_one_percent_of_a_core(self):
        with Server() as server:
            server.generate('g', spec('Once', 10)).finish()

            def ticks():
                with open(f'/proc/{server.process.pid}/stat', encoding='ascii') as file:
                    fields = file.read().rsplit(')', 1)[1].split()
                return int(fields[11]) + int(fields[12])

            time.sleep(1)
            begin = ticks()
            time.sleep(5)
            used_s = (ticks() - begin) / os.sysconf('SC_CLK_TCK')
            self.assertLess(used_s, 0.05)


class OtherClientsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.socket = 'unix:' + os.path.join(cls.folder.name, 'control')
        cls.server = Server(control='127.0.0.1:0,' + cls.socket)
        cls.control = cls.server.control_address.split(',')[0]

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        cls.folder.cleanup()

    def setUp(self):
        self.server.control_address = self.control

    def grpcurl(self, address, *rest):
        result = run(GRPCURL, '-plaintext', *rest[:-1], address, rest[-1])
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def ctl(self, *arguments, code=0):
        result = run(FERMATACTL, f'--data_address={self.server.data_address}', f'--control_address={self.control}',
                     *arguments)
        self.assertEqual(result.returncode, code, result.stderr)
        return result.stdout

    def test_grpcurl_needs_no_proto_files(self):
        self.assertIn('fermata.v1.InferenceService', self.grpcurl(self.server.data_address, 'list'))
        self.assertNotIn('InferenceService', self.grpcurl(self.control, 'list'))
        self.assertIn('rpc Preempt', self.grpcurl(self.control, 'describe'))
        engine = json.loads(self.grpcurl(self.control, 'fermata.v1.ControlService/GetEngine'))
        self.assertEqual(engine['backend'], BACKEND)
        request = json.dumps(dict(spec=dict(prompt=dict(text='The capital of France is'),
                                            sampling=dict(max_tokens=3, temperature=0))))
        answer = self.grpcurl(self.server.data_address, '-d', request, 'fermata.v1.InferenceService/Generate')
        self.assertIn('" Paris"', answer)
        self.assertIn('"LENGTH"', answer)

    def test_a_unix_socket_serves_the_control_plane(self):
        from harness import Client
        client = Client(self.socket)
        self.assertGreater(client.control('GetEngine').limits.max_running, 0)
        client.close()

    def test_fermatactl_verbs(self):
        listed = json.loads(self.ctl('--json', 'engine'))
        self.assertEqual(listed['backend'], BACKEND)
        made = json.loads(self.ctl('--json', 'enqueue', 'Once upon a time', '--id=ctl', '--max_tokens=400', '--hold'))
        self.assertEqual(made['state'], 'PAUSED')
        for verb, arguments, state in (('continue', [], None), ('pause', [], 'PAUSED'), ('priority', ['7'], None),
                                       ('abort', [], 'FINISHED')):
            order = [verb, *arguments, 'ctl'] if verb == 'priority' else [verb, 'ctl', *arguments]
            self.ctl(*order)
            generation = json.loads(self.ctl('--json', 'get', 'ctl'))
            if state:
                self.assertEqual(generation['state'], state)
        self.assertEqual(generation['priority'], 7)
        self.assertIn('ctl', self.ctl('list'))
        self.ctl('get', 'nobody', code=1)
        self.ctl('nonsense', code=2)

    def test_a_message_of_a_hundred_megabytes_is_refused_and_the_server_lives_on(self):
        with self.assertRaises(grpc.RpcError) as refused:
            self.server.data.data('Tokenize', text='a' * (100 << 20))
        self.assertEqual(refused.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertEqual(self.server.data.data('Tokenize', text='a').token_ids, [81])


if __name__ == '__main__':
    unittest.main()
