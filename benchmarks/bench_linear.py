"""linear on packed weights beside torch.matmul: the same as `rocforge bench linear`.

python benchmarks/bench_linear.py                           on the GPU
python benchmarks/bench_linear.py --formats Q4_K --rows 1 16 --shapes 4096x14336
taskset -c 0,1 python benchmarks/bench_linear.py --device cpu --threads 2
python benchmarks/bench_linear.py --help                    what the columns mean
"""

import sys

from rocforge_ops.bench.linear import main

if __name__ == "__main__":
    sys.exit(main())
