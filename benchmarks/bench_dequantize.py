"""Dequantize and embedding beside what there is without this package: the same as `rocforge bench dequantize`.

python benchmarks/bench_dequantize.py                       on the GPU, every format and dtype
taskset -c 0 python benchmarks/bench_dequantize.py --device cpu --formats Q4_0 Q6_K
python benchmarks/bench_dequantize.py --help                what the columns mean
"""

import sys

from rocforge_ops.bench.dequantize import main

if __name__ == "__main__":
    sys.exit(main())
