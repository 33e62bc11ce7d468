"""Writes the seeds of the GGUF fuzzer: small files by the `gguf` package, and every malformed file of the tests.

usage: make_corpus.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from gguf_bytes import STRING, U16, array, gguf_file, key_value
from test_gguf_malformed import CASES


def write_model(path: Path, types: list[gguf.GGMLQuantizationType], alignment: int, split: int) -> None:
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=split)
    writer.add_custom_alignment(alignment)
    for type in gguf.GGUFValueType:
        if type == gguf.GGUFValueType.ARRAY:
            continue
        value = "text" if type == gguf.GGUFValueType.STRING else 1
        writer.add_key_value(f"value.{type.name}", value, type)
        writer.add_key_value(f"array.{type.name}", [value] * 3, gguf.GGUFValueType.ARRAY, sub_type=type)
    for type in types:
        shape = (2, gguf.GGML_QUANT_SIZES[type][1])
        writer.add_tensor(f"blk.0.{type.name}.weight", np.zeros(shape, np.uint8), raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    # The package has a wrong block size for Q8_1 and Q8_K's data would be long.
    types = [type for type in gguf.GGMLQuantizationType if type.name not in ("Q8_1", "Q8_K")]
    write_model(folder / "all.gguf", types, 32, 0)
    write_model(folder / "small.gguf", types[:3], 8, 0)
    write_model(folder / "split.gguf", types[:4], 32, 2)
    shard = [key_value("split.no", U16, 0), key_value("split.count", U16, 2), key_value("split.tensors.count", U16, 0)]
    (folder / "shard").write_bytes(gguf_file(shard))
    (folder / "vocabulary").write_bytes(gguf_file([array("tokens", STRING, ["a", "b", "▁c"])], version=2))
    for name, (content, _) in CASES.items():
        if len(content) < 4096:
            (folder / name.replace("/", "_")).write_bytes(content)


if __name__ == "__main__":
    main()
