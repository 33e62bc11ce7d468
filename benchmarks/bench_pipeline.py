"""A decoding step part by part, on the device and by way of the host: the same as `rocforge bench model`.

python benchmarks/bench_pipeline.py                         on the GPU
taskset -c 0 python benchmarks/bench_pipeline.py --device cpu
python benchmarks/bench_pipeline.py --plot step.png
python benchmarks/bench_pipeline.py --help                  what the columns mean
"""

import sys

from rocforge_ops.bench.model import main

if __name__ == "__main__":
    sys.exit(main())
