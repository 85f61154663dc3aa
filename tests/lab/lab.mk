# The laboratory: emulated hypervisors (tests/lab). Images are kept in $LAB_CACHE, else ~/.cache/libvirt-tuner-lab.
#   make lab RELEASE=trixie ARGS='-k bench'
#   make lab RELEASE="bookworm trixie" SCENARIOS=

RELEASE ?= bookworm
# What is measured, and what takes long, is marked: "not measured and not thorough"; empty: everything there is.
SCENARIOS ?= not thorough
LAB = $(BIN)/python -m tests.lab
LAB_READY := $(VENV)/.lab-ready

.PHONY: lab lab-image lab-shell lab-clean testbed

$(LAB_READY): $(READY)
	tests/setup-system debootstrap e2fsprogs git iperf3 qemu-utils
	touch $@

lab: $(LAB_READY) ## Scenarios on an emulated hypervisor (RELEASE="bookworm trixie", ARGS='-k NAME')
	$(LAB) image $(RELEASE)
	$(BIN)/python -m pytest tests/lab -q --capture=sys $(RELEASE:%=--release=%) -m '$(SCENARIOS)' $(ARGS)

lab-image: $(LAB_READY) ## The images of the laboratory, with debootstrap (needs root)
	$(AS_ROOT) $(LAB) image $(RELEASE)

lab-shell: $(LAB_READY) ## A prompt in an emulated hypervisor with this tree installed
	$(LAB) shell $(firstword $(RELEASE))

testbed: $(LAB_READY) ## Two emulated hypervisors with bond, geneve and ESP, and a VM on each
	$(LAB) testbed $(firstword $(RELEASE))

lab-clean: ## Remove the images and saved states of the laboratory
	$(LAB) clean
