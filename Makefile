# Two commands for a newcomer, `make demo` and `make test`; each sets itself up. The rest is for those who change things.
BASE_PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PYTHON ?= $(BIN)/python
READY := .venv/ready

.PHONY: demo test setup lint types speed gpu-check demo-encoder demo-backbone demo-clip demo-sam2 clean

demo: $(READY)  ## render the demo world, run every system on it, show what came out
	$(BIN)/python demo.py

test: $(READY)  ## every test that needs no GPU
	$(BIN)/python -m pytest -m "not gpu" -rs

setup: $(READY)  ## .venv with the versions of constraints.txt

# uv resolves and installs in half a minute what takes plain pip three
$(READY): pyproject.toml constraints.txt
	$(BASE_PYTHON) -c 'import sys; sys.exit("Vigil needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(BASE_PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[test]"
	touch $(READY)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

speed: $(READY)  ## ours beside the others, in one run; writes results/speed.json
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable ".[test,speed]"
	$(BIN)/python -m pytest -s tests/speed_*.py

# without a .venv where PYTHON is given: make gpu-check PYTHON=python3
gpu-check: $(if $(filter $(BIN)/python,$(PYTHON)),$(READY))  ## tests marked gpu; writes results/gpu.json
	$(PYTHON) -c "import torch, sys; sys.exit(None if torch.cuda.is_available() else 'gpu-check needs an NVIDIA GPU')"
	$(PYTHON) -m pytest -s -m gpu tests

demo-encoder: $(READY)  ## train weights/demo_deit.safetensors anew, about ten minutes on two cores
	$(BIN)/python weights/demo_deit.py

demo-backbone: $(READY)  ## train weights/demo_mllm anew, at most twenty minutes on two cores
	$(BIN)/python weights/demo_mllm.py

demo-clip: $(READY)  ## train weights/demo_clip anew, about eight minutes on two cores
	$(BIN)/python weights/demo_clip.py

demo-sam2: $(READY)  ## train weights/demo_sam2 anew, about sixteen minutes on two cores
	$(BIN)/python weights/demo_sam2.py

clean:
	rm -rf runs demo_world .cache
