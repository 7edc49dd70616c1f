# make install   .venv, with the service in it
# make demo    a whole service on this machine, recorded callers, every scene checked (BREAK=voice|digits|replay|token|idempotency)
# make scenarios   the whole library of scenes, in every language: build/scenarios/report.html and junit.xml
# make test    all tests, from nothing
# make shots   pictures of the pages into build/shots, and of them those of the documentation (needs Chromium)
# make bench   the figures that the README quotes
# make bench-digits   of them those of hearing: every bar, beside other recognisers
# make bench-voice   of them those of voices: every bar, beside other encoders on the same trials (ECAPA=FOLDER)
# make bench-payments   notices matched and debits made per second
# make bench-api   purchases through the merchants' API, confirmed and debited; charges of an app by voice
# make bench-approvals   what policies and 10,000 waiting approvals cost
# make bench-faults   payments under faults: killed workers, restarted servers, a bad bank (PAYMENTS=1000 each)
# make bench-load   forty calls at once, five hundred that wait, a web process killed, twenty minutes of calls
# make bench-ledger   the ledger: 10,000 simulated consortia, real nodes killed and timed (SEEDS=10000)
PYTHON ?= python3.11
BIN := .venv/bin
# Where a CPU build of PyTorch lies, for machines whose default index serves a build with several GB of CUDA.
TORCH_INDEX ?=
SPEECH ?= ../shared/speech
BREAK ?=
PAYMENTS ?= 1000
SEEDS ?= 10000
# A folder of official Vosk models, to be heard beside ours.
VOSK ?=
# A folder of the official ECAPA-TDNN, pinned by voiceprint.manifest, likewise.
ECAPA ?=

.PHONY: install demo scenarios test lint shots bench bench-api bench-approvals bench-digits bench-faults bench-ledger bench-load bench-payments bench-voice clean

.venv/.installed: pyproject.toml
	$(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

install: .venv/.installed

demo: .venv/.installed
	$(BIN)/ivr demo $(if $(BREAK),--break $(BREAK))

scenarios: .venv/.installed
	mkdir -p build/scenarios
	$(BIN)/ivr demo --all --report build/scenarios/report.html --junit build/scenarios/junit.xml

test: .venv/.tested
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # by number of tests the demo, the longest, came last

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/mypy

shots: .venv/.tested
	IVR_SHOTS=build/shots $(BIN)/python -m pytest tests/test_console_people_browser.py -k axe
	mkdir -p docs/images
	cp build/shots/en-request.png build/shots/en-limits.png docs/images/

bench: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m bench.digits --speech $(SPEECH)
	$(BIN)/python -m bench.voice --speech $(SPEECH)
	$(BIN)/python -m bench.liveness --speech $(SPEECH)
	$(BIN)/python -m bench.calls --speech $(SPEECH)

bench-faults: .venv/.tested
	$(BIN)/python -m bench.faults --payments $(PAYMENTS)

bench-api: .venv/.tested
	$(BIN)/python -m bench.api

bench-approvals: .venv/.tested
	$(BIN)/python -m bench.approvals

bench-load: .venv/.tested
	$(BIN)/python -m bench.load

bench-ledger: .venv/.tested
	$(BIN)/python -m bench.ledger --seeds $(SEEDS)

bench-payments: .venv/.tested
	$(BIN)/python -m bench.payments

bench-digits: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m bench.digits --speech $(SPEECH) $(if $(VOSK),--vosk $(VOSK))

bench-voice: .venv/.installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(BIN)/python -m bench.voice --speech $(SPEECH) $(if $(ECAPA),--ecapa $(ECAPA))

clean:
	rm -rf .venv build dist
