"""The folder that tools/package makes: all that the server loads is in it, but for what every machine must have."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from harness import FLAGS, MODEL, ROOT, run

# glibc and its loader; NVIDIA's driver and CUDA.
OF_THE_MACHINE = re.compile(r'(ld-linux[^/]*|lib(c|m|pthread|dl|rt|resolv|util|anl|nsl|mvec|nss_\w+)|'
                            r'lib(cuda|cudart|cublas|nv)[^/]*)[.-].*')


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        made = os.environ.get('FERMATA_PACKAGE')
        if made:
            cls.folder = pathlib.Path(made)
            return
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.folder = pathlib.Path(scratch.name) / 'package'
        result = run(str(ROOT / 'tools/package'), str(cls.folder), timeout=600)
        assert result.returncode == 0, result.stderr

    def test_it_brings_nothing_that_the_machine_must_have(self):
        names = [p.name for p in (self.folder / 'lib').iterdir()]
        self.assertIn('libgrpc++.so.1.51', names)
        self.assertEqual([n for n in names if OF_THE_MACHINE.fullmatch(n)], [])
        self.assertTrue((self.folder / 'licenses/fermata').is_file())

    def test_the_server_loads_its_libraries_from_there_and_the_client_reaches_it(self):
        command = [str(self.folder / 'fermata'), f'--model={MODEL}', '--data_address=127.0.0.1:0',
                   '--control_address=127.0.0.1:0', *FLAGS]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={}) as server:
            try:
                line = server.stdout.readline()
                self.assertRegex(line, '^ready ', server.stderr.read() if not line else '')
                maps = pathlib.Path(f'/proc/{server.pid}/maps').read_text(encoding='ascii')
                loaded = {pathlib.Path(path) for path in re.findall(r'(/\S+\.so[.\d]*)$', maps, re.MULTILINE)}
                foreign = [str(path) for path in loaded
                           if path.parent != (self.folder / 'lib').resolve()
                           and not OF_THE_MACHINE.fullmatch(path.name)]
                self.assertEqual(foreign, [])
                data, control = re.match(r'ready data=(\S+) control=(\S+)', line).groups()
                answer = run(str(self.folder / 'fermatactl'), f'--data_address={data}', f'--control_address={control}',
                             'generate', '--temperature=0', '--max_tokens=5', 'The sea was', env={})
                self.assertEqual(answer.returncode, 0, answer.stderr)
                self.assertTrue(answer.stdout.strip())
            finally:
                server.kill()
                server.stdout.close()
                server.stderr.close()


if __name__ == '__main__':
    unittest.main()
