# make run    set up an environment when needed, build, and generate text from a GGUF file
# make test   set up, build, and run every test
#
# An installed PyTorch is used as it is: in an active virtual environment nothing else is created; outside of one,
# .venv is made on top of it. Only where there is none, .venv gets $(TORCH).
PYTHON ?= python3
TORCH ?= torch==2.13.0
MODEL ?=
PROMPT ?= Once upon a time

ENV := $(shell $(PYTHON) tools/environment.py)
BIN := $(ENV)/bin
BUILD := build/make
STAMP := $(BUILD)/.installed
JOBS ?= $(shell nproc)

export CMAKE_BUILD_PARALLEL_LEVEL ?= $(JOBS)
# ccache then knows a file of this tree whatever folder the tree is in.
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1
export ROCFORGE_BUILD_DIR := $(BUILD)
export CMAKE_ARGS := -DROCFORGE_TESTS=ON $(CMAKE_ARGS)

.PHONY: run test build cpp-test sanitize emulate hip fuzz lint format readme clean

run: build
	$(BIN)/rocforge generate $(if $(MODEL),"$(MODEL)",rocforge_ops/data/demo.gguf) --prompt "$(PROMPT)"

test: build cpp-test
	$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

build: $(STAMP)
	$(BIN)/cmake --build $(BUILD) --target rocforge_ops
	$(BIN)/cmake --install $(BUILD) --prefix . > $(BUILD)/install.log

$(STAMP): pyproject.toml setup.py tools/environment.py
	$(PYTHON) tools/environment.py --create "$(TORCH)"
	$(BIN)/python -m pip install -q "setuptools>=77" "cmake>=3.26" ninja
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install -q --no-build-isolation -e ".[hf,test]"
	touch $@

cpp-test: build
	$(BIN)/cmake --build $(BUILD)
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure -j $(JOBS)

# The container reader and the formats under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: build
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DROCFORGE_TESTS=ON -DROCFORGE_SANITIZE=ON
	$(BIN)/cmake --build build/sanitize --target cpp_tests
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure -j $(JOBS)

# The GPU kernels on the CPU: every matrix layout, under each check, in random order (docs/gpu.md).
EMULATED_LAYOUTS ?= mfma;wmma_gfx11;wmma_gfx12;mma_sync;plain
EMULATED_CHECKS ?= asan;race

emulate: build
	$(BIN)/cmake -S . -B build/emulate -G Ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DROCFORGE_TESTS=ON -DROCFORGE_GPU=emulate \
	  "-DROCFORGE_EMULATE_LAYOUTS=$(EMULATED_LAYOUTS)" "-DROCFORGE_EMULATE_CHECKS=$(EMULATED_CHECKS)"
	$(BIN)/cmake --build build/emulate --target emulation
	$(BIN)/ctest --test-dir build/emulate/tests/emulation --output-on-failure -j $(JOBS)
	$(BIN)/python tests/emulation/run.py build/emulate/emulation -n $(JOBS)

# Machine code for AMD GPUs, without one: builds it, reads it, loads it (docs/gpu.md).
hip: build
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python benchmarks/amd_report.py --check
	$(BIN)/python -m pytest -q -rs tests/test_hip_library.py tests/test_amd_report.py

# The container reader on made-up files, under both sanitizers (docs/gguf.md). libFuzzer comes with clang.
FUZZ_SECONDS ?= 120
FUZZ_CXX ?= clang++-19

fuzz: build
	rm -rf build/fuzz/seeds && mkdir -p build/fuzz/corpus
	$(FUZZ_CXX) -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	  -Icsrc -Itests/cpp csrc/gguf/*.cpp tests/fuzz/gguf_fuzz.cpp -o build/fuzz/gguf_fuzz
	$(BIN)/python tests/fuzz/make_corpus.py build/fuzz/seeds
	build/fuzz/gguf_fuzz -max_total_time=$(FUZZ_SECONDS) -max_len=8192 -timeout=10 -malloc_limit_mb=64 -verbosity=0 \
	  -print_final_stats=1 -dict=tests/fuzz/gguf.dict -artifact_prefix=build/fuzz/ build/fuzz/corpus build/fuzz/seeds

lint: build
	$(BIN)/python -m pip install -q ruff mypy clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	git ls-files '*.cpp' '*.h' '*.hip' | grep -v /tables/ | xargs $(BIN)/clang-format --dry-run --Werror

format:
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	git ls-files '*.cpp' '*.h' '*.hip' | grep -v /tables/ | xargs $(BIN)/clang-format -i

readme: build
	$(BIN)/python tools/update_readme.py

clean:
	rm -rf build rocforge_ops/librocforge_ops.so
