"""What a step costs at least, from the tensors that a GGUF file lists: bytes to read and operations to do."""

import struct

_FORMATS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# Elements and bytes of a block, by ggml's number of the type.
_BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144),
           13: (256, 176), 14: (256, 210), 20: (32, 18), 30: (1, 2)}


class _Reader:
    def __init__(self, file):
        self._file = file

    def number(self, code):
        return struct.unpack("<" + code, self._file.read(struct.calcsize("<" + code)))[0]

    def text(self):
        return self._file.read(self.number("Q")).decode("utf-8", "replace")

    def value(self, kind):
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            inner = self.number("I")
            return [self.value(inner) for _ in range(self.number("Q"))]
        return self.number(_FORMATS[kind])


def read_floors(path):
    """{"decode_bytes", "decode_ops", "prefill_ops", "file_bytes"}: of one step with one row, of one decoded token,
    of one prompt token whose logits nobody asks for."""
    with open(path, "rb") as file:
        reader = _Reader(file)
        if file.read(4) != b"GGUF":
            raise ValueError(f"{path} is no GGUF file")
        reader.number("I")
        tensor_count, value_count = reader.number("Q"), reader.number("Q")
        for _ in range(value_count):
            reader.text()
            reader.value(reader.number("I"))
        tensors = {}
        for _ in range(tensor_count):
            name = reader.text()
            sizes = [reader.number("Q") for _ in range(reader.number("I"))]
            kind = reader.number("I")
            reader.number("Q")
            tensors[name] = (sizes, kind)
        file_bytes = file.seek(0, 2)
    return {**floors(tensors), "file_bytes": file_bytes}


def floors(tensors):
    """See read_floors(). `tensors`: {name: (sizes, ggml's type)}."""
    tied = "output.weight" not in tensors
    read_bytes = decode_ops = head_ops = 0
    for name, (sizes, kind) in tensors.items():
        if name == "token_embd.weight" and not tied:
            continue  # one row of it a token
        count = 1
        for size in sizes:
            count *= size
        elements, block_bytes = _BLOCKS[kind]
        read_bytes += count // elements * block_bytes
        if len(sizes) < 2:
            continue
        decode_ops += 2 * count
        if name in ("output.weight", "token_embd.weight"):
            head_ops += 2 * count
    return {"decode_bytes": read_bytes, "decode_ops": decode_ops, "prefill_ops": decode_ops - head_ops}
