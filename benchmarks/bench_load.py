"""Loading and generating, packed and not, beside transformers' own loader.

python benchmarks/bench_load.py ~/.cache/rocforge/gemma-3-270m-q4_k_m.gguf
python benchmarks/bench_load.py --help                 what the columns mean
"""

import sys

from rocforge_ops.bench.load import main

if __name__ == "__main__":
    sys.exit(main())
