# Each target builds .venv in the project root by itself if it is missing.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Without compiled modules on disk every start of Python would compile torch's again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: venv test check format demo bench clean

venv: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^uv==' constraints.txt)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyrefly check

# Train the small network on handwritten digits, validate it, predict held-out digits, write a report: demo/run/report.html
demo: venv
	rm -rf demo
	$(BIN)/acmix train digits --epochs 12 --output demo/run
	$(BIN)/acmix validate demo/run/best.safetensors digits
	$(BIN)/python -c "from acmix.data import export_digits; export_digits('demo/digits', count=8)"
	$(BIN)/acmix predict demo/run/best.safetensors demo/digits --top 2
	$(BIN)/acmix report demo/run

# The operator beside its unfold formulation and a 3x3 convolution, in one run; fills the README's table
bench: venv
	$(BIN)/acmix bench --output benchmarks/results/layers-cpu.json
	$(BIN)/python benchmarks/readme.py

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist demo
