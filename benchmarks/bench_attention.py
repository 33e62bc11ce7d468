"""mqa_attention beside PyTorch's own attention: the same as `rocforge bench attention`.

python benchmarks/bench_attention.py                        on the GPU, prefill and decode
python benchmarks/bench_attention.py --backward
taskset -c 0 python benchmarks/bench_attention.py --device cpu
python benchmarks/bench_attention.py --help                 what the columns mean
"""

import sys

from rocforge_ops.bench.attention import main

if __name__ == "__main__":
    sys.exit(main())
